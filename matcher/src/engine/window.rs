//! The windows of a text in which a regular expression is searched.

use memchr::{memchr_iter, memmem};
use std::ops::Range;

/// Maximum number of literals per expression.
pub(crate) const LITERALS_MAX: usize = 4;
/// Windows with at most this many bytes between them are joined, because searching those bytes is faster than starting
/// again.
const JOIN_LEN_MAX: usize = 64;

/// The windows of one expression.
#[derive(Debug)]
pub(crate) struct Windows {
    /// Literals of which one occurs in every match.
    pub(crate) literals: Vec<memmem::Finder<'static>>,
    /// For each narrowed byte: true if it ends a repetition. Always false for units that are not ASCII.
    pub(crate) is_separator: Box<[bool; 256]>,
    /// Maximum number of separators of a match.
    pub(crate) separators: u32,
    /// A byte of the only literal, and how often it occurs at least in a match.
    pub(crate) least: Option<(u8, u32)>,
}

impl Windows {
    /// Returns the approximate memory in bytes.
    pub(crate) fn memory(&self) -> usize {
        let of_finder = |finder: &memmem::Finder<'_>| size_of_val(finder) + finder.needle().len();
        size_of::<Self>()
            + size_of_val(&*self.is_separator)
            + self.literals.iter().map(of_finder).sum::<usize>()
    }

    /// Returns true if `is_match` holds for one of the windows of a narrowed text. Windows ascend, do not overlap, and
    /// begin and end at an end of the text or beside an ASCII character.
    ///
    /// # Complexity
    ///
    /// Linear in the text for each literal, plus the calls of `is_match`.
    pub(crate) fn any(&self, text: &[u8], mut is_match: impl FnMut(Range<usize>) -> bool) -> bool {
        let mut places = [None; LITERALS_MAX];
        for (literal, place) in self.literals.iter().zip(&mut places) {
            *place = literal.find(text);
        }
        let mut is_match = |range: Range<usize>| self.may_match(&text[range.clone()]) && is_match(range);
        let mut from = 0;
        let mut open: Option<Range<usize>> = None;
        loop {
            let place = self.next_place(text, from, &mut places);
            let Some(place) = place else { return open.is_some_and(is_match) };
            let start = self.start(text, place, open.as_ref().map_or(0, |open| open.end));
            if let Some(open) = open.as_mut().filter(|open| start <= open.end + JOIN_LEN_MAX) {
                // Continues at the end of the window, so that all literals before it are covered.
                let behind = open.end.max(place);
                open.end = self.end(text, behind);
                from = behind.max(place + 1);
            } else {
                let end = self.end(text, place);
                if open.replace(start..end).is_some_and(&mut is_match) {
                    return true;
                }
                from = place + 1;
            }
        }
    }

    /// Returns true if a window contains what every match contains.
    fn may_match(&self, text: &[u8]) -> bool {
        let has = |byte, least: u32| memchr_iter(byte, text).nth(least.saturating_sub(1) as usize).is_some();
        self.least.is_none_or(|(byte, least)| has(byte, least))
    }

    /// Returns the position of the next literal. `places` stores the last position of each.
    fn next_place(
        &self,
        text: &[u8],
        from: usize,
        places: &mut [Option<usize>; LITERALS_MAX],
    ) -> Option<usize> {
        let next = |(literal, place): (&memmem::Finder<'_>, &mut Option<usize>)| {
            if place.is_some_and(|place| place < from) {
                *place = text.get(from..).and_then(|rest| literal.find(rest)).map(|at| from + at);
            }
            *place
        };
        self.literals.iter().zip(places).filter_map(next).min()
    }

    /// Returns the position after the last separator that a match around `place` cannot include, but at least `least`.
    fn start(&self, text: &[u8], place: usize, least: usize) -> usize {
        let before = text.get(least..place).unwrap_or_default();
        let is_separator = |byte: &u8| self.is_separator[usize::from(*byte)];
        let mut separators = before.iter().rev().enumerate().filter(|(_, byte)| is_separator(byte));
        separators.nth(self.separators as usize).map_or(least.min(place), |(at, _)| place - at)
    }

    /// Returns the position of the first separator that a match around `place` cannot include.
    fn end(&self, text: &[u8], place: usize) -> usize {
        let behind = text.get(place..).unwrap_or_default();
        let is_separator = |byte: &u8| self.is_separator[usize::from(*byte)];
        let mut separators = behind.iter().enumerate().filter(|(_, byte)| is_separator(byte));
        separators.nth(self.separators as usize).map_or(text.len(), |(at, _)| place + at)
    }
}
