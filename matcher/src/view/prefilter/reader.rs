//! Reads the text around a trigger in either direction, in light normalisation.

use super::context::{NEIGHBOUR_UNITS_MAX, Surroundings, is_plain, is_quote};
use super::literals::{ANY, Side};
use crate::scan::narrow::narrow_unit;
use crate::view::chars::{
    BACKTICK, BLANK, is_dash, is_double_quote, is_newline, is_single_quote, is_whitespace,
};

/// Returns a unit in light normalisation.
fn plain(unit: u16) -> u16 {
    match unit {
        0..0x80 => {
            if is_whitespace(unit) {
                BLANK
            } else {
                unit
            }
        }
        _ if is_dash(unit) => u16::from(b'-'),
        _ if is_whitespace(unit) => BLANK,
        _ if is_single_quote(unit) => u16::from(b'\''),
        _ if is_double_quote(unit) => u16::from(b'"'),
        _ => unit,
    }
}

/// Reads units in one direction, in light normalisation and narrowed form: without backticks, and with one blank for a
/// run of them.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    text: Surroundings<'a>,
    at: usize,
    is_forward: bool,
    end: Ends,
    /// True if the last unit was a blank.
    blank: bool,
}

/// The condition that ends reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// The end of the text.
    Never,
    /// A quotation mark: another string follows, which may be anything.
    AtQuote,
}

impl Reader<'_> {
    /// Ends at a quotation mark, after which any text may follow.
    pub(super) fn in_string(self) -> Self {
        Self { end: Ends::AtQuote, ..self }
    }

    /// Starts after a blank that was undone.
    pub(super) fn behind_blank(self) -> Self {
        Self { blank: true, ..self }
    }

    /// Returns the next two units: 0 at the end of the text, [`ANY`] if unknown.
    pub(super) fn side(&self) -> Side {
        // The usual case.
        if self.end == Ends::Never {
            let behind = |count: usize| {
                if self.is_forward { self.at + count } else { self.at.wrapping_sub(count + 1) }
            };
            let [near, far] = [0, 1].map(|count| self.text.get(behind(count)));
            if is_plain(near) && (is_plain(far) || far == BLANK) {
                return Side { near: narrow_unit(near), far: narrow_unit(far) };
            }
        }
        let mut reader = self.clone();
        let near = reader.next();
        Side { near, far: if matches!(near, 0 | ANY) { near } else { reader.next() } }
    }

    /// Returns true if these units follow.
    pub(super) fn reads(mut self, units: impl IntoIterator<Item = u8>) -> bool {
        units.into_iter().all(|unit| {
            let own = self.next();
            own == unit || own == ANY
        })
    }

    fn next(&mut self) -> u8 {
        for _ in 0..NEIGHBOUR_UNITS_MAX {
            let at = if self.is_forward { self.at } else { self.at.wrapping_sub(1) };
            let unit = self.text.get(at);
            if at >= self.text.units.len() {
                return 0;
            }
            if self.end == Ends::AtQuote && is_quote(unit) {
                return ANY;
            }
            self.at = if self.is_forward { at + 1 } else { at };
            let is_blank = is_whitespace(unit) || (is_newline(unit) && self.text.continues(at));
            if unit == BACKTICK || (is_blank && self.blank) {
                continue;
            }
            self.blank = is_blank;
            return if is_blank { BLANK as u8 } else { narrow_unit(plain(unit)) };
        }
        ANY
    }
}

impl<'a> Surroundings<'a> {
    /// Reads backwards from `at`.
    pub(super) fn reader_before(self, at: usize) -> Reader<'a> {
        Reader { text: self, at, is_forward: false, end: Ends::Never, blank: false }
    }

    /// Reads forwards from `at`.
    pub(super) fn reader_from(self, at: usize) -> Reader<'a> {
        Reader { text: self, at, is_forward: true, end: Ends::Never, blank: false }
    }
}
