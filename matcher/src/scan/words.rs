//! Where may a gram of many needles stand? Looks up each word of a narrowed text, and each pair of words.
//!
//! A word is four bytes: alone it is a gram of the middle group of needles, with the next one of the long group.
//! The outcomes of a group of words are joined before one branch looks at them.

#![expect(clippy::inline_always, reason = "loops must be compiled with the vectors of their callers")]

use crate::scan::grams::{FILTER_WORDS, Grams, holds};
use crate::scan::kernel::Usable;
#[cfg(target_arch = "x86_64")]
use crate::scan::{kernel::Kernel, x86};

/// Words of a group.
pub(crate) const GROUP: usize = 4;

const SMALL: usize = FILTER_WORDS[0];
const MEDIUM: usize = FILTER_WORDS[1];
const LARGE: usize = FILTER_WORDS[2];

/// The first group, by its first word, in which a gram passes a filter. Groups begin where the text does; what lies
/// behind the last whole group and its next word is left out, at most [`GROUP`] words.
pub(crate) fn first_group(words: &[[u8; 4]], long: &Grams, middle: &Grams, usable: Usable) -> Option<usize> {
    // All pairs of sizes that `Gate` makes.
    if let (Some(long), Some(middle)) = (long.filter(), middle.filter()) {
        return dispatch::<SMALL, SMALL>(words, long, middle, usable);
    }
    if let (Some(long), Some(middle)) = (long.filter(), middle.filter()) {
        return dispatch::<MEDIUM, SMALL>(words, long, middle, usable);
    }
    if let (Some(long), Some(middle)) = (long.filter(), middle.filter()) {
        return dispatch::<LARGE, MEDIUM>(words, long, middle, usable);
    }
    // Any other pair, slower.
    let pairs = words.array_windows::<2>().map(|pair| pair.map(|word| u64::from(u32::from_le_bytes(word))));
    let passes = |[word, next]: [u64; 2]| (long.holds(word | next << 32) | middle.holds(word)) & 1 != 0;
    pairs
        .take(words.len().saturating_sub(1) / GROUP * GROUP)
        .map(passes)
        .position(|pass| pass)
        .map(|at| at / GROUP * GROUP)
}

/// The least size of the middle group's filter beside this one, so that the pair is one of those above.
pub(crate) fn middle_words(long: &Grams) -> usize {
    if long.filter::<LARGE>().is_some() { MEDIUM } else { SMALL }
}

fn dispatch<const L: usize, const M: usize>(
    words: &[[u8; 4]],
    long: &[u64; L],
    middle: &[u64; M],
    usable: Usable,
) -> Option<usize> {
    match usable.kernel() {
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512 | Kernel::Avx2 => x86::words::first_group(words, long, middle, usable),
        _ => first_group_plain(words, long, middle),
    }
}

#[inline(always)]
pub(super) fn first_group_plain<const L: usize, const M: usize>(
    words: &[[u8; 4]],
    long: &[u64; L],
    middle: &[u64; M],
) -> Option<usize> {
    let mut at = 0;
    while let Some(group) = words.get(at..).and_then(<[_]>::first_chunk::<{ GROUP + 1 }>) {
        let group = group.map(|word| u64::from(u32::from_le_bytes(word)));
        let mut any = 0;
        for k in 0..GROUP {
            any |= holds(long, group[k] | group[k + 1] << 32) | holds(middle, group[k]);
        }
        if any & 1 != 0 {
            return Some(at);
        }
        at += GROUP;
    }
    None
}
