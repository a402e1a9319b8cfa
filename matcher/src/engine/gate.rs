//! The gate: finds out which of many needles occur in a text.
//!
//! A few needles are searched in one pass over the raw units: one or two by their bigrams ([`bigram`]), some dozens by
//! their fingerprints ([`lanes`](crate::scan::lanes)). Without the instructions for the latter, bigrams find up to
//! four; the portable kernel searches as many one by one with `memchr::memmem`. More needles are searched in the
//! narrowed text, in two passes: those of seven bytes and more by their [grams](gram_filter), shorter ones by
//! [`pairs`](crate::scan::pairs), with candidates from [`teddy`](crate::scan::teddy) if the processor allows it. Single
//! bytes are searched one by one. All methods find the same set.

use crate::scan::bigram::{self, Bigrams};
use crate::scan::gram_filter::{self, GRAM, GramFilter};
use crate::scan::kernel::{Isa, Kernel};
use crate::scan::lanes::Lanes;
use crate::scan::narrow::Narrowed;
use crate::scan::pairs::{PAIR, Pairs};
use crate::scan::teddy::Teddy;
use memchr::memmem;

/// Maximum number of needles for which bigrams are faster than lanes.
const BIGRAMS_BEST_MAX: usize = 2;

/// The position of a needle that occurs somewhere in the text: beyond the end of any text.
pub(crate) const NOWHERE: usize = usize::MAX / 2;

/// A set of needles in narrowed form.
#[derive(Debug)]
pub(crate) struct Gate {
    needles: Vec<Box<[u8]>>,
    longest: usize,
    isa: Isa,
    bigrams: Option<Bigrams>,
    lanes: Option<Lanes>,
    /// Needles searched one by one.
    single: Vec<(u32, memmem::Finder<'static>)>,
    grams: GramFilter,
    short: Pairs,
    teddies: Vec<Teddy>,
}

/// The needles that were found in a text.
#[derive(Debug, Default)]
pub(crate) struct Found {
    bits: Vec<u64>,
    list: Vec<u32>,
    /// A position of each needle found.
    places: Vec<usize>,
}

impl Found {
    /// Clears the set, in time proportional to its size.
    #[inline]
    pub(crate) fn clear(&mut self, needles: usize) {
        // The usual case.
        if self.list.is_empty() && self.places.len() == needles {
            return;
        }
        for needle in self.list.drain(..) {
            if let Some(word) = self.bits.get_mut(needle as usize / 64) {
                *word = 0;
            }
        }
        self.bits.resize(needles.div_ceil(64), 0);
        self.places.resize(needles, 0);
    }

    pub(crate) fn contains(&self, needle: u32) -> bool {
        self.bits.get(needle as usize / 64).is_some_and(|word| word >> (needle % 64) & 1 != 0)
    }

    /// Returns a position of the needle, not necessarily the first; `None` if it was not found.
    pub(crate) fn place(&self, needle: u32) -> Option<usize> {
        if self.contains(needle) { self.places.get(needle as usize).copied() } else { None }
    }

    /// Returns the needles found, in the order in which they were found.
    pub(crate) fn list(&self) -> &[u32] {
        &self.list
    }

    /// Calls `each` with every needle found and a position of it.
    pub(crate) fn each(&self, mut each: impl FnMut(u32, usize)) {
        for &needle in &self.list {
            each(needle, self.places[needle as usize]);
        }
    }

    /// Adds a needle, unless it is present. It must be one of the text for which this was last [cleared](Self::clear).
    pub(crate) fn insert(&mut self, needle: u32, place: usize) {
        if !self.contains(needle) {
            self.bits[needle as usize / 64] |= 1 << (needle % 64);
            self.places[needle as usize] = place;
            self.list.push(needle);
        }
    }
}

impl Gate {
    /// Builds the gate. The number of a needle is its index in `needles`. Needles must not be empty or repeated.
    pub(crate) fn new(needles: Vec<Box<[u8]>>, isa: Isa) -> Self {
        Self::with_methods(needles, isa, bigram::NEEDLES_MAX, true)
    }

