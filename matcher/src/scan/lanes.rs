//! Lanes: searches some dozens of needles in raw UTF-16LE in one pass, without narrowing. This is
//! [`teddy`](super::teddy) on lanes.
//!
//! A lane is two units, as in [`bigram`](super::bigram), here packed into two bytes. Each needle has two fingerprints,
//! one byte apart, so that wherever it occurs a lane begins with one of them, and only every second position has to be
//! looked up. The tables contain letters in both cases. Every candidate is compared exactly.

#[cfg(target_arch = "x86_64")]
mod x86;

use crate::frequency::bits;
use crate::scan::bigram::stands_at;
use crate::scan::buckets::{self, BUCKETS, Bucket, Fingerprint, LEN};
use crate::scan::kernel::Isa;
use crate::scan::narrow::NOT_ASCII;
use crate::scan::teddy::Teddy;

/// Maximum number of needles.
pub(crate) const NEEDLES_MAX: usize = 32;
/// Maximum share of lanes that may pass, as estimated: one that passes costs as much as many that do not.
const PASSING_MAX: f64 = 1.0 / 64.0;
/// Units per lane.
pub(crate) const LANE: usize = 2;

/// A set of at most [`NEEDLES_MAX`] needles in narrowed form.
#[derive(Debug)]
pub(crate) struct Lanes {
    needles: Vec<Box<[u8]>>,
    /// The fingerprints of each bucket.
    entries: [Vec<Entry>; BUCKETS],
    teddy: Teddy,
}

/// A needle, and the offset of the lane from its start; -1 if the needle begins with the second byte of the lane.
#[derive(Clone, Copy, Debug)]
struct Entry {
    needle: u32,
    offset: isize,
}

impl Lanes {
    /// Returns `None` if this method does not suit the needles: there are too many, or they are too common together.
    pub(crate) fn new(needles: &[Box<[u8]>]) -> Option<Self> {
        if needles.len() > NEEDLES_MAX {
            return None;
        }
        let mut entries = Vec::new();
        for (needle, bytes) in (0..).zip(needles) {
            let offset = rarest_offset(bytes);
            entries.extend([offset, offset + 1].map(|offset| Entry { needle, offset }));
        }
        let of = |entry: &Entry| fingerprint(&needles[entry.needle as usize], entry.offset);
        let fingerprints: Vec<Fingerprint> = entries.iter().map(of).collect();
        let buckets = buckets::of_one_search(&fingerprints);
        if buckets::passing(&buckets) > PASSING_MAX {
            return None;
        }
        let has = |bucket: usize, entry: &&Entry| {
            buckets.get(bucket).is_some_and(|bucket: &Bucket| bucket.members.contains(&of(entry)))
        };
        let entries = std::array::from_fn(|bucket| {
            entries.iter().filter(|entry| has(bucket, entry)).copied().collect()
        });
        Some(Self { needles: needles.to_vec(), entries, teddy: Teddy::new(&buckets, true) })
    }

    /// Returns the approximate memory in bytes.
    pub(crate) fn memory(&self) -> usize {
        let needles: usize = self.needles.iter().map(|needle| needle.len() + size_of::<Box<[u8]>>()).sum();
        needles + self.entries.iter().map(|list| size_of_val(&list[..])).sum::<usize>() + size_of::<Self>()
    }

    /// Reports each needle that occurs in `units` once, by number and position.
    ///
    /// Returns false, without reports, if `isa` lacks the vector instructions.
    ///
    /// # Complexity
    ///
    /// Linear in the text, plus a comparison for each fingerprint in the bucket of a lane.
    pub(crate) fn scan(&self, units: &[[u8; 2]], isa: Isa, mut found: impl FnMut(u32, usize)) -> bool {
        // One bit per needle that has not been found.
        let mut left = u32::MAX;
        let candidate = |unit: usize, buckets: u8| {
            self.compare(units, unit, buckets, &mut left, &mut found);
        };
        #[cfg(target_arch = "x86_64")]
        return x86::scan(&self.teddy, units, isa, candidate);
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (candidate, isa);
            false
        }
    }

    /// Compares the text at the lane that begins with `unit` with those needles of the buckets that are `left`.
    fn compare(
        &self,
        units: &[[u8; 2]],
        unit: usize,
        buckets: u8,
        left: &mut u32,
        found: &mut impl FnMut(u32, usize),
    ) {
        let in_bucket = |number: &usize| buckets >> number & 1 != 0;
        for entry in (0..BUCKETS).filter(in_bucket).flat_map(|number| &self.entries[number]) {
            if *left >> entry.needle & 1 != 0
                && let Some(start) = unit.checked_add_signed(-entry.offset)
                && stands_at(units, start, &self.needles[entry.needle as usize])
            {
                *left &= !(1 << entry.needle);
                found(entry.needle, start);
            }
        }
    }
}

const _: () = assert!(NEEDLES_MAX <= u32::BITS as usize);

/// Returns the offset at which the two fingerprints, there and one byte later, are rarest.
fn rarest_offset(needle: &[u8]) -> isize {
    let known = |offset: isize| {
        let from = offset.max(0) as usize;
        bits(&needle[from..needle.len().min((offset + LEN as isize) as usize)])
    };
    let rarity = |offset: &isize| known(*offset).min(known(*offset + 1));
    let offsets = -1..needle.len() as isize - 1;
    offsets.max_by(|a, b| rarity(a).total_cmp(&rarity(b))).unwrap_or(-1)
}

/// Returns the bytes of the needle in the lane that begins at `offset`, and in the next one.
fn fingerprint(needle: &[u8], offset: isize) -> Fingerprint {
    std::array::from_fn(|place| {
        let byte = place.checked_add_signed(offset).and_then(|at| needle.get(at)).copied();
        // Units that are not ASCII are packed into various bytes.
        byte.filter(|byte| *byte != NOT_ASCII)
    })
}

