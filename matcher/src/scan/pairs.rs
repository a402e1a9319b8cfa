//! Pairs of adjacent bytes, by which short needles are looked up at every position of a text.
//!
//! Each needle is entered under its rarest pair. A bit set of all pairs answers nearly all look-ups; what passes is
//! compared with the needles.

use crate::frequency::bits;
use crate::scan::buckets::{self, Fingerprint};
use std::ops::Range;

/// Bytes of a pair.
pub(crate) const PAIR: usize = 2;
/// Number of different pairs.
const PAIRS: usize = 1 << (PAIR * u8::BITS as usize);

/// The pairs of short needles.
#[derive(Debug)]
pub(crate) struct Pairs {
    /// One bit per pair: set if a needle is entered under it.
    bits: Vec<u64>,
    /// Ordered by pair.
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    pair: u16,
    needle: u32,
    /// Position of the pair in the needle.
    offset: u32,
}

impl Pairs {
    /// Enters `needles`, given as number and bytes, each at least as long as a pair.
    pub(crate) fn new<'a>(needles: impl Iterator<Item = (u32, &'a [u8])>) -> Self {
        let mut entries = Vec::new();
        for (needle, bytes) in needles {
            // Teddy also looks up the bytes after a pair, if there are any.
            for offset in rarest_window(bytes, PAIR, 1, buckets::LEN) {
                let pair = u16::from_le_bytes([bytes[offset], bytes[offset + 1]]);
                entries.push(Entry { pair, needle, offset: offset as u32 });
            }
        }
        entries.sort_by_key(|entry| entry.pair);
        let words = if entries.is_empty() { 0 } else { PAIRS / u64::BITS as usize };
        let mut bits = vec![0; words];
        for entry in &entries {
            bits[usize::from(entry.pair) / 64] |= 1 << (entry.pair % 64);
        }
        Self { bits, entries }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns for each needle its bytes from the pair on.
    pub(crate) fn fingerprints(&self, needles: &[Box<[u8]>]) -> Vec<Fingerprint> {
        let of = |entry: &Entry| {
            let rest = &needles[entry.needle as usize][entry.offset as usize..];
            std::array::from_fn(|place| rest.get(place).copied())
        };
        self.entries.iter().map(of).collect()
    }

    /// Returns the approximate memory in bytes.
    pub(crate) fn memory(&self) -> usize {
        size_of_val(&self.bits[..]) + size_of_val(&self.entries[..])
    }

    /// Returns true if a needle is entered under the pair, given as a little-endian number.
    #[inline]
    pub(crate) fn holds(&self, pair: u16) -> bool {
        self.bits.get(usize::from(pair) / 64).is_some_and(|word| word >> (pair % 64) & 1 != 0)
    }

    /// Returns the number of each needle that is entered under the pair at this position of the text, and where the
    /// needle would start.
    #[inline]
    pub(crate) fn holders(&self, text: &[u8], at: usize) -> impl Iterator<Item = (u32, usize)> {
        let pair = text.get(at..).and_then(<[u8]>::first_chunk).map(|pair| u16::from_le_bytes(*pair));
        let held = pair.filter(|pair| self.holds(*pair));
        let entries = held.map_or(&[][..], |pair| {
            let from = &self.entries[self.entries.partition_point(|entry| entry.pair < pair)..];
            &from[..from.partition_point(|entry| entry.pair == pair)]
        });
        entries.iter().filter_map(move |entry| Some((entry.needle, at.checked_sub(entry.offset as usize)?)))
    }
}

/// Returns `count` consecutive offsets of parts of `width` bytes in the needle, chosen so that the most common of them
/// is rarest. The frequency is that of `looked_at` bytes from each offset.
pub(super) fn rarest_window(needle: &[u8], width: usize, count: usize, looked_at: usize) -> Range<usize> {
    let parts = needle.len() + 1 - width;
    let rarity = |offset: usize| bits(&needle[offset..needle.len().min(offset + looked_at)]);
    let rarity: Vec<f64> = (0..parts).map(rarity).collect();
    let weakest = |start: usize| rarity[start..start + count].iter().copied().fold(f64::INFINITY, f64::min);
    let start = (0..=parts - count).max_by(|a, b| weakest(*a).total_cmp(&weakest(*b))).unwrap_or(0);
    start..start + count
}

#[cfg(test)]
mod tests {
    use super::{Pairs, rarest_window};

    #[test]
    fn needles_are_found_by_their_pair() {
        let needles = ["`x", "q`x", "qz", "}{"];
        let pairs = Pairs::new((0..).zip(needles.iter().map(|needle| needle.as_bytes())));
        let holders = |text: &str, at| -> Vec<(u32, usize)> { pairs.holders(text.as_bytes(), at).collect() };
        assert_eq!(holders("aq`x", 2), [(0, 2)]);
        assert_eq!(holders("aq`x", 1), [(1, 1)]);
        assert_eq!(holders("aqz}{", 1), [(2, 1)]);
        assert_eq!(holders("aqz}{", 3), [(3, 3)]);
        for (text, at) in [("aqz}{", 0), ("aqz}{", 4), ("aqz}{", 9), ("", 0), ("\u{e4}\u{e4}", 1)] {
            assert_eq!(holders(text, at), []);
        }
        assert!(Pairs::new(std::iter::empty()).holders(b"ab", 0).next().is_none());
    }

    #[test]
    fn windows_are_within_the_needle() {
        for len in 7..20 {
            let window = rarest_window(&vec![b'q'; len], 4, 4, 6);
            assert!(window.len() == 4 && window.end + 3 <= len, "{window:?} {len}");
        }
    }
}
