//! Everything that runs for one kind of event.

use crate::block::lean::Ends;
use crate::compile::clause;
use crate::compile::literals::Literals;
use crate::compile::program::{Check, CheckOp, Checks, Step};
use crate::compile::window::Windows;
use crate::field::{EventKind, Field};
use crate::rule::Rule;
use crate::scan::gate::Gate;
use crate::scan::kernel::Usable;
use memchr::memmem;
use std::sync::OnceLock;

/// Bytes of a compiled regular expression beyond those that its rule's text shows, taken as known from none.
const REGEX_BYTES: usize = 16 * 1024;

/// The compiled rules of one kind of event.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) gate: Gate,
    /// Searchers for the literals whose numbers follow those of the gate.
    pub(crate) finders: Vec<memmem::Finder<'static>>,
    pub(crate) checks: Vec<Check>,
    pub(crate) programs: Vec<Program>,
    /// Programs that are candidates for every event.
    pub(crate) ungated: Vec<u32>,
    /// For each needle of the gate, the programs that it makes candidates.
    pub(crate) by_needle: Vec<Vec<u32>>,
    /// The fields on which verdicts depend.
    pub(crate) reads: Vec<Field>,
    /// How fragments may be reduced; made when room first runs out.
    ends: OnceLock<Option<Ends>>,
}

/// A rule's program.
#[derive(Debug)]
pub(crate) struct Program {
    /// Index of the rule in the set.
    pub(crate) rule: u32,
    pub(crate) steps: Vec<Step>,
}

impl Plan {
    /// Compiles the rules that are about `kind`, of these the wanted ones.
    pub(crate) fn new(kind: EventKind, rules: &[Rule], usable: Usable, wanted: fn(&Rule) -> bool) -> Self {
        let mut literals = Literals::default();
        let (mut ungated, mut by_needle) = (Vec::new(), Vec::new());
        let own = || (0u32..).zip(rules).filter(|(_, rule)| rule.events.contains(kind) && wanted(rule));
        for (program, (_, rule)) in (0u32..).zip(own()) {
            match clause::necessary(&rule.expr, kind).filter(clause::Clause::is_selective) {
                None => ungated.push(program),
                // Without a needle that could let it through, the rule never runs.
                Some(clause) => {
                    for needle in clause.needles {
                        let needle = literals.number(needle) as usize;
                        if by_needle.len() == needle {
                            by_needle.push(Vec::new());
                        }
                        by_needle[needle].push(program);
                    }
                }
            }
        }
        literals.close_gate();
        let mut checks = Checks::new(kind, literals);
        let programs =
            own().map(|(number, rule)| Program { rule: number, steps: checks.program(&rule.expr) }).collect();
        let Checks { literals, list: checks, .. } = checks;
        let (needles, finders) = literals.finish();
        let mut reads: Vec<Field> = checks.iter().flat_map(|check| check.fields.iter().copied()).collect();
        reads.sort_unstable();
        reads.dedup();
        let gate = Gate::new(needles, usable);
        Self { gate, finders, checks, programs, ungated, by_needle, reads, ends: OnceLock::new() }
    }

    /// How fragments of blocks may be reduced; `None` if they may not.
    pub(crate) fn ends(&self, usable: Usable) -> Option<&Ends> {
        self.ends.get_or_init(|| Ends::new(self, usable)).as_ref()
    }

    /// Bytes held, about: regular expressions are taken at [`REGEX_BYTES`] each.
    pub(crate) fn memory(&self) -> usize {
        let of_check = |check: &Check| {
            let op = match &check.op {
                CheckOp::Glob { glob, literals } => glob.memory() + size_of_val(&literals[..]),
                CheckOp::Regex { clauses, windows, .. } => {
                    REGEX_BYTES
                        + clauses.iter().map(|clause| size_of_val(&clause[..])).sum::<usize>()
                        + windows.as_ref().map_or(0, Windows::memory)
                }
                CheckOp::Number(..) | CheckOp::Exists(_) => 0,
            };
            size_of::<Check>() + size_of_val(&check.fields[..]) + op
        };
        let of_program = |program: &Program| size_of::<Program>() + size_of_val(&program.steps[..]);
        let of_finder = |finder: &memmem::Finder<'_>| size_of_val(finder) + finder.needle().len();
        self.gate.memory()
            + self.finders.iter().map(of_finder).sum::<usize>()
            + self.checks.iter().map(of_check).sum::<usize>()
            + self.programs.iter().map(of_program).sum::<usize>()
            + self.by_needle.iter().map(|list| size_of::<Vec<u32>>() + size_of_val(&list[..])).sum::<usize>()
            + size_of_val(&self.ungated[..])
    }
}
