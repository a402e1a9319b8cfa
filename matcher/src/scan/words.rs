//! Where may a gram of many needles stand? Looks up each word of a narrowed text, and each pair of words.
//!
//! A word is four bytes: alone it is a gram of the middle group of needles, with the next one of the long group.

use crate::scan::grams::Grams;
use crate::scan::kernel::Usable;
#[cfg(target_arch = "x86_64")]
use crate::scan::{kernel::Kernel, x86};

/// Bytes of a word; words begin where the text does.
pub(crate) const WORD: usize = 4;

/// Calls `candidate`, in ascending order, with the number of each word that passes one of the filters. What lies behind
/// the end of the text may be taken for anything, so words near it may pass that should not.
#[inline]
pub(crate) fn scan(
    text: &[u8],
    long: &Grams,
    middle: &Grams,
    usable: Usable,
    mut candidate: impl FnMut(usize),
) {
    match usable.kernel() {
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512 | Kernel::Avx2 => x86::words::scan(text, long, middle, usable, candidate),
        _ => {
            let words = text.as_chunks::<WORD>().0;
            let word = |at: usize| words.get(at).map_or(0, |word| u64::from(u32::from_le_bytes(*word)));
            for at in 0..words.len() {
                if long.holds(word(at) | word(at + 1) << 32) || middle.holds(word(at)) {
                    candidate(at);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{WORD, scan};
    use crate::scan::grams::Grams;
    use crate::scan::kernel::{Kernel, Usable};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn every_kernel_passes_the_same_words(
            needles in proptest::collection::vec("[a-d]{11,14}", 0..200),
            few in proptest::collection::vec("[a-d]{7,10}", 0..20),
            text in "[a-d]{0,300}",
        ) {
            let long = Grams::new(8, WORD, (0u32..).zip(needles.iter().map(String::as_bytes)));
            let middle = Grams::new(4, WORD, (0u32..).zip(few.iter().map(String::as_bytes)));
            let found = |kernel| {
                let mut list = Vec::new();
                scan(text.as_bytes(), &long, &middle, Usable::new(kernel), |at| list.push(at));
                // Only words with a whole one behind them must be the same.
                list.retain(|at| WORD * (at + 2) <= text.len());
                list
            };
            let expected = found(Kernel::Portable);
            for kernel in Kernel::available() {
                prop_assert_eq!(found(kernel), expected.clone(), "{}", kernel);
            }
        }
    }
}
