//! Evaluation of the candidates of one event.
//!
//! Checks, literals and decoded fields are computed at most once per event. They are stored with the number of the
//! event, so that nothing has to be cleared between events.

use super::cost::Meter;
use super::gate::Found;
use super::plan::Plan;
use super::program::{Check, CheckOp, run};
use super::window::Windows;
use crate::field::{Field, Fields};
use crate::scan::glob::{Glob, Text};
use crate::scan::kernel::Isa;
use crate::scan::narrow::low_bytes;
use etwsieve_budget::{Budget, Exhausted};

/// Steps to run a program, without its checks.
const PROGRAM_STEPS: usize = 16;
/// Units searched for a literal per step.
const LITERAL_UNITS_PER_STEP: usize = 16;
/// Steps per unit that a regular expression of a rule searches.
const REGEX_STEPS_PER_UNIT: usize = 8;

/// Results that are stored for the current event.
#[derive(Debug, Default)]
pub(crate) struct TextMemo {
    event: u64,
    /// For each check: the event, and the outcome in the lowest bit.
    outcomes: Vec<u64>,
    /// For each literal that the gate does not search for: the event, and its first position.
    literals: Vec<(u64, Option<usize>)>,
    /// For each program: the last event for which it was a candidate.
    candidates: Vec<u64>,
    /// Fields decoded for regular expressions, with their event.
    decoded: [(u64, String); 3],
    /// Part of a field, decoded.
    window: String,
}

impl TextMemo {
    /// Starts a new event.
    pub(crate) fn begin(&mut self, plan: &Plan) {
        self.event += 1;
        // Entries of other plans may remain; they carry the number of their event and are never mistaken for new ones.
        self.outcomes.resize(plan.checks.len().max(self.outcomes.len()), 0);
        self.literals.resize(plan.finders.len().max(self.literals.len()), (0, None));
        self.candidates.resize(plan.programs.len().max(self.candidates.len()), 0);
    }

    /// Returns true if this event was searched for a literal that is not in the gate and does not contain it.
    pub(crate) fn is_absent(&self, own: usize) -> bool {
        self.literals.get(own).is_some_and(|(event, place)| *event == self.event && place.is_none())
    }

    /// Releases the memory of texts longer than this many units.
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

pub(crate) struct Evaluation<'a, 'b> {
    pub(crate) plan: &'a Plan,
    pub(crate) units: &'a [[u8; 2]],
    pub(crate) narrow: &'a [u8],
    pub(crate) fields: Fields<'a>,
    pub(crate) found: &'a Found,
    pub(crate) memo: &'a mut TextMemo,
    /// The budget. Once it is exhausted, no further rule matches.
    pub(crate) budget: &'a mut Budget<'b>,
}

impl Evaluation<'_, '_> {
    /// Runs the programs of all candidates except those of the rules in `but`, which is ascending. Appends the rules
    /// that match to `matched` and returns the number of candidates.
    pub(crate) fn candidates(mut self, but: &[u32], matched: &mut Vec<u32>, meter: &mut impl Meter) -> u64 {
        let plan = self.plan;
        let mut count = 0;
        let gated = self.found.list().iter().flat_map(|&needle| &plan.by_needle[needle as usize]);
        for &program in plan.ungated.iter().chain(gated) {
            let mark = &mut self.memo.candidates[program as usize];
            if *mark == self.memo.event {
                continue;
            }
            *mark = self.memo.event;
            let program = &plan.programs[program as usize];
            if !but.is_empty() && but.binary_search(&program.rule).is_ok() {
                continue;
            }
            count += 1;
            let start = meter.now();
            let charged = self.budget.charge(PROGRAM_STEPS + program.steps.len());
            let is_match = charged.is_ok() && run(&program.steps, |check| self.check(check));
            meter.evaluated(program.rule, is_match, start);
            if self.budget.exhausted().is_some() {
                // A check that did not run proves nothing, least of all if it is negated.
                break;
            }
            if is_match {
                matched.push(program.rule);
            }
        }
        count
    }

    fn check(&mut self, number: u32) -> bool {
        let known = self.memo.outcomes[number as usize];
        if known >> 1 == self.memo.event {
            return known & 1 != 0;
        }
        let plan = self.plan;
        let outcome = self.make(&plan.checks[number as usize]).unwrap_or(false);
        self.memo.outcomes[number as usize] = self.memo.event << 1 | u64::from(outcome);
        outcome
    }

