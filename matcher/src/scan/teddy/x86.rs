//! Teddy look-ups with AVX2 and AVX-512.

#![expect(unsafe_code, reason = "vector instructions")]
#![expect(
    clippy::inline_always,
    reason = "the loops must be compiled with the target features of their callers"
)]

use crate::scan::buckets::LEN;
use crate::scan::kernel::{Isa, Kernel};
use crate::scan::teddy::Teddy;
use crate::scan::x86::{behind_avx2, broadcast_avx2, load_avx512};
use std::arch::x86_64::{
    __m256i, _mm256_and_si256, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_set1_epi8,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi16, _mm256_testz_si256, _mm512_and_si512,
    _mm512_permutex2var_epi8, _mm512_set1_epi8, _mm512_test_epi8_mask,
};

/// Vector version of [`Teddy::scan`].
#[inline]
pub(super) fn scan(teddy: &Teddy, text: &[u8], isa: Isa, candidate: impl FnMut(usize)) -> bool {
    match isa.kernel() {
        // SAFETY: `Isa` guarantees that the processor has AVX-512 F, BW, VL and VBMI.
        Kernel::Avx512 => unsafe { scan_avx512(teddy, text, candidate) },
        // SAFETY: `Isa` guarantees that the processor has AVX2.
        Kernel::Avx2 => unsafe { scan_avx2(teddy, text, candidate) },
        Kernel::Sse2 | Kernel::Portable => return false,
    }
    true
}

/// Calls `block` for every `N` positions with `N + LEN - 1` bytes from there. The last blocks are padded with zeros.
#[inline(always)]
fn for_blocks<const N: usize>(text: &[u8], mut block: impl FnMut(usize, &[u8])) {
    let mut at = 0;
    while let Some(bytes) = text.get(at..at + N + LEN - 1) {
        block(at, bytes);
        at += N;
    }
    while at < text.len() {
        let mut padded = [0; 128];
        let rest = &text[at..text.len().min(at + N + LEN - 1)];
        padded[..rest.len()].copy_from_slice(rest);
        block(at, &padded[..N + LEN - 1]);
        at += N;
    }
}

/// Reports the starts of the fingerprints that end at these positions.
#[cold]
#[inline(never)]
fn report_ends(at: usize, mut ends: u32, in_text: usize, candidate: &mut impl FnMut(usize)) {
    while ends != 0 {
        let end = at + ends.trailing_zeros() as usize;
        if let Some(place) = end.checked_sub(LEN - 1).filter(|place| *place < in_text) {
            candidate(place);
        }
        ends &= ends - 1;
    }
}

#[cold]
#[inline(never)]
fn report(at: usize, mut places: u64, in_text: usize, candidate: &mut impl FnMut(usize)) {
    while places != 0 {
        let place = at + places.trailing_zeros() as usize;
        if place < in_text {
            candidate(place);
        }
        places &= places - 1;
    }
}

#[target_feature(enable = "avx2")]
fn scan_avx2(teddy: &Teddy, text: &[u8], mut candidate: impl FnMut(usize)) {
    let mut search = VectorSearch::new(teddy);
    let (vectors, rest) = text.as_chunks::<32>();
    for (number, bytes) in vectors.iter().enumerate() {
        let ends = search.ends(load_avx2(bytes));
        if ends != 0 {
            report_ends(32 * number, ends, text.len(), &mut candidate);
        }
    }
    // The last vector overlaps the one before, unless nearly all of it would: the first bytes of an overlapping vector
    // give no result for fingerprints that end there.
    let (at, seen, bytes) = match text.last_chunk() {
        Some(last) if (1..=32 - LEN).contains(&rest.len()) => {
            (text.len() - 32, 32 - rest.len(), load_avx2(last))
        }
        _ => {
            let mut padded = [0; 32];
            padded[..rest.len()].copy_from_slice(rest);
            (text.len() - rest.len(), 0, load_avx2(&padded))
        }
    };
    report_ends(at, search.ends(bytes) & u32::MAX << seen, text.len(), &mut candidate);
    // Fingerprints that begin in the text may end after it.
    report_ends(at + 32, search.ends(_mm256_setzero_si256()), text.len(), &mut candidate);
}

/// A search in progress.
struct VectorSearch {
    tables: [[__m256i; 2]; LEN],
    /// Results of the first three tables for the previous vector.
    before: [__m256i; LEN - 1],
}

impl VectorSearch {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new(teddy: &Teddy) -> Self {
        let tables = teddy.halves.map(|halves| halves.map(|table| broadcast_avx2(&table)));
        Self { tables, before: [_mm256_setzero_si256(); LEN - 1] }
    }

    /// Returns one bit per byte of the next vector at which a fingerprint may end.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn ends(&mut self, bytes: __m256i) -> u32 {
        let half = _mm256_set1_epi8(15);
        let lows = _mm256_and_si256(bytes, half);
        let highs = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), half);
        let [first, second, third, fourth] = self.tables.map(|[low, high]| {
            _mm256_and_si256(_mm256_shuffle_epi8(low, lows), _mm256_shuffle_epi8(high, highs))
        });
        let behind = [
            behind_avx2::<{ 16 - 3 }>(self.before[0], first),
            behind_avx2::<{ 16 - 2 }>(self.before[1], second),
            behind_avx2::<{ 16 - 1 }>(self.before[2], third),
        ];
        self.before = [first, second, third];
        let buckets = behind.iter().fold(fourth, |all, own| _mm256_and_si256(all, *own));
        if _mm256_testz_si256(buckets, buckets) != 0 {
            return 0;
        }
        !_mm256_movemask_epi8(_mm256_cmpeq_epi8(buckets, _mm256_setzero_si256())).cast_unsigned()
    }
}

#[target_feature(enable = "avx2")]
fn load_avx2(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the reference is to 32 readable bytes, and the load requires no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn scan_avx512(teddy: &Teddy, text: &[u8], mut candidate: impl FnMut(usize)) {
    let tables = teddy.bytes.each_ref().map(|table| {
        let halves: &[[u8; 64]] = table.as_chunks().0;
        [load_avx512(&halves[0]), load_avx512(&halves[1])]
    });
    for_blocks::<64>(text, |at, bytes| {
        let mut buckets = _mm512_set1_epi8(-1);
        for (place, [low, high]) in tables.iter().enumerate() {
            let Some(bytes) = bytes[place..].first_chunk() else { return };
            // Uses the lowest seven bits of each byte.
            let own = _mm512_permutex2var_epi8(*low, load_avx512(bytes), *high);
            buckets = _mm512_and_si512(buckets, own);
        }
        let places = _mm512_test_epi8_mask(buckets, buckets);
        if places != 0 {
            report(at, places, text.len(), &mut candidate);
        }
    });
}
