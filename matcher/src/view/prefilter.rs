//! The prefilter: decides whether a text contains anything that a view undoes, in a place where that could make a rule
//! match.
//!
//! [`TriggerScanner`] finds units without which there is no obfuscation. Here each of these triggers is examined with a
//! few neighbours. A trigger inside a word counts only if a literal of the rules would occur around it ([`literals`]):
//! one of the gate, or of a rule that is a candidate. Rules that consist of more than literals are handled by
//! [`regex`].

mod bytes;
mod context;
mod literals;
mod raw;
mod reader;
mod regex;

pub(crate) use raw::RawSearch;

use super::call::Names;
use super::chars::{BACKTICK, BLANK, escaped, is_dash, is_double_quote, is_newline, is_whitespace, is_word};
use super::views::Views;
use crate::engine::plan::Plan;
use crate::rule::{Expr, Op, Rule};
use crate::scan::kernel::Isa;
use crate::scan::triggers::{Trigger, TriggerScanner};
use bytes::{BRACES, METHODS, NAMES, OPERATORS, PLUS, STATIC};
use context::{
    Surroundings, is_cast_or_static_method, is_dash_operator, is_plain, is_quote, is_string_method,
};
use etwsieve_budget::Budget;
use literals::{Between, LiteralIndex, LiteralSet};
use reader::Reader;
use regex::{NonLiteral, line_of};
use std::cell::{OnceCell, RefCell};
use std::ops::Range;

/// Units scanned for triggers per step.
const UNITS_PER_STEP: usize = 8;
/// Steps to examine a trigger and its neighbours.
const TRIGGER_STEPS: usize = 24;

/// Words by which folding recognises expressions. A trigger inside may split them.
const FOLDED_WORDS: [&str; 16] = [
    "-join",
    "-split",
    "-replace",
    "-creplace",
    "-ireplace",
    "-encodedcommand",
    "[char]",
    "[char[]",
    "replace(",
    "split(",
    "tochararray",
    "substring(",
    "insert(",
    "frombase64string",
    "::reverse(",
    "righttoleft",
];

/// The normalisations that a text gives reason for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reasons {
    /// Light normalisation.
    pub(super) light: bool,
    /// Folding.
    pub(super) fold: bool,
    /// Reading its calls.
    pub(super) call: bool,
}

impl Reasons {
    /// Every reason.
    pub(super) const ALL: Self = Self { light: true, fold: true, call: true };
}

/// The prefilter for a set of rules.
#[derive(Debug)]
pub(crate) struct Prefilter {
    scanner: TriggerScanner,
    index: LiteralIndex,
    names: Names,
    /// For each rule, the conditions other than literals.
    non_literal: Vec<NonLiteral>,
    any_non_literal: bool,
}

/// A request to the prefilter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query<'a> {
    pub(crate) views: Views,
    /// True to stop at the first reason.
    pub(crate) first: bool,
    pub(crate) raw: Option<RawSearch<'a>>,
}

/// A text that is examined, with the rules that may be affected.
struct Inspector<'a, 'b> {
    prefilter: &'a Prefilter,
    text: Surroundings<'a>,
    raw: Option<RawSearch<'a>>,
    /// Computed on first use.
    non_literal_text: OnceCell<Candidates>,
    /// The line that was examined last, and whether a rule may match within it.
    non_literal_line: RefCell<(Range<usize>, bool)>,
    /// True if a string begins like base64; computed on first use.
    has_base64: OnceCell<bool>,
    budget: RefCell<&'a mut Budget<'b>>,
}

/// The kinds of candidates that depend on more than literals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Candidates {
    None,
    /// Some, all of which match within a line, where their clauses must hold.
    InLines,
    /// One that matches across lines and whose clauses hold, so that every trigger counts.
    AcrossLines,
}

