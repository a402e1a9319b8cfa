//! The naive evaluator of the matcher, which evaluates one rule after the other, on a few events.

use super::Contestant;
use crate::answer::Pair;
use crate::rules::RuleSet;
use crate::workload::{Part, Workload};
use etwsieve_matcher::{EventKind, naive};

/// Maximum work of one pass, in payload bytes times rules.
const WORK_MAX: u64 = 4 << 20;

pub(super) struct Naive<'a> {
    workload: &'a Workload,
    rules: &'a RuleSet,
    part: Part,
}

impl<'a> Naive<'a> {
    pub(super) fn new(workload: &'a Workload, rules: &'a RuleSet) -> Self {
        let part = Part::of(workload, WORK_MAX / rules.rules.len().max(1) as u64);
        Self { workload, rules, part }
    }
}

impl Contestant for Naive<'_> {
    fn name(&self) -> String {
        "naive".into()
    }

    fn part(&self) -> Part {
        self.part
    }

    fn search(&mut self, found: &mut dyn FnMut(Pair)) {
        for (event, payload) in self.workload.part(self.part) {
            for (number, rule) in (0..).zip(&self.rules.rules) {
                if naive::matches(rule, EventKind::ScriptBlock, payload) {
                    found((event, number));
                }
            }
        }
    }
}
