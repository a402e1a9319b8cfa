//! The cheap test: whether anything stands in a text that a view undoes, where that could make a rule match.
//!
//! [`Marks`] finds pairs of units that disguises cannot do without; here each is looked at more closely, as far as a few
//! neighbours tell. Of marks inside words only those count whose neighbours stand side by side in some literal of the
//! rules; a rule with a regular expression makes all count.

use super::Views;
use super::call::Names;
use super::chars::{
    BACKTICK, BLANK, is_dash, is_double_quote, is_newline, is_single_quote, is_whitespace, is_word, lower,
};
use crate::pattern::{Part, Pattern};
use crate::rule::{Expr, Op, Rule};
use crate::scan::kernel::Usable;
use crate::scan::marks::{Mark, Marks};

/// Farthest neighbour that is looked at, in units.
const NEIGHBOUR_UNITS_MAX: usize = 64;
/// Shortest base64 behind `-EncodedCommand` that counts.
const BASE64_UNITS_MIN: usize = 16;

const OTHER: u8 = 1;
const CLOSED: u8 = 1 << 1;
const PLUS: u8 = 1 << 2;
const DASHED: u8 = 1 << 3;
const BRACKET: u8 = 1 << 4;
const BASE64: u8 = 1 << 5;
/// First bucket of the names of commands.
const NAMES: u32 = 6;

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

/// The test, made for a set of rules.
#[derive(Debug)]
pub(crate) struct Hints {
    marks: Marks,
    /// Units that stand side by side in a literal.
    pairs: Pairs,
    /// Units that stand around a blank.
    around_blank: Pairs,
    names: Names,
}

/// Pairs of ASCII letters and signs, folded; anything else is in.
#[derive(Debug)]
struct Pairs {
    rows: [u128; 128],
    all: bool,
}

impl Pairs {
    fn new() -> Self {
        Self { rows: [0; 128], all: false }
    }

    fn insert(&mut self, first: u16, second: u16) {
        match (u8::try_from(first), u8::try_from(second)) {
            (Ok(first @ 0..0x80), Ok(second @ 0..0x80)) => {
                self.rows[usize::from(first.to_ascii_lowercase())] |= 1 << second.to_ascii_lowercase();
            }
            _ => self.all = true,
        }
    }

    fn contains(&self, first: u16, second: u16) -> bool {
        match (u8::try_from(first), u8::try_from(second)) {
            (Ok(first @ 0..0x80), Ok(second @ 0..0x80)) => {
                let row = self.rows[usize::from(first.to_ascii_lowercase())];
                self.all || row >> second.to_ascii_lowercase() & 1 != 0
            }
            _ => true,
        }
    }
}

impl Hints {
    pub(crate) fn new(rules: &[Rule], names: Names) -> Self {
        let (mut pairs, mut around_blank) = (Pairs::new(), Pairs::new());
        for rule in rules {
            literals(&rule.expr, &mut pairs, &mut around_blank);
        }
        for name in names.iter() {
            name.windows(2).for_each(|two| pairs.insert(two[0].into(), two[1].into()));
        }
        let blanks = around_blank.all || around_blank.rows.iter().any(|row| *row != 0);
        let any: Vec<u8> = (0..=255).collect();
        let other: Vec<u8> = (0x80..=255).chain([0, b'`']).collect();
        let mut buckets = vec![
            [other, any],
            [b"'\")".to_vec(), b".".to_vec()],
            [b"'\")] \t\nabcdefghijklmnopqrstuvwxyz0123456789_".to_vec(), b"+".to_vec()],
            [b"-".to_vec(), b"fjreic".to_vec()],
            [b"[:}".to_vec(), b"c-rjfm$".to_vec()],
            [b"e".to_vec(), b"6".to_vec()],
        ];
        buckets.extend(names.buckets());
        Self { marks: Marks::new(&buckets, blanks), pairs, around_blank, names }
    }

