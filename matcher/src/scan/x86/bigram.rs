//! Comparing lanes with AVX2.
//!
//! Two vectors of units are packed to one of bytes, so that half as many comparisons are made. Packing turns units above
//! U+00FF into U+00FF or 0, so more lanes pass than are equal; the caller looks at each anyway.

use crate::scan::bigram::{FOLD, first_lane_plain};
use crate::scan::kernel::{Kernel, Usable};
use std::arch::x86_64::{
    __m256i, _mm256_cmpeq_epi16, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_or_si256,
    _mm256_packus_epi16, _mm256_set1_epi16, _mm256_setzero_si256, _mm256_testz_si256,
};
use std::hint::cold_path;

/// Vectors that are compared before the outcome is looked at.
const BLOCK: usize = 4;
/// Lanes that make one vector of bytes.
const LANES: usize = 16;

/// As [`first_lane_plain`]; the vectors are those of `usable`.
#[inline]
pub(crate) fn first_lane<const N: usize>(
    lanes: &[[u8; 4]],
    values: &[u32; N],
    usable: Usable,
    stands: impl FnMut(usize) -> bool,
) -> Option<usize> {
    match usable.kernel() {
        // SAFETY: `Usable` vouches for the processor's AVX2, also where it has AVX-512, with which this is no faster.
        Kernel::Avx512 | Kernel::Avx2 => unsafe { first_lane_avx2(lanes, values, stands) },
        Kernel::Sse2 | Kernel::Portable => first_lane_plain(lanes, values, stands),
    }
}

/// A lane as it is packed.
fn packed(lane: u32) -> i16 {
    (lane & 0xFF | lane >> 8 & 0xFF00) as i16
}

/// Lanes before the first whose address is a multiple of `align`: a load that crosses the border of a cache line takes
/// twice as long. 0 if there is none.
fn lanes_to_align(lanes: &[[u8; 4]], align: usize) -> usize {
    let before = lanes.as_ptr().align_offset(align);
    if before < lanes.len() { before } else { 0 }
}

#[target_feature(enable = "avx2")]
fn first_lane_avx2<const N: usize>(
    lanes: &[[u8; 4]],
    values: &[u32; N],
    mut stands: impl FnMut(usize) -> bool,
) -> Option<usize> {
    let (Some(first), Some(last)) = (lanes.first_chunk(), lanes.last_chunk()) else {
        return first_lane_plain(lanes, values, stands);
    };
    let fold = _mm256_set1_epi16(packed(FOLD));
    let wanted = values.map(|value| _mm256_set1_epi16(packed(value)));
    let none = _mm256_setzero_si256();
    let equal = |lanes: &[[u8; 4]; LANES]| {
        let [low, high] = load_avx2(lanes);
        let folded = _mm256_or_si256(_mm256_packus_epi16(low, high), fold);
        wanted.iter().fold(none, |any, value| _mm256_or_si256(any, _mm256_cmpeq_epi16(folded, *value)))
    };
    let mut among = |at: usize, lanes: &[[u8; 4]; LANES]| {
        // Two bits for each lane, in the order of packing: four lanes of the one vector, four of the other, and again.
        let bits = _mm256_movemask_epi8(equal(lanes)).cast_unsigned() & 0x5555_5555;
        let mut bits = bits & 0xFF00_00FF | (bits & 0x00FF_0000) >> 8 | (bits & 0x0000_FF00) << 8;
        while bits != 0 {
            let lane = at + bits.trailing_zeros() as usize / 2;
            if stands(lane) {
                return Some(lane);
            }
            bits &= bits - 1;
        }
        None
    };
    // Neighbours may overlap: lanes that were looked at were none.
    if let Some(lane) = among(0, first) {
        return Some(lane);
    }
    let mut at = lanes_to_align(lanes, size_of::<__m256i>());
    let vectors: &[[[u8; 4]; LANES]] = lanes[at..].as_chunks().0;
    let (blocks, rest) = vectors.as_chunks::<BLOCK>();
    for block in blocks {
        let any = block.iter().fold(none, |any, lanes| _mm256_or_si256(any, equal(lanes)));
        if _mm256_testz_si256(any, any) == 0 {
            cold_path();
            for (number, vector) in block.iter().enumerate() {
                if let Some(lane) = among(at + number * LANES, vector) {
                    return Some(lane);
                }
            }
        }
        at += BLOCK * LANES;
    }
    for vector in rest {
        if let Some(lane) = among(at, vector) {
            return Some(lane);
        }
        at += LANES;
    }
    among(lanes.len() - LANES, last)
}

#[target_feature(enable = "avx2")]
fn load_avx2(lanes: &[[u8; 4]; LANES]) -> [__m256i; 2] {
    let (halves, _) = lanes.as_chunks::<{ LANES / 2 }>();
    // SAFETY: each half is a reference to 32 readable bytes, and the loads ask for no alignment.
    [0, 1].map(|half| unsafe { _mm256_loadu_si256(halves[half].as_ptr().cast()) })
}
