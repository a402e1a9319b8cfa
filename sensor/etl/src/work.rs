//! What a file may cost: bounds in proportion to its length, whatever its contents.
//!
//! A step is what [`Budget`] says: about a byte read, compared or written. Where the budget of a walk ends, the buffers
//! that are left become [`WorkLimit`](crate::DamageKind::WorkLimit) damage.

use crate::buffer::BUFFER_LEN_MAX;
use crate::merge::SCRATCH_LEN_MAX;
use crate::trace::Trace;
use etwsieve_budget::Budget;

/// Steps that finding the buffers of a file may cost for each of its bytes.
///
/// The worst file costs about 60: where every other byte starts a plausible header, that header and the one that it
/// leads to are checked.
pub const INDEX_STEPS_PER_BYTE_MAX: u64 = 128;
/// Steps that a walk over the events may cost for each byte of the file.
///
/// Files without compression cost at most 6. The compressed ones on record decompress to 4.7 times their length and cost
/// 6.6 at most; a file in which every buffer reaches [`EXPANSION_MAX`](crate::EXPANSION_MAX) would cost 1,000 and more.
pub const WALK_STEPS_PER_BYTE_MAX: u64 = 128;
/// Steps that a file may cost beyond these, so that a small file may be compressed well.
pub const STEPS_FREE: u64 = 1 << 28;

/// Steps of one event: its header is decoded and handed on.
pub(crate) const EVENT_STEPS: usize = 32;
/// Steps of opening a buffer, beyond those for its bytes.
pub(crate) const BUFFER_STEPS: usize = 64;
/// Bytes that are copied, compared with zero or decompressed at the cost of one step.
pub(crate) const BYTES_PER_STEP: usize = 4;

/// Bytes of the views through which the buffers of a file are found: one of them is twice the largest buffer.
const WINDOWS_LEN_MAX: u64 = 4 * BUFFER_LEN_MAX as u64;

/// The budget for finding the buffers of a file of `len` bytes.
pub(crate) fn index_budget<'s>(len: u64) -> Budget<'s> {
    let steps = len.saturating_mul(INDEX_STEPS_PER_BYTE_MAX).saturating_add(STEPS_FREE);
    // A list that doubles has allocated twice its length; the rest is for the views of a file.
    let bytes = (2 * Trace::index_len_max(len)).saturating_add(WINDOWS_LEN_MAX);
    Budget::new(steps, bytes)
}

/// The budget for one walk over the events of a file of `len` bytes.
pub(crate) fn walk_budget<'s>(len: u64) -> Budget<'s> {
    let steps = len.saturating_mul(WALK_STEPS_PER_BYTE_MAX).saturating_add(STEPS_FREE);
    let bytes = len.saturating_mul(WALK_STEPS_PER_BYTE_MAX).saturating_add(2 * SCRATCH_LEN_MAX as u64);
    Budget::new(steps, bytes)
}
