//! The cheap test: whether anything stands in a text that a view undoes, where that could make a rule match.
//!
//! [`Marks`] finds units that disguises cannot do without; here each is looked at more closely, as far as a few
//! neighbours tell. Marks inside words count only if a literal of the rules would stand around them ([`literals`]): one
//! of the gate, or of a rule that became a candidate. Rules that are more than literals are in [`regex`].

mod context;
mod literals;
mod raw;
mod reader;
mod regex;

pub(crate) use raw::FromRaw;

use super::call::Names;
use super::chars::{BACKTICK, BLANK, escaped, is_dash, is_double_quote, is_newline, is_whitespace, is_word};
use super::views::Views;
use crate::engine::plan::Plan;
use crate::rule::{Expr, Op, Rule};
use crate::scan::kernel::Usable;
use crate::scan::triggers::{self, Bucket, Mark, Marks};
use context::{Around, bracket, closed, dashed, is_plain, is_quote};
use etwsieve_budget::Budget;
use literals::{Between, Contexts, Literals};
use reader::Reader;
use regex::{Wild, line_of};
use std::cell::{OnceCell, RefCell};
use std::ops::Range;

/// Units that are searched for marks in a step.
const UNITS_PER_STEP: usize = 8;
/// Steps to look at a mark and its neighbours.
const MARK_STEPS: usize = 24;

const CLOSED: u8 = 1;
const PLUS: u8 = 1 << 1;
const DASHED: u8 = 1 << 2 | 1 << 3 | 1 << 4;
/// `}${`, and casts to characters or indices from behind.
const BRACES: u8 = 1 << 5;
/// Static methods, and the end of `base64`.
const STATIC: u8 = 1 << 6;
const NAMES: u8 = 1 << 7;

/// Words by which folding knows its expressions, and which a mark inside may cut in two.
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

/// What a text gives reason to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reasons {
    /// Light normalisation.
    pub(super) light: bool,
    /// Folding.
    pub(super) fold: bool,
    /// A look at its calls.
    pub(super) call: bool,
}

impl Reasons {
    /// Every reason.
    pub(super) const ALL: Self = Self { light: true, fold: true, call: true };
}

/// The test, made for a set of rules.
#[derive(Debug)]
pub(crate) struct Hints {
    marks: Marks,
    contexts: Contexts,
    names: Names,
    /// What each rule has beyond its literals.
    wild: Vec<Wild>,
    any_wild: bool,
}

/// What is asked of a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) views: Views,
    /// One reason is enough.
    pub(crate) first: bool,
    pub(crate) raw: Option<FromRaw<'a>>,
}

/// A text that is looked at, and which rules it may concern.
struct Look<'a, 'b> {
    hints: &'a Hints,
    text: Around<'a>,
    raw: Option<FromRaw<'a>>,
    /// Once it is asked for.
    wild_text: OnceCell<Candidates>,
    /// The line that was asked about last, and whether a rule may match within it.
    wild_line: RefCell<(Range<usize>, bool)>,
    /// Whether a string begins like base64, once it is asked for.
    has_base64: OnceCell<bool>,
    budget: RefCell<&'a mut Budget<'b>>,
}

/// The candidates that are more than their literals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Candidates {
    None,
    /// Some match within a line only, where their clauses hold.
    InLines,
    /// The clauses of one that matches across lines hold, so every mark counts.
    AcrossLines,
}