    /// What the text gives reason to; only that is looked for which `views` could use. `first`: one reason is enough.
    pub(crate) fn reasons(&self, units: &[[u8; 2]], views: Views, first: bool, usable: Usable) -> Reasons {
        let mut reasons = Reasons::default();
        let text = Around { units };
        self.marks.scan(units, usable, |at, mark| {
            match mark {
                Mark::Blanks => reasons.light |= self.blanks(text, at),
                Mark::Pair(buckets) => {
                    if buckets & OTHER != 0 && !reasons.light {
                        reasons.light = self.other(text, at);
                    }
                    if !reasons.fold {
                        reasons.fold = (buckets & CLOSED != 0 && closed(text, at))
                            || (buckets & PLUS != 0 && self.plus(text, at))
                            || (buckets & DASHED != 0 && dashed(text, at))
                            || (buckets & BRACKET != 0 && bracket(text, at))
                            || (buckets & BASE64 != 0 && text.word_from(at.wrapping_sub(3), "base64"));
                    }
                    if views.call && buckets >> NAMES != 0 && !reasons.call {
                        reasons.call = self.names.stands(units, at);
                    }
                }
            }
            let all = reasons.light && reasons.fold && (reasons.call || !views.call);
            all || (first && (reasons.light || reasons.fold || reasons.call))
        });
        reasons
    }

    /// A backtick, or a unit that is not ASCII.
    fn other(&self, text: Around<'_>, at: usize) -> bool {
        let unit = text.get(at);
        if unit != BACKTICK {
            return is_dash(unit)
                || is_single_quote(unit)
                || is_double_quote(unit)
                || (is_whitespace(unit) && self.blanks(text, at));
        }
        let next = text.get(at + 1);
        if is_newline(next) {
            return self.marks.blanks && self.blanks(text, at);
        }
        // Nothing is more frequent than `r and `n, and nothing is disguised by them: both are escapes.
        let is_line_end = next == u16::from(b'n')
            && text.get(at.wrapping_sub(1)) == u16::from(b'r')
            && text.get(at.wrapping_sub(2)) == BACKTICK;
        if is_line_end {
            return false;
        }
        let escape = lower(next) == u16::from(b'u') && text.get(at + 2) == u16::from(b'{');
        let (before, behind) =
            (text.before(at, |unit| unit == BACKTICK), text.behind(at, |unit| unit == BACKTICK));
        escape || (before != 0 && self.pairs.contains(plain(before), plain(behind)))
    }

    /// A run of blanks, one of which is at `at`.
    fn blanks(&self, text: Around<'_>, at: usize) -> bool {
        let is_blank = |unit: u16| is_whitespace(unit) || unit == BACKTICK;
        let before = text.before(at, is_blank);
        let mut end = at;
        // Line ends behind a backtick belong to the run.
        while is_blank(text.get(end)) || (is_newline(text.get(end)) && text.continues(end)) {
            end += 1;
            if end - at > NEIGHBOUR_UNITS_MAX {
                return true;
            }
        }
        let behind = text.get(end);
        if is_newline(behind) || behind == 0 || is_newline(before) || before == 0 {
            return false;
        }
        self.around_blank.contains(plain(before), plain(behind))
    }

    /// `+` between strings.
    fn plus(&self, text: Around<'_>, at: usize) -> bool {
        let plus = at + 1;
        if is_word(text.get(at)) {
            // Two variables without blanks between.
            let name =
                text.before(plus, |unit| is_word(unit) || unit == u16::from(b'}') || unit == u16::from(b':'));
            return text.get(plus + 1) == u16::from(b'$') && name == u16::from(b'$');
        }
        let blank = |unit: u16| is_whitespace(unit) || is_newline(unit) || unit == BACKTICK;
        let left = text.before(plus, blank);
        let (right, right_at) = text.behind_at(plus, blank);
        let is_quote = |unit: u16| is_single_quote(unit) || is_double_quote(unit);
        let opens = is_quote(right)
            || right == u16::from(b'[')
            || (right == u16::from(b'(') && {
                let inner = text.behind(right_at, blank);
                is_quote(inner) || inner == u16::from(b'[') || inner == u16::from(b'(')
            });
        if !(is_quote(left) || left == u16::from(b')') || left == u16::from(b']')) || !opens {
            return false;
        }
        if !is_quote(left) || !is_quote(right) {
            return true;
        }
        // Two strings: what ends the one and what begins the other stand side by side in the sum.
        let last = text.before(text.before_at(plus, blank), |_| false);
        let first = text.get(right_at + 1);
        is_quote(last) || is_quote(first) || self.pairs.contains(plain(last), plain(first))
    }
}

