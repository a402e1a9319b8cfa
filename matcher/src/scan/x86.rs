//! Loads and moves of vectors that several scanners for x86-64 share.

#![expect(unsafe_code, reason = "vector instructions that not every processor has")]
#![expect(clippy::inline_always, reason = "a call would take longer than what it does")]

use std::arch::x86_64::{
    __m256i, __m512i, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm256_alignr_epi8,
    _mm256_broadcastsi128_si256, _mm256_permute2x128_si256, _mm512_loadu_si512,
};

/// Bytes of a cache line.
const LINE: usize = 64;
/// So many bytes ahead the text is asked for: by itself the processor stops at the end of a page, of which a text has a few.
const AHEAD: usize = 2048;

/// Asks for what stands [`AHEAD`] of these units, in the text or behind it.
#[inline(always)]
pub(crate) fn fetch_ahead<const N: usize>(units: &[[u8; 2]; N]) {
    for line in units.as_flattened().chunks(LINE) {
        let ahead = line.as_ptr().cast::<i8>().wrapping_add(AHEAD);
        // SAFETY: asking is a hint that reads nothing and may name any address; SSE belongs to every x86-64 processor.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead) };
    }
}

/// The last bytes of a vector, then the first of the next: in all 32, `16 - SHIFT` of them from before.
#[target_feature(enable = "avx2")]
pub(crate) fn behind_avx2<const SHIFT: i32>(before: __m256i, own: __m256i) -> __m256i {
    _mm256_alignr_epi8::<SHIFT>(own, _mm256_permute2x128_si256::<0x21>(before, own))
}

#[target_feature(enable = "avx2")]
pub(crate) fn broadcast_avx2(table: &[u8; 16]) -> __m256i {
    // SAFETY: the reference is to 16 readable bytes, and the load asks for no alignment.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(table.as_ptr().cast()) })
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(crate) fn load_avx512(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the reference is to 64 readable bytes, and the load asks for no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}
