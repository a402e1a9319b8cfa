//! The matcher: a payload in, the rules that match it out.

pub(crate) mod cost;
pub(crate) mod repeats;
pub(crate) mod run;
pub(crate) mod spans;

pub use spans::{SPANS_MAX, Span};

use crate::block::search::BlockScratch;
use crate::compile::plan::Plan;
use crate::field::{EventKind, Field, Fields, text_units};
use crate::matcher::cost::{CostMeter, Meter, NoMeter};
use crate::matcher::repeats::{Key, RepeatCache, Repeats};
use crate::matcher::run::{Memory, Run};
use crate::rule::{Calls, Rule};
use crate::scan::gate::Found;
use crate::scan::kernel::{Kernel, Usable};
use crate::scan::narrow::Narrowed;
use crate::view::ViewPlan;
use etwsieve_budget::Budget;
use std::sync::atomic::{AtomicU64, Ordering};

/// A compiled set of rules. Shared by any number of threads, each with a [`Scratch`] of its own.
#[derive(Debug)]
pub struct Matcher {
    rules: Vec<Rule>,
    plans: [Plan; EventKind::POWERSHELL.len()],
    views: ViewPlan,
    usable: Usable,
    repeats: Repeats,
    /// Tells this matcher from all others of the process.
    identity: u64,
}

/// A payload to be searched, and its place in a block.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    /// The kind of event.
    pub kind: EventKind,
    /// The process that wrote the event: with the script block id it names a block.
    pub process_id: Option<u32>,
    /// User data as it was written, little-endian.
    pub bytes: &'a [u8],
}

/// The place of a fragment in its script block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// Number of the fragment, from 1 in honest events.
    pub message_number: i32,
    /// Number of fragments of the block.
    pub message_total: i32,
    /// The id that the fragments share: UTF-16LE bytes.
    pub script_block_id: &'a [u8],
}

/// Memory that one thread reuses from event to event, whichever matcher searches it.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) narrowed: Narrowed,
    pub(crate) found: Found,
    /// The matcher whose needles `found` holds, those of the payload searched last; 0 if that is not so.
    pub(crate) found_by: u64,
    pub(crate) memory: Memory,
    repeats: RepeatCache,
    pub(crate) matched: Vec<u32>,
    /// The payload of a view.
    pub(crate) made: Vec<u8>,
    /// Its text, narrowed.
    pub(crate) names: Vec<u8>,
    counts: Counts,
    /// What joined blocks need beyond.
    pub(crate) block: BlockScratch,
}

/// What the matcher did, in events unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events searched.
    pub searched: u64,
    /// Events of which at least one rule was a candidate.
    pub with_candidate: u64,
    /// Candidates: pairs of an event and a rule whose program ran.
    pub candidates: u64,
    /// Events known from an equal one before to match nothing; they were not searched.
    pub repeat_hits: u64,
    /// Events that were looked up as repeats in vain.
    pub repeat_misses: u64,
    /// Work of the candidates' programs, in steps of a [`Budget`].
    pub steps: u64,
}

