//! Narrowing with wider vectors: the plain loops, compiled for AVX2 and AVX-512.

use crate::scan::kernel::{Kernel, Usable};
use crate::scan::narrow::{low_bytes_plain, narrow_plain};

/// As [`narrow_plain`]; the vectors are those of `usable`.
pub(crate) fn narrow(units: &[[u8; 2]], out: &mut [u8], usable: Usable) {
    match usable.kernel() {
        // SAFETY: `Usable` vouches for the processor's AVX-512 F, BW and VL.
        Kernel::Avx512 => unsafe { narrow_avx512(units, out) },
        // SAFETY: `Usable` vouches for the processor's AVX2.
        Kernel::Avx2 => unsafe { narrow_avx2(units, out) },
        Kernel::Sse2 | Kernel::Portable => narrow_plain(units, out),
    }
}

/// As [`low_bytes_plain`]; the vectors are those of `usable`.
pub(crate) fn low_bytes(units: &[[u8; 2]], out: &mut [u8], usable: Usable) -> bool {
    match usable.kernel() {
        // SAFETY: `Usable` vouches for the processor's AVX-512 F, BW and VL.
        Kernel::Avx512 => unsafe { low_bytes_avx512(units, out) },
        // SAFETY: `Usable` vouches for the processor's AVX2.
        Kernel::Avx2 => unsafe { low_bytes_avx2(units, out) },
        Kernel::Sse2 | Kernel::Portable => low_bytes_plain(units, out),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn narrow_avx512(units: &[[u8; 2]], out: &mut [u8]) {
    narrow_plain(units, out);
}

#[target_feature(enable = "avx2")]
fn narrow_avx2(units: &[[u8; 2]], out: &mut [u8]) {
    narrow_plain(units, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn low_bytes_avx512(units: &[[u8; 2]], out: &mut [u8]) -> bool {
    low_bytes_plain(units, out)
}

#[target_feature(enable = "avx2")]
fn low_bytes_avx2(units: &[[u8; 2]], out: &mut [u8]) -> bool {
    low_bytes_plain(units, out)
}
