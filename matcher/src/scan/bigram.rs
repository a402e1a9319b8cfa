//! A few needles in raw UTF-16LE, one pass for all, without narrowing.
//!
//! The text is read in lanes of two units. OR with [`FOLD`] gives the two cases of an ASCII letter one value.
//! Wherever a needle stands, its bigram `k` or its bigram `k + 1` fills a lane, so comparing each lane with these
//! two finds every occurrence; the OR also makes other characters equal, so each is then compared exactly. `k` is
//! where the two bigrams together are rarest.

#[cfg(target_arch = "x86_64")]
mod x86;

use crate::frequency::bits;
use crate::scan::kernel::Isa;
#[cfg(target_arch = "x86_64")]
use crate::scan::kernel::Kernel;
use crate::scan::narrow::narrow_unit;
use std::ops::ControlFlow;

/// Most needles of one pass.
pub(crate) const NEEDLES_MAX: usize = 4;
/// Shortest needle: it must have two bigrams.
pub(crate) const NEEDLE_LEN_MIN: usize = 3;
/// Makes the two cases of a letter equal, in both units of a lane.
pub(super) const FOLD: u32 = 0x0020_0020;
/// Lanes that are compared before the outcome is looked at.
const BLOCK: usize = 64;

/// A set of needles, at most [`NEEDLES_MAX`], of folded ASCII.
#[derive(Debug)]
pub(crate) struct Bigrams {
    needles: Vec<Needle>,
    /// The lanes of all of them.
    values: Values,
}

#[derive(Debug)]
struct Needle {
    bytes: Box<[u8]>,
    /// Where the first of the two bigrams stands.
    offset: usize,
    /// The two bigrams as folded lanes.
    lanes: [u32; 2],
}

impl Bigrams {
    /// `None` if these needles want another way: too many, too short, or not ASCII.
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

    /// Bytes held, about.
    pub(crate) fn memory(&self) -> usize {
        self.needles.iter().map(|needle| needle.bytes.len() + size_of::<Needle>()).sum()
    }

    /// Reports each needle that stands in `units` once, by number and place. Stops when all are found.
    ///
    /// # Complexity
    ///
    /// Linear in the text, plus a comparison for each lane that looks like a needle's.
    #[inline]
    pub(crate) fn scan(&self, units: &[[u8; 2]], isa: Isa, mut found: impl FnMut(u32, usize)) {
        // Lanes that begin with the second unit find every needle as well; vectors like aligned ones.
        let skipped = usize::from(units.as_ptr().addr() % 4 == 2).min(units.len());
        let lanes: &[[[u8; 2]; 2]] = units[skipped..].as_chunks().0;
        let lanes = lanes.as_flattened().as_flattened().as_chunks::<4>().0;
        let mut left: u32 = (1 << self.needles.len()) - 1;
        self.values.lanes_like(lanes, isa, |lane| {
            left = self.compare(units, skipped + 2 * lane, left, &mut found);
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    }

    /// Reports which of the needles `left` have a bigram of theirs at `unit` and stand there; which are left then.
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

    /// Where the needle stands, if one of its two bigrams is that at `unit`.
    fn start(&self, units: &[[u8; 2]], unit: usize) -> Option<usize> {
        let starts = [0, 1].map(|k| unit.checked_sub(self.offset + k));
        starts.into_iter().flatten().find(|start| stands_at(units, *start, &self.bytes))
    }
}

/// Whether the needle, in narrowed form, stands there.
pub(super) fn stands_at(units: &[[u8; 2]], start: usize, needle: &[u8]) -> bool {
    units.get(start..start + needle.len()).is_some_and(|units| {
        units.iter().zip(needle).all(|(unit, byte)| narrow_unit(u16::from_le_bytes(*unit)) == *byte)
    })
}

/// The lanes looked for: two for each needle.
#[derive(Clone, Copy, Debug)]
enum Values {
    One([u32; 2]),
    Two([u32; 4]),
    Four([u32; 8]),
}

impl Values {
    /// `None` if there are no needles, or more than [`NEEDLES_MAX`].
    fn new(needles: &[Needle]) -> Option<Self> {
        let own = || needles.iter().flat_map(|needle| needle.lanes);
        let len = own().count();
        // Unused places repeat a value.
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

/// Hands over every lane that may be one of `values` after folding, and a few others, in any order and some twice, until
/// it is told to stop.
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

/// Plain loops that the compiler makes into the vector code that every processor has.
pub(super) fn lanes_like_plain<const N: usize>(
    lanes: &[[u8; 4]],
    values: &[u32; N],
    mut passes: impl FnMut(usize) -> ControlFlow<()>,
) {
    let is_value = |lane: &[u8; 4]| {
        let lane = u32::from_le_bytes(*lane) | FOLD;
        // No shortcut: this is to become vector code.
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
    fn every_place_and_alignment() {
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
    fn what_only_the_fold_makes_equal_is_none() {
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
        fn equals_one_by_one(
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
