//! Marks: pairs of neighbouring units, and runs of blanks, that tell that a text may be disguised.
//!
//! A pair is in a bucket if its first unit is in one set of bytes and its second in another. Units count as bytes: those
//! above U+00FF as 0xFF, those from U+8000 on as 0, which is how vectors pack them. Letters are in a set in both cases.

use crate::scan::kernel::Usable;
#[cfg(target_arch = "x86_64")]
use crate::scan::{kernel::Kernel, x86};

/// Most buckets.
pub(crate) const BUCKETS_MAX: usize = 8;

/// What the text is taken to go on with: the second unit of the last pair.
pub(crate) const BEHIND: u8 = b'\n';

/// The sets of each bucket.
#[derive(Clone, Debug)]
pub(crate) struct Marks {
    /// For each byte the buckets in whose first and second set it is.
    sets: [[u8; 256]; 2],
    /// The same for vectors that look up halves of bytes; in more buckets than it should be, never in fewer.
    pub(crate) halves: [[[u8; 16]; 2]; 2],
    /// Whether runs of blanks count.
    pub(crate) blanks: bool,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    /// A pair, and its buckets.
    Pair(u8),
    /// The second blank of a run inside a line, or a tab that begins one.
    Blanks,
}

impl Marks {
    /// `buckets`: the bytes of the first and of the second set, in small letters.
    pub(crate) fn new(buckets: &[[Vec<u8>; 2]], blanks: bool) -> Self {
        let mut marks = Self { sets: [[0; 256]; 2], halves: [[[0; 16]; 2]; 2], blanks };
        for (bucket, sets) in buckets.iter().take(BUCKETS_MAX).enumerate() {
            for (place, set) in sets.iter().enumerate() {
                for byte in set.iter().flat_map(|byte| [*byte, byte.to_ascii_uppercase()]) {
                    marks.sets[place][usize::from(byte)] |= 1 << bucket;
                    marks.halves[place][0][usize::from(byte & 15)] |= 1 << bucket;
                    marks.halves[place][1][usize::from(byte >> 4)] |= 1 << bucket;
                }
            }
        }
        marks
    }

    /// Reports every mark, pairs ascending by the place of their first unit, until `report` says that it is enough.
    pub(crate) fn scan(
        &self,
        units: &[[u8; 2]],
        usable: Usable,
        mut report: impl FnMut(usize, Mark) -> bool,
    ) -> bool {
        match usable.kernel() {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 | Kernel::Avx2 => x86::marks::scan(self, units, usable, report),
            _ => (0..units.len()).any(|at| self.at(units, at, &mut report)),
        }
    }

    /// Looks at one place.
    #[inline]
    pub(crate) fn at(
        &self,
        units: &[[u8; 2]],
        at: usize,
        report: &mut impl FnMut(usize, Mark) -> bool,
    ) -> bool {
        let byte = |at: usize| units.get(at).map_or(BEHIND, |unit| narrow(*unit));
        let buckets = self.sets[0][usize::from(byte(at))] & self.sets[1][usize::from(byte(at + 1))];
        if buckets != 0 && report(at, Mark::Pair(buckets)) {
            return true;
        }
        self.blanks && is_blanks(units, at) && report(at, Mark::Blanks)
    }
}

/// As vectors pack a unit.
fn narrow(unit: [u8; 2]) -> u8 {
    match unit[1] {
        0 => unit[0],
        1..0x80 => 0xFF,
        _ => 0,
    }
}

