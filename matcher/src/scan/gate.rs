//! The gate: which of many needles stand in a narrowed text.
//!
//! Few needles are searched one by one with `memchr::memmem`. Many are found in one pass over their grams
//! ([`grams`](super::grams)), by length: 8-byte grams at every fourth place for 11 bytes and more, 4-byte grams at
//! every fourth place for 7 to 10, 2-byte grams at every second place for 3 to 6; one and two bytes are searched
//! one by one again. Both ways give the same set.

use crate::scan::grams::Grams;
use memchr::memmem;

/// Up to this many needles a search for each is faster than one pass for all.
const SINGLE_NEEDLES_MAX: usize = 4;

const LONG: usize = 8;
const MIDDLE: usize = 4;
const SHORT: usize = 2;
const STRIDE: usize = 4;
const STRIDE_SHORT: usize = 2;

/// A set of needles, folded ASCII.
#[derive(Debug)]
pub(crate) struct Gate {
    needles: Vec<Box<[u8]>>,
    /// Needles searched one by one.
    single: Vec<(u32, memmem::Finder<'static>)>,
    long: Grams,
    middle: Grams,
    short: Grams,
}

/// The needles that were found in a text.
#[derive(Debug, Default)]
pub(crate) struct Found {
    bits: Vec<u64>,
    list: Vec<u32>,
}

impl Found {
    /// Forgets everything, in time proportional to what was found.
    pub(crate) fn clear(&mut self, needles: usize) {
        for needle in self.list.drain(..) {
            if let Some(word) = self.bits.get_mut(needle as usize / 64) {
                *word = 0;
            }
        }
        self.bits.resize(needles.div_ceil(64), 0);
    }

    pub(crate) fn contains(&self, needle: u32) -> bool {
        self.bits.get(needle as usize / 64).is_some_and(|word| word >> (needle % 64) & 1 != 0)
    }

    /// The needles found, in the order of the finding.
    pub(crate) fn list(&self) -> &[u32] {
        &self.list
    }

    fn insert(&mut self, needle: u32) {
        if !self.contains(needle) {
            self.bits[needle as usize / 64] |= 1 << (needle % 64);
            self.list.push(needle);
        }
    }
}

impl Gate {
    /// Builds the gate. A needle's number is its place in `needles`; none is empty, none stands there twice.
    pub(crate) fn new(needles: Vec<Box<[u8]>>) -> Self {
        Self::with_single_max(needles, SINGLE_NEEDLES_MAX)
    }

    fn with_single_max(needles: Vec<Box<[u8]>>, single_max: usize) -> Self {
        let all_single = needles.len() <= single_max;
        let of_len = |range: std::ops::Range<usize>| {
            needles
                .iter()
                .zip(0u32..)
                .filter(move |(needle, _)| !all_single && range.contains(&needle.len()))
                .map(|(needle, number)| (number, &needle[..]))
        };
        let (short, middle, long) = (SHORT + STRIDE_SHORT - 1, MIDDLE + STRIDE - 1, LONG + STRIDE - 1);
        let single = needles.iter().zip(0u32..).filter(|(needle, _)| all_single || needle.len() < short);
        Self {
            single: single
                .map(|(needle, number)| (number, memmem::Finder::new(needle).into_owned()))
                .collect(),
            long: Grams::new(LONG, STRIDE, of_len(long..usize::MAX)),
            middle: Grams::new(MIDDLE, STRIDE, of_len(middle..long)),
            short: Grams::new(SHORT, STRIDE_SHORT, of_len(short..middle)),
            needles,
        }
    }

    /// Number of needles.
    pub(crate) fn len(&self) -> usize {
        self.needles.len()
    }

