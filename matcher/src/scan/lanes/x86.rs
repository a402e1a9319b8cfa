//! Teddy look-ups on lanes of two units, with AVX2 and AVX-512.
//!
//! Four vectors of units are packed into two of bytes: the first bytes of all lanes and the second ones. Units that are
//! not ASCII become 0x7F, or 0 from U+8000 on, because packing treats units as signed.

#![expect(unsafe_code, reason = "vector instructions")]
#![expect(
    clippy::inline_always,
    reason = "the loops must be compiled with the target features of their callers"
)]

use crate::scan::kernel::{Isa, Kernel};
use crate::scan::lanes::LANE;
use crate::scan::teddy::Teddy;
use crate::scan::x86::{behind_avx2, broadcast_avx2, fetch_ahead, load_avx512};
use std::arch::x86_64::{
    __m256i, __m512i, _mm256_and_si256, _mm256_loadu_si256, _mm256_packs_epi16, _mm256_packus_epi16,
    _mm256_permutevar8x32_epi32, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_setr_epi32,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi16, _mm256_storeu_si256, _mm256_testz_si256,
    _mm512_and_si512, _mm512_loadu_si512, _mm512_packs_epi16, _mm512_packus_epi16, _mm512_permutex2var_epi8,
    _mm512_permutexvar_epi32, _mm512_set1_epi16, _mm512_setr_epi32, _mm512_setzero_si512, _mm512_srli_epi16,
    _mm512_storeu_si512, _mm512_test_epi8_mask,
};
use std::hint::cold_path;

/// Lanes per step, one per byte of a vector.
const LANES_AVX2: usize = 32;
const LANES_AVX512: usize = 64;
/// Units per step.
const UNITS_AVX2: usize = LANE * LANES_AVX2;
const UNITS_AVX512: usize = LANE * LANES_AVX512;
/// Vectors of units per step.
const VECTORS: usize = 4;

/// Reports the first unit of each lane that is in a bucket, and its buckets, in ascending order. The text is padded
/// with zeros.
///
/// Returns false, without reports, if `isa` lacks the vector instructions.
#[inline]
pub(super) fn scan(teddy: &Teddy, units: &[[u8; 2]], isa: Isa, candidate: impl FnMut(usize, u8)) -> bool {
    match isa.kernel() {
        // SAFETY: `Isa` guarantees that the processor has AVX-512 F, BW, VL and VBMI.
        Kernel::Avx512 => unsafe { scan_avx512(teddy, units, candidate) },
        // SAFETY: `Isa` guarantees that the processor has AVX2.
        Kernel::Avx2 => unsafe { scan_avx2(teddy, units, candidate) },
        Kernel::Sse2 | Kernel::Portable => return false,
    }
    true
}

/// Calls `step` for each `N` units, padded with zeros, up to the lane after the last one of the text.
#[inline(always)]
fn for_steps<const N: usize>(units: &[[u8; 2]], mut step: impl FnMut(usize, &[[u8; 2]; N])) {
    let (steps, rest) = units.as_chunks();
    let mut at = 0;
    for own in steps {
        step(at, own);
        at += N;
    }
    let mut padded = [[0; 2]; N];
    padded[..rest.len()].copy_from_slice(rest);
    while at < units.len() + LANE {
        step(at, &padded);
        padded = [[0; 2]; N];
        at += N;
    }
}

/// Reports lanes; `at` is the unit after that of the first lane, because the fingerprint of a lane is only known at the
/// next one.
#[cold]
#[inline(never)]
fn report(at: usize, in_text: usize, buckets: &[u8], candidate: &mut impl FnMut(usize, u8)) {
    for (lane, &buckets) in buckets.iter().enumerate() {
        if buckets != 0
            && let Some(unit) = (at + LANE * lane).checked_sub(LANE).filter(|unit| *unit < in_text)
        {
            candidate(unit, buckets);
        }
    }
}

#[target_feature(enable = "avx2")]
fn scan_avx2(teddy: &Teddy, units: &[[u8; 2]], mut candidate: impl FnMut(usize, u8)) {
    let tables = teddy.halves.map(|halves| halves.map(|table| broadcast_avx2(&table)));
    // Results of the first two tables for the previous lanes.
    let mut before = _mm256_setzero_si256();
    for_steps::<UNITS_AVX2>(units, |at, step| {
        fetch_ahead(step);
        let bytes = pack_avx2(step);
        let [first, second] = [0, 1].map(|place| look_up_avx2(&tables[place], bytes[place]));
        let [third, fourth] = [0, 1].map(|place| look_up_avx2(&tables[LANE + place], bytes[place]));
        let own = _mm256_and_si256(first, second);
        let buckets = _mm256_and_si256(behind_avx2::<15>(before, own), _mm256_and_si256(third, fourth));
        before = own;
        if _mm256_testz_si256(buckets, buckets) == 0 {
            cold_path();
            let mut bytes = [0; LANES_AVX2];
            store_avx2(buckets, &mut bytes);
            report(at, units.len(), &bytes, &mut candidate);
        }
    });
}

