//! The matcher: finds the rules that match a payload, a joined block, or a view.

mod blocks;
pub(crate) mod repeats;
mod spans;
mod views;

use crate::block::search::{BlockMatcher, BlockScratch};
use crate::block::trim::TrimPlan;
use crate::compile::plan::compile;
use crate::engine::TextScratch;
use crate::engine::cost::{CostMeter, Meter, NoMeter};
use crate::engine::plan::Plan;
use crate::engine::run::Evaluation;
use crate::field::{EventKind, Fields, text_units};
use crate::matcher::repeats::{Key, RepeatCache, Repeats};
use crate::payload::Payload;
use crate::rule::{Calls, Rule};
use crate::scan::kernel::{Isa, Kernel};
use crate::view::{ViewPlan, ViewScratch};
use etwsieve_budget::Budget;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A compiled set of rules, shared by any number of threads, each with its own [`Scratch`].
#[derive(Debug)]
pub struct Matcher {
    rules: Vec<Rule>,
    plans: [Plan; EventKind::POWERSHELL.len()],
    views: ViewPlan,
    isa: Isa,
    repeats: Repeats,
    /// The way in which fragments of blocks may be trimmed; made when memory first runs out.
    trim_plan: OnceLock<Option<TrimPlan>>,
    /// Identifies this matcher among all others of the process.
    identity: u64,
}

/// Memory that one thread reuses from event to event, with any matcher.
#[derive(Debug, Default)]
pub struct Scratch {
    text: TextScratch,
    repeats: RepeatCache,
    counts: Counts,
    block: BlockScratch,
    view: ViewScratch,
}

/// Counters of a matcher, in events unless stated otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events searched.
    pub searched: u64,
    /// Events of which at least one rule was a candidate.
    pub with_candidate: u64,
    /// Candidates: pairs of an event and a rule whose program ran.
    pub candidates: u64,
    /// Events that were not searched, because an equal one is known to match nothing.
    pub repeat_hits: u64,
    /// Events that were looked up as repeats without success.
    pub repeat_misses: u64,
    /// Work of the candidates' programs, in steps of a [`Budget`].
    pub steps: u64,
}

