//! The context of a trigger.

use crate::view::chars::{
    BACKTICK, is_dash, is_double_quote, is_newline, is_single_quote, is_whitespace, is_word, lower,
    unicode_escape,
};
use std::ops::Range;

/// Maximum distance of a neighbour that is examined, in units.
pub(super) const NEIGHBOUR_UNITS_MAX: usize = 64;
/// Minimum length of base64 after `-EncodedCommand`.
const BASE64_UNITS_MIN: usize = 16;
/// Maximum length of a name after a dash that is examined.
const NAME_UNITS_MAX: usize = 16;
/// Maximum length of `u{…}`.
const ESCAPE_UNITS_MAX: usize = 9;
/// Maximum distance from `[regex]::Matches(` to its option.
const PATTERN_UNITS_MAX: usize = 512;

/// Returns true for printable ASCII except the backtick.
pub(super) fn is_plain(unit: u16) -> bool {
    (0x21..0x7F).contains(&unit) && unit != BACKTICK
}

pub(super) fn is_quote(unit: u16) -> bool {
    is_single_quote(unit) || is_double_quote(unit)
}

/// Returns true for a string or parenthesis followed by a method of strings.
pub(super) fn is_string_method(text: Surroundings<'_>, at: usize) -> bool {
    if text.get(at) == u16::from(b')') {
        let inner = text.before(at, |unit| is_whitespace(unit) || is_newline(unit));
        if !u8::try_from(inner).is_ok_and(|byte| b"'\")]".contains(&byte)) {
            return false;
        }
    }
    let name = at + 2 + usize::from(is_quote(text.get(at + 2)));
    ["replace", "split", "tochararray", "insert", "remove", "substring", "tostring()["]
        .iter()
        .any(|method| text.word_from(name, method))
}

/// Returns true for an operator, or the parameter of an encoded command.
pub(super) fn is_dash_operator(text: Surroundings<'_>, at: usize) -> bool {
    if !is_dash(text.get(at)) || is_word(text.get(at.wrapping_sub(1))) {
        // Part of a name such as verb and noun; `1-join` is not obfuscation.
        return false;
    }
    let blank = |unit: u16| is_whitespace(unit) || is_newline(unit);
    let mut letters = [0; NAME_UNITS_MAX];
    let mut len = 0;
    while is_word(text.get(at + 1 + len)) {
        // Longer than any of the operators.
        let Some(letter) = letters.get_mut(len) else { return false };
        *letter = lower(text.get(at + 1 + len)) as u8;
        len += 1;
    }
    let (name, end) = (&letters[..len], at + 1 + len);
    let is_known = matches!(name, b"f" | b"join" | b"replace" | b"creplace" | b"ireplace" | b"ec");
    if !is_known && !b"encodedcommand".starts_with(name) {
        return false;
    }
    let left = text.before(at, blank);
    let right = text.behind(end - 1, blank);
    let opens =
        is_quote(right) || right == u16::from(b'(') || right == u16::from(b'[') || right == u16::from(b'@');
    let ends = |byte: u8| left == u16::from(byte);
    let is_value = || text.ends_value(at);
    match name {
        b"f" => opens && right_is_constant(text, end - 1) && is_value(),
        b"join" => {
            let is_empty = empty_string(text, end - 1);
            // The left operand is a list.
            if is_empty {
                is_quote(left) || is_value() || ends(b'}') || is_word(left)
            } else {
                !(ends(b')') || ends(b'}') || ends(b']') || is_word(left))
            }
        }
        b"replace" | b"creplace" | b"ireplace" => (is_quote(left) || (ends(b')') && opens)) && is_value(),
        _ => {
            let is_mark = |unit: u16| is_whitespace(unit) || is_quote(unit) || unit == u16::from(b':');
            let (_, mut start) = text.behind_at(end - 1, is_mark);
            // The value must not be an expression.
            let is_base64 = |unit: u16| is_word(unit) || unit == u16::from(b'+') || unit == u16::from(b'/');
            let from = start;
            while is_base64(text.get(start)) && start - from < BASE64_UNITS_MIN {
                start += 1;
            }
            start - from == BASE64_UNITS_MIN
        }
    }
}

