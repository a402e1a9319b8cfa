//! Looking up words with AVX2 and AVX-512: hashes of a vector of words, and a gather from the filter.

use crate::scan::grams::{BIT_LOG2, Grams, HASH_FACTORS, HASH_SHIFT};
use crate::scan::kernel::{Kernel, Usable};
use crate::scan::narrow::NOT_ASCII;
use crate::scan::words::WORD;
use std::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_cvtsi32_si128, _mm256_add_epi32, _mm256_and_si256, _mm256_castsi256_ps,
    _mm256_i32gather_epi32, _mm256_loadu_si256, _mm256_movemask_ps, _mm256_mullo_epi32, _mm256_or_si256,
    _mm256_set1_epi32, _mm256_slli_epi32, _mm256_srl_epi32, _mm256_srli_epi32, _mm256_srlv_epi32,
    _mm256_xor_si256, _mm512_add_epi32, _mm512_and_si512, _mm512_i32gather_epi32, _mm512_loadu_si512,
    _mm512_mullo_epi32, _mm512_or_si512, _mm512_rorv_epi32, _mm512_set1_epi32, _mm512_srl_epi32,
    _mm512_srli_epi32, _mm512_test_epi32_mask, _mm512_xor_si512,
};

/// Words of a vector.
const WORDS_AVX2: usize = 8;
const WORDS_AVX512: usize = 16;
/// Bytes that are read for a vector: its words and the one behind them.
const READ_AVX2: usize = WORD * (WORDS_AVX2 + 1);
const READ_AVX512: usize = WORD * (WORDS_AVX512 + 1);

/// Calls `candidate` with the number of each word that passes one of the filters; behind its end the text is taken to go
/// on with [`NOT_ASCII`].
#[inline]
pub(crate) fn scan(text: &[u8], long: &Grams, middle: &Grams, usable: Usable, candidate: impl FnMut(usize)) {
    // One look-up less if there is nothing to find.
    let middle = (!middle.is_empty()).then(|| middle.filter());
    match usable.kernel() {
        // SAFETY: `Usable` vouches for the processor's AVX-512 F, BW, VL and VBMI.
        Kernel::Avx512 => unsafe { scan_avx512(text, long.filter(), middle, candidate) },
        // SAFETY: the caller has one of these kernels, and `Usable` vouches for the processor's AVX2.
        _ => unsafe { scan_avx2(text, long.filter(), middle, candidate) },
    }
}

/// Calls `candidate` for each bit, as the number of a word from `first` on.
#[inline]
fn report(first: usize, mut bits: u32, candidate: &mut impl FnMut(usize)) {
    while bits != 0 {
        candidate(first + bits.trailing_zeros() as usize);
        bits &= bits - 1;
    }
}

