//! Wildcard patterns on narrowed text, with the raw units for what narrowing does not distinguish.

use crate::pattern::{Part, Pattern, fold};
use memchr::memmem;
use std::ops::Range;

/// One field of an event in both forms: `narrow[i]` corresponds to `units[i]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<'a> {
    pub(crate) narrow: &'a [u8],
    pub(crate) units: &'a [[u8; 2]],
}

/// A compiled pattern for a whole value.
#[derive(Debug)]
pub(crate) struct Glob {
    anchored_start: bool,
    anchored_end: bool,
    segments: Vec<Segment>,
}

/// The part between two `*`.
#[derive(Debug)]
enum Segment {
    /// Folded ASCII, searched in the narrowed text.
    Narrow(Box<memmem::Finder<'static>>),
    /// Anything else, compared unit by unit.
    Wide { parts: Vec<Part>, cased: bool },
}

impl Glob {
    pub(crate) fn new(pattern: &Pattern, cased: bool) -> Self {
        let parts = pattern.parts();
        let segments = parts.split(|part| *part == Part::Any).filter(|segment| !segment.is_empty());
        Self {
            anchored_start: parts.first() != Some(&Part::Any),
            anchored_end: parts.last() != Some(&Part::Any),
            segments: segments.map(|segment| Segment::new(segment, cased)).collect(),
        }
    }

    /// Returns folded ASCII needles that all occur in every matching text.
    pub(crate) fn needles(&self) -> impl Iterator<Item = &[u8]> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Narrow(finder) => Some(finder.needle()),
            Segment::Wide { .. } => None,
        })
    }

    /// Returns true if it matches exactly the texts that contain its only needle.
    pub(crate) fn is_contains(&self) -> bool {
        !self.anchored_start && !self.anchored_end && matches!(self.segments[..], [Segment::Narrow(_)])
    }

    /// Returns the maximum number of units that a match extends beyond the literals that are searched; `None` if it
    /// could depend on any text.
    pub(crate) fn reach(&self, has_literal: bool) -> Option<usize> {
        match &self.segments[..] {
            [Segment::Wide { parts, .. }] if has_literal => Some(2 * parts.len() + 2),
            segments => segments.iter().all(|segment| matches!(segment, Segment::Narrow(_))).then_some(0),
        }
    }

    /// Returns the approximate memory in bytes.
    pub(crate) fn memory(&self) -> usize {
        let of_segment = |segment: &Segment| match segment {
            Segment::Narrow(finder) => size_of_val(&**finder) + finder.needle().len(),
            Segment::Wide { parts, .. } => size_of_val(&parts[..]),
        };
        self.segments.iter().map(|segment| size_of::<Segment>() + of_segment(segment)).sum()
    }

    /// Returns the maximum number of steps of a [`Budget`](etwsieve_budget::Budget) to match a text of this length.
    pub(crate) fn steps(&self, units: usize) -> usize {
        let of_segment = |segment: &Segment| match segment {
            Segment::Narrow(_) => 1 + units / 4,
            Segment::Wide { parts, .. } => units.saturating_mul(2 + parts.len() / 2),
        };
        self.segments.iter().map(of_segment).fold(4, usize::saturating_add)
    }

    /// Returns true if the whole text matches. Linear in the text for each segment of folded ASCII.
    pub(crate) fn matches(&self, text: Text<'_>) -> bool {
        self.places(text, |_| {})
    }

    /// Like [`matches`](Self::matches), but also reports the positions of the segments. If the pattern does not match,
    /// they are meaningless.
    pub(crate) fn places(&self, text: Text<'_>, mut place: impl FnMut(Range<usize>)) -> bool {
        let len = text.units.len();
        let (mut from, mut end) = (0, len);
        let mut segments = &self.segments[..];
        if self.anchored_start {
            match segments.split_first() {
                None => return !self.anchored_end || len == 0,
                Some((first, rest)) => {
                    let Some(behind) = first.at(text, 0) else { return false };
                    place(0..behind);
                    if rest.is_empty() && self.anchored_end {
                        return behind == len;
                    }
                    (from, segments) = (behind, rest);
                }
            }
        }
        if self.anchored_end
            && let Some((last, rest)) = segments.split_last()
        {
            match last.ending_at(text, len) {
                Some(start) if start >= from => {
                    place(start..len);
                    (end, segments) = (start, rest);
                }
                _ => return false,
            }
        }
        for segment in segments {
            match segment.find(text, from, end) {
                Some(found) => {
                    from = found.end;
                    place(found);
                }
                None => return false,
            }
        }
        true
    }

    /// Returns the successive occurrences of the pattern if it is a single segment between two `*`; `None` otherwise.
    pub(crate) fn occurrences<'a>(
        &'a self,
        text: Text<'a>,
    ) -> Option<impl Iterator<Item = Range<usize>> + 'a> {
        if self.anchored_start || self.anchored_end {
            return None;
        }
        let [segment] = &self.segments[..] else { return None };
        let mut from = 0;
        Some(std::iter::from_fn(move || {
            let found = segment.find(text, from, text.units.len())?;
            from = found.end;
            Some(found)
        }))
    }
}

