//! Everything that runs for one kind of event.

use crate::compile::clause;
use crate::compile::program::{Check, CheckOp, Checks, Step};
use crate::field::EventKind;
use crate::rule::Rule;
use crate::scan::gate::Gate;
use std::collections::HashMap;

/// The compiled rules of one kind of event.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) gate: Gate,
    pub(crate) checks: Vec<Check>,
    pub(crate) programs: Vec<Program>,
    /// Programs that are candidates for every event.
    pub(crate) ungated: Vec<u32>,
    /// For each needle of the gate, the programs that it makes candidates.
    pub(crate) by_needle: Vec<Vec<u32>>,
}

/// A rule's program.
#[derive(Debug)]
pub(crate) struct Program {
    /// Index of the rule in the set.
    pub(crate) rule: u32,
    pub(crate) steps: Vec<Step>,
}

impl Plan {
    /// Compiles the rules that are about `kind`.
    pub(crate) fn new(kind: EventKind, rules: &[Rule]) -> Self {
        let mut checks = Checks::new(kind);
        let mut numbers: HashMap<Box<[u8]>, u32> = HashMap::new();
        let mut needles: Vec<Box<[u8]>> = Vec::new();
        let mut plan = Self {
            gate: Gate::new(Vec::new()),
            checks: Vec::new(),
            programs: Vec::new(),
            ungated: Vec::new(),
            by_needle: Vec::new(),
        };
        for (rule, number) in rules.iter().zip(0u32..).filter(|(rule, _)| rule.events.contains(kind)) {
            let program = plan.programs.len() as u32;
            match clause::necessary(&rule.expr, kind) {
                None => plan.ungated.push(program),
                // Without a needle that could let it through, the rule never runs.
                Some(clause) => {
                    for needle in clause {
                        let next = needles.len() as u32;
                        let at = *numbers.entry(needle).or_insert_with_key(|needle| {
                            needles.push(needle.clone());
                            plan.by_needle.push(Vec::new());
                            next
                        });
                        plan.by_needle[at as usize].push(program);
                    }
                }
            }
            plan.programs.push(Program { rule: number, steps: checks.program(&rule.expr) });
        }
        plan.checks = checks.list;
        for check in &mut plan.checks {
            if let CheckOp::Glob { glob, needles } = &mut check.op {
                needles.extend(glob.needles().filter_map(|needle| numbers.get(needle).copied()));
            }
        }
        plan.gate = Gate::new(needles);
        plan
    }
}
