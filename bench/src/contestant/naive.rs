//! The matcher's oracle: every rule in turn, plainly. On a few events only.

use super::Contestant;
use crate::answer::Pair;
use crate::rules::RuleSet;
use crate::workload::Workload;
use etwsieve_matcher::{EventKind, naive};

/// Most work of one pass, in payload bytes times rules.
const WORK_MAX: u64 = 4 << 20;

pub(super) struct Naive<'a> {
    workload: &'a Workload,
    rules: &'a RuleSet,
    events: usize,
}

impl<'a> Naive<'a> {
    pub(super) fn new(workload: &'a Workload, rules: &'a RuleSet) -> Self {
        let bytes_max = WORK_MAX / rules.rules.len().max(1) as u64;
        let events =
            (1..=workload.len()).take_while(|events| workload.bytes_of(*events) <= bytes_max).count();
        Self { workload, rules, events: events.clamp(1, workload.len()) }
    }
}

impl Contestant for Naive<'_> {
    fn name(&self) -> &'static str {
        "naive"
    }

    fn events(&self) -> usize {
        self.events
    }

    fn search(&mut self, found: &mut dyn FnMut(Pair)) {
        for (event, payload) in self.workload.payloads().take(self.events) {
            for (number, rule) in (0..).zip(&self.rules.rules) {
                if naive::matches(rule, EventKind::ScriptBlock, payload) {
                    found((event, number));
                }
            }
        }
    }
}