    /// Finds the needles that stand in `text`.
    ///
    /// # Complexity
    ///
    /// Linear in the text, plus a comparison for each gram that passes the filter. Allocates only while `found`
    /// grows to the number of needles.
    pub(crate) fn scan(&self, text: &[u8], found: &mut Found) {
        found.clear(self.needles.len());
        for (number, finder) in &self.single {
            if finder.find(text).is_some() {
                found.insert(*number);
            }
        }
        if !self.long.is_empty() || !self.middle.is_empty() {
            self.scan_words(text, found);
        }
        if !self.short.is_empty() {
            for (at, pair) in text.as_chunks::<SHORT>().0.iter().enumerate() {
                self.look_up(
                    &self.short,
                    u64::from(u16::from_le_bytes(*pair)),
                    text,
                    STRIDE_SHORT * at,
                    found,
                );
            }
        }
    }

    fn scan_words(&self, text: &[u8], found: &mut Found) {
        let words = text.as_chunks::<STRIDE>().0;
        let Some(mut word) = words.first().map(|word| u32::from_le_bytes(*word)) else { return };
        let middle = !self.middle.is_empty();
        for (at, next) in words[1..].iter().enumerate() {
            let next = u32::from_le_bytes(*next);
            self.look_up(&self.long, u64::from(next) << 32 | u64::from(word), text, STRIDE * at, found);
            if middle {
                self.look_up(&self.middle, u64::from(word), text, STRIDE * at, found);
            }
            word = next;
        }
        self.look_up(&self.middle, u64::from(word), text, STRIDE * (words.len() - 1), found);
    }

    #[inline]
    fn look_up(&self, grams: &Grams, gram: u64, text: &[u8], at: usize, found: &mut Found) {
        if grams.may_hold(gram) {
            self.compare(grams, gram, text, at, found);
        }
    }

    #[cold]
    fn compare(&self, grams: &Grams, gram: u64, text: &[u8], at: usize, found: &mut Found) {
        for (number, offset) in grams.holders(gram) {
            let needle = &self.needles[number as usize];
            let stands = at.checked_sub(offset).and_then(|start| text.get(start..start + needle.len()));
            if stands == Some(&needle[..]) {
                found.insert(number);
            }
        }
    }
}

// The widths above are those of the words that `scan_words` puts together.
const _: () = assert!(LONG == 2 * STRIDE && MIDDLE == STRIDE && SHORT == STRIDE_SHORT);

#[cfg(test)]
mod tests {
    use super::{Found, Gate};
    use crate::scan::grams::gram;
    use proptest::prelude::*;

    fn found(gate: &Gate, text: &[u8]) -> Vec<u32> {
        let mut found = Found::default();
        gate.scan(text, &mut found);
        let mut list = found.list().to_vec();
        list.sort_unstable();
        list
    }

    #[test]
    fn grams_are_little_endian() {
        assert_eq!(gram(b"ab"), u64::from(u16::from_le_bytes(*b"ab")));
        assert_eq!(gram(b"abcdefgh"), u64::from_le_bytes(*b"abcdefgh"));
    }

    #[test]
    fn every_length_at_every_place() {
        let needles: Vec<Box<[u8]>> = (1..30).map(|len| (b'A'..).take(len).collect()).collect();
        let gate = Gate::new(needles.clone());
        for before in 0..9 {
            for after in 0..9 {
                for len in 1..30usize {
                    let mut text = vec![b'.'; before];
                    text.extend((b'A'..).take(len));
                    text.extend(vec![b'.'; after]);
                    assert_eq!(
                        found(&gate, &text),
                        (0..len as u32).collect::<Vec<_>>(),
                        "{before} {after} {len}"
                    );
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]
        #[test]
        fn one_pass_equals_one_by_one(
            needles in proptest::collection::btree_set("[ab]{1,14}", 0..24),
            text in "[abc]{0,80}",
        ) {
            let needles: Vec<Box<[u8]>> = needles.iter().map(|n| n.as_bytes().into()).collect();
            let expected: Vec<u32> = (0u32..)
                .zip(&needles)
                .filter(|(_, needle)| text.as_bytes().windows(needle.len()).any(|window| window == &needle[..]))
                .map(|(number, _)| number)
                .collect();
            prop_assert_eq!(found(&Gate::with_single_max(needles.clone(), 0), text.as_bytes()), expected.clone());
            prop_assert_eq!(found(&Gate::with_single_max(needles, usize::MAX), text.as_bytes()), expected);
        }
    }
}
