//! Triggers: places in a text that indicate possible obfuscation, namely sequences of four units, single units, and
//! runs of blanks.
//!
//! Four units match a sequence if each is in the sequence's set of bytes for its position. Sets contain ASCII only,
//! without NUL, and letters in both cases; the last position may accept any unit. Units count as bytes as vectors pack
//! them: those above U+00FF as 0xFF, those from U+8000 on as 0.

#[cfg(target_arch = "x86_64")]
mod x86;

use crate::scan::kernel::Isa;
#[cfg(target_arch = "x86_64")]
use crate::scan::kernel::Kernel;

/// Maximum number of sequences.
pub(crate) const SEQUENCES_MAX: usize = 8;
/// Units of a sequence.
pub(crate) const PLACES: usize = 4;

/// The padding after the text. No sequence accepts it at every position.
pub(crate) const PADDING: u8 = b'\n';
/// The only ASCII character that is a trigger by itself.
pub(crate) const BACKTICK: u8 = b'`';
/// Bytes from this one on are triggers by themselves.
pub(crate) const NOT_ASCII_MIN: u8 = 0x80;
/// A sequence: the set of units that it accepts at each position.
#[derive(Clone, Debug)]
pub(crate) struct ByteSets {
    /// The bytes of the first positions, in lower case.
    pub(crate) first: [Vec<u8>; PLACES - 1],
    /// The bytes of the last position; `None` for any unit.
    pub(crate) last: Option<Vec<u8>>,
}

/// Finds triggers.
#[derive(Clone, Debug)]
pub(crate) struct TriggerScanner {
    /// For each position and byte, the sequences that accept it.
    sets: [[u8; 256]; PLACES],
    /// The same for vectors, which look up the low and the high halves of bytes (for the last position only the low
    /// ones). This may accept too much, but never too little.
    pub(crate) halves: [[[u8; 16]; 2]; PLACES],
    /// True if runs of blanks are triggers.
    pub(crate) blanks: bool,
}

/// A place that indicates possible obfuscation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trigger {
    /// Four units, with the set of sequences that they match.
    Sequence(u8),
    /// A backtick, or a unit from U+0080 to U+7FFF.
    Other,
    /// A unit above U+0020 before two blanks or a tab.
    Blanks,
}

impl TriggerScanner {
    /// Makes a scanner for sequences, and for runs of blanks if `blanks`.
    ///
    /// # Panics
    ///
    /// Panics if a sequence accepts [`PADDING`] at every position.
    pub(crate) fn new(sequences: &[ByteSets], blanks: bool) -> Self {
        let mut scanner = Self { sets: [[0; 256]; PLACES], halves: [[[0; 16]; 2]; PLACES], blanks };
        for (number, bucket) in sequences.iter().take(SEQUENCES_MAX).enumerate() {
            let accepts_padding = bucket.first.iter().chain(&bucket.last).all(|set| set.contains(&PADDING));
            assert!(!accepts_padding, "the padding must not be a trigger");
            let bit = 1 << number;
            for (place, set) in bucket.first.iter().chain(&bucket.last).enumerate() {
                let ascii = set.iter().filter(|byte| (1..NOT_ASCII_MIN).contains(*byte));
                for byte in ascii.flat_map(|byte| [*byte, byte.to_ascii_uppercase()]) {
                    scanner.sets[place][usize::from(byte)] |= bit;
                    scanner.halves[place][0][usize::from(byte & 15)] |= bit;
                    scanner.halves[place][1][usize::from(byte >> 4)] |= bit;
                }
            }
            if bucket.last.is_none() {
                scanner.sets[PLACES - 1].iter_mut().for_each(|buckets| *buckets |= bit);
                scanner.halves[PLACES - 1][0].iter_mut().for_each(|buckets| *buckets |= bit);
            }
        }
        scanner
    }

    /// Reports every trigger until `report` returns true, and returns whether it did. `narrow` is the narrowed text if
    /// it has been made; scanning it takes half the time.
    pub(crate) fn scan(
        &self,
        units: &[[u8; 2]],
        narrow: Option<&[u8]>,
        isa: Isa,
        mut report: impl FnMut(usize, Trigger) -> bool,
    ) -> bool {
        match isa.kernel() {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 | Kernel::Avx2 => x86::scan(self, units, narrow, isa, report),
            _ => self.scan_plain(units, &mut report),
        }
    }

    /// Examines every position separately.
    pub(crate) fn scan_plain(
        &self,
        units: &[[u8; 2]],
        report: &mut impl FnMut(usize, Trigger) -> bool,
    ) -> bool {
        (0..units.len()).any(|at| {
            let byte = narrow(units[at]);
            let buckets = self.buckets(units, at);
            ((byte == BACKTICK || byte >= NOT_ASCII_MIN) && report(at, Trigger::Other))
                || (buckets != 0 && report(at, Trigger::Sequence(buckets)))
                || (self.blanks && is_before_blanks(units, at) && report(at, Trigger::Blanks))
        })
    }

    /// Returns the sequences that the four units at a position match.
    #[inline]
    pub(crate) fn buckets(&self, units: &[[u8; 2]], at: usize) -> u8 {
        let byte = |at: usize| units.get(at).map_or(PADDING, |unit| narrow(*unit));
        (0..PLACES).fold(u8::MAX, |all, place| all & self.sets[place][usize::from(byte(at + place))])
    }
}