impl Prefilter {
    /// Makes the prefilter for rules and their plans, that of script blocks and that of calls.
    pub(crate) fn new(rules: &[Rule], names: Names, plans: [&Plan; 2]) -> Self {
        let mut literals = LiteralSet::default();
        let mut non_literal = Vec::new();
        for (number, rule) in (0u32..).zip(rules) {
            collect(&rule.expr, number, &mut literals);
            non_literal.push(NonLiteral::of(&rule.expr, |needle| literals.push(needle, Some(number))));
        }
        for plan in plans {
            plan.gate.needles().for_each(|needle| literals.push(needle, None));
        }
        names.iter().for_each(|name| literals.push(name, None));
        // The words by which folding recognises expressions may be obfuscated themselves.
        for word in FOLDED_WORDS {
            literals.push(word.as_bytes(), None);
        }
        let index = LiteralIndex::new(literals);
        let any_non_literal = non_literal.iter().any(NonLiteral::is_any);
        let scanner = TriggerScanner::new(&bytes::sequences(&names), index.blanks || any_non_literal);
        Self { scanner, index, names, non_literal, any_non_literal }
    }

    /// Returns the names for the call-aware view.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// Returns the reasons that the text gives, limited to what the views of the query can use. Once the budget is
    /// exhausted, returns all reasons.
    pub(crate) fn reasons(
        &self,
        units: &[[u8; 2]],
        query: Query<'_>,
        isa: Isa,
        budget: &mut Budget<'_>,
    ) -> Reasons {
        let Query { views, first, raw } = query;
        let mut reasons = Reasons::default();
        let text = Surroundings { units };
        if budget.charge(units.len() / UNITS_PER_STEP).is_err() {
            return Reasons::ALL;
        }
        let inspector = Inspector {
            prefilter: self,
            text,
            raw,
            non_literal_text: OnceCell::new(),
            non_literal_line: RefCell::new((0..0, false)),
            has_base64: OnceCell::new(),
            budget: RefCell::new(budget),
        };
        let narrow = raw.and_then(|raw| raw.narrow);
        self.scanner.scan(units, narrow, isa, |at, trigger| {
            if !inspector.can_afford(TRIGGER_STEPS) {
                reasons = Reasons::ALL;
                return true;
            }
            match trigger {
                Trigger::Other if !reasons.light => {
                    reasons.light = inspector.other(at);
                    reasons.fold |= is_whitespace(text.get(at)) && inspector.operator_beside(at);
                    reasons.fold |= is_dash(text.get(at)) && is_dash_operator(text, at);
                    reasons.fold |= is_quote(text.get(at)) && inspector.quote(at);
                }
                Trigger::Blanks if !reasons.light => reasons.light = inspector.blanks_behind(at),
                Trigger::Other | Trigger::Blanks => {}
                Trigger::Sequence(buckets) => {
                    if !reasons.fold {
                        reasons.fold = (buckets & METHODS != 0 && is_string_method(text, at))
                            || (buckets & PLUS != 0 && inspector.plus(at))
                            || (buckets & OPERATORS != 0 && is_dash_operator(text, at))
                            || (buckets & BRACES != 0
                                && (is_cast_or_static_method(text, at) || text.word_from(at, "}${")))
                            || (buckets & STATIC != 0
                                && (is_cast_or_static_method(text, at)
                                    || inspector.base64(at.wrapping_sub(2))));
                    }
                    if views.call && buckets & NAMES != 0 && !reasons.call {
                        reasons.call = self.names.stands(units, at);
                    }
                }
            }
            let complete = reasons.light && reasons.fold && (reasons.call || !views.call);
            complete || (first && (reasons.light || reasons.fold || reasons.call))
        });
        reasons
    }
}

impl Inspector<'_, '_> {
    /// Charges work. Returns false if it must not be done; the caller then assumes yes, which costs time but hides
    /// nothing.
    fn can_afford(&self, steps: usize) -> bool {
        self.budget.borrow_mut().charge(steps).is_ok()
    }

