//! Comparing lanes with AVX2.
//!
//! Two vectors of units are packed into one of bytes, which halves the number of comparisons. Packing maps units above
//! U+00FF to U+00FF or 0, so some lanes pass that are not equal; the caller compares each exactly anyway.

#![expect(unsafe_code, reason = "vector instructions")]

use crate::scan::bigram::{FOLD, lanes_like_plain};
use crate::scan::kernel::{Isa, Kernel};
use std::arch::x86_64::{
    __m256i, _mm256_cmpeq_epi16, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_or_si256,
    _mm256_packs_epi16, _mm256_packus_epi16, _mm256_set1_epi32, _mm256_testz_si256,
};
use std::hint::cold_path;
use std::ops::ControlFlow;

/// Lanes in a vector of bytes.
const LANES: usize = 16;
/// Lanes in a vector of units.
const VECTOR: usize = LANES / 2;
/// Lanes per step: one per bit of a `u64`.
const STEP: usize = 64;

/// Vector version of [`lanes_like_plain`].
#[inline]
pub(super) fn lanes_like<const N: usize>(
    lanes: &[[u8; 4]],
    values: &[u32; N],
    isa: Isa,
    passes: impl FnMut(usize) -> ControlFlow<()>,
) {
    match isa.kernel() {
        // SAFETY: `Isa` guarantees that the processor has AVX2. With AVX-512 this would not be faster.
        Kernel::Avx512 | Kernel::Avx2 => unsafe { lanes_like_avx2(lanes, values, passes) },
        Kernel::Sse2 | Kernel::Portable => lanes_like_plain(lanes, values, passes),
    }
}

/// Calls `passes` for the lanes of a step whose bit is set.
#[cold]
#[inline(never)]
fn report(at: usize, mut bits: u64, passes: &mut impl FnMut(usize) -> ControlFlow<()>) -> ControlFlow<()> {
    while bits != 0 {
        let bit = bits.trailing_zeros() as usize;
        // Undoes the order of packing: four lanes of one vector, four of the next, then the upper halves of both.
        passes(at + (bit & 0x23 | bit >> 2 & 4 | bit << 1 & 0x18))?;
        bits &= bits - 1;
    }
    ControlFlow::Continue(())
}

#[target_feature(enable = "avx2")]
fn lanes_like_avx2<const N: usize>(
    lanes: &[[u8; 4]],
    values: &[u32; N],
    mut passes: impl FnMut(usize) -> ControlFlow<()>,
) {
    let Some(last) = lanes.last_chunk::<STEP>() else {
        return few_lanes_avx2(lanes, values, passes);
    };
    // Packed in the same way as the lanes.
    let [fold] = pack_values_avx2(&[FOLD]);
    let wanted = pack_values_avx2(values);
    let mut step = |at: usize, step: &[[u8; 4]; STEP]| {
        let found = compare_avx2(step, fold, &wanted);
        let [first, second] = [0, 2].map(|k| _mm256_or_si256(found[k], found[k + 1]));
        let any = _mm256_or_si256(first, second);
        if _mm256_testz_si256(any, any) != 0 {
            return ControlFlow::Continue(());
        }
        cold_path();
        let [low, high] = [0, 2].map(|k| {
            let bytes = _mm256_packs_epi16(found[k], found[k + 1]);
            u64::from(_mm256_movemask_epi8(bytes).cast_unsigned())
        });
        report(at, low | high << 32, &mut passes)
    };
    let mut at = 0;
    // A load that crosses a cache line takes twice as long.
    let unaligned = lanes.as_ptr().align_offset(size_of::<__m256i>());
    if let (1..VECTOR, Some(first)) = (unaligned, lanes.first_chunk::<STEP>()) {
        if step(0, first).is_break() {
            return;
        }
        at = STEP - VECTOR + unaligned;
    }
    let (steps, rest) = lanes[at..].as_chunks::<STEP>();
    for own in steps {
        if step(at, own).is_break() {
            return;
        }
        at += STEP;
    }
    if !rest.is_empty() {
        // Some lanes are compared twice.
        let _ = step(lanes.len() - STEP, last);
    }
}

/// Returns a vector filled with each value.
#[inline]
#[target_feature(enable = "avx2")]
fn pack_values_avx2<const N: usize>(values: &[u32; N]) -> [__m256i; N] {
    values.map(|value| {
        let units = _mm256_set1_epi32(value.cast_signed());
        _mm256_packus_epi16(units, units)
    })
}

/// Handles fewer lanes than a step.
#[cold]
#[target_feature(enable = "avx2")]
fn few_lanes_avx2<const N: usize>(
    lanes: &[[u8; 4]],
    values: &[u32; N],
    passes: impl FnMut(usize) -> ControlFlow<()>,
) {
    let len = lanes.len();
    let mut padded = [[0; 4]; STEP];
    padded[..len].copy_from_slice(lanes);
    lanes_like_avx2(&padded, values, passes);
}

/// For each packed lane, returns all ones if it equals one of the values.
#[inline]
#[target_feature(enable = "avx2")]
fn compare_avx2<const N: usize>(
    step: &[[u8; 4]; STEP],
    fold: __m256i,
    wanted: &[__m256i; N],
) -> [__m256i; STEP / LANES] {
    let (halves, _) = step.as_chunks::<{ LANES / 2 }>();
    // SAFETY: each half is a reference to 32 readable bytes, and the load requires no alignment.
    let load = |half: usize| unsafe { _mm256_loadu_si256(halves[half].as_ptr().cast()) };
    [0, 1, 2, 3].map(|vector| {
        let folded = _mm256_or_si256(_mm256_packus_epi16(load(2 * vector), load(2 * vector + 1)), fold);
        let [first, rest @ ..] = &wanted[..] else { return folded };
        rest.iter().fold(_mm256_cmpeq_epi16(folded, *first), |any, value| {
            _mm256_or_si256(any, _mm256_cmpeq_epi16(folded, *value))
        })
    })
}
