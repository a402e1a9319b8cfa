//! Results of the raw search of a text.

use crate::engine::gate::Found;
use crate::engine::plan::{Plan, Program};
use crate::engine::program::{CheckOp, Step};
use crate::engine::run::TextMemo;
use crate::scan::triggers;

/// Results of the raw search of a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawSearch<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) found: &'a Found,
    /// The results of the candidates' programs.
    pub(crate) memo: &'a TextMemo,
    /// The narrowed text, if it was made.
    pub(crate) narrow: Option<&'a [u8]>,
}

impl RawSearch<'_> {
    pub(super) fn programs(&self) -> impl Iterator<Item = &Program> {
        let gated = self.found.list().iter().flat_map(|&needle| &self.plan.by_needle[needle as usize]);
        self.plan.ungated.iter().chain(gated).map(|&program| &self.plan.programs[program as usize])
    }

    /// Returns the rule indices of the candidates.
    pub(super) fn candidates(&self) -> impl Iterator<Item = u32> {
        self.programs().map(|program| program.rule)
    }

    /// Returns true if each regular expression of a program is known to lack some literal.
    pub(super) fn lacks_literals(&self, program: &Program) -> bool {
        let plan = self.plan;
        // No view contains a backtick.
        let is_absent = |&literal: &u32| match (literal as usize).checked_sub(plan.gate.len()) {
            Some(own) => self.memo.is_absent(own) || plan.finders[own].needle().contains(&triggers::BACKTICK),
            None => !self.found.contains(literal) || plan.gate.needle(literal).contains(&triggers::BACKTICK),
        };
        program.steps.iter().all(|step| match step {
            Step::Check(check) => match &plan.checks[*check as usize].op {
                CheckOp::Regex { clauses, .. } => clauses.iter().any(|clause| clause.iter().all(is_absent)),
                CheckOp::Glob { .. } | CheckOp::Number(..) | CheckOp::Exists(_) => true,
            },
            _ => true,
        })
    }
}