    fn with_methods(needles: Vec<Box<[u8]>>, isa: Isa, few_max: usize, has_lanes: bool) -> Self {
        let is_few = needles.len() <= few_max;
        let numbered = || (0u32..).zip(&needles).map(|(number, needle)| (number, &needle[..]));
        let has_shuffle = matches!(isa.kernel(), Kernel::Avx2 | Kernel::Avx512);
        let lanes = if has_shuffle && has_lanes { Lanes::new(&needles) } else { None };
        // With more needles, bigrams are slower than lanes.
        let wants_bigrams = is_few && (lanes.is_none() || needles.len() <= BIGRAMS_BEST_MAX);
        let bigrams =
            if wants_bigrams && isa.kernel() != Kernel::Portable { Bigrams::new(&needles) } else { None };
        let lanes = lanes.filter(|_| bigrams.is_none());
        let is_raw = bigrams.is_some() || lanes.is_some();
        let one_by_one = |needle: &[u8]| !is_raw && (is_few || needle.len() < PAIR);
        let is_short = |needle: &[u8]| (PAIR..gram_filter::NEEDLE_LEN_MIN).contains(&needle.len());
        let of = |belongs: &dyn Fn(&[u8]) -> bool| -> Vec<_> {
            numbered().filter(|(_, needle)| !is_raw && !is_few && belongs(needle)).collect()
        };
        let single = numbered().filter(|(_, needle)| one_by_one(needle));
        let single = single.map(|(number, needle)| (number, memmem::Finder::new(needle).into_owned()));
        let short = Pairs::new(of(&is_short).into_iter());
        let long = of(&|needle| needle.len() >= gram_filter::NEEDLE_LEN_MIN);
        Self {
            single: single.collect(),
            grams: GramFilter::new(long.into_iter()),
            teddies: if has_shuffle { Teddy::all(&short.fingerprints(&needles)) } else { Vec::new() },
            short,
            bigrams,
            lanes,
            longest: needles.iter().map(|needle| needle.len()).max().unwrap_or(0),
            needles,
            isa,
        }
    }

    pub(crate) fn needles(&self) -> impl Iterator<Item = &[u8]> {
        self.needles.iter().map(|needle| &needle[..])
    }

    /// Returns a needle by its number.
    pub(crate) fn needle(&self, needle: u32) -> &[u8] {
        self.needles.get(needle as usize).map_or(&[], |needle| needle)
    }

    /// Returns the length of the longest needle, in units.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }

    /// Returns the length of a needle, in units.
    pub(crate) fn needle_len(&self, needle: u32) -> usize {
        self.needles.get(needle as usize).map_or(0, |needle| needle.len())
    }

    /// Returns the number of needles.
    pub(crate) fn len(&self) -> usize {
        self.needles.len()
    }

    /// Returns the approximate memory in bytes.
    pub(crate) fn memory(&self) -> usize {
        let needles: usize = self.needles.iter().map(|needle| needle.len() + size_of::<Box<[u8]>>()).sum();
        let single: usize =
            self.single.iter().map(|(_, finder)| finder.needle().len() + size_of_val(finder)).sum();
        needles
            + single
            + self.grams.memory()
            + self.short.memory()
            + size_of_val(&self.teddies[..])
            + self.bigrams.as_ref().map_or(0, Bigrams::memory)
            + self.lanes.as_ref().map_or(0, Lanes::memory)
            + size_of::<Self>()
    }

    /// Finds the needles that occur in `units`, which are narrowed only if necessary.
    ///
    /// # Complexity
    ///
    /// Linear in the text, plus a comparison for each gram that passes the filter. Allocates only while `found` and
    /// `narrowed` grow.
    #[inline]
    pub(crate) fn scan(&self, units: &[[u8; 2]], narrowed: &mut Narrowed, found: &mut Found) {
        found.clear(self.needles.len());
        if let Some(bigrams) = &self.bigrams {
            bigrams.scan(units, self.isa, |number, place| found.insert(number, place));
        } else {
            self.scan_many(units, narrowed, found);
        }
    }

    fn scan_many(&self, units: &[[u8; 2]], narrowed: &mut Narrowed, found: &mut Found) {
        if let Some(lanes) = &self.lanes {
            lanes.scan(units, self.isa, |number, place| found.insert(number, place));
        } else if !self.needles.is_empty() {
            self.scan_narrowed(narrowed.of(units, self.isa), found);
        }
    }

