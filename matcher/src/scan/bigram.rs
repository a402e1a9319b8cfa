//! Bigrams: searches a few needles in raw UTF-16LE in one pass, without narrowing.
//!
//! The text is read in lanes of two units. OR with [`FOLD`] maps both cases of an ASCII letter to one value. Wherever a
//! needle occurs, its bigram `k` or its bigram `k + 1` fills a lane, so comparing each lane with these two finds every
//! occurrence. The OR also makes some other characters equal, so each candidate is then compared exactly. `k` is chosen
//! so that the two bigrams together are rarest.

#[cfg(target_arch = "x86_64")]
mod x86;

use crate::frequency::bits;
use crate::scan::kernel::Isa;
#[cfg(target_arch = "x86_64")]
use crate::scan::kernel::Kernel;
use crate::scan::narrow::narrow_unit;
use std::ops::ControlFlow;

/// Maximum number of needles per pass.
pub(crate) const NEEDLES_MAX: usize = 4;
/// Minimum length of a needle: it must have two bigrams.
pub(crate) const NEEDLE_LEN_MIN: usize = 3;
/// Makes both cases of a letter equal, in both units of a lane.
pub(super) const FOLD: u32 = 0x0020_0020;
/// Number of lanes that are compared between two tests of the result.
const BLOCK: usize = 64;

/// A set of at most [`NEEDLES_MAX`] needles of folded ASCII.
#[derive(Debug)]
pub(crate) struct Bigrams {
    needles: Vec<Needle>,
    /// The folded lanes of all needles.
    values: Values,
}

#[derive(Debug)]
struct Needle {
    bytes: Box<[u8]>,
    /// Position of the first of the two bigrams.
    offset: usize,
    /// The two bigrams as folded lanes.
    lanes: [u32; 2],
}

impl Bigrams {
    /// Returns `None` if this method does not suit the needles: there are too many, or some are too short or not ASCII.
    pub(crate) fn new(needles: &[Box<[u8]>]) -> Option<Self> {
        let fits = |needle: &[u8]| needle.len() >= NEEDLE_LEN_MIN && needle.is_ascii();
        let few = (1..=NEEDLES_MAX).contains(&needles.len()) && needles.iter().all(|needle| fits(needle));
        if !few {
            return None;
        }
        let needles: Vec<Needle> = needles.iter().map(|needle| Needle::new(needle)).collect();
        let values = Values::new(&needles)?;
        Some(Self { needles, values })
    }

