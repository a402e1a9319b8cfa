//! The windows of a text in which a regular expression has to be searched.

use memchr::{memchr_iter, memmem};
use std::ops::Range;

/// Most literals that are searched for the windows of one expression.
pub(crate) const LITERALS_MAX: usize = 4;
/// Windows with at most so many bytes between them are joined: looking at these bytes takes less time than
/// starting anew.
const JOIN_LEN_MAX: usize = 64;

/// The windows of one expression.
#[derive(Debug)]
pub(crate) struct Windows {
    /// Of these one stands in every match.
    pub(crate) literals: Vec<memmem::Finder<'static>>,
    /// By narrowed byte: whether it ends what is repeated. Never true of what is not ASCII.
    pub(crate) is_separator: Box<[bool; 256]>,
    /// Most separators of a match.
    pub(crate) separators: u32,
    /// A byte of the only literal, and how often a match has it at least.
    pub(crate) least: Option<(u8, u32)>,
}

impl Windows {
    /// Bytes held, about.
    pub(crate) fn memory(&self) -> usize {
        let of_finder = |finder: &memmem::Finder<'_>| size_of_val(finder) + finder.needle().len();
        size_of::<Self>()
            + size_of_val(&*self.is_separator)
            + self.literals.iter().map(of_finder).sum::<usize>()
    }

    /// Whether `is_match` holds for one of the windows of a narrowed text in which the expression could match. They
    /// ascend, lie apart, and begin and end where the text does or beside an ASCII character.
    ///
    /// # Complexity
    ///
    /// Linear in the text for each literal, beside `is_match`.
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
                // From the window's end on, so that all literals up to there are done with.
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

    /// Whether the text of a window has what every match has.
    fn may_match(&self, text: &[u8]) -> bool {
        let has = |byte, least: u32| memchr_iter(byte, text).nth(least.saturating_sub(1) as usize).is_some();
        self.least.is_none_or(|(byte, least)| has(byte, least))
    }

    /// Where the next literal stands. `places`: for each the last answer.
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

    /// Behind the last separator that no match reaches from `place`, or `least` if that is further on.
    fn start(&self, text: &[u8], place: usize, least: usize) -> usize {
        let before = text.get(least..place).unwrap_or_default();
        let is_separator = |byte: &u8| self.is_separator[usize::from(*byte)];
        let mut separators = before.iter().rev().enumerate().filter(|(_, byte)| is_separator(byte));
        separators.nth(self.separators as usize).map_or(least.min(place), |(at, _)| place - at)
    }

    /// Before the first separator that no match reaches from `place`.
    fn end(&self, text: &[u8], place: usize) -> usize {
        let behind = text.get(place..).unwrap_or_default();
        let is_separator = |byte: &u8| self.is_separator[usize::from(*byte)];
        let mut separators = behind.iter().enumerate().filter(|(_, byte)| is_separator(byte));
        separators.nth(self.separators as usize).map_or(text.len(), |(at, _)| place + at)
    }
}
