//! Narrowing with AVX2 and AVX-512.

#![expect(unsafe_code, reason = "vector instructions")]

use crate::scan::kernel::{Isa, Kernel};
use crate::scan::narrow::{low_bytes_plain, narrow_plain};
use crate::scan::x86::fetch_ahead;
use std::arch::x86_64::{
    __m256i, _mm256_add_epi8, _mm256_and_si256, _mm256_cmpgt_epi8, _mm256_loadu_si256, _mm256_min_epu16,
    _mm256_or_si256, _mm256_packus_epi16, _mm256_permute4x64_epi64, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_setzero_si256, _mm256_storeu_si256,
};

/// Vector version of [`narrow_plain`]. `out` must be as long as `units`.
pub(super) fn narrow(units: &[[u8; 2]], out: &mut [u8], isa: Isa) {
    match isa.kernel() {
        // SAFETY: `Isa` guarantees that the processor has AVX2, which every processor with AVX-512 has.
        Kernel::Avx512 | Kernel::Avx2 => unsafe { narrow_avx2(units, out) },
        Kernel::Sse2 | Kernel::Portable => narrow_plain(units, out),
    }
}

/// Vector version of [`low_bytes_plain`].
pub(super) fn low_bytes(units: &[[u8; 2]], out: &mut [u8], isa: Isa) -> bool {
    match isa.kernel() {
        // SAFETY: `Isa` guarantees that the processor has AVX-512 F, BW and VL.
        Kernel::Avx512 => unsafe { low_bytes_avx512(units, out) },
        // SAFETY: `Isa` guarantees that the processor has AVX2.
        Kernel::Avx2 => unsafe { low_bytes_avx2(units, out) },
        Kernel::Sse2 | Kernel::Portable => low_bytes_plain(units, out),
    }
}

#[target_feature(enable = "avx2")]
fn narrow_avx2(units: &[[u8; 2]], out: &mut [u8]) {
    let (Some(last), Some(_)) = (units.last_chunk(), out.last_chunk::<32>()) else {
        return narrow_plain(units, out);
    };
    for (units, out) in units.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        fetch_ahead(units);
        store_avx2(narrow_32(units), out);
    }
    // The last vector overlaps units that have been narrowed.
    if let Some(out) = out.last_chunk_mut() {
        store_avx2(narrow_32(last), out);
    }
}

#[target_feature(enable = "avx2")]
fn narrow_32(units: &[[u8; 2]; 32]) -> __m256i {
    let (halves, _) = units.as_chunks::<16>();
    // SAFETY: each half is a reference to 32 readable bytes, and the load requires no alignment.
    let [low, high] = [0, 1].map(|half| unsafe { _mm256_loadu_si256(halves[half].as_ptr().cast()) });
    // Packing treats units as signed, so units above U+00FF are clamped first.
    let byte_max = _mm256_set1_epi16(0xFF);
    let packed = _mm256_packus_epi16(_mm256_min_epu16(low, byte_max), _mm256_min_epu16(high, byte_max));
    // Packing works within the halves of a vector; this restores the order of the quarters.
    let bytes = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
    // As signed bytes, those that are not ASCII are negative; they become 0xFF.
    let bytes = _mm256_or_si256(bytes, _mm256_cmpgt_epi8(_mm256_setzero_si256(), bytes));
    // Moves upper-case letters to the top of the signed range, so that one comparison finds them.
    let moved = _mm256_add_epi8(bytes, _mm256_set1_epi8(i8::MAX - b'Z' as i8));
    let capital = _mm256_cmpgt_epi8(moved, _mm256_set1_epi8(i8::MAX - 26));
    _mm256_or_si256(bytes, _mm256_and_si256(capital, _mm256_set1_epi8(0x20)))
}

#[target_feature(enable = "avx2")]
fn store_avx2(bytes: __m256i, out: &mut [u8; 32]) {
    // SAFETY: the reference is to 32 writable bytes, and the store requires no alignment.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), bytes) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn low_bytes_avx512(units: &[[u8; 2]], out: &mut [u8]) -> bool {
    low_bytes_plain(units, out)
}

#[target_feature(enable = "avx2")]
fn low_bytes_avx2(units: &[[u8; 2]], out: &mut [u8]) -> bool {
    low_bytes_plain(units, out)
}