    fn scan_narrowed(&self, text: &[u8], found: &mut Found) {
        for (number, finder) in &self.single {
            if let Some(place) = finder.find(text) {
                found.insert(*number, place);
            }
        }
        if !self.grams.is_empty() {
            self.scan_grams(text, found);
        }
        if !self.short.is_empty() {
            self.scan_short(text, found);
        }
    }

    fn scan_grams(&self, text: &[u8], found: &mut Found) {
        self.grams.scan(text, self.isa, |gram| {
            for (number, start) in self.grams.holders(text, GRAM * gram) {
                self.compare(number, start, text, found);
            }
        });
    }

    fn scan_short(&self, text: &[u8], found: &mut Found) {
        let mut candidate = |at: usize| {
            for (number, start) in self.short.holders(text, at) {
                self.compare(number, start, text, found);
            }
        };
        if !self.teddies.is_empty() {
            for teddy in &self.teddies {
                teddy.scan(text, self.isa, &mut candidate);
            }
            return;
        }
        for (at, pair) in text.windows(PAIR).enumerate() {
            if self.short.holds(u16::from_le_bytes([pair[0], pair[1]])) {
                candidate(at);
            }
        }
    }

    #[cold]
    fn compare(&self, number: u32, start: usize, text: &[u8], found: &mut Found) {
        let needle = &self.needles[number as usize];
        if !found.contains(number) && text.get(start..start + needle.len()) == Some(&needle[..]) {
            found.insert(number, start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Found, Gate};
    use crate::scan::kernel::{Isa, Kernel};
    use crate::scan::narrow::Narrowed;
    use crate::scan::sample::{cases, every};
    use proptest::prelude::*;

    fn found(gate: &Gate, text: &[u8]) -> Vec<u32> {
        let units: Vec<[u8; 2]> = text.iter().map(|&byte| [byte, u8::from(byte >= 0x80)]).collect();
        let (mut found, mut narrowed) = (Found::default(), Narrowed::default());
        gate.scan(&units, &mut narrowed, &mut found);
        for &number in found.list() {
            let place = found.place(number).unwrap();
            let folded = text[place..].to_ascii_lowercase();
            assert!(folded.starts_with(&gate.needles[number as usize]));
        }
        let mut list = found.list().to_vec();
        list.sort_unstable();
        list
    }

    fn every_gate(needles: &[Box<[u8]>]) -> Vec<Gate> {
        let methods = [0, usize::MAX].into_iter().flat_map(|few_max| [(few_max, false), (few_max, true)]);
        let gates = Kernel::available()
            .into_iter()
            .flat_map(|kernel| methods.clone().map(move |method| (kernel, method)));
        let gate = |(kernel, (few_max, has_lanes))| {
            Gate::with_methods(needles.to_vec(), Isa::new(kernel), few_max, has_lanes)
        };
        gates.map(gate).collect()
    }

    /// Tests each length at each alignment, at the start, in the middle and at the end of the text.
    #[test]
    fn finds_every_length_at_every_position() {
        let needles: Vec<Box<[u8]>> = (1..30).map(|len| (b'\x20'..).take(len).collect()).collect();
        for gate in every_gate(&needles) {
            for before in every((0..9).chain([31, 62, 64]), 5) {
                for after in every(0..9, 8) {
                    for len in every(1..30usize, 14) {
                        let mut text = vec![b'.'; before];
                        text[..].fill(0x80);
                        text.extend((b'\x20'..).take(len));
                        text.extend(vec![0x80; after]);
                        let expected = (0..len as u32).collect::<Vec<_>>();
                        assert_eq!(found(&gate, &text), expected, "{before} {after} {len}");
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(cases(2000))]
        #[test]
        fn every_method_finds_what_single_searches_find(
            needles in proptest::collection::btree_set("[ab]{1,14}", 0..24),
            text in "[aBbc]{0,160}",
        ) {
            let needles: Vec<Box<[u8]>> = needles.iter().map(|n| n.as_bytes().into()).collect();
            let folded = text.to_ascii_lowercase();
            let expected: Vec<u32> = (0u32..)
                .zip(&needles)
                .filter(|(_, needle)| folded.as_bytes().windows(needle.len()).any(|window| window == &needle[..]))
                .map(|(number, _)| number)
                .collect();
            for gate in every_gate(&needles) {
                prop_assert_eq!(found(&gate, text.as_bytes()), expected.clone());
            }
        }
    }
}
