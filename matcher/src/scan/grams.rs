//! A filter over the short substrings (grams) of many needles.
//!
//! A needle of at least `WIDTH + STRIDE - 1` bytes has, wherever it stands, one gram of `WIDTH` bytes that begins
//! at a multiple of `STRIDE` in the text: one of `STRIDE` neighbours, of which the rarest lot is chosen. So
//! looking up every `STRIDE`th gram finds every needle. A blocked Bloom filter, two bits of one word for each gram,
//! answers nearly all look-ups; what passes is compared with the needle itself.

use crate::compile::rarity::bits;
use crate::scan::teddy::{self, Fingerprint};

/// Bits of the filter for each gram; more bits, fewer comparisons in vain.
const FILTER_BITS_PER_GRAM: usize = 32;

/// Least and greatest binary logarithm of a filter's words of 32 bits; even the largest fits the second-level cache.
const FILTER_LOG2: std::ops::RangeInclusive<u32> = 9..=15;

/// Factors of the hash: odd numbers near 2^32 divided by the golden ratio, and by its square (Knuth, multiplicative
/// hashing).
pub(super) const HASH_FACTORS: [u32; 2] = [0x9E37_79B1, 0x61C8_8647];
/// Bits by which the hash is shifted to mix its high into its low half.
pub(super) const HASH_SHIFT: u32 = 15;
/// Bits of a hash that choose a bit of a word.
pub(super) const BIT_LOG2: u32 = 5;

/// Grams of one width.
#[derive(Debug)]
pub(crate) struct Grams {
    /// A power of two of words, two bits for each gram.
    filter: Vec<u32>,
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
    /// Collects the grams of `needles`, given as number and bytes.
    pub(crate) fn new<'a>(
        width: usize,
        stride: usize,
        needles: impl Iterator<Item = (u32, &'a [u8])>,
    ) -> Self {
        let mut entries = Vec::new();
        for (needle, bytes) in needles {
            for offset in rarest_window(bytes, width, stride) {
                let gram = gram(&bytes[offset..offset + width]);
                entries.push(Entry { gram, needle, offset: offset as u32 });
            }
        }
        let wanted = (entries.len() * FILTER_BITS_PER_GRAM / u32::BITS as usize).max(1);
        let log2 = wanted.next_power_of_two().ilog2().clamp(*FILTER_LOG2.start(), *FILTER_LOG2.end());
        let words = 1 << log2;
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

    /// The filter: a power of two of words.
    pub(super) fn filter(&self) -> &[u32] {
        &self.filter
    }

    /// Whether a needle may have this gram.
    #[inline]
    pub(crate) fn holds(&self, gram: u64) -> bool {
        let (word, first, second) = word_and_bits(gram, self.filter.len().ilog2());
        // The word is always inside; `get` spares the check's panic path in the hot loop.
        self.filter.get(word).is_some_and(|word| word >> first & word >> second & 1 != 0)
    }

    /// For each entry the bytes from its gram on, as far as the needle goes.
    pub(crate) fn fingerprints(&self, needles: &[Box<[u8]>]) -> Vec<Fingerprint> {
        let of = |entry: &Entry| {
            let rest = &needles[entry.needle as usize][entry.offset as usize..];
            std::array::from_fn(|place| rest.get(place).copied())
        };
        self.entries.iter().map(of).collect()
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

/// The hash of a gram.
#[inline]
fn hash(gram: u64) -> u32 {
    let product = (gram as u32)
        .wrapping_mul(HASH_FACTORS[0])
        .wrapping_add(((gram >> 32) as u32).wrapping_mul(HASH_FACTORS[1]));
    product ^ product >> HASH_SHIFT
}

/// A gram's word in a filter of `2^log2` words, and its two bits there: the highest bits of the hash, and below.
#[inline]
fn word_and_bits(gram: u64, log2: u32) -> (usize, u32, u32) {
    let hash = hash(gram);
    let bit = |number: u32| hash >> (u32::BITS - log2 - number * BIT_LOG2) & (u32::BITS - 1);
    ((hash >> (u32::BITS - log2)) as usize, bit(1), bit(2))
}

/// The bytes of a gram as a number, little-endian.
pub(crate) fn gram(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |gram, &byte| gram << 8 | u64::from(byte))
}

/// The `stride` neighbouring offsets whose commonest gram is rarest.
fn rarest_window(needle: &[u8], width: usize, stride: usize) -> std::ops::Range<usize> {
    let grams = needle.len() + 1 - width;
    // Teddy looks at the bytes behind a pair, if there are some.
    let looked_at = width.max(teddy::LEN);
    let rarity = |offset: usize| bits(&needle[offset..needle.len().min(offset + looked_at)]);
    let rarity: Vec<f64> = (0..=needle.len() - width).map(rarity).collect();
    let weakest = |start: usize| rarity[start..start + stride].iter().copied().fold(f64::INFINITY, f64::min);
    let start = (0..=grams - stride).max_by(|a, b| weakest(*a).total_cmp(&weakest(*b))).unwrap_or(0);
    start..start + stride
}
