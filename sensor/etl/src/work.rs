//! Limits on the work for a file in proportion to its length, whatever its contents.
//!
//! A step is a unit of [`Budget`], about one byte that is read, compared or written. When the budget is exhausted, the
//! remaining buffers become damage of kind [`WorkLimit`](crate::DamageKind::WorkLimit).

use crate::buffer::BUFFER_LEN_MAX;
use crate::merge::SCRATCH_LEN_MAX;
use crate::trace::Trace;
use etwsieve_budget::Budget;

/// Maximum steps per byte of a file for finding its buffers.
///
/// The worst file costs about 60: if every other byte starts a plausible header, that header and the next one are
/// checked.
pub const INDEX_STEPS_PER_BYTE_MAX: u64 = 128;
/// Maximum steps per byte of a file for reading its events.
///
/// Uncompressed files cost at most 6. The compressed files in the corpus expand to 4.7 times their length and cost at
/// most
/// 6.6; a file in which every buffer reaches [`EXPANSION_MAX`](crate::EXPANSION_MAX) would cost more than 1,000.
pub const WALK_STEPS_PER_BYTE_MAX: u64 = 128;
/// Additional steps for every file, so that a small file may have a high compression ratio.
pub const STEPS_FREE: u64 = 1 << 28;

/// Steps of decoding and delivering an event.
pub(crate) const EVENT_STEPS: usize = 32;
/// Steps of opening a buffer, in addition to those for its bytes.
pub(crate) const BUFFER_STEPS: usize = 64;
/// Number of bytes that are copied, compared with zero or decompressed per step.
pub(crate) const BYTES_PER_STEP: usize = 4;

/// Maximum memory of the windows through which buffers are found: one of them has twice the size of the largest buffer.
const WINDOWS_LEN_MAX: u64 = 4 * BUFFER_LEN_MAX as u64;

/// Returns the budget for finding the buffers of a file of `len` bytes.
pub(crate) fn index_budget<'s>(len: u64) -> Budget<'s> {
    let steps = len.saturating_mul(INDEX_STEPS_PER_BYTE_MAX).saturating_add(STEPS_FREE);
    // A list that doubles allocates twice its length in total. The rest is for the windows.
    let bytes = (2 * Trace::index_len_max(len)).saturating_add(WINDOWS_LEN_MAX);
    Budget::new(steps, bytes)
}

/// Returns the budget for reading the events of a file of `len` bytes once.
pub(crate) fn walk_budget<'s>(len: u64) -> Budget<'s> {
    let steps = len.saturating_mul(WALK_STEPS_PER_BYTE_MAX).saturating_add(STEPS_FREE);
    let bytes = len.saturating_mul(WALK_STEPS_PER_BYTE_MAX).saturating_add(2 * SCRATCH_LEN_MAX as u64);
    Budget::new(steps, bytes)
}