/// Returns true if a constant may begin after `at`, ignoring parentheses.
fn right_is_constant(text: Surroundings<'_>, at: usize) -> bool {
    let skipped = |unit: u16| {
        is_whitespace(unit) || is_newline(unit) || unit == u16::from(b'(') || unit == u16::from(b'@')
    };
    let (unit, place) = text.behind_at(at, skipped);
    is_quote(unit) || (unit == u16::from(b'[') && text.is_cast(place))
}

fn empty_string(text: Surroundings<'_>, at: usize) -> bool {
    let skipped = |unit: u16| is_whitespace(unit) || unit == u16::from(b'(');
    let (unit, place) = text.behind_at(at, skipped);
    is_quote(unit) && text.get(place + 1) == unit
}

/// Returns true for a cast to characters, a negative index, or a static method that makes a string.
pub(super) fn is_cast_or_static_method(text: Surroundings<'_>, at: usize) -> bool {
    if text.get(at) == u16::from(b'[') {
        return text.is_char_cast(at) || (text.get(at + 1) == u16::from(b'-') && ranges(text, at));
    }
    if !text.word_from(at, "::") {
        return false;
    }
    let name = at + 2;
    text.word_from(name, "reverse(")
        || (text.word_from(name, "matches(") && text.word_within(name, PATTERN_UNITS_MAX, "righttoleft"))
        || (text.word_from(name, "join(") && empty_string(text, name + 4))
        || (text.word_from(name, "format(") && right_is_constant(text, name + 6))
}

/// Returns true if there are two dots within the brackets.
fn ranges(text: Surroundings<'_>, at: usize) -> bool {
    (at..at + 8).any(|at| text.get(at) == u16::from(b'.') && text.get(at + 1) == u16::from(b'.'))
}

/// A text with access to the neighbours of a position; 0 for units outside the text or too far away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) units: &'a [[u8; 2]],
}