/// Packs a unit as the vector code does: units that are not ASCII become 0x7F, or 0 from U+8000 on.
#[cfg(test)]
pub(crate) fn packed(unit: [u8; 2]) -> u8 {
    match u16::from_le_bytes(unit) {
        unit @ 0..0x80 => unit as u8,
        0x80..0x8000 => 0x7F,
        _ => 0,
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::LEN;
    use super::x86;
    use super::{LANE, Lanes, packed};
    use crate::scan::bigram::stands_at;
    use crate::scan::kernel::{Isa, Kernel};
    use crate::scan::sample::{cases, every};
    use proptest::prelude::*;

    fn boxed(needles: &[&str]) -> Vec<Box<[u8]>> {
        needles.iter().map(|needle| needle.as_bytes().into()).collect()
    }

    /// Returns the numbers found; `None` if this kernel does not support the method.
    fn found(lanes: &Lanes, units: &[[u8; 2]], kernel: Kernel) -> Option<Vec<u32>> {
        let mut list = Vec::new();
        let is_searched = lanes.scan(units, Isa::new(kernel), |number, at| {
            assert!(stands_at(units, at, &lanes.needles[number as usize]));
            list.push(number);
        });
        list.sort_unstable();
        assert_eq!(is_searched, kernel >= Kernel::Avx2);
        is_searched.then_some(list)
    }

    #[test]
    fn every_length_place_and_alignment() {
        let needles = boxed(&["kq", "z\x7fq", "wxyz", "enter-pssession", "jqzkx"]);
        let lanes = Lanes::new(&needles).unwrap();
        for kernel in Kernel::available() {
            for (number, needle) in (0..).zip(&needles) {
                for pad in 0..3 {
                    for (before, after) in
                        every((0..140).flat_map(|before| [0, 1, 2, 63, 64].map(|after| (before, after))), 67)
                    {
                        let needle = String::from_utf8(needle.to_vec()).unwrap();
                        let needle = if before % 2 == 0 { needle.to_ascii_uppercase() } else { needle };
                        let text = "\u{8000}".repeat(before) + &needle + &"\u{e4}".repeat(after);
                        let mut bytes = vec![7; pad];
                        bytes.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
                        let units = bytes[pad..].as_chunks().0;
                        let at = format!("{kernel} {number} {pad} {before} {after}");
                        assert!(found(&lanes, units, kernel).is_none_or(|list| list == [number]), "{at}");
                        let cut = &units[..before + needle.len() - 1];
                        assert!(found(&lanes, cut, kernel).is_none_or(|list| list.is_empty()), "{at}");
                        let cut = &units[before + 1..];
                        assert!(found(&lanes, cut, kernel).is_none_or(|list| list.is_empty()), "{at}");
                    }
                }
            }
        }
    }

    #[test]
    fn unsuitable_needles_are_refused() {
        assert!(Lanes::new(&boxed(&["e"])).is_none());
        assert!(Lanes::new(&boxed(&["virtualalloc"; 33])).is_none());
    }

    proptest! {
        #![proptest_config(cases(2000))]
        #[test]
        fn finds_what_single_searches_find(
            needles in proptest::collection::btree_set("[qz\u{100}@`-]{2,9}", 1..24),
            text in "[qzQZ@`\u{e4}\u{17a}\u{8071}\u{ff71}-]{0,400}",
            skip in 0usize..3,
        ) {
            let narrow = |text: &str| text.chars().map(|c| if c.is_ascii() { c as u8 } else { 0xFF }).collect();
            let needles: Vec<Box<[u8]>> = needles.iter().map(|needle| narrow(needle)).collect();
            let bytes: Vec<u8> = std::iter::repeat_n(0, skip).chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
            let units = bytes[skip..].as_chunks().0;
            let Some(lanes) = Lanes::new(&needles) else { return Ok(()) };
            let expected: Vec<u32> = (0u32..)
                .zip(&needles)
                .filter(|(_, needle)| (0..units.len()).any(|at| stands_at(units, at, needle)))
                .map(|(number, _)| number)
                .collect();
            for list in Kernel::available().into_iter().filter_map(|kernel| found(&lanes, units, kernel)) {
                prop_assert_eq!(&list, &expected);
            }
        }

        #[test]
        fn candidates_are_those_of_single_lanes(
            needles in proptest::collection::vec("[!-~]{1,8}", 1..12),
            units in proptest::collection::vec(prop_oneof![4 => 0x21u16..0x7F, 1 => any::<u16>()], 0..400),
        ) {
            let needles: Vec<Box<[u8]>> = needles.iter().map(|n| n.to_ascii_lowercase().as_bytes().into()).collect();
            let Some(lanes) = Lanes::new(&needles) else { return Ok(()) };
            let units: Vec<[u8; 2]> = units.into_iter().map(u16::to_le_bytes).collect();
            let mut bytes: Vec<u8> = units.iter().map(|unit| packed(*unit)).collect();
            bytes.extend([0; LEN]);
            for kernel in Kernel::available().into_iter().filter(|kernel| *kernel >= Kernel::Avx2) {
                let buckets = |at: usize| lanes.teddy.buckets(&bytes[at..at + LEN], kernel == Kernel::Avx2);
                let expected: Vec<(usize, u8)> = (0..units.len())
                    .step_by(LANE)
                    .map(|at| (at, buckets(at)))
                    .filter(|(_, buckets)| *buckets != 0)
                    .collect();
                let mut found = Vec::new();
                x86::scan(&lanes.teddy, &units, Isa::new(kernel), |at, buckets| found.push((at, buckets)));
                prop_assert_eq!(found, expected, "{}", kernel);
            }
        }
    }
}
