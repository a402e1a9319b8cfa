//! Gram look-ups with AVX2 and AVX-512: hashes of a vector of grams, and a gather from the filter.

#![expect(unsafe_code, reason = "vector instructions")]

use crate::scan::gram_filter::{GRAM, GramFilter, HASH_FACTOR, NEXT_MASK, SECOND_SHIFT, padded};
use crate::scan::kernel::{Isa, Kernel};
use crate::scan::narrow::NOT_ASCII;
use std::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_cvtsi32_si128, _mm256_and_si256, _mm256_castsi256_ps,
    _mm256_i32gather_epi32, _mm256_loadu_si256, _mm256_movemask_ps, _mm256_mullo_epi32, _mm256_set1_epi32,
    _mm256_slli_epi32, _mm256_sllv_epi32, _mm256_srl_epi32, _mm256_srli_epi32, _mm512_and_si512,
    _mm512_i32gather_epi32, _mm512_loadu_si512, _mm512_mullo_epi32, _mm512_set1_epi32, _mm512_slli_epi32,
    _mm512_sllv_epi32, _mm512_srl_epi32, _mm512_srli_epi32, _mm512_test_epi32_mask,
};

/// Grams per vector.
const GRAMS_AVX2: usize = 8;
const GRAMS_AVX512: usize = 16;
/// Bytes read per vector: its grams and the next one.
const READ_AVX2: usize = GRAM * (GRAMS_AVX2 + 1);
const READ_AVX512: usize = GRAM * (GRAMS_AVX512 + 1);

/// Calls `candidate` with the index of each gram that passes the filter. The text is padded with [`NOT_ASCII`].
#[inline]
pub(super) fn scan(text: &[u8], grams: &GramFilter, isa: Isa, candidate: impl FnMut(usize)) {
    match isa.kernel() {
        // SAFETY: `Isa` guarantees that the processor has AVX-512 F, BW, VL and VBMI.
        Kernel::Avx512 => unsafe { scan_avx512(text, grams, candidate) },
        // SAFETY: the caller has one of these kernels, so `Isa` guarantees that the processor has AVX2.
        _ => unsafe { scan_avx2(text, grams, candidate) },
    }
}

/// Calls `candidate` for each set bit, counting grams from `first`.
#[cold]
#[inline(never)]
fn report(first: usize, mut bits: u32, candidate: &mut impl FnMut(usize)) {
    while bits != 0 {
        candidate(first + bits.trailing_zeros() as usize);
        bits &= bits - 1;
    }
}