    /// Returns true if a rule that depends on more than literals may match around a trigger here.
    fn may_match_beyond_literals(&self, at: usize) -> bool {
        let Some(raw) = self.raw else { return self.prefilter.any_non_literal };
        let non_literal = || {
            raw.programs()
                .map(|program| (&self.prefilter.non_literal[program.rule as usize], program))
                .filter(|(non_literal, program)| {
                    non_literal.is_any() && !(non_literal.is_regex && raw.lacks_literals(program))
                })
                .map(|(non_literal, _)| non_literal)
        };
        let of_text = self.non_literal_text.get_or_init(|| {
            if !self.prefilter.any_non_literal || non_literal().next().is_none() {
                return Candidates::None;
            }
            let Some(text) = raw.narrow else { return Candidates::AcrossLines };
            if !non_literal().all(|non_literal| self.can_afford(non_literal.steps(text.len()))) {
                return Candidates::AcrossLines;
            }
            non_literal().map(|non_literal| non_literal.holds(text)).fold(Candidates::None, |known, holds| {
                match holds {
                    Some(true) => Candidates::AcrossLines,
                    Some(false) => known,
                    None => known.max(Candidates::InLines),
                }
            })
        });
        match of_text {
            Candidates::None => false,
            Candidates::AcrossLines => true,
            Candidates::InLines => {
                let mut known = self.non_literal_line.borrow_mut();
                if !known.0.contains(&at) {
                    let text = raw.narrow.unwrap_or_default();
                    // Triggers ascend, so each line is located once.
                    let line = line_of(text, at);
                    let holds = |non_literal: &NonLiteral| {
                        !self.can_afford(non_literal.steps(line.len()))
                            || non_literal.holds(&text[line.clone()]) != Some(false)
                    };
                    let is_any = non_literal().any(holds);
                    *known = (line, is_any);
                }
                known.1
            }
        }
    }

