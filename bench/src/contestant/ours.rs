//! The sensor's matcher, as the pipeline calls it.

use super::Contestant;
use crate::answer::Pair;
use crate::rules::{RuleSet, compile};
use crate::workload::{Name, Workload};
use etwsieve_matcher::{EventKind, Kernel, Matcher, Payload, Repeats, Scratch};

pub(super) struct Ours<'a> {
    workload: &'a Workload,
    name: String,
    matcher: Matcher,
    repeats: Repeats,
    scratch: Scratch,
}

impl<'a> Ours<'a> {
    /// Creates the matcher with default settings, except that it does not remember repeats in short workloads, where every
    /// text would repeat one of the previous pass.
    pub(super) fn new(workload: &'a Workload, rules: &RuleSet) -> Self {
        let is_long = matches!(workload.kind, Name::Stream | Name::Busy);
        let repeats = if is_long { Repeats::Auto } else { Repeats::Never };
        let matcher = compile(rules.rules.clone()).with_repeats(repeats);
        Self { workload, name: "etwsieve".into(), matcher, repeats, scratch: Scratch::default() }
    }

    pub(super) fn with_kernel(mut self, rules: &RuleSet, kernel: Kernel) -> Self {
        self.matcher = Matcher::with_kernel(rules.rules.clone(), kernel).with_repeats(self.repeats);
        self.named(format!("etwsieve-{kernel}"))
    }

    pub(super) fn with_repeats(mut self, rules: &RuleSet, repeats: Repeats) -> Self {
        self.repeats = repeats;
        self.matcher = compile(rules.rules.clone()).with_repeats(repeats);
        self.named("etwsieve, each repeat searched".into())
    }

    pub(super) fn named(mut self, name: String) -> Self {
        self.name = name;
        self
    }
}

impl Contestant for Ours<'_> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn rules(&self, _rules: &RuleSet) -> usize {
        self.matcher.rules().len()
    }

    fn search(&mut self, found: &mut dyn FnMut(Pair)) {
        if self.repeats != Repeats::Never {
            // Forgets the texts of the previous pass.
            self.scratch = Scratch::default();
        }
        for (event, bytes) in self.workload.payloads() {
            let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes };
            for &rule in self.matcher.find(&payload, &mut self.scratch) {
                found((event, rule));
            }
        }
    }
}
