//! Comparing lanes with AVX2 and AVX-512.
//!
//! Two vectors of units are packed to one of bytes, so that half as many comparisons are made. Packing turns units above
//! U+00FF into U+00FF or 0, so more lanes pass than are equal; the caller looks at each anyway.

use crate::scan::bigram::{FOLD, first_lane_plain};
use crate::scan::kernel::{Kernel, Usable};
use std::arch::x86_64::{
    __m256i, __m512i, _mm256_cmpeq_epi16, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_or_si256,
    _mm256_packus_epi16, _mm256_set1_epi16, _mm256_setzero_si256, _mm256_testz_si256, _mm512_loadu_si512,
    _mm512_min_epu16, _mm512_or_si512, _mm512_packus_epi16, _mm512_set1_epi16, _mm512_testn_epi16_mask,
    _mm512_xor_si512,
};
use std::hint::cold_path;

/// Vectors that are compared before the outcome is looked at.
const BLOCK: usize = 4;
/// Lanes that make one vector of bytes.
const LANES_AVX2: usize = 16;
const LANES_AVX512: usize = 32;

/// As [`first_lane_plain`]; the vectors are those of `usable`.
#[inline]
pub(crate) fn first_lane<const N: usize>(
    lanes: &[[u8; 4]],
    values: &[u32; N],
    usable: Usable,
    stands: impl FnMut(usize) -> bool,
) -> Option<usize> {
    match usable.kernel() {
        // SAFETY: `Usable` vouches for the processor's AVX-512 F, BW and VL, and for AVX2 beside them.
        Kernel::Avx512 => unsafe { first_lane_avx512(lanes, values, stands) },
        // SAFETY: `Usable` vouches for the processor's AVX2.
        Kernel::Avx2 => unsafe { first_lane_avx2(lanes, values, stands) },
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
    let equal = |lanes: &[[u8; 4]; LANES_AVX2]| {
        let [low, high] = load_avx2(lanes);
        let folded = _mm256_or_si256(_mm256_packus_epi16(low, high), fold);
        let none = _mm256_setzero_si256();
        wanted.iter().fold(none, |any, value| _mm256_or_si256(any, _mm256_cmpeq_epi16(folded, *value)))
    };
    let mut among = |at: usize, lanes: &[[u8; 4]; LANES_AVX2]| {
        // Two bits for each lane, in the order of packing: four lanes of the one vector, four of the other, and again.
        let mut bits = _mm256_movemask_epi8(equal(lanes)).cast_unsigned() & 0x5555_5555;
        bits = bits & 0xFF00_00FF | (bits & 0x00FF_0000) >> 8 | (bits & 0x0000_FF00) << 8;
        while bits != 0 {
            let lane = at + bits.trailing_zeros() as usize / 2;
            if stands(lane) {
                return Some(lane);
            }
            bits &= bits - 1;
        }
        None
    };
    if let Some(lane) = among(0, first) {
        return Some(lane);
    }
    // Neighbours may overlap: lanes that were looked at were none.
    let mut at = lanes_to_align(lanes, size_of::<__m256i>());
    let (blocks, rest) = lanes[at..].as_chunks::<{ BLOCK * LANES_AVX2 }>();
    for block in blocks {
        let vectors: &[_] = block.as_chunks().0;
        let any =
            vectors.iter().fold(_mm256_setzero_si256(), |any, lanes| _mm256_or_si256(any, equal(lanes)));
        if _mm256_testz_si256(any, any) == 0 {
            cold_path();
            for (number, lanes) in vectors.iter().enumerate() {
                if let Some(lane) = among(at + number * LANES_AVX2, lanes) {
                    return Some(lane);
                }
            }
        }
        at += block.len();
    }
    for lanes in rest.as_chunks().0 {
        if let Some(lane) = among(at, lanes) {
            return Some(lane);
        }
        at += lanes.len();
    }
    among(lanes.len() - last.len(), last)
}

#[target_feature(enable = "avx2")]
fn load_avx2(lanes: &[[u8; 4]; LANES_AVX2]) -> [__m256i; 2] {
    let (halves, _) = lanes.as_chunks::<{ LANES_AVX2 / 2 }>();
    // SAFETY: each half is a reference to 32 readable bytes, and the loads ask for no alignment.
    [0, 1].map(|half| unsafe { _mm256_loadu_si256(halves[half].as_ptr().cast()) })
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
fn first_lane_avx512<const N: usize>(
    lanes: &[[u8; 4]],
    values: &[u32; N],
    mut stands: impl FnMut(usize) -> bool,
) -> Option<usize> {
    let (Some(first), Some(last)) = (lanes.first_chunk(), lanes.last_chunk()) else {
        return first_lane_avx2(lanes, values, stands);
    };
    let fold = _mm512_set1_epi16(packed(FOLD));
    let wanted = values.map(|value| _mm512_set1_epi16(packed(value)));
    // Zero where a lane may be one of the values.
    let differ = |least: __m512i, lanes: &[[u8; 4]; LANES_AVX512]| {
        let [low, high] = load_avx512(lanes);
        let folded = _mm512_or_si512(_mm512_packus_epi16(low, high), fold);
        wanted.iter().fold(least, |least, value| _mm512_min_epu16(least, _mm512_xor_si512(folded, *value)))
    };
    let all = _mm512_set1_epi16(-1);
    let mut among = |at: usize, lanes: &[[u8; 4]; LANES_AVX512]| {
        let differ = differ(all, lanes);
        // In the order of packing: four lanes of the one vector, four of the other, and so on.
        let bits = _mm512_testn_epi16_mask(differ, differ);
        let low = [0, 1, 2, 3].map(|n| (bits >> (8 * n) & 15) << (4 * n)).iter().sum::<u32>();
        let high = [0, 1, 2, 3].map(|n| (bits >> (8 * n + 4) & 15) << (4 * n)).iter().sum::<u32>();
        let mut bits = low | high << 16;
        while bits != 0 {
            let lane = at + bits.trailing_zeros() as usize;
            if stands(lane) {
                return Some(lane);
            }
            bits &= bits - 1;
        }
        None
    };
    if let Some(lane) = among(0, first) {
        return Some(lane);
    }
    // Neighbours may overlap: lanes that were looked at were none.
    let mut at = lanes_to_align(lanes, size_of::<__m512i>());
    let (blocks, rest) = lanes[at..].as_chunks::<{ BLOCK * LANES_AVX512 }>();
    for block in blocks {
        let vectors: &[_] = block.as_chunks().0;
        let joined = vectors.iter().fold(all, differ);
        if _mm512_testn_epi16_mask(joined, joined) != 0 {
            cold_path();
            for (number, lanes) in vectors.iter().enumerate() {
                if let Some(lane) = among(at + number * LANES_AVX512, lanes) {
                    return Some(lane);
                }
            }
        }
        at += block.len();
    }
    for lanes in rest.as_chunks().0 {
        if let Some(lane) = among(at, lanes) {
            return Some(lane);
        }
        at += lanes.len();
    }
    among(lanes.len() - last.len(), last)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn load_avx512(lanes: &[[u8; 4]; LANES_AVX512]) -> [__m512i; 2] {
    let (halves, _) = lanes.as_chunks::<{ LANES_AVX512 / 2 }>();
    // SAFETY: each half is a reference to 64 readable bytes, and the loads ask for no alignment.
    [0, 1].map(|half| unsafe { _mm512_loadu_si512(halves[half].as_ptr().cast()) })
}
