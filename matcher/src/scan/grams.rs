//! A filter over the short substrings (grams) of many needles.
//!
//! A needle of at least `WIDTH + STRIDE - 1` bytes has, wherever it stands, one gram of `WIDTH` bytes that begins
//! at a multiple of `STRIDE` in the text: one of `STRIDE` neighbours, of which the rarest lot is chosen. So
//! looking up every `STRIDE`th gram finds every needle. A bit filter answers nearly all look-ups; what passes is
//! compared with the needle itself.

use crate::compile::rarity::bits;

/// Bits of the filter for each gram; more bits, fewer comparisons in vain.
const FILTER_BITS_PER_GRAM: usize = 32;
/// Smallest and largest filter, as powers of two in bits. The largest fits the second-level cache.
const FILTER_LOG2_MIN: u32 = 12;
const FILTER_LOG2_MAX: u32 = 20;
/// An odd number near 2^64 divided by the golden ratio (Knuth, multiplicative hashing).
const HASH_FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

/// Grams of one width.
#[derive(Debug)]
pub(crate) struct Grams {
    /// One bit for each hash.
    filter: Vec<u64>,
    /// Right shift that turns a hash into an index of a bit.
    shift: u32,
    /// Entries ordered by the index of their bit.
    entries: Vec<Entry>,
    /// For each 64 bits of the filter, the first entry.
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
        let wanted = (entries.len() * FILTER_BITS_PER_GRAM).next_power_of_two().ilog2();
        let log2 = wanted.clamp(FILTER_LOG2_MIN, FILTER_LOG2_MAX);
        let mut grams = Self {
            filter: vec![0; 1 << (log2 - 6)],
            shift: 64 - log2,
            entries: Vec::new(),
            starts: Vec::new(),
        };
        entries.sort_by_key(|entry| grams.bit(entry.gram));
        for entry in &entries {
            let bit = grams.bit(entry.gram);
            grams.filter[bit / 64] |= 1 << (bit % 64);
        }
        let first_of =
            |word: usize| entries.partition_point(|entry| grams.bit(entry.gram) < 64 * word) as u32;
        grams.starts = (0..=grams.filter.len()).map(first_of).collect();
        grams.entries = entries;
        grams
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn bit(&self, gram: u64) -> usize {
        (gram.wrapping_mul(HASH_FACTOR) >> self.shift) as usize
    }

    /// Whether a needle may have this gram.
    #[inline]
    pub(crate) fn may_hold(&self, gram: u64) -> bool {
        let bit = self.bit(gram);
        // The shift keeps the index inside; `get` spares the check's panic path in the hot loop.
        self.filter.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 != 0)
    }

    /// Number and offset of each needle that has this gram.
    pub(crate) fn holders(&self, gram: u64) -> impl Iterator<Item = (u32, usize)> {
        let word = self.bit(gram) / 64;
        let range = self.starts[word] as usize..self.starts[word + 1] as usize;
        self.entries[range]
            .iter()
            .filter(move |entry| entry.gram == gram)
            .map(|entry| (entry.needle, entry.offset as usize))
    }
}

/// The bytes of a gram as a number, little-endian.
pub(crate) fn gram(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |gram, &byte| gram << 8 | u64::from(byte))
}

/// The `stride` neighbouring offsets whose commonest gram is rarest.
fn rarest_window(needle: &[u8], width: usize, stride: usize) -> std::ops::Range<usize> {
    let grams = needle.len() + 1 - width;
    let rarity = |offset: usize| bits(&needle[offset..offset + width]);
    let weakest = |start: usize| (start..start + stride).map(rarity).fold(f64::INFINITY, f64::min);
    let start = (0..=grams - stride).max_by(|a, b| weakest(*a).total_cmp(&weakest(*b))).unwrap_or(0);
    start..start + stride
}