impl Segment {
    fn new(parts: &[Part], cased: bool) -> Self {
        let ascii: Option<Vec<u8>> = parts
            .iter()
            .map(|part| match part {
                Part::Unit(unit) if *unit < 0x80 => Some((*unit as u8).to_ascii_lowercase()),
                _ => None,
            })
            .collect();
        match ascii {
            Some(needle) if !cased => Self::Narrow(Box::new(memmem::Finder::new(&needle).into_owned())),
            _ => Self::Wide { parts: parts.to_vec(), cased },
        }
    }

    /// Returns the end of the segment if it starts at `at`.
    fn at(&self, text: Text<'_>, at: usize) -> Option<usize> {
        match self {
            Self::Narrow(finder) => {
                text.narrow.get(at..)?.starts_with(finder.needle()).then(|| at + finder.needle().len())
            }
            Self::Wide { parts, cased } => parts.iter().try_fold(at, |at, part| {
                let unit = unit(text, at)?;
                match part {
                    Part::Unit(own) => same(unit, *own, *cased).then_some(at + 1),
                    _ if is_high(unit) && unit_is_low(text, at + 1) => Some(at + 2),
                    _ => Some(at + 1),
                }
            }),
        }
    }

    /// Returns the start of the segment if it ends at `end`.
    fn ending_at(&self, text: Text<'_>, end: usize) -> Option<usize> {
        match self {
            Self::Narrow(finder) => {
                text.narrow.get(..end)?.ends_with(finder.needle()).then(|| end - finder.needle().len())
            }
            Self::Wide { parts, cased } => parts.iter().rev().try_fold(end, |end, part| {
                let last = end.checked_sub(1)?;
                let unit_here = unit(text, last)?;
                match part {
                    Part::Unit(own) => same(unit_here, *own, *cased).then_some(last),
                    _ => match last.checked_sub(1) {
                        Some(before) if is_low(unit_here) && unit(text, before).is_some_and(is_high) => {
                            Some(before)
                        }
                        _ => Some(last),
                    },
                }
            }),
        }
    }

    /// Returns the first occurrence in `from..end`.
    fn find(&self, text: Text<'_>, from: usize, end: usize) -> Option<Range<usize>> {
        match self {
            Self::Narrow(finder) => {
                let start = from + finder.find(text.narrow.get(from..end)?)?;
                Some(start..start + finder.needle().len())
            }
            Self::Wide { .. } => (from..end)
                .find_map(|at| self.at(text, at).map(|behind| at..behind))
                .filter(|found| found.end <= end),
        }
    }
}

fn unit(text: Text<'_>, at: usize) -> Option<u16> {
    text.units.get(at).map(|unit| u16::from_le_bytes(*unit))
}

fn unit_is_low(text: Text<'_>, at: usize) -> bool {
    unit(text, at).is_some_and(is_low)
}

fn is_high(unit: u16) -> bool {
    (0xD800..0xDC00).contains(&unit)
}

fn is_low(unit: u16) -> bool {
    (0xDC00..0xE000).contains(&unit)
}

fn same(a: u16, b: u16, cased: bool) -> bool {
    if cased { a == b } else { fold(a) == fold(b) }
}

#[cfg(test)]
mod tests {
    use super::{Glob, Text};
    use crate::naive::pattern_matches;
    use crate::pattern::Pattern;
    use crate::scan::kernel::{Isa, Kernel};
    use crate::scan::narrow::narrow;
    use crate::scan::sample::cases;
    use proptest::prelude::*;

    fn fast(pattern: &Pattern, cased: bool, units: &[u16]) -> bool {
        let bytes: Vec<[u8; 2]> = units.iter().map(|unit| unit.to_le_bytes()).collect();
        let mut narrowed = Vec::new();
        narrow(&bytes, &mut narrowed, Isa::new(Kernel::best()));
        Glob::new(pattern, cased).matches(Text { narrow: &narrowed, units: &bytes })
    }

    proptest! {
        #![proptest_config(cases(4000))]
        /// Compares with the naive implementation. A small alphabet makes matches likely.
        #[test]
        fn equals_the_naive_match(pattern in "[abAB*?\u{212A}k\u{1F600}]{0,7}", text in "[abAB\r\nkK\u{212A}\u{1F600}]{0,9}", cased: bool) {
            let pattern = Pattern::parse(&pattern);
            let units: Vec<u16> = text.encode_utf16().collect();
            prop_assert_eq!(fast(&pattern, cased, &units), pattern_matches(&pattern, cased, &units));
        }

        #[test]
        fn equals_the_naive_match_on_any_units(
            pattern in "[a*?\u{1F600}]{0,5}",
            units in proptest::collection::vec(prop_oneof![Just(0x61u16), Just(0xD83D), Just(0xDE00), Just(0)], 0..7),
        ) {
            let pattern = Pattern::parse(&pattern);
            prop_assert_eq!(fast(&pattern, false, &units), pattern_matches(&pattern, false, &units));
        }
    }
}