/// Returns the buckets of bytes, none of which is above 0x7F.
#[inline]
#[target_feature(enable = "avx2")]
fn look_up_avx2([low, high]: &[__m256i; 2], bytes: __m256i) -> __m256i {
    let highs = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), _mm256_set1_epi8(15));
    // For bytes below 0x80, the shuffle uses only the low half.
    _mm256_and_si256(_mm256_shuffle_epi8(*low, bytes), _mm256_shuffle_epi8(*high, highs))
}

/// Returns the first and the second bytes of all lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn pack_avx2(units: &[[u8; 2]; UNITS_AVX2]) -> [__m256i; 2] {
    let (vectors, _) = units.as_chunks::<{ UNITS_AVX2 / VECTORS }>();
    // SAFETY: each is a reference to 32 readable bytes, and the load requires no alignment.
    let load = |number: usize| unsafe { _mm256_loadu_si256(vectors[number].as_ptr().cast()) };
    let pairs = [0, 2].map(|number| _mm256_packus_epi16(load(number), load(number + 1)));
    let firsts = pairs.map(|pair| _mm256_and_si256(pair, _mm256_set1_epi16(0xFF)));
    let seconds = pairs.map(|pair| _mm256_srli_epi16::<8>(pair));
    // Packing works within the halves of a vector; this restores the order of the quarters.
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    [firsts, seconds].map(|[low, high]| _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order))
}

#[target_feature(enable = "avx2")]
fn store_avx2(bytes: __m256i, out: &mut [u8; LANES_AVX2]) {
    // SAFETY: the reference is to 32 writable bytes, and the store requires no alignment.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), bytes) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn scan_avx512(teddy: &Teddy, units: &[[u8; 2]], mut candidate: impl FnMut(usize, u8)) {
    let tables = teddy.bytes.each_ref().map(|table| {
        let halves: &[[u8; 64]] = table.as_chunks().0;
        [load_avx512(&halves[0]), load_avx512(&halves[1])]
    });
    // Selects the last byte of the first vector, whose bytes have the indices below 64, then all but the last byte of
    // the second one.
    let mut behind = [0; 64];
    for (number, from) in (63..).zip(&mut behind) {
        *from = number;
    }
    let behind = load_avx512(&behind);
    // Results of the first two tables for the previous lanes.
    let mut before = _mm512_setzero_si512();
    for_steps::<UNITS_AVX512>(units, |at, step| {
        fetch_ahead(step);
        let bytes = pack_avx512(step);
        let look_up =
            |[low, high]: [__m512i; 2], place: usize| _mm512_permutex2var_epi8(low, bytes[place], high);
        let own = _mm512_and_si512(look_up(tables[0], 0), look_up(tables[1], 1));
        let next = _mm512_and_si512(look_up(tables[2], 0), look_up(tables[3], 1));
        let buckets = _mm512_and_si512(_mm512_permutex2var_epi8(before, behind, own), next);
        before = own;
        if _mm512_test_epi8_mask(buckets, buckets) != 0 {
            cold_path();
            let mut bytes = [0; LANES_AVX512];
            store_avx512(buckets, &mut bytes);
            report(at, units.len(), &bytes, &mut candidate);
        }
    });
}

/// AVX-512 version of [`pack_avx2`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn pack_avx512(units: &[[u8; 2]; UNITS_AVX512]) -> [__m512i; 2] {
    let (vectors, _) = units.as_chunks::<{ UNITS_AVX512 / VECTORS }>();
    // SAFETY: each is a reference to 64 readable bytes, and the load requires no alignment.
    let load = |number: usize| unsafe { _mm512_loadu_si512(vectors[number].as_ptr().cast()) };
    let pairs = [0, 2].map(|number| _mm512_packus_epi16(load(number), load(number + 1)));
    let firsts = pairs.map(|pair| _mm512_and_si512(pair, _mm512_set1_epi16(0xFF)));
    let seconds = pairs.map(|pair| _mm512_srli_epi16::<8>(pair));
    // Packing works within the quarters of a vector; this restores the order of their quarters.
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    [firsts, seconds].map(|[low, high]| _mm512_permutexvar_epi32(order, _mm512_packs_epi16(low, high)))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn store_avx512(bytes: __m512i, out: &mut [u8; LANES_AVX512]) {
    // SAFETY: the reference is to 64 writable bytes, and the store requires no alignment.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), bytes) }
}