impl Surroundings<'_> {
    pub(super) fn get(self, at: usize) -> u16 {
        self.units.get(at).map_or(0, |unit| u16::from_le_bytes(*unit))
    }

    /// Returns the run of blanks, backticks, and line ends after backticks that contains `at`; `None` if it is too long
    /// to decide.
    pub(super) fn blanks(self, at: usize) -> Option<Range<usize>> {
        let is_blank = |unit: u16| is_whitespace(unit) || unit == BACKTICK;
        let (mut start, mut end) = (at, at);
        while start > 0 && is_blank(self.get(start - 1)) {
            start -= 1;
            if at - start > NEIGHBOUR_UNITS_MAX {
                return None;
            }
        }
        while is_blank(self.get(end)) || (is_newline(self.get(end)) && self.continues(end)) {
            end += 1;
            if end - at > NEIGHBOUR_UNITS_MAX {
                return None;
            }
        }
        Some(start..end)
    }

    /// Returns the last unit before `at` that is not skipped, and its position.
    pub(super) fn before_with_place(self, at: usize, skip: impl Fn(u16) -> bool) -> (u16, usize) {
        match self.before_at(at, skip) {
            usize::MAX => (0, usize::MAX),
            at => (self.get(at), at),
        }
    }

    /// Returns the last unit before `at` that is not skipped.
    pub(super) fn before(self, at: usize, skip: impl Fn(u16) -> bool) -> u16 {
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

    pub(super) fn behind(self, at: usize, skip: impl Fn(u16) -> bool) -> u16 {
        self.behind_at(at, skip).0
    }

    pub(super) fn behind_at(self, at: usize, skip: impl Fn(u16) -> bool) -> (u16, usize) {
        let near = at + 1..(at + 1 + NEIGHBOUR_UNITS_MAX).min(self.units.len());
        match near.into_iter().find(|at| !skip(self.get(*at))) {
            Some(at) => (self.get(at), at),
            None => (0, self.units.len()),
        }
    }

    /// Returns true if the left operand of an operator at `at` may be constant: a string that is neither the operand of
    /// another operator nor one of several arguments, or parentheses or brackets that end with a constant.
    fn ends_value(self, at: usize) -> bool {
        let blank = |unit: u16| is_whitespace(unit) || is_newline(unit) || unit == BACKTICK;
        let (left, left_at) = self.before_with_place(at, blank);
        if is_quote(left) {
            let (open, open_at) = self.before_with_place(left_at, |unit| !is_quote(unit));
            if !is_quote(open) {
                // The beginning is too far away.
                return true;
            }
            let (before, before_at) = self.before_with_place(open_at, blank);
            if before == u16::from(b',') {
                return false;
            }
            let word = self.before(before_at.wrapping_add(1), is_word);
            return !(is_word(before) && word == u16::from(b'-'));
        }
        let closes = |unit: u16| {
            blank(unit) || unit == u16::from(b')') || unit == u16::from(b']') || unit == u16::from(b'}')
        };
        let inner = self.before(at, closes);
        let digit = u8::try_from(inner).is_ok_and(|byte| byte.is_ascii_hexdigit());
        left != inner && (is_quote(inner) || digit || inner == u16::from(b'_'))
    }

    /// Returns true if `u{…}` at this position stands for an ASCII character.
    pub(super) fn is_escape(self, at: usize) -> bool {
        if !self.word_from(at, "u{") {
            return false;
        }
        let units: [u16; ESCAPE_UNITS_MAX] = std::array::from_fn(|behind| lower(self.get(at + behind)));
        unicode_escape(&units).is_none_or(|(c, _)| c.is_ascii())
    }

    /// Returns true if the closing bracket at this position ends an index of numbers.
    pub(super) fn is_index(self, at: usize) -> bool {
        let number = |unit: u16| {
            is_whitespace(unit)
                || u8::try_from(unit)
                    .is_ok_and(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b'-' | b'.'))
        };
        let (open, open_at) = self.before_with_place(at, number);
        let indexed = self.get(open_at.wrapping_sub(1));
        open == u16::from(b'[')
            && (is_word(indexed)
                || is_quote(indexed)
                || u8::try_from(indexed).is_ok_and(|byte| b")]}".contains(&byte)))
    }

    /// Returns true for `[char` and `[string`.
    fn is_cast(self, at: usize) -> bool {
        self.word_from(at + 1, "char") || self.word_from(at + 1, "string")
    }

    /// Returns true for `[char]` and `[char[]]` before something that may be constant.
    fn is_char_cast(self, at: usize) -> bool {
        if !self.word_from(at + 1, "char") {
            return false;
        }
        let skipped = |unit: u16| {
            is_whitespace(unit)
                || u8::try_from(unit).is_ok_and(|byte| matches!(byte, b'[' | b']' | b'(' | b'`'))
        };
        let (unit, place) = self.behind_at(at + 4, skipped);
        let digit = u8::try_from(unit).is_ok_and(|byte| byte.is_ascii_digit());
        let current = unit == u16::from(b'$') && self.get(place + 1) == u16::from(b'_');
        let parenthesis = self.before(place, is_whitespace) == u16::from(b'(');
        is_quote(unit) || digit || current || parenthesis
    }

    /// Returns true if a word begins within this many units after `at`.
    fn word_within(self, at: usize, units: usize, word: &str) -> bool {
        (at..(at + units).min(self.units.len())).any(|at| self.word_from(at, word))
    }

    /// Returns true if a string begins like base64. Linear in the text.
    pub(super) fn has_base64(self) -> bool {
        let is_base64 = |unit: u16| is_word(unit) || unit == u16::from(b'+') || unit == u16::from(b'/');
        let mut len = BASE64_UNITS_MIN;
        for at in 0..self.units.len() {
            let unit = self.get(at);
            len = if is_quote(unit) {
                0
            } else if len < BASE64_UNITS_MIN && is_base64(unit) {
                len + 1
            } else {
                BASE64_UNITS_MIN + 1
            };
            if len == BASE64_UNITS_MIN {
                return true;
            }
        }
        false
    }

    /// Returns true if a backtick turns the line end at `at` into a blank.
    pub(super) fn continues(self, at: usize) -> bool {
        let before = self.get(at.wrapping_sub(1));
        before == BACKTICK || (before == 0x0D && self.get(at.wrapping_sub(2)) == BACKTICK)
    }

    pub(super) fn word_from(self, at: usize, word: &str) -> bool {
        self.units.get(at..).is_some_and(|units| {
            units.len() >= word.len()
                && word
                    .bytes()
                    .zip(units)
                    .all(|(byte, unit)| u16::from(byte) == lower(u16::from_le_bytes(*unit)))
        })
    }
}