    /// Returns the approximate memory in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.needles.iter().map(|needle| needle.bytes.len() + size_of::<Needle>()).sum()
    }

    /// Reports each needle that occurs in `units` once, by number and position. Stops when all are found.
    ///
    /// # Complexity
    ///
    /// Linear in the text, plus a comparison for each lane that equals one of a needle.
    #[inline]
    pub(crate) fn scan(&self, units: &[[u8; 2]], isa: Isa, mut found: impl FnMut(u32, usize)) {
        // Lanes may begin with the second unit, which finds every needle as well; aligned vectors are faster.
        let skipped = usize::from(units.as_ptr().addr() % 4 == 2).min(units.len());
        let lanes: &[[[u8; 2]; 2]] = units[skipped..].as_chunks().0;
        let lanes = lanes.as_flattened().as_flattened().as_chunks::<4>().0;
        let mut left: u32 = (1 << self.needles.len()) - 1;
        self.values.lanes_like(lanes, isa, |lane| {
            left = self.compare(units, skipped + 2 * lane, left, &mut found);
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    }

    /// Reports those of the needles `left` that occur with one of their bigrams at `unit`. Returns the needles left
    /// then.
    #[cold]
    fn compare(
        &self,
        units: &[[u8; 2]],
        unit: usize,
        mut left: u32,
        found: &mut impl FnMut(u32, usize),
    ) -> u32 {
        for (number, needle) in (0..).zip(&self.needles) {
            if left >> number & 1 != 0
                && let Some(start) = needle.start(units, unit)
            {
                left &= !(1 << number);
                found(number, start);
            }
        }
        left
    }
}

impl Needle {
    fn new(bytes: &[u8]) -> Self {
        let rarity =
            |offset: &usize| bits(&bytes[*offset..offset + 2]).min(bits(&bytes[offset + 1..offset + 3]));
        let offsets = 0..=bytes.len() - NEEDLE_LEN_MIN;
        let offset = offsets.max_by(|a, b| rarity(a).total_cmp(&rarity(b))).unwrap_or(0);
        let lane = |at: usize| u32::from(bytes[at]) | u32::from(bytes[at + 1]) << 16 | FOLD;
        Self { bytes: bytes.into(), offset, lanes: [lane(offset), lane(offset + 1)] }
    }

    /// Returns the start of the needle, if it occurs with one of its two bigrams at `unit`.
    fn start(&self, units: &[[u8; 2]], unit: usize) -> Option<usize> {
        let starts = [0, 1].map(|k| unit.checked_sub(self.offset + k));
        starts.into_iter().flatten().find(|start| stands_at(units, *start, &self.bytes))
    }
}

/// Returns true if the needle, in narrowed form, occurs at `start`.
pub(super) fn stands_at(units: &[[u8; 2]], start: usize, needle: &[u8]) -> bool {
    units.get(start..start + needle.len()).is_some_and(|units| {
        units.iter().zip(needle).all(|(unit, byte)| narrow_unit(u16::from_le_bytes(*unit)) == *byte)
    })
}

/// The lanes to find: two per needle.
#[derive(Clone, Copy, Debug)]
enum Values {
    One([u32; 2]),
    Two([u32; 4]),
    Four([u32; 8]),
}

impl Values {
    /// Returns `None` if there are no needles, or more than [`NEEDLES_MAX`].
    fn new(needles: &[Needle]) -> Option<Self> {
        let own = || needles.iter().flat_map(|needle| needle.lanes);
        let len = own().count();
        // Unused elements repeat a value.
        let mut all = own().cycle();
        let mut next = || all.next().unwrap_or(0);
        Some(match len {
            2 => Self::One([(); 2].map(|()| next())),
            4 => Self::Two([(); 4].map(|()| next())),
            6 | 8 => Self::Four([(); 8].map(|()| next())),
            _ => return None,
        })
    }

    #[inline]
    fn lanes_like(&self, lanes: &[[u8; 4]], isa: Isa, passes: impl FnMut(usize) -> ControlFlow<()>) {
        match self {
            Self::One(values) => lanes_like(lanes, values, isa, passes),
            Self::Two(values) => lanes_like(lanes, values, isa, passes),
            Self::Four(values) => lanes_like(lanes, values, isa, passes),
        }
    }
}

/// Calls `passes` for every lane that may equal one of `values` after folding, and for some others, until it breaks.
/// Lanes may come in any order, and twice.
#[inline]
fn lanes_like<const N: usize>(
    lanes: &[[u8; 4]],
    values: &[u32; N],
    isa: Isa,
    passes: impl FnMut(usize) -> ControlFlow<()>,
) {
    match isa.kernel() {
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512 | Kernel::Avx2 => x86::lanes_like(lanes, values, isa, passes),
        _ => lanes_like_plain(lanes, values, passes),
    }
}

/// Portable version: loops that the compiler vectorises with the baseline instructions.
pub(super) fn lanes_like_plain<const N: usize>(
    lanes: &[[u8; 4]],
    values: &[u32; N],
    mut passes: impl FnMut(usize) -> ControlFlow<()>,
) {
    let is_value = |lane: &[u8; 4]| {
        let lane = u32::from_le_bytes(*lane) | FOLD;
        // No short-circuiting, so that the compiler can vectorise this.
        values.iter().fold(0, |any, value| any | u32::from(lane == *value))
    };
    for (number, block) in lanes.chunks(BLOCK).enumerate() {
        if block.iter().fold(0, |any, lane| any | is_value(lane)) != 0 {
            for (lane, _) in (BLOCK * number..).zip(block).filter(|(_, lane)| is_value(lane) != 0) {
                if passes(lane).is_break() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bigrams, stands_at};
    use crate::scan::kernel::{Isa, Kernel};
    use crate::scan::sample::{cases, every};
    use proptest::prelude::*;

    fn found(needles: &[Box<[u8]>], units: &[[u8; 2]], kernel: Kernel) -> Vec<u32> {
        let mut list = Vec::new();
        Bigrams::new(needles).unwrap().scan(units, Isa::new(kernel), |number, at| {
            assert!(stands_at(units, at, &needles[number as usize]));
            list.push(number);
        });
        list.sort_unstable();
        list
    }

    #[test]
    fn finds_every_position_and_alignment() {
        let needles = [Box::from(&b"enter-pssession"[..])];
        for kernel in Kernel::available() {
            for pad in 0..3 {
                for before in every((0..140).chain([500, 501]), 47) {
                    for after in [0, 1, 2, 63, 64, 130] {
                        let mut bytes = vec![7; pad];
                        let text =
                            format!("{}Enter-PSSession{}", "e".repeat(before), "\u{2013}".repeat(after));
                        bytes.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
                        let units = bytes[pad..].as_chunks().0;
                        assert_eq!(found(&needles, units, kernel), [0], "{kernel} {pad} {before} {after}");
                        assert_eq!(found(&needles, &units[..before + 14], kernel), [0u32; 0]);
                        assert_eq!(found(&needles, &units[before + 1..], kernel), [0u32; 0]);
                    }
                }
            }
        }
    }

    #[test]
    fn lanes_that_are_equal_only_after_folding_do_not_match() {
        let rows = [("a\rb", "a-b"), ("a@b", "a`b"), ("a[b", "a{b"), ("\u{2120}ab", "\u{2100}ab")];
        for kernel in Kernel::available() {
            for (text, needle) in rows {
                let units: Vec<[u8; 2]> = text.repeat(50).encode_utf16().map(u16::to_le_bytes).collect();
                let needle: Box<[u8]> = needle.encode_utf16().map(|unit| unit as u8).collect();
                assert_eq!(found(&[needle], &units, kernel), [0u32; 0], "{text:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(cases(2000))]
        #[test]
        fn finds_what_single_searches_find(
            needles in proptest::collection::btree_set("[ab\r@-]{3,6}", 1..5),
            text in "[abAB\r@`\u{141}-]{0,400}",
            skip in 0usize..3,
        ) {
            let needles: Vec<Box<[u8]>> = needles.iter().map(|n| n.as_bytes().into()).collect();
            let bytes: Vec<u8> = std::iter::repeat_n(0, skip).chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
            let units = bytes[skip..].as_chunks().0;
            let expected: Vec<u32> = (0u32..)
                .zip(&needles)
                .filter(|(_, needle)| (0..units.len()).any(|at| stands_at(units, at, needle)))
                .map(|(number, _)| number)
                .collect();
            for kernel in Kernel::available() {
                prop_assert_eq!(found(&needles, units, kernel), expected.clone(), "{}", kernel);
            }
        }
    }
}