    /// Returns true if a literal would occur around a position, read in both directions from it.
    fn is_in_literal(&self, between: Between, readers: &[Reader<'_>; 2]) -> bool {
        let sides = [readers[0].side(), readers[1].side()];
        let candidates = || self.raw.as_ref().map(RawSearch::candidates);
        self.prefilter.index.contains(between, sides, readers, &candidates, &|steps| self.can_afford(steps))
    }

    /// Examines a backtick, or a unit that is not ASCII.
    fn other(&self, at: usize) -> bool {
        let text = self.text;
        let unit = text.get(at);
        if unit != BACKTICK {
            if is_whitespace(unit) {
                return self.blanks(at);
            }
            // The plain form may be the last unit of a literal's part, or the first.
            return (is_dash(unit) || is_quote(unit))
                && (self.is_in_literal(Between::Made, &[text.reader_before(at), text.reader_from(at)])
                    || self.is_in_literal(
                        Between::Nothing,
                        &[text.reader_before(at + 1), text.reader_from(at + 1)],
                    )
                    || self.may_match_beyond_literals(at));
        }
        let next = text.get(at + 1);
        if is_newline(next) {
            return self.prefilter.scanner.blanks && self.blanks(at);
        }
        // The escapes `r and `n are most frequent, and not obfuscation.
        let is_line_end = next == u16::from(b'n')
            && text.get(at.wrapping_sub(1)) == u16::from(b'r')
            && text.get(at.wrapping_sub(2)) == BACKTICK;
        if is_line_end {
            return false;
        }
        if text.get(at + 1) == u16::from(b'r') && text.word_from(at + 2, "`n") {
            return false;
        }
        let before = text.get(at.wrapping_sub(1));
        if is_plain(before) && is_plain(next) && !self.prefilter.index.may_touch(before, next) {
            // The usual case.
            return text.is_escape(at + 1) || self.may_match_beyond_literals(at);
        }
        let readers = [text.reader_before(at), text.reader_from(at)];
        text.is_escape(at + 1)
            || self.is_in_literal(Between::Nothing, &readers)
            || self.may_match_beyond_literals(at)
    }

    /// Examines a quotation mark of another kind that may be part of an expression.
    fn quote(&self, at: usize) -> bool {
        let text = self.text;
        let next = text.get(at + 1);
        let (before, behind) = (text.before(at, is_whitespace), text.behind(at, is_whitespace));
        [before, behind].contains(&u16::from(b'+'))
            || (next == u16::from(b'.') && is_string_method(text, at))
            || (behind == u16::from(b'-') && is_quote(text.get(at)))
            || is_word(before)
    }

    /// Examines a run of blanks after the unit at `at`.
    fn blanks_behind(&self, at: usize) -> bool {
        let text = self.text;
        let before = text.get(at);
        let mut end = at + 1;
        while text.get(end) == BLANK {
            end += 1;
        }
        let behind = text.get(end);
        if is_plain(before) && is_plain(behind) {
            // The usual case.
            let index = &self.prefilter.index;
            let sides = || [text.reader_before(at + 1).side(), text.reader_from(end).side()];
            if !index.may_hold_blank(before, behind) || !index.may_stand_around_blank(sides()) {
                return self.may_match_beyond_literals(at);
            }
        }
        self.blanks(at + 1)
    }

    /// Examines a run of blanks that contains `at`.
    fn blanks(&self, at: usize) -> bool {
        let text = self.text;
        let Some(run) = text.blanks(at) else { return true };
        let (before, behind) = (text.get(run.start.wrapping_sub(1)), text.get(run.end));
        let [first, last] = [run.start, run.end - 1].map(|at| text.get(at) != BLANK);
        // At the end of a line, a literal can only end with the blank, and at its beginning only begin with it. It
        // occurs in the text as recorded if that has a blank there itself.
        let is_edge = |unit: u16| is_newline(unit) || unit == 0;
        if (is_edge(behind) && !first) || (is_edge(before) && !last) {
            return false;
        }
        let is_inside = !first && !last && is_plain(before) && is_plain(behind);
        if is_inside && !self.prefilter.index.may_hold_blank(before, behind) {
            return self.may_match_beyond_literals(at);
        }
        // A literal that begins with the blank requires the one at the end of the run.
        let between = Between::Blank { first: last, last: first };
        let readers = [text.reader_before(run.start), text.reader_from(run.end)];
        self.is_in_literal(between, &readers.map(Reader::behind_blank)) || self.may_match_beyond_literals(at)
    }

    /// Examines the word `base64`, at the `b`: part of a call that decodes it, or a mention while some string may be
    /// base64.
    fn base64(&self, at: usize) -> bool {
        let text = self.text;
        if !text.word_from(at, "base64") {
            return false;
        }
        if text.word_from(at + 6, "string") {
            return !text.word_from(at.wrapping_sub(2), "to");
        }
        *self.has_base64.get_or_init(|| !self.can_afford(text.units.len()) || text.has_base64())
    }

    /// Examines an operator beside a blank that is not ASCII, which no sequence accepts.
    fn operator_beside(&self, at: usize) -> bool {
        let text = self.text;
        let is_plus = |at: usize| text.get(at) == u16::from(b'+');
        at.checked_sub(2).is_some_and(|before| {
            (is_plus(before + 1) && self.plus(before)) || is_dash_operator(text, before)
        }) || (is_plus(at + 1) && self.plus(at))
    }

    /// Examines `+` between strings.
    fn plus(&self, at: usize) -> bool {
        let (text, plus) = (self.text, at + 1);
        if is_word(text.get(at)) {
            // Two variables that are adjacent to the operator.
            let name =
                text.before(plus, |unit| is_word(unit) || unit == u16::from(b'}') || unit == u16::from(b':'));
            return text.get(plus + 1) == u16::from(b'$') && name == u16::from(b'$');
        }
        let blank = |unit: u16| is_whitespace(unit) || is_newline(unit) || unit == BACKTICK;
        // The right operand must be a string, possibly in parentheses.
        let (right, right_at) = text.behind_at(plus, |unit| blank(unit) || unit == u16::from(b'('));
        if !is_quote(right) {
            return false;
        }
        let (left, left_at) = text.before_with_place(plus, |unit| blank(unit) || unit == u16::from(b')'));
        if left == u16::from(b']') {
            return text.is_index(left_at);
        }
        if !is_quote(left) {
            return false;
        }
        // The end of the left string and the beginning of the right one become adjacent.
        let before = text.reader_before(left_at).in_string();
        let behind = text.reader_from(right_at + 1).in_string();
        let next = text.get(right_at + 1);
        let is_control =
            is_double_quote(right) && next == BACKTICK && escaped(text.get(right_at + 2)) < u16::from(b' ');
        !is_control
            && (self.is_in_literal(Between::Nothing, &[before, behind]) || self.may_match_beyond_literals(at))
    }
}

/// Adds the literals of an expression.
fn collect(expr: &Expr, rule: u32, literals: &mut LiteralSet) {
    match expr {
        Expr::And(parts) | Expr::Or(parts) => parts.iter().for_each(|part| collect(part, rule, literals)),
        // A rule that matches because something was removed has no span to show for it.
        Expr::Not(_) => {}
        Expr::Test(test) => {
            if let Op::Text { pattern, .. } = &test.op {
                literals.push_pattern(pattern.parts(), rule);
            }
        }
    }
}
