//! The maximum work for the input of a target, in steps and allocated bytes.

use etwsieve_matcher::ViewBudget;

/// Steps for an input of any length, since a short script may unpack to a long one.
const STEPS_FREE: u64 = 3 << 20;
/// Steps for each byte of the payload.
const STEPS_PER_BYTE: u64 = 64;
/// Bytes that the views may allocate for an input of any length, including freed ones.
const BYTES_FREE: u64 = 24 << 20;
/// Additional bytes for each byte of the payload.
const BYTES_PER_BYTE: u64 = 512;
/// Steps of the programs for each byte of a text as recorded: a few passes for each rule of a target.
pub(super) const RAW_STEPS_PER_BYTE: u64 = 256;
/// Steps of the programs for a text of any length.
pub(super) const RAW_STEPS_FREE: u64 = 1 << 12;

/// Asserts that the views of a payload stay within their budget for its length.
///
/// # Panics
///
/// If they cost more.
pub(super) fn assert_bounded(budget: &ViewBudget<'_>, payload_len: usize) {
    let (steps, bytes, len) = (budget.steps(), budget.bytes(), payload_len as u64);
    assert!(steps <= ViewBudget::steps_max(), "{steps} steps, more than any event may cost");
    assert!(steps <= STEPS_FREE + STEPS_PER_BYTE * len, "{steps} steps for {len} bytes");
    assert!(bytes <= BYTES_FREE + BYTES_PER_BYTE * len, "{bytes} bytes allocated for {len} bytes");
}

/// Asserts that the search of a payload as recorded costs no more than permitted for its length.
///
/// # Panics
///
/// If it costs more.
pub(super) fn assert_raw_bounded(steps: u64, payload_len: usize) {
    let most = RAW_STEPS_FREE + RAW_STEPS_PER_BYTE * payload_len as u64;
    assert!(steps <= most, "{steps} steps for {payload_len} bytes as recorded");
}
