//! Gram filter: finds needles of seven bytes and more in a narrowed text, with one look-up per four bytes.
//!
//! A gram is four bytes that begin at a multiple of four. Wherever a needle of at least seven bytes occurs, one of any
//! four consecutive positions of it begins a gram; the four positions with the rarest grams are chosen. A filter
//! answers nearly all look-ups: a hash of the gram selects a word, and the low halves of the next two bytes select two
//! bits of it that must be set. A look-up thus loads one word and takes six bytes into account. What passes is compared
//! with the needles.

#[cfg(target_arch = "x86_64")]
mod x86;

use crate::scan::kernel::Isa;
#[cfg(target_arch = "x86_64")]
use crate::scan::kernel::Kernel;
use crate::scan::narrow::NOT_ASCII;
use crate::scan::pairs::rarest_window;

/// Bytes of a gram; the first one begins at the start of the text.
pub(crate) const GRAM: usize = 4;
/// Minimum length of a needle: it contains a gram wherever it occurs.
pub(crate) const NEEDLE_LEN_MIN: usize = 2 * GRAM - 1;
/// Bytes that a look-up takes into account.
const EXAMINED: usize = GRAM + 2;
/// Bytes of a needle that are stored with its gram.
const KEPT: usize = 8;

/// Minimum and maximum binary logarithm of the filter's length in words; even the largest filter fits the second-level
/// cache. In between, there is one word per gram: twice as many were measured to be no faster.
const FILTER_LOG2: std::ops::RangeInclusive<u32> = 9..=15;
/// Factor of the hash: an odd number near 2^32 divided by the golden ratio (Knuth, multiplicative hashing).
pub(super) const HASH_FACTOR: u32 = 0x9E37_79B1;
/// Bits used of each byte after the gram.
pub(super) const NEXT_MASK: u32 = 15;
/// Shift to the bits for the second byte after a gram.
pub(super) const SECOND_SHIFT: u32 = 16;

/// The grams of many needles.
#[derive(Debug)]
pub(crate) struct GramFilter {
    /// A power of two of words. From the highest bit downwards, 16 bits are for the first byte after a gram and 16 for
    /// the second.
    filter: Vec<u32>,
    /// Ordered by their index in the filter.
    entries: Vec<Entry>,
    /// For each index in the filter, the first entry.
    starts: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The gram and the bytes of the needle after it, little-endian, as far as `known` has bits.
    bytes: u64,
    known: u64,
    needle: u32,
    /// Position of the gram in the needle.
    offset: u32,
}

