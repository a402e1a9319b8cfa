//! Asking for memory before it is read.

#![expect(clippy::inline_always, reason = "a call would take longer than what it does")]

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// Bytes of a cache line.
const LINE: usize = 64;
/// So many bytes ahead the text is asked for: by itself the processor stops at the end of a page, of which a text has a few.
const AHEAD: usize = 2048;

/// Asks for what stands [`AHEAD`] of these units, in the text or behind it.
#[inline(always)]
pub(super) fn fetch_ahead<const N: usize>(units: &[[u8; 2]; N]) {
    for line in units.as_flattened().chunks(LINE) {
        let ahead = line.as_ptr().cast::<i8>().wrapping_add(AHEAD);
        // SAFETY: asking is a hint that reads nothing and may name any address; SSE belongs to every x86-64 processor.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead) };
    }
}