impl Matcher {
    /// Compiles rules for the [best](Kernel::best) kernel. Verdicts are indices into `rules`.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self::with_kernel(rules, Kernel::best())
    }

    /// Compiles rules for this kernel, or for the best lower one that this processor supports; see
    /// [`kernel`](Self::kernel).
    pub fn with_kernel(rules: Vec<Rule>, kernel: Kernel) -> Self {
        static IDENTITIES: AtomicU64 = AtomicU64::new(1);
        let isa = Isa::new(kernel);
        let plans =
            EventKind::POWERSHELL.map(|kind| compile(kind, &rules, isa, |rule| rule.calls != Calls::Only));
        let views = ViewPlan::new(&rules, &plans[0], isa);
        let identity = IDENTITIES.fetch_add(1, Ordering::Relaxed);
        Self { rules, plans, views, isa, repeats: Repeats::default(), trim_plan: OnceLock::new(), identity }
    }

    /// Sets when repeats of a text that matched nothing are recognised instead of searched.
    #[must_use]
    pub fn with_repeats(mut self, repeats: Repeats) -> Self {
        self.repeats = repeats;
        self
    }

    /// Returns the rules.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Returns the kernel in use.
    pub fn kernel(&self) -> Kernel {
        self.isa.kernel()
    }

    /// Returns true if any rule applies to this kind of event. A source need not deliver other kinds.
    pub fn wants(&self, kind: EventKind) -> bool {
        !self.plan(kind).programs.is_empty() || (kind == EventKind::ScriptBlock && self.has_calls())
    }

    /// Returns true if any rule is searched in the call-aware view.
    pub fn has_calls(&self) -> bool {
        self.views.has_calls()
    }

    /// Returns the number of rules of this kind without a prefilter: their programs run for every event.
    pub fn ungated(&self, kind: EventKind) -> usize {
        self.plan(kind).ungated.len()
    }

    /// Returns the number of needles in the gate of this kind.
    pub fn gate_needles(&self, kind: EventKind) -> usize {
        self.plan(kind).gate.len()
    }

    /// Returns the approximate memory of the compiled rules in bytes, without the rules as loaded and without the
    /// caches of regular expressions.
    pub fn memory(&self) -> usize {
        self.plans.iter().map(Plan::memory).sum::<usize>() + self.views.calls.memory()
    }

    pub(crate) fn blocks(&self) -> BlockMatcher<'_> {
        BlockMatcher { plan: &self.plans[0], identity: self.identity, trim_plan: &self.trim_plan }
    }

    pub(crate) fn plan(&self, kind: EventKind) -> &Plan {
        match kind {
            EventKind::ScriptBlock | EventKind::Amsi => &self.plans[0],
            EventKind::Module => &self.plans[1],
        }
    }

    /// Returns the rules that match, as ascending indices.
    ///
    /// # Complexity
    ///
    /// One pass over the payload for the gate, preceded by one to narrow it if there are many rules, and one to hash it
    /// if repeats are looked up. Only candidates are evaluated further, and each literal is searched at most once.
    /// Allocates nothing once `scratch` has grown to the largest event.
    pub fn find<'s>(&self, payload: &Payload<'_>, scratch: &'s mut Scratch) -> &'s [u32] {
        self.search(payload, scratch, &mut NoMeter, true)
    }

    /// Searches a fragment that an [`Assembly`](crate::block::Assembly) then receives; otherwise like
    /// [`find`](Self::find). A fragment is searched even if it is a repeat. Call [`Scratch::found_needles`] before the
    /// next search.
    pub fn find_fragment<'s>(&self, payload: &Payload<'_>, scratch: &'s mut Scratch) -> &'s [u32] {
        self.search(payload, scratch, &mut NoMeter, false)
    }

    /// Records in `meter` what each rule costs; otherwise like [`find`](Self::find).
    pub fn find_metered<'s>(
        &self,
        payload: &Payload<'_>,
        scratch: &'s mut Scratch,
        meter: &mut CostMeter,
    ) -> &'s [u32] {
        self.search(payload, scratch, meter, true)
    }

    #[inline]
    fn search<'s, M: Meter>(
        &self,
        payload: &Payload<'_>,
        scratch: &'s mut Scratch,
        meter: &mut M,
        may_repeat: bool,
    ) -> &'s [u32] {
        let plan = self.plan(payload.kind);
        scratch.counts.searched += 1;
        scratch.text.matched.clear();
        scratch.text.found_by = 0;
        if plan.programs.is_empty() {
            return &[];
        }
        let start = meter.now();
        let key = if may_repeat { self.key(plan, payload, scratch) } else { None };
        if let Some(key) = key
            && scratch.repeats.knows(key)
        {
            scratch.counts.repeat_hits += 1;
            meter.searched(start);
            return &[];
        }
        let units = text_units(payload.kind, payload.bytes);
        let text = &mut scratch.text;
        text.narrowed.begin();
        plan.gate.scan(units, &mut text.narrowed, &mut text.found);
        text.found_by = self.identity;
        meter.searched(start);
        if !plan.ungated.is_empty() || !text.found.list().is_empty() {
            self.evaluate(plan, payload, units, scratch, meter);
        }
        if let Some(key) = key {
            scratch.counts.repeat_misses += 1;
            if scratch.text.matched.is_empty() {
                scratch.repeats.remember(key);
            }
        }
        &scratch.text.matched
    }

    /// Evaluates the candidates of a payload whose needles have been found. Not inlined, so that events without a
    /// needle do not pay for it.
    #[inline(never)]
    fn evaluate(
        &self,
        plan: &Plan,
        payload: &Payload<'_>,
        units: &[[u8; 2]],
        scratch: &mut Scratch,
        meter: &mut impl Meter,
    ) {
        scratch.counts.with_candidate += 1;
        let text = &mut scratch.text;
        text.memo.begin(plan);
        // The search of a text as recorded is never cut short; its cost is only counted.
        let mut budget = Budget::new(u64::MAX, u64::MAX);
        let run = Evaluation {
            plan,
            units,
            fields: Fields::split(payload.kind, payload.bytes),
            narrow: text.narrowed.of(units, self.isa),
            found: &text.found,
            memo: &mut text.memo,
            budget: &mut budget,
        };
        scratch.counts.candidates += run.candidates(&[], &mut text.matched, meter);
        scratch.counts.steps += budget.steps_spent();
        text.matched.sort_unstable();
    }

    /// Returns the key under which this payload's text is remembered, if it is to be looked up.
    fn key(&self, plan: &Plan, payload: &Payload<'_>, scratch: &mut Scratch) -> Option<Key> {
        if !self.repeats.pays(plan.gate.len()) {
            return None;
        }
        let adapts = self.repeats == Repeats::Auto;
        if !scratch.repeats.begin(self.identity, adapts) {
            return None;
        }
        let fields = Fields::split(payload.kind, payload.bytes);
        Some(scratch.repeats.key(payload.kind, &plan.reads, &fields))
    }
}

impl Scratch {
    /// Returns the counters of this scratch.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
mod tests;