/// Whether a blank behind another one stands here whose run does not begin its line, or a tab that begins a run.
fn is_blanks(units: &[[u8; 2]], at: usize) -> bool {
    const BLANK: [u8; 2] = [b' ', 0];
    const TAB: [u8; 2] = [b'\t', 0];
    let is_blank = |unit: [u8; 2]| unit == BLANK || unit == TAB;
    let is_inner = |before: Option<&[u8; 2]>| {
        before.is_some_and(|unit| !is_blank(*unit) && *unit != [b'\n', 0] && *unit != [b'\r', 0])
    };
    let before = |count: usize| at.checked_sub(count).map(|at| &units[at]);
    match units[at] {
        TAB if is_inner(before(1)) => true,
        unit if is_blank(unit) => before(1).is_some_and(|unit| is_blank(*unit)) && is_inner(before(2)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Mark, Marks};
    use crate::scan::kernel::{Kernel, Usable};
    use proptest::prelude::*;

    fn marks() -> Marks {
        let other: Vec<u8> = (0x80..=0xFF).chain([0, b'`']).collect();
        Marks::new(
            &[
                [other, (0..=255).collect()],
                [b"'\"".to_vec(), b"+".to_vec()],
                [b"-".to_vec(), b"fj".to_vec()],
            ],
            true,
        )
    }

    /// The slow twin: the definitions, on strings.
    fn slow(text: &[u16]) -> Vec<(usize, Mark)> {
        let mut found = Vec::new();
        let char_at =
            |at: usize| char::from_u32(u32::from(text[at])).unwrap_or('\u{FFFD}').to_ascii_lowercase();
        for at in 0..text.len() {
            let next = if at + 1 < text.len() { char_at(at + 1) } else { '\n' };
            let mut bits = 0;
            bits |= u8::from(text[at] >= 0x80 || matches!(char_at(at), '\0' | '`'));
            bits |= u8::from("'\"".contains(char_at(at)) && next == '+') << 1;
            bits |= u8::from(char_at(at) == '-' && "fj".contains(next)) << 2;
            if bits != 0 {
                found.push((at, Mark::Pair(bits)));
            }
            let blank = |at: usize| matches!(char_at(at), ' ' | '\t');
            let inner = |at: usize| !blank(at) && !matches!(char_at(at), '\r' | '\n');
            let tab = char_at(at) == '\t' && at >= 1 && inner(at - 1);
            if tab || (at >= 2 && blank(at) && blank(at - 1) && inner(at - 2)) {
                found.push((at, Mark::Blanks));
            }
        }
        found.sort_unstable();
        found
    }

    fn fast(text: &[u16], kernel: Kernel) -> Vec<(usize, Mark)> {
        let units: Vec<[u8; 2]> = text.iter().map(|unit| unit.to_le_bytes()).collect();
        let mut found = Vec::new();
        let ended = marks().scan(&units, Usable::new(kernel), |at, mark| {
            found.push((at, mark));
            false
        });
        assert!(!ended);
        found.sort_unstable();
        found
    }

    #[test]
    fn every_length_and_alignment() {
        let text: Vec<u16> =
            "x`y 'a'+\"b\"  c\t-f\u{2013}\u{8000}\0 -J\r\n   z  \u{FF}".repeat(6).encode_utf16().collect();
        for kernel in Kernel::available() {
            for start in 0..70 {
                for len in 0..=(text.len() - start).min(110) {
                    let part = &text[start..start + len];
                    assert_eq!(fast(part, kernel), slow(part), "{kernel} {start} {len}");
                }
            }
        }
    }

    #[test]
    fn enough_is_enough() {
        let units = vec![[b'`', 0]; 300];
        for kernel in Kernel::available() {
            let mut count = 0;
            let ended = marks().scan(&units, Usable::new(kernel), |_, _| {
                count += 1;
                count == 7
            });
            assert!(ended && count == 7, "{kernel}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn every_kernel_equals_the_slow_twin(text in proptest::collection::vec(
            prop_oneof![4 => 0x20u16..0x7F, 2 => Just(0x20), 1 => Just(0x09), 1 => Just(0x0A), 1 => Just(0x27),
                1 => Just(0x2B), 1 => Just(0x2D), 1 => Just(0x66), 1 => any::<u16>()], 0..150)) {
            for kernel in Kernel::available() {
                prop_assert_eq!(fast(&text, kernel), slow(&text));
            }
        }
    }
}