    fn make(&mut self, check: &Check) -> Result<bool, Exhausted> {
        Ok(match &check.op {
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
                    place = self.literal(literal)?;
                    // A literal that is not in the event is in none of its fields.
                    if place.is_none() {
                        return Ok(false);
                    }
                }
                for &field in &check.fields {
                    if self.glob(glob, field, place)? {
                        return Ok(true);
                    }
                }
                false
            }
            CheckOp::Regex { regex, clauses, windows } => {
                for clause in clauses {
                    if !self.any_literal(clause)? {
                        return Ok(false);
                    }
                }
                for &field in &check.fields {
                    let is_match = match windows {
                        Some(windows) => self.any_window(windows, field, regex)?,
                        None => self.decoded(field)?.is_some_and(|text| regex.is_match(text)),
                    };
                    if is_match {
                        return Ok(true);
                    }
                }
                false
            }
        })
    }

    fn any_literal(&mut self, literals: &[u32]) -> Result<bool, Exhausted> {
        for &literal in literals {
            if self.literal(literal)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Matches a pattern against a field; `place` is a position of the last of its needles.
    fn glob(&mut self, glob: &Glob, field: Field, place: Option<usize>) -> Result<bool, Exhausted> {
        let Some(range) = self.fields.range(field) else { return Ok(false) };
        if let Some(start) = place
            && glob.is_contains()
            && range.start <= start
            && glob.needles().all(|needle| start + needle.len() <= range.end)
        {
            return Ok(true);
        }
        self.budget.charge(glob.steps(range.len()))?;
        Ok(glob.matches(Text { narrow: &self.narrow[range.clone()], units: &self.units[range] }))
    }

    /// Searches a field for a regular expression, decoding only its windows.
    fn any_window(
        &mut self,
        windows: &Windows,
        field: Field,
        regex: &regex::Regex,
    ) -> Result<bool, Exhausted> {
        let Some(range) = self.fields.range(field) else { return Ok(false) };
        self.budget.charge(1 + range.len())?;
        let units = &self.units[range.clone()];
        let mut refused = None;
        let is_match = windows.any(&self.narrow[range], |window| {
            if let Err(error) = self.budget.charge(1 + REGEX_STEPS_PER_UNIT * window.len()) {
                refused = Some(error);
                // Ends the search.
                return true;
            }
            decode(&units[window], &mut self.memo.window, self.plan.isa);
            regex.is_match(&self.memo.window)
        });
        refused.map_or(Ok(is_match), Err)
    }

    /// Returns a position of the literal in the event.
    fn literal(&mut self, number: u32) -> Result<Option<usize>, Exhausted> {
        let Some(own) = (number as usize).checked_sub(self.plan.gate.len()) else {
            return Ok(self.found.place(number));
        };
        let (event, place) = &mut self.memo.literals[own];
        if *event != self.memo.event {
            self.budget.charge(1 + self.narrow.len() / LITERAL_UNITS_PER_STEP)?;
            (*event, *place) = (self.memo.event, self.plan.finders[own].find(self.narrow));
        }
        Ok(*place)
    }

    /// Returns the field as text, decoded once per event, with lone surrogates as U+FFFD. Charges the search of it as
    /// well.
    fn decoded(&mut self, field: Field) -> Result<Option<&str>, Exhausted> {
        let Some(slot) = field.slot() else { return Ok(None) };
        let Some(bytes) = self.fields.text(field) else { return Ok(None) };
        self.budget.charge(1 + REGEX_STEPS_PER_UNIT * (bytes.len() / 2))?;
        let (event, text) = &mut self.memo.decoded[slot];
        if *event != self.memo.event {
            *event = self.memo.event;
            decode(bytes.as_chunks().0, text, self.plan.isa);
        }
        Ok(Some(text))
    }
}

/// Replaces `text` with the decoded units. Nearly all scripts are ASCII, which needs no decoding.
pub(crate) fn decode(units: &[[u8; 2]], text: &mut String, isa: Isa) {
    let mut bytes = std::mem::take(text).into_bytes();
    if low_bytes(units, &mut bytes, isa) {
        // Checked above: all bytes are ASCII.
        *text = String::from_utf8(bytes).unwrap_or_default();
        return;
    }
    bytes.clear();
    *text = String::from_utf8(bytes).unwrap_or_default();
    let units = units.iter().map(|unit| u16::from_le_bytes(*unit));
    text.extend(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
}
