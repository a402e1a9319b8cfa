//! The evaluation of one event's candidates.
//!
//! Nothing is done twice for an event: checks, literals and decoded fields are remembered with the number of the
//! event for which they were made, so that nothing has to be cleared between events.

use crate::compile::plan::Plan;
use crate::compile::program::{Check, CheckOp, run};
use crate::compile::window::Windows;
use crate::field::{Field, Fields};
use crate::matcher::cost::Meter;
use crate::scan::gate::Found;
use crate::scan::glob::{Glob, Text};
use crate::scan::kernel::Usable;
use crate::scan::narrow::low_bytes;

/// What is remembered of the event at hand.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    event: u64,
    /// For each check: the event for which it was made, and its outcome in the lowest bit.
    outcomes: Vec<u64>,
    /// For each literal that the gate does not look for: the event, and where it first stands.
    literals: Vec<(u64, Option<usize>)>,
    /// For each program: the last event for which it was a candidate.
    candidates: Vec<u64>,
    /// The fields decoded for regular expressions, and for which event.
    decoded: [(u64, String); 3],
    /// A part of a field, decoded.
    window: String,
}

impl Memory {
    /// Forgets the event before.
    pub(crate) fn begin(&mut self, plan: &Plan) {
        self.event += 1;
        // Growing keeps old marks of other plans; marks name their event, so none is taken for a new one.
        self.outcomes.resize(plan.checks.len().max(self.outcomes.len()), 0);
        self.literals.resize(plan.finders.len().max(self.literals.len()), (0, None));
        self.candidates.resize(plan.programs.len().max(self.candidates.len()), 0);
    }

    /// Whether the search of this event looked for a literal that the gate does not look for, and did not find it.
    pub(crate) fn is_absent(&self, own: usize) -> bool {
        self.literals.get(own).is_some_and(|(event, place)| *event == self.event && place.is_none())
    }

    /// Gives the memory of texts longer than this back, in units.
    pub(crate) fn shrink_to(&mut self, units: usize) {
        for (event, text) in &mut self.decoded {
            if text.capacity() > 3 * units {
                (*event, *text) = (0, String::new());
            }
        }
        self.window.clear();
        self.window.shrink_to(3 * units);
    }
}

pub(crate) struct Run<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) units: &'a [[u8; 2]],
    pub(crate) narrow: &'a [u8],
    pub(crate) fields: Fields<'a>,
    pub(crate) found: &'a Found,
    pub(crate) memory: &'a mut Memory,
    pub(crate) usable: Usable,
}

impl Run<'_> {
    /// Runs the programs of all candidates but those of the rules in `but`, which ascend; adds the rules that match to
    /// `matched`, and counts the candidates.
    pub(crate) fn candidates(mut self, but: &[u32], matched: &mut Vec<u32>, meter: &mut impl Meter) -> u64 {
        let plan = self.plan;
        let mut count = 0;
        let gated = self.found.list().iter().flat_map(|&needle| &plan.by_needle[needle as usize]);
        for &program in plan.ungated.iter().chain(gated) {
            let mark = &mut self.memory.candidates[program as usize];
            if *mark == self.memory.event {
                continue;
            }
            *mark = self.memory.event;
            let program = &plan.programs[program as usize];
            if !but.is_empty() && but.binary_search(&program.rule).is_ok() {
                continue;
            }
            count += 1;
            let start = meter.now();
            let is_match = run(&program.steps, |check| self.check(check));
            meter.evaluated(program.rule, is_match, start);
            if is_match {
                matched.push(program.rule);
            }
        }
        count
    }

    fn check(&mut self, number: u32) -> bool {
        let known = self.memory.outcomes[number as usize];
        if known >> 1 == self.memory.event {
            return known & 1 != 0;
        }
        let plan = self.plan;
        let outcome = self.make(&plan.checks[number as usize]);
        self.memory.outcomes[number as usize] = self.memory.event << 1 | u64::from(outcome);
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
            CheckOp::Glob { glob, literals } => {
                let mut place = None;
                for &literal in literals {
                    place = self.literal(literal);
                    // What stands nowhere in the event stands in no field.
                    if place.is_none() {
                        return false;
                    }
                }
                check.fields.iter().any(|&field| self.glob(glob, field, place))
            }
            CheckOp::Regex { regex, clauses, windows } => {
                clauses.iter().all(|clause| clause.iter().any(|&literal| self.literal(literal).is_some()))
                    && check.fields.iter().any(|&field| match windows {
                        Some(windows) => self.any_window(windows, field, regex),
                        None => self.decoded(field).is_some_and(|text| regex.is_match(text)),
                    })
            }
        }
    }

    /// `place`: where the last of the pattern's needles stands.
    fn glob(&self, glob: &Glob, field: Field, place: Option<usize>) -> bool {
        let Some(range) = self.fields.range(field) else { return false };
        if let Some(start) = place
            && glob.is_contains()
            && range.start <= start
            && glob.needles().all(|needle| start + needle.len() <= range.end)
        {
            return true;
        }
        glob.matches(Text { narrow: &self.narrow[range.clone()], units: &self.units[range] })
    }

    /// Decodes no more than the windows.
    fn any_window(&mut self, windows: &Windows, field: Field, regex: &regex::Regex) -> bool {
        let Some(range) = self.fields.range(field) else { return false };
        let units = &self.units[range.clone()];
        windows.any(&self.narrow[range], |window| {
            decode(&units[window], &mut self.memory.window, self.usable);
            regex.is_match(&self.memory.window)
        })
    }

    /// A place at which the literal stands in the event.
    fn literal(&mut self, number: u32) -> Option<usize> {
        let Some(own) = (number as usize).checked_sub(self.plan.gate.len()) else {
            return self.found.place(number);
        };
        let (event, place) = &mut self.memory.literals[own];
        if *event != self.memory.event {
            (*event, *place) = (self.memory.event, self.plan.finders[own].find(self.narrow));
        }
        *place
    }

    /// The field as text; lone surrogates become U+FFFD. Decoded once for an event.
    fn decoded(&mut self, field: Field) -> Option<&str> {
        let slot = field.slot()?;
        let bytes = self.fields.text(field)?;
        let (event, text) = &mut self.memory.decoded[slot];
        if *event != self.memory.event {
            *event = self.memory.event;
            decode(bytes.as_chunks().0, text, self.usable);
        }
        Some(text)
    }
}

/// Replaces `text` by the decoded units. Nearly all scripts are ASCII, which needs no decoding.
pub(crate) fn decode(units: &[[u8; 2]], text: &mut String, usable: Usable) {
    let mut bytes = std::mem::take(text).into_bytes();
    if low_bytes(units, &mut bytes, usable) {
        // Always valid, as just checked.
        *text = String::from_utf8(bytes).unwrap_or_default();
        return;
    }
    bytes.clear();
    *text = String::from_utf8(bytes).unwrap_or_default();
    let units = units.iter().map(|unit| u16::from_le_bytes(*unit));
    text.extend(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
}
