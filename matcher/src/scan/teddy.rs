//! Teddy: finds candidate positions of many short needles.
//!
//! Each needle has a fingerprint of up to four adjacent bytes and belongs to one of eight buckets. For each position in
//! the fingerprint, a table maps bytes to buckets; a text position is a candidate if all tables agree on a bucket.
//! AVX-512 looks up a whole vector of bytes in a table of all ASCII. AVX2 uses two tables of sixteen entries, for the
//! low and the high half of a byte, which together let more text pass. The idea is Geoffrey Langdale's Teddy in
//! Hyperscan.

#[cfg(target_arch = "x86_64")]
mod x86;

use crate::scan::buckets::{Bucket, Fingerprint, LEN, divide};
use crate::scan::kernel::Isa;

/// Lookup tables for the fingerprints of needles.
#[derive(Debug)]
pub(crate) struct Teddy {
    /// For each position in the fingerprint, the buckets by low half and by high half of the byte.
    pub(super) halves: [[[u8; 16]; 2]; LEN],
    /// For each position in the fingerprint, the buckets by the lowest seven bits of the byte.
    pub(super) bytes: [[u8; 128]; LEN],
}

impl Teddy {
    /// Makes as many searches as the fingerprints are worth.
    pub(crate) fn all(fingerprints: &[Fingerprint]) -> Vec<Self> {
        divide(fingerprints).iter().map(|buckets| Self::new(buckets, false)).collect()
    }

    /// Reports the candidates of `text` in ascending order. The text is padded with zeros.
    ///
    /// Returns false, without reports, if `isa` lacks the vector instructions.
    #[inline]
    pub(crate) fn scan(&self, text: &[u8], isa: Isa, candidate: impl FnMut(usize)) -> bool {
        #[cfg(target_arch = "x86_64")]
        return x86::scan(self, text, isa, candidate);
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (text, isa, candidate);
            false
        }
    }

    /// Makes the tables of these buckets, for both cases of letters if `has_capitals`.
    pub(super) fn new(buckets: &[Bucket], has_capitals: bool) -> Self {
        let mut teddy = Self { halves: [[[0; 16]; 2]; LEN], bytes: [[0; 128]; LEN] };
        for (number, bucket) in buckets.iter().enumerate() {
            for (place, byte) in bucket.members.iter().flat_map(|member| member.iter().enumerate()) {
                teddy.add(place, *byte, 1 << number);
                if has_capitals {
                    teddy.add(place, byte.map(|byte| byte.to_ascii_uppercase()), 1 << number);
                }
            }
        }
        teddy
    }

    fn add(&mut self, place: usize, byte: Option<u8>, bit: u8) {
        let ([lows, highs], bytes) = (&mut self.halves[place], &mut self.bytes[place]);
        match byte {
            Some(byte) => {
                lows[usize::from(byte & 15)] |= bit;
                highs[usize::from(byte >> 4)] |= bit;
                bytes[usize::from(byte & 127)] |= bit;
            }
            None => lows.iter_mut().chain(highs).chain(bytes).for_each(|buckets| *buckets |= bit),
        }
    }

    /// Slow reference implementation: returns the buckets of a position, by halves of bytes or by whole bytes.
    #[cfg(test)]
    pub(super) fn buckets(&self, bytes: &[u8], by_halves: bool) -> u8 {
        let halves = |[low, high]: &[[u8; 16]; 2], byte: u8| {
            low[usize::from(byte & 15)] & high[usize::from(byte >> 4)]
        };
        let places = self.halves.iter().zip(&self.bytes).zip(bytes);
        places.fold(u8::MAX, |all, ((pair, whole), &byte)| {
            all & if by_halves { halves(pair, byte) } else { whole[usize::from(byte & 127)] }
        })
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::{Fingerprint, LEN, Teddy};
    use crate::scan::kernel::{Isa, Kernel};
    use crate::scan::sample::cases;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(cases(2000))]
        #[test]
        fn candidates_are_those_of_single_positions(
            fingerprints in proptest::collection::vec(
                (0u8..128, 0u8..128, any::<Option<u8>>(), any::<Option<u8>>()), 1..=32),
            mut text in proptest::collection::vec(any::<u8>(), 0..300),
            places in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..20),
            skip in 0usize..70,
        ) {
            let ascii = |byte: Option<u8>| byte.map(|byte| byte & 127);
            let fingerprints: Vec<Fingerprint> = fingerprints
                .into_iter()
                .map(|(a, b, c, d)| [Some(a), Some(b), ascii(c), ascii(c.and(d))])
                .collect();
            for (place, which) in places {
                let fingerprint = fingerprints[which.index(fingerprints.len())];
                if text.len() >= LEN {
                    let at = place.index(text.len() + 1 - LEN);
                    text[at..at + LEN].copy_from_slice(&fingerprint.map(Option::unwrap_or_default));
                }
            }
            let text = &text[skip.min(text.len())..];
            let teddies = Teddy::all(&fingerprints);
            let mut padded = text.to_vec();
            padded.extend([0; LEN]);
            let expected = |teddy: &Teddy, by_halves| -> Vec<usize> {
                (0..text.len()).filter(|&at| teddy.buckets(&padded[at..at + LEN], by_halves) != 0).collect()
            };
            for (at, bytes) in text.windows(LEN).enumerate() {
                let is = |own: &Fingerprint| own.iter().zip(bytes).all(|(own, byte)| own.is_none_or(|own| own == *byte));
                if fingerprints.iter().any(is) {
                    for by_halves in [false, true] {
                        prop_assert!(teddies.iter().any(|teddy| expected(teddy, by_halves).contains(&at)));
                    }
                }
            }
            for (kernel, teddy) in Kernel::available().into_iter().flat_map(|kernel| teddies.iter().map(move |teddy| (kernel, teddy))) {
                let mut found = Vec::new();
                if teddy.scan(text, Isa::new(kernel), |at| found.push(at)) {
                    prop_assert_eq!(found, expected(teddy, kernel == Kernel::Avx2), "{}", kernel);
                } else {
                    prop_assert!(kernel < Kernel::Avx2);
                }
            }
        }
    }
}
