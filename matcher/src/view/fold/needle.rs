//! The search for a run of units in time linear in the text, whatever both are.
//!
//! Knuth, Morris and Pratt's algorithm ("Fast pattern matching in strings", 1977): the table says how much of the needle
//! is known to stand before the unit at which a comparison fails, so no unit of the text is looked at again.

use crate::view::chars::lower;
use crate::view::work::Work;

/// Steps for each unit of a text, over which a branch that depends on it decides.
const STEPS_PER_UNIT: usize = 3;

/// A needle, not empty.
#[derive(Debug)]
pub(super) struct Needle {
    units: Vec<u16>,
    /// For each unit, the length of the longest proper prefix of the needle that ends with it.
    borders: Vec<u32>,
    is_cased: bool,
}

impl Needle {
    /// `None` for an empty one, and if the work is exhausted. Case means that of ASCII.
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

    /// Where the needle begins in the text, one place behind the other; at most `max` places.
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
                    // As much again as it has, or four at first.
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

    /// The slow twin.
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
        fn equals_the_slow_twin(text in "[abA]{0,40}", what in "[ab]{1,5}", is_cased: bool) {
            let units: Vec<u16> = text.encode_utf16().collect();
            let what: Vec<u16> = what.encode_utf16().collect();
            let found = with_work(1 << 20, |work| {
                Needle::new(&what, is_cased, work)?.places(&units, usize::MAX, work)
            });
            let plain = if is_cased { text } else { text.to_ascii_lowercase() };
            prop_assert_eq!(found, Some(slow(&plain.encode_utf16().collect::<Vec<_>>(), &what)));
        }
    }

    /// A comparison at each place would take 10^10 steps.
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