/// The last bytes of a text, followed by others.
fn padded<const N: usize>(rest: &[u8]) -> [u8; N] {
    let mut bytes = [NOT_ASCII; N];
    bytes[..rest.len()].copy_from_slice(rest);
    bytes
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn scan_avx512(text: &[u8], long: &[u32], middle: Option<&[u32]>, mut candidate: impl FnMut(usize)) {
    let factors = HASH_FACTORS.map(|factor| _mm512_set1_epi32(factor.cast_signed()));
    let (long_shifts, middle_shifts) = (shifts(long), shifts(middle.unwrap_or(long)));
    let one = _mm512_set1_epi32(1);
    let passes = |bytes: &[u8; READ_AVX512]| {
        let [words, next] = load_avx512(bytes);
        let alone = _mm512_mullo_epi32(words, factors[0]);
        let pair = _mm512_add_epi32(alone, _mm512_mullo_epi32(next, factors[1]));
        let mut passes = look_up_avx512(long, &long_shifts, pair);
        if let Some(middle) = middle {
            passes = _mm512_or_si512(passes, look_up_avx512(middle, &middle_shifts, alone));
        }
        u32::from(_mm512_test_epi32_mask(passes, one))
    };
    let mut at = 0;
    while let Some(bytes) = text.get(at..).and_then(<[u8]>::first_chunk) {
        report(at / WORD, passes(bytes), &mut candidate);
        at += WORD * WORDS_AVX512;
    }
    if at < text.len() {
        report(at / WORD, passes(&padded(&text[at..])), &mut candidate);
    }
}

/// The shifts that take a word's number and its two bits from a hash.
fn shifts(filter: &[u32]) -> [__m128i; 3] {
    let word = u32::BITS - filter.len().ilog2();
    // SAFETY: SSE2 belongs to every x86-64 processor.
    [0, 1, 2].map(|number| unsafe { _mm_cvtsi32_si128((word - number * BIT_LOG2).cast_signed()) })
}

/// In the lowest bit of each lane, whether the filter holds a gram of this product.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn look_up_avx512(filter: &[u32], shifts: &[__m128i; 3], product: __m512i) -> __m512i {
    let hash = _mm512_xor_si512(product, _mm512_srli_epi32::<HASH_SHIFT>(product));
    let [word, first, second] = shifts.map(|shift| _mm512_srl_epi32(hash, shift));
    // SAFETY: a number of `ilog2(len)` bits is less than `len`, so every lane reads a word of the filter.
    let words = unsafe { _mm512_i32gather_epi32::<4>(word, filter.as_ptr().cast()) };
    _mm512_and_si512(_mm512_rorv_epi32(words, first), _mm512_rorv_epi32(words, second))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn load_avx512(bytes: &[u8; READ_AVX512]) -> [__m512i; 2] {
    let from = bytes.as_ptr();
    // SAFETY: the reference is to `READ_AVX512` readable bytes, 64 from each of the two places; the loads ask for no
    // alignment.
    unsafe { [_mm512_loadu_si512(from.cast()), _mm512_loadu_si512(from.add(WORD).cast())] }
}

#[target_feature(enable = "avx2")]
fn scan_avx2(text: &[u8], long: &[u32], middle: Option<&[u32]>, mut candidate: impl FnMut(usize)) {
    let factors = HASH_FACTORS.map(|factor| _mm256_set1_epi32(factor.cast_signed()));
    let (long_shifts, middle_shifts) = (shifts(long), shifts(middle.unwrap_or(long)));
    let passes = |bytes: &[u8; READ_AVX2]| {
        let [words, next] = load_avx2(bytes);
        let alone = _mm256_mullo_epi32(words, factors[0]);
        let pair = _mm256_add_epi32(alone, _mm256_mullo_epi32(next, factors[1]));
        let mut passes = look_up_avx2(long, &long_shifts, pair);
        if let Some(middle) = middle {
            passes = _mm256_or_si256(passes, look_up_avx2(middle, &middle_shifts, alone));
        }
        // The mask takes the highest bit of each lane.
        let lowest = _mm256_slli_epi32::<31>(passes);
        _mm256_movemask_ps(_mm256_castsi256_ps(lowest)).cast_unsigned()
    };
    let mut at = 0;
    while let Some(bytes) = text.get(at..).and_then(<[u8]>::first_chunk) {
        report(at / WORD, passes(bytes), &mut candidate);
        at += WORD * WORDS_AVX2;
    }
    if at < text.len() {
        report(at / WORD, passes(&padded(&text[at..])), &mut candidate);
    }
}

/// As [`look_up_avx512`].
#[target_feature(enable = "avx2")]
fn look_up_avx2(filter: &[u32], shifts: &[__m128i; 3], product: __m256i) -> __m256i {
    let hash = _mm256_xor_si256(product, _mm256_srli_epi32::<{ HASH_SHIFT.cast_signed() }>(product));
    let [word, first, second] = shifts.map(|shift| _mm256_srl_epi32(hash, shift));
    // SAFETY: a number of `ilog2(len)` bits is less than `len`, so every lane reads a word of the filter.
    let words = unsafe { _mm256_i32gather_epi32::<4>(filter.as_ptr().cast(), word) };
    let bit = _mm256_set1_epi32(31);
    _mm256_and_si256(
        _mm256_srlv_epi32(words, _mm256_and_si256(first, bit)),
        _mm256_srlv_epi32(words, _mm256_and_si256(second, bit)),
    )
}

#[target_feature(enable = "avx2")]
fn load_avx2(bytes: &[u8; READ_AVX2]) -> [__m256i; 2] {
    let from = bytes.as_ptr();
    // SAFETY: the reference is to `READ_AVX2` readable bytes, 32 from each of the two places; the loads ask for no
    // alignment.
    unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(WORD).cast())] }
}
