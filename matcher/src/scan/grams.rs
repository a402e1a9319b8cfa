//! A filter over the short substrings (grams) of many needles.
//!
//! A needle of at least `WIDTH + STRIDE - 1` bytes has, wherever it stands, one gram of `WIDTH` bytes that begins
//! at a multiple of `STRIDE` in the text: one of `STRIDE` neighbours, of which the rarest lot is chosen. So
//! looking up every `STRIDE`th gram finds every needle. A blocked Bloom filter, two bits of one word for each gram,
//! answers nearly all look-ups; what passes is compared with the needle itself.

#![expect(clippy::inline_always, reason = "loops must be compiled with the vectors of their callers")]

use crate::compile::rarity::bits;
use crate::scan::teddy::{self, Fingerprint};

/// Bits of the filter for each gram; more bits, fewer comparisons in vain.
const FILTER_BITS_PER_GRAM: usize = 32;

/// Words of 64 bits of a filter. The sizes are few, so that loops know theirs; even the largest fits the
/// second-level cache.
pub(crate) const FILTER_WORDS: [usize; 3] = [1 << 8, 1 << 11, 1 << 14];

/// An odd number near 2^64 divided by the golden ratio (Knuth, multiplicative hashing).
const HASH_FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

/// Grams of one width.
#[derive(Debug)]
pub(crate) struct Grams {
    /// A power of two of words, two bits for each gram.
    filter: Vec<u64>,
    /// Entries ordered by the word of their bits.
    entries: Vec<Entry>,
    /// For each word of the filter, the first entry.
    starts: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    gram: u64,
    needle: u32,
    /// Where the gram stands in the needle.
    offset: u32,
}

impl Grams {
    /// Collects the grams of `needles`, given as number and bytes, in a filter of at least `words_min` words.
    pub(crate) fn new<'a>(
        width: usize,
        stride: usize,
        words_min: usize,
        needles: impl Iterator<Item = (u32, &'a [u8])>,
    ) -> Self {
        let mut entries = Vec::new();
        for (needle, bytes) in needles {
            for offset in rarest_window(bytes, width, stride) {
                let gram = gram(&bytes[offset..offset + width]);
                entries.push(Entry { gram, needle, offset: offset as u32 });
            }
        }
        let wanted = entries.len() * FILTER_BITS_PER_GRAM / 64;
        let fits = |words: &usize| *words >= wanted.max(words_min);
        let words = FILTER_WORDS.into_iter().find(fits).unwrap_or(FILTER_WORDS[2]);
        let log2 = words.ilog2();
        entries.sort_by_key(|entry| word_and_bits(entry.gram, log2).0);
        let mut filter = vec![0; words];
        for entry in &entries {
            let (word, first, second) = word_and_bits(entry.gram, log2);
            filter[word] |= 1 << first | 1 << second;
        }
        let first_of =
            |word| entries.partition_point(|entry| word_and_bits(entry.gram, log2).0 < word) as u32;
        Self { filter, starts: (0..=words).map(first_of).collect(), entries }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The filter, if it has `N` words.
    pub(crate) fn filter<const N: usize>(&self) -> Option<&[u64; N]> {
        self.filter[..].try_into().ok()
    }

    /// Whether a needle may have this gram, in the lowest bit; the others mean nothing.
    #[inline(always)]
    pub(crate) fn holds(&self, gram: u64) -> u64 {
        let (word, first, second) = word_and_bits(gram, self.filter.len().ilog2());
        // The word is always inside; `get` spares the check's panic path in the hot loop.
        self.filter.get(word).map_or(0, |word| word >> first & word >> second)
    }

    /// For each entry the two bytes of its gram, and the byte behind them if the needle has one there.
    pub(crate) fn fingerprints(&self, needles: &[Box<[u8]>]) -> Vec<Fingerprint> {
        let of = |entry: &Entry| {
            let rest = &needles[entry.needle as usize][entry.offset as usize..];
            Some((*rest.first()?, *rest.get(1)?, rest.get(2).copied()))
        };
        self.entries.iter().filter_map(of).collect()
    }

    /// Bytes held, about.
    pub(crate) fn memory(&self) -> usize {
        size_of_val(&self.filter[..]) + size_of_val(&self.entries[..]) + size_of_val(&self.starts[..])
    }

    /// Number and offset of each needle that has this gram.
    pub(crate) fn holders(&self, gram: u64) -> impl Iterator<Item = (u32, usize)> {
        let (word, ..) = word_and_bits(gram, self.filter.len().ilog2());
        let range = self.starts[word] as usize..self.starts[word + 1] as usize;
        self.entries[range]
            .iter()
            .filter(move |entry| entry.gram == gram)
            .map(|entry| (entry.needle, entry.offset as usize))
    }
}

/// As [`Grams::holds`], for a filter whose size the compiler knows.
#[inline(always)]
pub(crate) fn holds<const N: usize>(filter: &[u64; N], gram: u64) -> u64 {
    let (word, first, second) = word_and_bits(gram, const { N.ilog2() });
    filter[word] >> first & filter[word] >> second
}

/// A gram's word in a filter of `2^log2` words, and its two bits there.
#[inline(always)]
fn word_and_bits(gram: u64, log2: u32) -> (usize, u64, u64) {
    let hash = gram.wrapping_mul(HASH_FACTOR);
    ((hash >> (64 - log2)) as usize, hash >> (58 - log2) & 63, hash >> (52 - log2) & 63)
}

/// The bytes of a gram as a number, little-endian.
pub(crate) fn gram(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |gram, &byte| gram << 8 | u64::from(byte))
}

/// The `stride` neighbouring offsets whose commonest gram is rarest.
fn rarest_window(needle: &[u8], width: usize, stride: usize) -> std::ops::Range<usize> {
    let grams = needle.len() + 1 - width;
    // Teddy looks at a third byte behind a pair, if there is one.
    let looked_at = width.max(teddy::LEN);
    let rarity = |offset: usize| bits(&needle[offset..needle.len().min(offset + looked_at)]);
    let rarity: Vec<f64> = (0..=needle.len() - width).map(rarity).collect();
    let weakest = |start: usize| rarity[start..start + stride].iter().copied().fold(f64::INFINITY, f64::min);
    let start = (0..=grams - stride).max_by(|a, b| weakest(*a).total_cmp(&weakest(*b))).unwrap_or(0);
    start..start + stride
}