/// Returns the shift that extracts the index in the filter from a hash.
fn shift(filter: &[u32]) -> __m128i {
    // SAFETY: every x86-64 processor has SSE2.
    unsafe { _mm_cvtsi32_si128((u32::BITS - filter.len().ilog2()).cast_signed()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn scan_avx512(text: &[u8], grams: &GramFilter, mut candidate: impl FnMut(usize)) {
    let (filter, shift) = (grams.filter(), shift(grams.filter()));
    let passes = |bytes: &[u8; READ_AVX512]| u32::from(look_up_avx512(filter, shift, load_avx512(bytes)));
    let mut at = 0;
    while let Some(bytes) = text.get(at..).and_then(<[u8]>::first_chunk) {
        let bits = passes(bytes);
        if bits != 0 {
            report(at / GRAM, bits, &mut candidate);
        }
        at += GRAM * GRAMS_AVX512;
    }
    let Some(start) = text.len().checked_sub(READ_AVX512) else {
        return report(at / GRAM, passes(&padded(text, NOT_ASCII)), &mut candidate);
    };
    // The last vector overlaps the one before. It is followed by one complete gram.
    let start = start / GRAM * GRAM;
    if let Some(bytes) = text[start..].first_chunk() {
        report(at / GRAM, passes(bytes) >> ((at - start) / GRAM), &mut candidate);
    }
    let last = u64::from_le_bytes(padded(&text[start + GRAM * GRAMS_AVX512..], NOT_ASCII));
    if grams.holds(last as u32, (last >> u32::BITS) as u32) {
        candidate(start / GRAM + GRAMS_AVX512);
    }
}

/// For each gram, sets a bit if the filter contains it followed by the next one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn look_up_avx512(filter: &[u32], shift: __m128i, [grams, next]: [__m512i; 2]) -> u16 {
    let product = _mm512_mullo_epi32(grams, _mm512_set1_epi32(HASH_FACTOR.cast_signed()));
    let place = _mm512_srl_epi32(product, shift);
    // SAFETY: a number of `ilog2(len)` bits is less than `len`, so every lane reads an element of the filter.
    let sets = unsafe { _mm512_i32gather_epi32::<4>(place, filter.as_ptr().cast()) };
    let mask = _mm512_set1_epi32(NEXT_MASK.cast_signed());
    let first = _mm512_sllv_epi32(sets, _mm512_and_si512(next, mask));
    let seconds = _mm512_slli_epi32::<SECOND_SHIFT>(sets);
    let second = _mm512_sllv_epi32(seconds, _mm512_and_si512(_mm512_srli_epi32::<8>(next), mask));
    _mm512_test_epi32_mask(_mm512_and_si512(first, second), _mm512_set1_epi32(i32::MIN))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn load_avx512(bytes: &[u8; READ_AVX512]) -> [__m512i; 2] {
    let from = bytes.as_ptr();
    // SAFETY: the reference is to `READ_AVX512` readable bytes, 64 from each of the two addresses, and the loads
    // require no alignment.
    unsafe { [_mm512_loadu_si512(from.cast()), _mm512_loadu_si512(from.add(GRAM).cast())] }
}

#[target_feature(enable = "avx2")]
fn scan_avx2(text: &[u8], grams: &GramFilter, mut candidate: impl FnMut(usize)) {
    let (filter, shift) = (grams.filter(), shift(grams.filter()));
    let passes = |bytes: &[u8; READ_AVX2]| look_up_avx2(filter, shift, load_avx2(bytes));
    let mut at = 0;
    while let Some(bytes) = text.get(at..).and_then(<[u8]>::first_chunk) {
        let bits = passes(bytes);
        if bits != 0 {
            report(at / GRAM, bits, &mut candidate);
        }
        at += GRAM * GRAMS_AVX2;
    }
    let Some(start) = text.len().checked_sub(READ_AVX2) else {
        return report(at / GRAM, passes(&padded(text, NOT_ASCII)), &mut candidate);
    };
    // The last vector overlaps the one before. It is followed by one complete gram.
    let start = start / GRAM * GRAM;
    if let Some(bytes) = text[start..].first_chunk() {
        report(at / GRAM, passes(bytes) >> ((at - start) / GRAM), &mut candidate);
    }
    let last = u64::from_le_bytes(padded(&text[start + GRAM * GRAMS_AVX2..], NOT_ASCII));
    if grams.holds(last as u32, (last >> u32::BITS) as u32) {
        candidate(start / GRAM + GRAMS_AVX2);
    }
}

/// AVX2 version of [`look_up_avx512`].
#[inline]
#[target_feature(enable = "avx2")]
fn look_up_avx2(filter: &[u32], shift: __m128i, [grams, next]: [__m256i; 2]) -> u32 {
    let product = _mm256_mullo_epi32(grams, _mm256_set1_epi32(HASH_FACTOR.cast_signed()));
    let place = _mm256_srl_epi32(product, shift);
    // SAFETY: a number of `ilog2(len)` bits is less than `len`, so every lane reads an element of the filter.
    let sets = unsafe { _mm256_i32gather_epi32::<4>(filter.as_ptr().cast(), place) };
    let mask = _mm256_set1_epi32(NEXT_MASK.cast_signed());
    let first = _mm256_sllv_epi32(sets, _mm256_and_si256(next, mask));
    let seconds = _mm256_slli_epi32::<{ SECOND_SHIFT.cast_signed() }>(sets);
    let second = _mm256_sllv_epi32(seconds, _mm256_and_si256(_mm256_srli_epi32::<8>(next), mask));
    // The highest bit of each lane.
    _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_and_si256(first, second))).cast_unsigned()
}

#[target_feature(enable = "avx2")]
fn load_avx2(bytes: &[u8; READ_AVX2]) -> [__m256i; 2] {
    let from = bytes.as_ptr();
    // SAFETY: the reference is to `READ_AVX2` readable bytes, 32 from each of the two addresses, and the loads require
    // no alignment.
    unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(GRAM).cast())] }
}
