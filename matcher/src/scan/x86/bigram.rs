//! Comparing lanes with wider vectors: the plain loop, compiled for AVX2 and AVX-512.

use crate::scan::bigram::first_lane_plain;
use crate::scan::kernel::{Kernel, Usable};

/// As [`first_lane_plain`]; the vectors are those of `usable`.
pub(crate) fn first_lane<const N: usize>(
    lanes: &[[u8; 4]],
    values: &[u32; N],
    usable: Usable,
) -> Option<usize> {
    match usable.kernel() {
        // SAFETY: `Usable` vouches for the processor's AVX-512 F, BW and VL.
        Kernel::Avx512 => unsafe { first_lane_avx512(lanes, values) },
        // SAFETY: `Usable` vouches for the processor's AVX2.
        Kernel::Avx2 => unsafe { first_lane_avx2(lanes, values) },
        Kernel::Sse2 | Kernel::Portable => first_lane_plain(lanes, values),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn first_lane_avx512<const N: usize>(lanes: &[[u8; 4]], values: &[u32; N]) -> Option<usize> {
    first_lane_plain(lanes, values)
}

#[target_feature(enable = "avx2")]
fn first_lane_avx2<const N: usize>(lanes: &[[u8; 4]], values: &[u32; N]) -> Option<usize> {
    first_lane_plain(lanes, values)
}
