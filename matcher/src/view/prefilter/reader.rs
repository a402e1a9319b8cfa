//! Reading on from a mark, in either direction, as the light normalisation would have the text.

use super::context::{NEIGHBOUR_UNITS_MAX, Surroundings, is_plain, is_quote};
use super::literals::{ANY, Side};
use crate::scan::narrow::narrow_unit;
use crate::view::chars::{
    BACKTICK, BLANK, is_dash, is_double_quote, is_newline, is_single_quote, is_whitespace,
};

/// As the light normalisation has it.
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

/// Reads units in one direction as the light normalisation has them, in narrowed form: without backticks, blanks in a
/// row as one.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    text: Surroundings<'a>,
    at: usize,
    is_forward: bool,
    end: Ends,
    /// The last unit was a blank.
    blank: bool,
}

/// Where reading ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// With the text.
    Never,
    /// At a quotation mark: what lies beyond is another string, and may be anything.
    AtQuote,
}

impl Reader<'_> {
    /// Ends at a quotation mark, behind which anything may be.
    pub(super) fn in_string(self) -> Self {
        Self { end: Ends::AtQuote, ..self }
    }

    /// What was undone is a blank.
    pub(super) fn behind_blank(self) -> Self {
        Self { blank: true, ..self }
    }

    /// The next two units: 0 where the text ends, [`ANY`] where it cannot be told.
    pub(super) fn side(&self) -> Side {
        // As nearly all are.
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

    /// Whether these units come next.
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
    /// Reads what stands before `at`, backwards.
    pub(super) fn reader_before(self, at: usize) -> Reader<'a> {
        Reader { text: self, at, is_forward: false, end: Ends::Never, blank: false }
    }

    /// Reads what stands from `at` on.
    pub(super) fn reader_from(self, at: usize) -> Reader<'a> {
        Reader { text: self, at, is_forward: true, end: Ends::Never, blank: false }
    }
}