impl Hints {
    /// For rules and their plans, that of script blocks and that of calls.
    pub(crate) fn new(rules: &[Rule], names: Names, plans: [&Plan; 2]) -> Self {
        let mut literals = Literals::default();
        let mut wild = Vec::new();
        for (number, rule) in (0u32..).zip(rules) {
            collect(&rule.expr, number, &mut literals);
            wild.push(Wild::of(&rule.expr, |needle| literals.push(needle, Some(number))));
        }
        for plan in plans {
            plan.gate.needles().for_each(|needle| literals.push(needle, None));
        }
        names.iter().for_each(|name| literals.push(name, None));
        // What folding goes by may be in disguise itself.
        for word in FOLDED_WORDS {
            literals.push(word.as_bytes(), None);
        }
        let contexts = Contexts::new(literals);
        let any_wild = wild.iter().any(Wild::is_any);
        let set = <[u8]>::to_vec;
        let bucket =
            |first: [&[u8]; 3], last: Option<&[u8]>| Bucket { first: first.map(set), last: last.map(set) };
        // What may stand before `+`: a string or an index, behind which a parenthesis may close, and a name.
        let word = (1..triggers::HIGH).filter(|byte| is_word(u16::from(*byte)));
        let summand: Vec<u8> = word.chain(set(b"'\")]` \t\r\n\x0b\x0c")).collect();
        let buckets = [
            bucket([b"'\")", b".", b"rsti'\""], Some(b"epuonrsti")),
            bucket([&summand, b"+", b"'\"($` \t\r\n\x0b\x0c"], None),
            bucket([b"-", b"f", b"'\"([@ \t\r\n\x0b\x0c"], None),
            bucket([b"-", b"rci", b"er"], Some(b"pe")),
            bucket([b"-", b"ej", b"onc'\": \t\x0b\x0c"], None),
            bucket([b"[}", b"c-$", b"h{0123456789"], None),
            bucket([b":s", b":e", b"rmjf6"], Some(b"eao4")),
            names.bucket(),
        ];
        let marks = Marks::new(&buckets, contexts.blanks || any_wild);
        Self { marks, contexts, names, wild, any_wild }
    }