impl GramFilter {
    /// Collects the grams of `needles`, given as number and bytes, each at least [`NEEDLE_LEN_MIN`] long.
    pub(crate) fn new<'a>(needles: impl Iterator<Item = (u32, &'a [u8])>) -> Self {
        let mut entries = Vec::new();
        for (needle, bytes) in needles {
            for offset in rarest_window(bytes, GRAM, GRAM, EXAMINED) {
                let kept = &bytes[offset..bytes.len().min(offset + KEPT)];
                let number = u64::from_le_bytes(padded(kept, 0));
                let known = u64::MAX >> (u8::BITS as usize * (KEPT - kept.len()));
                entries.push(Entry { bytes: number, known, needle, offset: offset as u32 });
            }
        }
        let log2 = entries.len().next_power_of_two().ilog2().clamp(*FILTER_LOG2.start(), *FILTER_LOG2.end());
        let place = |entry: &Entry| place(entry.bytes as u32, log2);
        entries.sort_by_key(place);
        let mut filter = vec![0; 1 << log2];
        for entry in &entries {
            filter[place(entry)] |= entry.bits();
        }
        let first_of = |number| entries.partition_point(|entry| place(entry) < number) as u32;
        Self { starts: (0..=filter.len()).map(first_of).collect(), filter, entries }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the filter, whose length is a power of two.
    pub(super) fn filter(&self) -> &[u32] {
        &self.filter
    }

    /// Returns the approximate memory in bytes.
    pub(crate) fn memory(&self) -> usize {
        size_of_val(&self.filter[..]) + size_of_val(&self.entries[..]) + size_of_val(&self.starts[..])
    }

    /// Returns true if a needle may contain this gram followed by `next`.
    pub(super) fn holds(&self, gram: u32, next: u32) -> bool {
        let place = place(gram, self.filter.len().ilog2());
        // The index is always in bounds; `get` avoids a panic path in the hot loop.
        let set = self.filter.get(place).copied().unwrap_or(0);
        let second = SECOND_SHIFT + (next >> 8 & NEXT_MASK);
        (set << (next & NEXT_MASK) & set << second).cast_signed() < 0
    }

    /// Returns the number of each needle that may contain the gram at this position of the text, and where the needle
    /// would start.
    pub(crate) fn holders(&self, text: &[u8], at: usize) -> impl Iterator<Item = (u32, usize)> {
        let rest = text.get(at..).unwrap_or_default();
        let bytes = rest.first_chunk().copied().unwrap_or_else(|| padded(rest, NOT_ASCII));
        let bytes = u64::from_le_bytes(bytes);
        let place = place(bytes as u32, self.filter.len().ilog2());
        let range = self.starts[place] as usize..self.starts[place + 1] as usize;
        self.entries[range]
            .iter()
            .filter(move |entry| bytes & entry.known == entry.bytes)
            .filter_map(move |entry| Some((entry.needle, at.checked_sub(entry.offset as usize)?)))
    }

    /// Calls `candidate`, in ascending order, with the index of each gram that passes the filter. The bytes after the
    /// end of the text are unspecified, so grams near the end may pass that should not.
    #[inline]
    pub(crate) fn scan(&self, text: &[u8], isa: Isa, mut candidate: impl FnMut(usize)) {
        match isa.kernel() {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 | Kernel::Avx2 => x86::scan(text, self, isa, candidate),
            _ => {
                let (grams, rest) = text.as_chunks::<GRAM>();
                let last = u32::from_le_bytes(padded(rest, NOT_ASCII));
                let gram = |at: usize| grams.get(at).map_or(last, |gram| u32::from_le_bytes(*gram));
                (0..grams.len()).filter(|&at| self.holds(gram(at), gram(at + 1))).for_each(&mut candidate);
            }
        }
    }
}

impl Entry {
    /// Returns the bits of the filter that texts with this entry may test; all bits for bytes that are unknown.
    fn bits(&self) -> u32 {
        let next = |number: usize| {
            let shift = u8::BITS as usize * (GRAM + number);
            (self.known >> shift & 0xFF != 0).then_some((self.bytes >> shift) as u32 & NEXT_MASK)
        };
        let top = 1 << (u32::BITS - 1);
        let all = u32::MAX << (u32::BITS - SECOND_SHIFT);
        next(0).map_or(all, |first| top >> first)
            | next(1).map_or(all, |second| top >> second) >> SECOND_SHIFT
    }
}

/// Returns the last bytes of a text, padded.
pub(super) fn padded<const N: usize>(rest: &[u8], other: u8) -> [u8; N] {
    let mut bytes = [other; N];
    bytes[..rest.len()].copy_from_slice(rest);
    bytes
}

/// Returns the index of a gram in a filter of length `2^log2`.
#[inline]
fn place(gram: u32, log2: u32) -> usize {
    (gram.wrapping_mul(HASH_FACTOR) >> (u32::BITS - log2)) as usize
}

#[cfg(test)]
mod tests {
    use super::{GRAM, GramFilter};
    use crate::scan::kernel::{Isa, Kernel};
    use crate::scan::sample::cases;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(cases(1000))]
        #[test]
        fn every_kernel_passes_the_same_words(
            needles in proptest::collection::vec("[a-d]{7,14}", 0..200),
            text in "[a-d]{0,300}",
        ) {
            let grams = GramFilter::new((0u32..).zip(needles.iter().map(String::as_bytes)));
            let found = |kernel| {
                let mut list = Vec::new();
                grams.scan(text.as_bytes(), Isa::new(kernel), |at| list.push(at));
                // Only grams that are followed by a complete one must be the same.
                list.retain(|at| GRAM * (at + 2) <= text.len());
                list
            };
            let expected = found(Kernel::Portable);
            for kernel in Kernel::available() {
                prop_assert_eq!(found(kernel), expected.clone(), "{}", kernel);
            }
        }
    }
}
