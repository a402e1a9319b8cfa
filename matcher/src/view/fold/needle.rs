//! Search for a run of units in linear time, whatever the needle and the text.
//!
//! Knuth, Morris and Pratt's algorithm ("Fast pattern matching in strings", 1977): a table says how much of the needle
//! precedes the unit at which a comparison fails, so that no unit of the text is read twice.

use crate::view::chars::lower;
use crate::view::work::Work;

/// Steps per unit of a text, which includes a branch that is hard to predict.
const STEPS_PER_UNIT: usize = 3;

/// A needle, which is never empty.
#[derive(Debug)]
pub(super) struct Needle {
    units: Vec<u16>,
    /// For each unit, the length of the longest proper prefix of the needle that ends with it.
    borders: Vec<u32>,
    is_cased: bool,
}

impl Needle {
    /// Returns `None` if the needle is empty or too long, or if the work is exhausted. Only the case of ASCII letters
    /// is ignored.
    pub(super) fn new(units: &[u16], is_cased: bool, work: &mut Work<'_, '_>) -> Option<Self> {
        if units.is_empty() || units.len() > work.value_units_max {
            return None;
        }
        work.charge(STEPS_PER_UNIT * units.len())?;
        work.allocate((size_of::<u16>() + size_of::<u32>()) * units.len())?;
        let units: Vec<u16> = units.iter().map(|unit| if is_cased { *unit } else { lower(*unit) }).collect();
        let mut borders = vec![0u32; units.len()];
        let mut len = 0;
        for at in 1..units.len() {
            while len > 0 && units[at] != units[len] {
                len = borders[len - 1] as usize;
            }
            len += usize::from(units[at] == units[len]);
            borders[at] = len as u32;
        }
        Some(Self { units, borders, is_cased })
    }

    pub(super) fn len(&self) -> usize {
        self.units.len()
    }

    /// Returns the positions of the needle in the text, without overlaps. Returns `None` if there are more than `max`,
    /// or if the work is exhausted.
    pub(super) fn places(&self, text: &[u16], max: usize, work: &mut Work<'_, '_>) -> Option<Vec<u32>> {
        work.charge(STEPS_PER_UNIT * text.len())?;
        let mut places = Vec::new();
        let mut len = 0;
        for (at, &unit) in text.iter().enumerate() {
            let unit = if self.is_cased { unit } else { lower(unit) };
            while len > 0 && unit != self.units[len] {
                len = self.borders[len - 1] as usize;
            }
            len += usize::from(unit == self.units[len]);
            if len == self.units.len() {
                if places.len() == max {
                    return None;
                }
                if places.len() == places.capacity() {
                    // The vector doubles, or grows to four elements.
                    work.allocate(size_of::<u32>() * places.len().max(4))?;
                }
                places.push((at + 1 - len) as u32);
                len = 0;
            }
        }
        Some(places)
    }
}

#[cfg(test)]
mod tests {
    use super::Needle;
    use crate::view::fold::tests::with_work;
    use proptest::prelude::*;

    /// Slow reference implementation.
    fn slow(text: &[u16], what: &[u16]) -> Vec<u32> {
        let mut places = Vec::new();
        let mut at = 0;
        while at + what.len() <= text.len() {
            if text[at..].starts_with(what) {
                places.push(at as u32);
                at += what.len();
            } else {
                at += 1;
            }
        }
        places
    }

    proptest! {
        #[test]
        fn equals_the_reference(text in "[abA]{0,40}", what in "[ab]{1,5}", is_cased: bool) {
            let units: Vec<u16> = text.encode_utf16().collect();
            let what: Vec<u16> = what.encode_utf16().collect();
            let found = with_work(1 << 20, |work| {
                Needle::new(&what, is_cased, work)?.places(&units, usize::MAX, work)
            });
            let plain = if is_cased { text } else { text.to_ascii_lowercase() };
            prop_assert_eq!(found, Some(slow(&plain.encode_utf16().collect::<Vec<_>>(), &what)));
        }
    }

    /// Comparing at each position would take 10^10 steps.
    #[test]
    fn steps_are_linear() {
        let mut text = vec![u16::from(b' '); 200_000];
        let mut what = text[..100_000].to_vec();
        what.push(u16::from(b'b'));
        text.push(u16::from(b'c'));
        let found = with_work(4_000_000, |work| Needle::new(&what, true, work)?.places(&text, 1, work));
        assert_eq!(found, Some(Vec::new()));
    }
}
