//! The matcher: a payload in, the rules that match it out.

use crate::compile::plan::Plan;
use crate::compile::program::{Check, CheckOp, run};
use crate::field::{EventKind, Field, Fields, text_units};
use crate::rule::Rule;
use crate::scan::gate::Found;
use crate::scan::glob::Text;
use crate::scan::narrow::narrow;

/// A compiled set of rules. Shared by any number of threads, each with a [`Scratch`] of its own.
#[derive(Debug)]
pub struct Matcher {
    rules: Vec<Rule>,
    plans: [Plan; EventKind::ALL.len()],
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

/// Memory that one thread reuses from event to event.
#[derive(Debug, Default)]
pub struct Scratch {
    narrow: Vec<u8>,
    found: Found,
    /// For each check: the event for which it was made, and its outcome in the lowest bit.
    outcomes: Vec<u64>,
    /// For each program: the last event for which it was a candidate.
    candidates: Vec<u64>,
    /// The field last decoded for regular expressions, per field slot, and for which event.
    decoded: [(u64, String); 3],
    event: u64,
    matched: Vec<u32>,
    counts: Counts,
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
}

impl Matcher {
    /// Compiles rules. Their order is kept: verdicts are indices into it.
    pub fn new(rules: Vec<Rule>) -> Self {
        let plans = EventKind::ALL.map(|kind| Plan::new(kind, &rules));
        Self { rules, plans }
    }

    /// The rules.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether any rule is about this kind of event. A source need not hand over the others.
    pub fn wants(&self, kind: EventKind) -> bool {
        !self.plan(kind).programs.is_empty()
    }

    /// Number of rules of this kind that no needle gates: their programs run for every event.
    pub fn ungated(&self, kind: EventKind) -> usize {
        self.plan(kind).ungated.len()
    }

    /// Number of needles in the gate of this kind.
    pub fn gate_needles(&self, kind: EventKind) -> usize {
        self.plan(kind).gate.len()
    }

    fn plan(&self, kind: EventKind) -> &Plan {
        match kind {
            EventKind::ScriptBlock => &self.plans[0],
            EventKind::Module => &self.plans[1],
        }
    }

    /// The rules that match, as ascending indices.
    ///
    /// # Complexity
    ///
    /// One pass over the payload to narrow it, one or a few for the gate. Only candidates are looked at closer.
    /// Allocates nothing once `scratch` has grown to the largest event.
    pub fn find<'s>(&self, payload: &Payload<'_>, scratch: &'s mut Scratch) -> &'s [u32] {
        let plan = self.plan(payload.kind);
        scratch.begin(plan);
        if plan.programs.is_empty() {
            return &[];
        }
        let units = text_units(payload.kind, payload.bytes);
        narrow(units, &mut scratch.narrow);
        plan.gate.scan(&scratch.narrow, &mut scratch.found);
        if !plan.ungated.is_empty() || !scratch.found.list().is_empty() {
            scratch.counts.with_candidate += 1;
            let mut run = Run { plan, units, fields: Fields::split(payload.kind, payload.bytes), scratch };
            run.candidates();
        }
        scratch.matched.sort_unstable();
        &scratch.matched
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
    /// What was done with this scratch so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn begin(&mut self, plan: &Plan) {
        self.event += 1;
        self.counts.searched += 1;
        self.matched.clear();
        // Growing keeps old marks of other plans; marks name their event, so none is taken for a new one.
        self.outcomes.resize(plan.checks.len().max(self.outcomes.len()), 0);
        self.candidates.resize(plan.programs.len().max(self.candidates.len()), 0);
    }
}

/// The evaluation of one event's candidates.
struct Run<'a, 's> {
    plan: &'a Plan,
    units: &'a [[u8; 2]],
    fields: Fields<'a>,
    scratch: &'s mut Scratch,
}

impl Run<'_, '_> {
    fn candidates(&mut self) {
        let plan = self.plan;
        for &program in &plan.ungated {
            self.candidate(program);
        }
        for at in 0..self.scratch.found.list().len() {
            let needle = self.scratch.found.list()[at];
            for &program in &plan.by_needle[needle as usize] {
                self.candidate(program);
            }
        }
    }

    fn candidate(&mut self, program: u32) {
        let mark = &mut self.scratch.candidates[program as usize];
        if *mark == self.scratch.event {
            return;
        }
        *mark = self.scratch.event;
        self.scratch.counts.candidates += 1;
        let program = &self.plan.programs[program as usize];
        if run(&program.steps, |check| self.check(check)) {
            self.scratch.matched.push(program.rule);
        }
    }

    fn check(&mut self, number: u32) -> bool {
        let known = self.scratch.outcomes[number as usize];
        if known >> 1 == self.scratch.event {
            return known & 1 != 0;
        }
        let outcome = self.make(&self.plan.checks[number as usize]);
        self.scratch.outcomes[number as usize] = self.scratch.event << 1 | u64::from(outcome);
        outcome
    }

    fn make(&mut self, check: &Check) -> bool {
        match &check.op {
            CheckOp::Number(comparison, value) => {
                let number = |field: &Field| self.fields.number(*field);
                check.fields.iter().filter_map(number).any(|n| comparison.holds(n, *value))
            }
            CheckOp::Exists(wanted) => check.fields.iter().any(|&field| {
                (self.fields.range(field).is_some() || self.fields.number(field).is_some()) == *wanted
            }),
            CheckOp::Glob { glob, needles } => {
                // What the gate did not find anywhere is in no field.
                needles.iter().all(|needle| self.scratch.found.contains(*needle))
                    && check.fields.iter().any(|&field| {
                        let Some(range) = self.fields.range(field) else { return false };
                        let text =
                            Text { narrow: &self.scratch.narrow[range.clone()], units: &self.units[range] };
                        glob.matches(text)
                    })
            }
            CheckOp::Regex(regex) => {
                check.fields.iter().any(|&field| self.decoded(field).is_some_and(|text| regex.is_match(text)))
            }
        }
    }

    /// The field as text; lone surrogates become U+FFFD. Decoded once for an event.
    fn decoded(&mut self, field: Field) -> Option<&str> {
        let slot = field.slot()?;
        let bytes = self.fields.text(field)?;
        let (event, text) = &mut self.scratch.decoded[slot];
        if *event != self.scratch.event {
            *event = self.scratch.event;
            decode(bytes.as_chunks().0, text);
        }
        Some(text)
    }
}

/// Replaces `text` by the decoded units. Nearly all scripts are ASCII, which needs no decoding.
fn decode(units: &[[u8; 2]], text: &mut String) {
    text.clear();
    if units.iter().fold(0, |all, unit| all | u16::from_le_bytes(*unit)) < 0x80 {
        let mut bytes = std::mem::take(text).into_bytes();
        bytes.extend(units.iter().map(|unit| unit[0]));
        // Always valid, as just checked.
        *text = String::from_utf8(bytes).unwrap_or_default();
        return;
    }
    let units = units.iter().map(|unit| u16::from_le_bytes(*unit));
    text.extend(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
}