/// As the light normalisation has it.
fn plain(unit: u16) -> u16 {
    match unit {
        0..0x80 => unit,
        _ if is_dash(unit) => u16::from(b'-'),
        _ if is_whitespace(unit) => BLANK,
        _ if is_single_quote(unit) => u16::from(b'\''),
        _ if is_double_quote(unit) => u16::from(b'"'),
        _ => unit,
    }
}

/// A string or parenthesis, and a method of strings.
fn closed(text: Around<'_>, at: usize) -> bool {
    if text.get(at) == u16::from(b')') {
        let inner = text.before(at, |unit| is_whitespace(unit) || is_newline(unit));
        if !u8::try_from(inner).is_ok_and(|byte| b"'\")]".contains(&byte)) {
            return false;
        }
    }
    let name = at + 2;
    is_single_quote(text.get(name))
        || is_double_quote(text.get(name))
        || ["replace", "split", "tochararray", "insert", "remove", "substring", "tostring()["]
            .iter()
            .any(|method| text.word_from(name, method))
}

/// An operator, or the parameter of an encoded command.
fn dashed(text: Around<'_>, at: usize) -> bool {
    if is_word(text.get(at.wrapping_sub(1))) {
        // A verb and a noun; `1-join` is no disguise.
        return false;
    }
    let blank = |unit: u16| is_whitespace(unit) || is_newline(unit);
    let mut name = String::new();
    let mut end = at + 1;
    while is_word(text.get(end)) && name.len() < 16 {
        name.push(char::from(lower(text.get(end)) as u8));
        end += 1;
    }
    let left = text.before(at, blank);
    let is_quote = |unit: u16| is_single_quote(unit) || is_double_quote(unit);
    let behind_value =
        is_quote(left) || left == u16::from(b')') || left == u16::from(b'}') || left == u16::from(b']');
    let right = text.behind(end - 1, blank);
    let opens =
        is_quote(right) || right == u16::from(b'(') || right == u16::from(b'[') || right == u16::from(b'@');
    match name.as_str() {
        "f" => behind_value && opens && right_is_constant(text, end - 1),
        "join" => is_quote(left) || empty_string(text, end - 1) || !(behind_value || is_word(left)),
        "replace" | "creplace" | "ireplace" => is_quote(left) || (left == u16::from(b')') && opens),
        _ if "encodedcommand".starts_with(&name) || name == "ec" => {
            let is_mark = |unit: u16| is_whitespace(unit) || is_quote(unit) || unit == u16::from(b':');
            let (_, mut start) = text.behind_at(end - 1, is_mark);
            // The value may be an expression.
            let is_base64 = |unit: u16| is_word(unit) || unit == u16::from(b'+') || unit == u16::from(b'/');
            let from = start;
            while is_base64(text.get(start)) && start - from < BASE64_UNITS_MIN {
                start += 1;
            }
            start - from == BASE64_UNITS_MIN
        }
        _ => false,
    }
}

/// Whether a constant may begin behind `at`, parentheses left out.
fn right_is_constant(text: Around<'_>, at: usize) -> bool {
    let skipped = |unit: u16| {
        is_whitespace(unit) || is_newline(unit) || unit == u16::from(b'(') || unit == u16::from(b'@')
    };
    let unit = text.behind(at, skipped);
    is_single_quote(unit) || is_double_quote(unit) || unit == u16::from(b'[')
}

fn empty_string(text: Around<'_>, at: usize) -> bool {
    let skipped = |unit: u16| is_whitespace(unit) || unit == u16::from(b'(');
    let (unit, place) = text.behind_at(at, skipped);
    let is_quote = |unit: u16| is_single_quote(unit) || is_double_quote(unit);
    is_quote(unit) && is_quote(text.get(place + 1))
}

/// A cast to characters, an index from behind, or a static method that makes a string.
fn bracket(text: Around<'_>, at: usize) -> bool {
    if text.get(at) == u16::from(b'[') {
        return text.word_from(at + 1, "char") || (text.get(at + 1) == u16::from(b'-') && ranges(text, at));
    }
    if text.get(at) == u16::from(b'}') {
        // Two variables in a string.
        return text.get(at + 1) == u16::from(b'$') && text.get(at + 2) == u16::from(b'{');
    }
    if text.get(at.wrapping_sub(1)) != u16::from(b':') {
        return false;
    }
    text.word_from(at + 1, "reverse(")
        || text.word_from(at + 1, "matches(")
        || (text.word_from(at + 1, "join(") && empty_string(text, at + 5))
        || (text.word_from(at + 1, "format(") && right_is_constant(text, at + 7))
}

