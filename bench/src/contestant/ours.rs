//! The sensor's matcher, as the pipeline calls it.

use super::Contestant;
use crate::answer::Pair;
use crate::rules::RuleSet;
use crate::workload::Workload;
use etwsieve_matcher::{EventKind, Matcher, Payload, Scratch};

pub(super) struct Ours<'a> {
    workload: &'a Workload,
    matcher: Matcher,
    scratch: Scratch,
}

impl<'a> Ours<'a> {
    pub(super) fn new(workload: &'a Workload, rules: &RuleSet) -> Self {
        Self { workload, matcher: Matcher::new(rules.rules.clone()), scratch: Scratch::default() }
    }
}

impl Contestant for Ours<'_> {
    fn name(&self) -> &'static str {
        "etwsieve"
    }

    fn events(&self) -> usize {
        self.workload.len()
    }

    fn search(&mut self, found: &mut dyn FnMut(Pair)) {
        for (event, bytes) in self.workload.payloads() {
            let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes };
            for &rule in self.matcher.find(&payload, &mut self.scratch) {
                found((event, rule));
            }
        }
    }
}
