//! Teddy: where may one of many short needles stand?
//!
//! Each needle gives a fingerprint of up to four neighbouring bytes and is put into one of eight buckets. For each
//! place of the fingerprint a table says which buckets have a byte; a place where all tables agree on a bucket is a
//! candidate. AVX-512 looks up a whole vector of bytes in a table of all ASCII; AVX2 in two tables of sixteen, for the
//! low and the high half of a byte, which together let more through. Source of the idea: Geoffrey Langdale's Teddy in
//! Hyperscan.

/// Buckets: bits of a byte.
const BUCKETS: usize = 8;
/// Most fingerprints of one search: eight buckets must not let too much through.
pub(crate) const FINGERPRINTS_MAX: usize = 32;
/// Most searches; each costs as much as the candidates that it spares.
const SEARCHES_MAX: usize = 4;
/// Bytes of a fingerprint.
pub(crate) const LEN: usize = 4;

/// Tables over the fingerprints of needles.
#[derive(Debug)]
pub(crate) struct Teddy {
    /// For each byte of the fingerprint, the buckets by low half and by high half.
    pub(super) halves: [[[u8; 16]; 2]; LEN],
    /// For each byte of the fingerprint, the buckets by its lowest seven bits.
    pub(super) bytes: [[u8; 128]; LEN],
}

/// A needle's fingerprint: its bytes from some place on; behind its end any byte will do.
pub(crate) type Fingerprint = [Option<u8>; LEN];

impl Teddy {
    /// Divides the fingerprints among so many searches that each has no more than [`FINGERPRINTS_MAX`], but among no
    /// more than [`SEARCHES_MAX`].
    pub(crate) fn all(fingerprints: &[Fingerprint]) -> Vec<Self> {
        let count = fingerprints.len().div_ceil(FINGERPRINTS_MAX).min(SEARCHES_MAX);
        let mut buckets = vec![[[0u16; 2]; LEN]; BUCKETS * count];
        let mut members = vec![Vec::new(); BUCKETS * count];
        for fingerprint in fingerprints {
            let halves = fingerprint.map(|byte| match byte {
                Some(byte) => [1 << (byte & 15), 1 << (byte >> 4)],
                None => [u16::MAX; 2],
            });
            // Into the bucket that lets least more through.
            let passes = |bucket: &[[u16; 2]; LEN]| -> u64 {
                bucket
                    .iter()
                    .map(|[low, high]| u64::from(low.count_ones()) * u64::from(high.count_ones()))
                    .product()
            };
            let with = |bucket: &[[u16; 2]; LEN]| {
                let mut bucket = *bucket;
                for (own, new) in bucket.as_flattened_mut().iter_mut().zip(halves.as_flattened()) {
                    *own |= new;
                }
                bucket
            };
            let best = buckets.iter_mut().zip(&mut members);
            if let Some((bucket, members)) =
                best.min_by_key(|(bucket, _)| passes(&with(bucket)) - passes(bucket))
            {
                *bucket = with(bucket);
                members.push(fingerprint);
            }
        }
        let searches = buckets.as_chunks().0.iter().zip(members.as_chunks().0);
        searches.map(|(buckets, members)| Self::new(buckets, members)).collect()
    }

    fn new(buckets: &[[[u16; 2]; LEN]; BUCKETS], members: &[Vec<&Fingerprint>; BUCKETS]) -> Self {
        let mut teddy = Self { halves: [[[0; 16]; 2]; LEN], bytes: [[0; 128]; LEN] };
        for (number, (bucket, members)) in buckets.iter().zip(members).enumerate() {
            let bit = 1 << number;
            for (table, set) in teddy.halves.as_flattened_mut().iter_mut().zip(bucket.as_flattened()) {
                for (half, buckets) in table.iter_mut().enumerate() {
                    *buckets |= u8::from(set >> half & 1 != 0) * bit;
                }
            }
            for fingerprint in members {
                for (table, byte) in teddy.bytes.iter_mut().zip(*fingerprint) {
                    match byte {
                        Some(byte) => table[usize::from(byte & 127)] |= bit,
                        None => table.iter_mut().for_each(|buckets| *buckets |= bit),
                    }
                }
            }
        }
        teddy
    }

    /// The slow twin of the vector code: the buckets of a place, by halves of bytes or by whole ones.
    #[cfg(test)]
    fn buckets(&self, bytes: &[u8], by_halves: bool) -> u8 {
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
    use super::{FINGERPRINTS_MAX, Fingerprint, LEN, Teddy};
    use crate::scan::kernel::{Kernel, Usable};
    use crate::scan::x86;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn equals_place_by_place(
            fingerprints in proptest::collection::vec(
                (0u8..128, 0u8..128, any::<Option<u8>>(), any::<Option<u8>>()), 1..=FINGERPRINTS_MAX),
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
            let [teddy] = &Teddy::all(&fingerprints)[..] else { panic!("one search") };
            let mut padded = text.to_vec();
            padded.extend([0; LEN]);
            let expected = |by_halves| -> Vec<usize> {
                (0..text.len()).filter(|&at| teddy.buckets(&padded[at..at + LEN], by_halves) != 0).collect()
            };
            for (at, bytes) in text.windows(LEN).enumerate() {
                let is = |own: &Fingerprint| own.iter().zip(bytes).all(|(own, byte)| own.is_none_or(|own| own == *byte));
                if fingerprints.iter().any(is) {
                    prop_assert!(expected(true).contains(&at) && expected(false).contains(&at));
                }
            }
            for kernel in Kernel::available() {
                let mut found = Vec::new();
                if x86::teddy::scan(teddy, text, Usable::new(kernel), |at| found.push(at)) {
                    prop_assert_eq!(found, expected(kernel == Kernel::Avx2), "{}", kernel);
                } else {
                    prop_assert!(kernel < Kernel::Avx2);
                }
            }
        }
    }
}