    /// The names of the call-aware view.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// What the text gives reason to; only that is looked for which the views of the question could use. Once the budget is
    /// exhausted, it gives reason to everything.
    pub(crate) fn reasons(
        &self,
        units: &[[u8; 2]],
        question: Question<'_>,
        usable: Usable,
        budget: &mut Budget<'_>,
    ) -> Reasons {
        let Question { views, first, raw } = question;
        let mut reasons = Reasons::default();
        let text = Around { units };
        if budget.charge(units.len() / UNITS_PER_STEP).is_err() {
            return Reasons::ALL;
        }
        let look = Look {
            hints: self,
            text,
            raw,
            wild_text: OnceCell::new(),
            wild_line: RefCell::new((0..0, false)),
            has_base64: OnceCell::new(),
            budget: RefCell::new(budget),
        };
        let narrow = raw.and_then(|raw| raw.narrow);
        self.marks.scan(units, narrow, usable, |at, mark| {
            if !look.pays(MARK_STEPS) {
                reasons = Reasons::ALL;
                return true;
            }
            match mark {
                Mark::Other if !reasons.light => {
                    reasons.light = look.other(at);
                    reasons.fold |= is_whitespace(text.get(at)) && look.operator_beside(at);
                    reasons.fold |= is_dash(text.get(at)) && dashed(text, at);
                    reasons.fold |= is_quote(text.get(at)) && look.quote(at);
                }
                Mark::Blanks if !reasons.light => reasons.light = look.blanks_behind(at),
                Mark::Other | Mark::Blanks => {}
                Mark::Bucket(buckets) => {
                    if !reasons.fold {
                        reasons.fold = (buckets & CLOSED != 0 && closed(text, at))
                            || (buckets & PLUS != 0 && look.plus(at))
                            || (buckets & DASHED != 0 && dashed(text, at))
                            || (buckets & BRACES != 0 && (bracket(text, at) || text.word_from(at, "}${")))
                            || (buckets & STATIC != 0
                                && (bracket(text, at) || look.base64(at.wrapping_sub(2))));
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

impl Look<'_, '_> {
    /// Charges work. False if it is not to be done: then the answer is yes, which costs time but hides nothing.
    fn pays(&self, steps: usize) -> bool {
        self.budget.borrow_mut().charge(steps).is_ok()
    }

    /// Whether a rule that is more than its literals may match around a mark here.
    fn is_wild(&self, at: usize) -> bool {
        let Some(raw) = self.raw else { return self.hints.any_wild };
        let wild = || {
            raw.programs()
                .map(|program| (&self.hints.wild[program.rule as usize], program))
                .filter(|(wild, program)| wild.is_any() && !(wild.is_regex && raw.lacks_literals(program)))
                .map(|(wild, _)| wild)
        };
        let of_text = self.wild_text.get_or_init(|| {
            if !self.hints.any_wild || wild().next().is_none() {
                return Candidates::None;
            }
            let Some(text) = raw.narrow else { return Candidates::AcrossLines };
            if !wild().all(|wild| self.pays(wild.steps(text.len()))) {
                return Candidates::AcrossLines;
            }
            wild().map(|wild| wild.holds(text)).fold(Candidates::None, |known, holds| match holds {
                Some(true) => Candidates::AcrossLines,
                Some(false) => known,
                None => known.max(Candidates::InLines),
            })
        });
        match of_text {
            Candidates::None => false,
            Candidates::AcrossLines => true,
            Candidates::InLines => {
                let mut known = self.wild_line.borrow_mut();
                if !known.0.contains(&at) {
                    let text = raw.narrow.unwrap_or_default();
                    // Marks ascend, so each line is looked for once.
                    let line = line_of(text, at);
                    let holds = |wild: &Wild| {
                        !self.pays(wild.steps(line.len())) || wild.holds(&text[line.clone()]) != Some(false)
                    };
                    let is_any = wild().any(holds);
                    *known = (line, is_any);
                }
                known.1
            }
        }
    }

    /// Whether a literal would stand around a place, read on from it in both directions.
    fn is_in_literal(&self, between: Between, readers: &[Reader<'_>; 2]) -> bool {
        let sides = [readers[0].side(), readers[1].side()];
        let candidates = || self.raw.as_ref().map(FromRaw::candidates);
        self.hints.contexts.contains(between, sides, readers, &candidates, &|steps| self.pays(steps))
    }

    /// A backtick, or a unit that is not ASCII.
    fn other(&self, at: usize) -> bool {
        let text = self.text;
        let unit = text.get(at);
        if unit != BACKTICK {
            if is_whitespace(unit) {
                return self.blanks(at);
            }
            // Read as it is meant, before the place or behind it.
            return (is_dash(unit) || is_quote(unit))
                && (self.is_in_literal(Between::Made, &[text.reader_before(at), text.reader_from(at)])
                    || self.is_in_literal(
                        Between::Nothing,
                        &[text.reader_before(at + 1), text.reader_from(at + 1)],
                    )
                    || self.is_wild(at));
        }
        let next = text.get(at + 1);
        if is_newline(next) {
            return self.hints.marks.blanks && self.blanks(at);
        }
        // Nothing is more frequent than `r and `n, and nothing is disguised by them: both are escapes.
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
        if is_plain(before) && is_plain(next) && !self.hints.contexts.may_touch(before, next) {
            // As nearly all are.
            return text.is_escape(at + 1) || self.is_wild(at);
        }
        let readers = [text.reader_before(at), text.reader_from(at)];
        text.is_escape(at + 1) || self.is_in_literal(Between::Nothing, &readers) || self.is_wild(at)
    }

    /// A quotation mark of another kind in what may be an expression.
    fn quote(&self, at: usize) -> bool {
        let text = self.text;
        let next = text.get(at + 1);
        let (before, behind) = (text.before(at, is_whitespace), text.behind(at, is_whitespace));
        [before, behind].contains(&u16::from(b'+'))
            || (next == u16::from(b'.') && closed(text, at))
            || (behind == u16::from(b'-') && is_quote(text.get(at)))
            || is_word(before)
    }

    /// A run of blanks behind the unit at `at`.
    fn blanks_behind(&self, at: usize) -> bool {
        let text = self.text;
        let before = text.get(at);
        let mut end = at + 1;
        while text.get(end) == BLANK {
            end += 1;
        }
        let behind = text.get(end);
        if is_plain(before) && is_plain(behind) {
            // As nearly all are.
            let contexts = &self.hints.contexts;
            let sides = || [text.reader_before(at + 1).side(), text.reader_from(end).side()];
            if !contexts.may_hold_blank(before, behind) || !contexts.may_stand_around_blank(sides()) {
                return self.is_wild(at);
            }
        }
        self.blanks(at + 1)
    }

    /// A run of blanks, one of which is at `at`.
    fn blanks(&self, at: usize) -> bool {
        let text = self.text;
        let Some(run) = text.blanks(at) else { return true };
        let (before, behind) = (text.get(run.start.wrapping_sub(1)), text.get(run.end));
        let [first, last] = [run.start, run.end - 1].map(|at| text.get(at) != BLANK);
        // At the end of a line a literal can only end with the blank, at its beginning only begin with it: either stands in
        // the text if that has a blank there itself.
        let is_edge = |unit: u16| is_newline(unit) || unit == 0;
        if (is_edge(behind) && !first) || (is_edge(before) && !last) {
            return false;
        }
        let is_inside = !first && !last && is_plain(before) && is_plain(behind);
        if is_inside && !self.hints.contexts.may_hold_blank(before, behind) {
            return self.is_wild(at);
        }
        // A literal that begins with the blank needs the one at the end of the run.
        let between = Between::Blank { first: last, last: first };
        let readers = [text.reader_before(run.start), text.reader_from(run.end)];
        self.is_in_literal(between, &readers.map(Reader::behind_blank)) || self.is_wild(at)
    }

    /// What is spoken of as base64, at the `b`: a call that decodes it, or a string that may be it.
    fn base64(&self, at: usize) -> bool {
        let text = self.text;
        if !text.word_from(at, "base64") {
            return false;
        }
        if text.word_from(at + 6, "string") {
            return !text.word_from(at.wrapping_sub(2), "to");
        }
        *self.has_base64.get_or_init(|| !self.pays(text.units.len()) || text.has_base64())
    }

    /// An operator beside a blank that is not ASCII, so that no bucket has it.
    fn operator_beside(&self, at: usize) -> bool {
        let text = self.text;
        let is_plus = |at: usize| text.get(at) == u16::from(b'+');
        at.checked_sub(2)
            .is_some_and(|before| (is_plus(before + 1) && self.plus(before)) || dashed(text, before))
            || (is_plus(at + 1) && self.plus(at))
    }

    /// `+` between strings.
    fn plus(&self, at: usize) -> bool {
        let (text, plus) = (self.text, at + 1);
        if is_word(text.get(at)) {
            // Two variables without blanks between.
            let name =
                text.before(plus, |unit| is_word(unit) || unit == u16::from(b'}') || unit == u16::from(b':'));
            return text.get(plus + 1) == u16::from(b'$') && name == u16::from(b'$');
        }
        let blank = |unit: u16| is_whitespace(unit) || is_newline(unit) || unit == BACKTICK;
        // What is behind it is a string, perhaps in parentheses.
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
        // Two strings: what ends the one and what begins the other stand side by side in the sum.
        let before = text.reader_before(left_at).in_string();
        let behind = text.reader_from(right_at + 1).in_string();
        let next = text.get(right_at + 1);
        let is_control =
            is_double_quote(right) && next == BACKTICK && escaped(text.get(right_at + 2)) < u16::from(b' ');
        !is_control && (self.is_in_literal(Between::Nothing, &[before, behind]) || self.is_wild(at))
    }
}

/// Adds the literals of a rule's expression.
fn collect(expr: &Expr, rule: u32, literals: &mut Literals) {
    match expr {
        Expr::And(parts) | Expr::Or(parts) => parts.iter().for_each(|part| collect(part, rule, literals)),
        // A rule that matches because something is gone has nothing to show for it.
        Expr::Not(_) => {}
        Expr::Test(test) => {
            if let Op::Text { pattern, .. } = &test.op {
                literals.push_pattern(pattern.parts(), rule);
            }
        }
    }
}