/// Two dots within the brackets.
fn ranges(text: Around<'_>, at: usize) -> bool {
    (at..at + 8).any(|at| text.get(at) == u16::from(b'.') && text.get(at + 1) == u16::from(b'.'))
}

/// A text, and what stands around a place; 0 outside and too far away.
#[derive(Clone, Copy)]
struct Around<'a> {
    units: &'a [[u8; 2]],
}

impl Around<'_> {
    fn get(self, at: usize) -> u16 {
        self.units.get(at).map_or(0, |unit| u16::from_le_bytes(*unit))
    }

    /// The first unit before `at` that is not skipped.
    fn before(self, at: usize, skip: impl Fn(u16) -> bool) -> u16 {
        match self.before_at(at, skip) {
            usize::MAX => 0,
            at => self.get(at),
        }
    }

    fn before_at(self, at: usize, skip: impl Fn(u16) -> bool) -> usize {
        let from = at.min(self.units.len());
        let near = from.saturating_sub(NEIGHBOUR_UNITS_MAX)..from;
        near.rev().find(|at| !skip(self.get(*at))).unwrap_or(usize::MAX)
    }

    fn behind(self, at: usize, skip: impl Fn(u16) -> bool) -> u16 {
        self.behind_at(at, skip).0
    }

    fn behind_at(self, at: usize, skip: impl Fn(u16) -> bool) -> (u16, usize) {
        let near = at + 1..(at + 1 + NEIGHBOUR_UNITS_MAX).min(self.units.len());
        match near.into_iter().find(|at| !skip(self.get(*at))) {
            Some(at) => (self.get(at), at),
            None => (0, self.units.len()),
        }
    }

    /// Whether a backtick makes the line end at `at` a blank.
    fn continues(self, at: usize) -> bool {
        let before = self.get(at.wrapping_sub(1));
        before == BACKTICK || (before == 0x0D && self.get(at.wrapping_sub(2)) == BACKTICK)
    }

    fn word_from(self, at: usize, word: &str) -> bool {
        self.units.get(at..).is_some_and(|units| {
            units.len() >= word.len()
                && word
                    .bytes()
                    .zip(units)
                    .all(|(byte, unit)| u16::from(byte) == lower(u16::from_le_bytes(*unit)))
        })
    }
}

/// Adds what stands side by side in the literals of an expression.
fn literals(expr: &Expr, pairs: &mut Pairs, around_blank: &mut Pairs) {
    match expr {
        Expr::And(parts) | Expr::Or(parts) => {
            for part in parts {
                literals(part, pairs, around_blank);
            }
        }
        // A rule that matches because something is gone has nothing to show for it.
        Expr::Not(_) => {}
        Expr::Test(test) => match &test.op {
            Op::Text { pattern, .. } => of_pattern(pattern, pairs, around_blank),
            Op::Regex(_) => (pairs.all, around_blank.all) = (true, true),
            Op::Number(..) | Op::Exists(_) => {}
        },
    }
}

fn of_pattern(pattern: &Pattern, pairs: &mut Pairs, around_blank: &mut Pairs) {
    for two in pattern.parts().windows(2) {
        match two {
            [Part::Unit(first), Part::Unit(second)] => pairs.insert(*first, *second),
            [Part::One, Part::Unit(_) | Part::One] | [Part::Unit(_), Part::One] => pairs.all = true,
            _ => {}
        }
    }
    // A blank at the border of a literal may be a tab in the text, whatever stands beyond it.
    let parts = pattern.parts();
    for (at, part) in parts.iter().enumerate() {
        if *part != Part::Unit(BLANK) {
            continue;
        }
        let unit = |at: Option<usize>| match at.and_then(|at| parts.get(at)) {
            Some(Part::Unit(unit)) => Some(*unit),
            _ => None,
        };
        let any = || (0x21..0x7F).collect::<Vec<u16>>();
        let before = unit(at.checked_sub(1)).map_or_else(any, |unit| vec![unit]);
        let behind = unit(at.checked_add(1)).map_or_else(any, |unit| vec![unit]);
        for first in &before {
            for second in &behind {
                around_blank.insert(*first, *second);
            }
        }
    }
}
