//! Vector operations that several scanners for x86-64 share.

#![expect(unsafe_code, reason = "vector instructions")]
#![expect(clippy::inline_always, reason = "a call would cost more than the function")]

use std::arch::x86_64::{
    __m256i, __m512i, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm256_alignr_epi8,
    _mm256_broadcastsi128_si256, _mm256_permute2x128_si256, _mm512_loadu_si512,
};

/// Bytes per cache line.
const LINE: usize = 64;
/// Distance of prefetching, in bytes. The processor's own prefetching stops at the end of a page, and a text spans
/// several.
const AHEAD: usize = 2048;

/// Prefetches the memory [`AHEAD`] bytes after these units, in the text or beyond it.
#[inline(always)]
pub(crate) fn fetch_ahead<const N: usize>(units: &[[u8; 2]; N]) {
    for line in units.as_flattened().chunks(LINE) {
        let ahead = line.as_ptr().cast::<i8>().wrapping_add(AHEAD);
        // SAFETY: prefetching is a hint that accesses no memory and accepts any address; every x86-64 processor has
        // SSE.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead) };
    }
}

/// Concatenates the last `16 - SHIFT` bytes of a vector and the first bytes of the next, 32 in all.
#[target_feature(enable = "avx2")]
pub(crate) fn behind_avx2<const SHIFT: i32>(before: __m256i, own: __m256i) -> __m256i {
    _mm256_alignr_epi8::<SHIFT>(own, _mm256_permute2x128_si256::<0x21>(before, own))
}

#[target_feature(enable = "avx2")]
pub(crate) fn broadcast_avx2(table: &[u8; 16]) -> __m256i {
    // SAFETY: the reference is to 16 readable bytes, and the load requires no alignment.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(table.as_ptr().cast()) })
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(crate) fn load_avx512(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the reference is to 64 readable bytes, and the load requires no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}
