//! Teddy: where may one of many short needles stand?
//!
//! Each needle gives a fingerprint of two or three neighbouring bytes and is put into one of eight buckets. For
//! each place of the fingerprint two tables of sixteen say, for the low and the high half of a byte, which buckets
//! have it; a place where all tables agree on a bucket is a candidate. A shuffle looks up a whole vector of bytes
//! at once. Source of the idea: Geoffrey Langdale's Teddy in Hyperscan.

/// Buckets: bits of a byte.
const BUCKETS: usize = 8;
/// Bytes of a fingerprint.
pub(crate) const LEN: usize = 3;

/// Tables over the fingerprints of needles.
#[derive(Debug)]
pub(crate) struct Teddy {
    /// For each byte of the fingerprint, the buckets by low half and by high half.
    pub(super) tables: [[[u8; 16]; 2]; LEN],
}

/// A needle's fingerprint; the third byte may be any.
pub(crate) type Fingerprint = (u8, u8, Option<u8>);

impl Teddy {
    pub(crate) fn new(fingerprints: &[Fingerprint]) -> Self {
        let mut buckets = [[[0u16; 2]; LEN]; BUCKETS];
        for &(first, second, third) in fingerprints {
            let halves = [Some(first), Some(second), third].map(|byte| match byte {
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
            if let Some(best) = buckets.iter_mut().min_by_key(|bucket| passes(&with(bucket)) - passes(bucket))
            {
                *best = with(best);
            }
        }
        let mut tables = [[[0; 16]; 2]; LEN];
        for (number, bucket) in buckets.iter().enumerate() {
            for (table, set) in tables.as_flattened_mut().iter_mut().zip(bucket.as_flattened()) {
                for (half, buckets) in table.iter_mut().enumerate() {
                    *buckets |= u8::from(set >> half & 1 != 0) << number;
                }
            }
        }
        Self { tables }
    }

    /// The slow twin of the vector code: the buckets of a place.
    #[cfg(test)]
    pub(super) fn buckets(&self, bytes: [u8; LEN]) -> u8 {
        self.tables.iter().zip(bytes).fold(u8::MAX, |all, ([low, high], byte)| {
            all & low[usize::from(byte & 15)] & high[usize::from(byte >> 4)]
        })
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::{LEN, Teddy};
    use crate::scan::kernel::{Kernel, Usable};
    use crate::scan::x86;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn equals_place_by_place(
            fingerprints in proptest::collection::vec((any::<u8>(), any::<u8>(), any::<Option<u8>>()), 1..80),
            mut text in proptest::collection::vec(any::<u8>(), 0..300),
            places in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..20),
            skip in 0usize..70,
        ) {
            for (place, which) in places {
                let (first, second, third) = fingerprints[which.index(fingerprints.len())];
                if text.len() >= LEN {
                    let at = place.index(text.len() - 2);
                    text[at..at + LEN].copy_from_slice(&[first, second, third.unwrap_or(0)]);
                }
            }
            let text = &text[skip.min(text.len())..];
            let teddy = Teddy::new(&fingerprints);
            let mut padded = text.to_vec();
            padded.extend([0; LEN]);
            let expected: Vec<usize> = (0..text.len())
                .filter(|&at| teddy.buckets([padded[at], padded[at + 1], padded[at + 2]]) != 0)
                .collect();
            for (at, three) in text.windows(LEN).enumerate() {
                let own = |(a, b, c): &(u8, u8, Option<u8>)| *a == three[0] && *b == three[1] && c.is_none_or(|c| c == three[2]);
                prop_assert!(!fingerprints.iter().any(own) || expected.contains(&at));
            }
            for kernel in Kernel::available() {
                let mut found = Vec::new();
                if x86::teddy::scan(&teddy, text, Usable::new(kernel), |at| found.push(at)) {
                    prop_assert_eq!(&found, &expected, "{}", kernel);
                } else {
                    prop_assert!(kernel < Kernel::Avx2);
                }
            }
        }
    }
}