impl Matcher {
    /// Compiles rules. Their order is kept: verdicts are indices into it.
    ///
    /// The kernel is the one that [`Kernel::from_env`] names; the best one if that is an error, which a program
    /// that takes the variable seriously asks for itself.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self::with_kernel(rules, Kernel::from_env().unwrap_or_else(|_| Kernel::best()))
    }

    /// Compiles rules for this kernel, or for the widest below it that this processor can run; see
    /// [`kernel`](Self::kernel).
    pub fn with_kernel(rules: Vec<Rule>, kernel: Kernel) -> Self {
        static IDENTITIES: AtomicU64 = AtomicU64::new(1);
        let usable = Usable::new(kernel);
        let plans = EventKind::POWERSHELL
            .map(|kind| Plan::new(kind, &rules, usable, |rule| rule.calls != Calls::Only));
        let views = ViewPlan::new(&rules, &plans[0], usable);
        let identity = IDENTITIES.fetch_add(1, Ordering::Relaxed);
        Self { rules, plans, views, usable, repeats: Repeats::default(), identity }
    }

    /// Says when repeats of a harmless text are recognised instead of searched.
    #[must_use]
    pub fn with_repeats(mut self, repeats: Repeats) -> Self {
        self.repeats = repeats;
        self
    }

    /// The rules.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The kernel in use.
    pub fn kernel(&self) -> Kernel {
        self.usable.kernel()
    }

    /// Whether any rule is about this kind of event. A source need not hand over the others.
    pub fn wants(&self, kind: EventKind) -> bool {
        !self.plan(kind).programs.is_empty() || (kind == EventKind::ScriptBlock && self.has_calls())
    }

    /// Whether any rule is searched in the call-aware view.
    pub fn has_calls(&self) -> bool {
        !self.views.calls.programs.is_empty()
    }

    pub(crate) fn view_plan(&self) -> &ViewPlan {
        &self.views
    }

    pub(crate) fn usable(&self) -> Usable {
        self.usable
    }

    /// The rule whose match makes a call-aware match of this one superfluous.
    pub(crate) fn base(&self, rule: u32) -> Option<u32> {
        self.views.bases.get(rule as usize).copied().flatten()
    }

    /// Number of rules of this kind that no needle gates: their programs run for every event.
    pub fn ungated(&self, kind: EventKind) -> usize {
        self.plan(kind).ungated.len()
    }

    /// Number of needles in the gate of this kind.
    pub fn gate_needles(&self, kind: EventKind) -> usize {
        self.plan(kind).gate.len()
    }

    /// Bytes that the compiled rules hold, about; the rules as loaded and caches of regular expressions not
    /// counted.
    pub fn memory(&self) -> usize {
        self.plans.iter().map(Plan::memory).sum::<usize>() + self.views.calls.memory()
    }

    /// Tells this matcher from all others of the process.
    pub(crate) fn identity(&self) -> u64 {
        self.identity
    }

    pub(crate) fn plan(&self, kind: EventKind) -> &Plan {
        match kind {
            EventKind::ScriptBlock | EventKind::Amsi => &self.plans[0],
            EventKind::Module => &self.plans[1],
        }
    }

    /// The rules that match, as ascending indices.
    ///
    /// # Complexity
    ///
    /// One pass over the payload for the gate, before it one to narrow it if there are many rules, and one to hash
    /// it if repeats are looked for. Only candidates are looked at closer, each literal at most once. Allocates
    /// nothing once `scratch` has grown to the largest event.
    pub fn find<'s>(&self, payload: &Payload<'_>, scratch: &'s mut Scratch) -> &'s [u32] {
        self.search(payload, scratch, &mut NoMeter, true)
    }

    /// As [`find`](Self::find), for a fragment that an [`Assembly`](crate::block::Assembly) then takes, and which
    /// therefore is searched even if it is a repeat. What it found is to be asked of the scratch
    /// before another search: [`Scratch::noted`].
    pub fn find_fragment<'s>(&self, payload: &Payload<'_>, scratch: &'s mut Scratch) -> &'s [u32] {
        self.search(payload, scratch, &mut NoMeter, false)
    }

    /// As [`find`](Self::find), and notes in `meter` what each rule costs.
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
        scratch.matched.clear();
        scratch.found_by = 0;
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
        scratch.narrowed.begin();
        plan.gate.scan(units, &mut scratch.narrowed, &mut scratch.found);
        scratch.found_by = self.identity;
        meter.searched(start);
        if !plan.ungated.is_empty() || !scratch.found.list().is_empty() {
            self.evaluate(plan, payload, units, scratch, meter);
        }
        if let Some(key) = key {
            scratch.counts.repeat_misses += 1;
            if scratch.matched.is_empty() {
                scratch.repeats.remember(key);
            }
        }
        &scratch.matched
    }

    /// Runs the candidates of a payload whose needles have been found. Apart, so that events without one pay nothing for it.
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
        scratch.memory.begin(plan);
        // The verdict on a text as recorded is never cut short; what it costs is counted all the same.
        let mut budget = Budget::new(u64::MAX, u64::MAX);
        let run = Run {
            plan,
            units,
            fields: Fields::split(payload.kind, payload.bytes),
            narrow: scratch.narrowed.of(units, self.usable),
            found: &scratch.found,
            memory: &mut scratch.memory,
            usable: self.usable,
            budget: &mut budget,
        };
        scratch.counts.candidates += run.candidates(&[], &mut scratch.matched, meter);
        scratch.counts.steps += budget.steps_spent();
        scratch.matched.sort_unstable();
    }

    /// The key under which this payload's text is remembered, if it is to be looked up.
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

impl<'a> Payload<'a> {
    /// The fragment's place in its block; `None` for events without blocks and for cut payloads.
    pub fn place(&self) -> Option<Place<'a>> {
        let fields = Fields::split(self.kind, self.bytes);
        Some(Place {
            message_number: fields.number(Field::MessageNumber)? as i32,
            message_total: fields.number(Field::MessageTotal)? as i32,
            script_block_id: fields.text(Field::ScriptBlockId)?,
        })
    }
}

impl Scratch {
    /// The needles of the payload that was searched last, if it was searched by this matcher.
    pub(crate) fn found_of(&self, matcher: u64) -> Option<&Found> {
        (self.found_by == matcher).then_some(&self.found)
    }

    /// What was done with this scratch so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
mod tests;