/// Packs a unit as the vector code does.
#[inline]
fn narrow(unit: [u8; 2]) -> u8 {
    match unit[1] {
        0 => unit[0],
        1..0x80 => 0xFF,
        _ => 0,
    }
}

/// Returns true if a run of blanks within a line begins after this position.
fn is_before_blanks(units: &[[u8; 2]], at: usize) -> bool {
    const BLANK: [u8; 2] = [b' ', 0];
    const TAB: [u8; 2] = [b'\t', 0];
    let next = |count: usize| units.get(at + count).copied().unwrap_or_default();
    let is_blank = |unit: [u8; 2]| unit == BLANK || unit == TAB;
    let byte = narrow(units[at]);
    (byte == 0 || byte > b' ') && (next(1) == TAB || (next(1) == BLANK && is_blank(next(2))))
}

#[cfg(test)]
mod tests {
    use super::{ByteSets, Trigger, TriggerScanner};
    use crate::scan::kernel::{Isa, Kernel};
    use crate::scan::narrow::narrow_unit;
    use crate::scan::sample::{cases, every};
    use proptest::prelude::*;

    fn scanner() -> TriggerScanner {
        let ascii = || (1..0x80).collect::<Vec<u8>>();
        let bucket = |first: [Vec<u8>; 3], last| ByteSets { first, last };
        let buckets = [
            bucket([b"'\"".to_vec(), b"+".to_vec(), ascii()], None),
            bucket([b"-".to_vec(), b"fj".to_vec(), b" o".to_vec()], Some(b"' e".to_vec())),
            bucket([ascii(), b"x".to_vec(), b"\n".to_vec()], None),
        ];
        TriggerScanner::new(&buckets, true)
    }

    /// Slow reference implementation on strings.
    fn slow(text: &[u16]) -> Vec<(usize, Trigger)> {
        let mut found = Vec::new();
        let char_at = |at: usize| char::from_u32(u32::from(text[at])).unwrap_or('\0').to_ascii_lowercase();
        for at in 0..text.len() {
            let behind = |count: usize| if at + count < text.len() { char_at(at + count) } else { '\n' };
            if (0x80..0x8000).contains(&text[at]) || char_at(at) == '`' {
                found.push((at, Trigger::Other));
            }
            let mut bits = 0;
            let is_ascii = |at: usize| text.get(at).is_none_or(|unit| (1..0x80).contains(unit));
            bits |= u8::from("'\"".contains(char_at(at)) && behind(1) == '+' && is_ascii(at + 2));
            let operator = char_at(at) == '-' && "fj".contains(behind(1)) && " o".contains(behind(2));
            bits |= u8::from(operator && "' e".contains(behind(3))) << 1;
            bits |= u8::from(is_ascii(at) && behind(1) == 'x' && behind(2) == '\n') << 2;
            if bits != 0 {
                found.push((at, Trigger::Sequence(bits)));
            }
            let inner = text[at] > 0x20 || text[at] == 0;
            if inner && (behind(1) == '\t' || (behind(1) == ' ' && " \t".contains(behind(2)))) {
                found.push((at, Trigger::Blanks));
            }
        }
        found.sort_unstable();
        found
    }

    fn fast(text: &[u16], kernel: Kernel) -> Vec<(usize, Trigger)> {
        let units: Vec<[u8; 2]> = text.iter().map(|unit| unit.to_le_bytes()).collect();
        let narrow: Vec<u8> = text.iter().map(|unit| narrow_unit(*unit)).collect();
        let found = [None, Some(&narrow[..])].map(|narrow| {
            let mut found = Vec::new();
            let ended = scanner().scan(&units, narrow, Isa::new(kernel), |at, trigger| {
                found.push((at, trigger));
                false
            });
            assert!(!ended);
            found.sort_unstable();
            found
        });
        let [of_units, of_narrowed] = found;
        assert_eq!(of_units, of_narrowed);
        of_units
    }

    #[test]
    fn every_length_and_alignment() {
        let text: Vec<u16> =
            "x`y 'a'+\"b\"  c\t-f \u{2013}+\u{8000}\0 -Jo\u{9000}\r\n   z  \u{FF}X\n\0ab+ -Fo'\u{A0}"
                .repeat(6)
                .encode_utf16()
                .collect();
        for kernel in Kernel::available() {
            for start in every(0..70, 23) {
                for len in every(0..=(text.len() - start).min(110), 31) {
                    let part = &text[start..start + len];
                    assert_eq!(fast(part, kernel), slow(part), "{kernel} {start} {len}");
                }
            }
        }
    }

    #[test]
    fn a_scan_ends_when_the_report_returns_true() {
        let units = vec![[b'`', 0]; 300];
        for kernel in Kernel::available() {
            let mut count = 0;
            let ended = scanner().scan(&units, None, Isa::new(kernel), |_, _| {
                count += 1;
                count == 7
            });
            assert!(ended && count == 7, "{kernel}");
        }
    }

    proptest! {
        #![proptest_config(cases(2000))]
        #[test]
        fn every_kernel_equals_the_reference(text in proptest::collection::vec(
            prop_oneof![4 => 0x20u16..0x7F, 3 => Just(0x20), 1 => Just(0), 1 => 0x7000u16..0x9000, 1 => Just(0x09), 1 => Just(0x0A), 1 => Just(0x27),
                1 => Just(0x2B), 1 => Just(0x2D), 1 => Just(0x66), 1 => any::<u16>()], 0..150)) {
            for kernel in Kernel::available() {
                prop_assert_eq!(fast(&text, kernel), slow(&text));
            }
        }
    }
}
