//! The work that a target's input may cost, counted in steps and allocated bytes.

use etwsieve_matcher::ViewBudget;

/// Steps for an input of any length: what a short script may unpack.
const STEPS_FREE: u64 = 3 << 20;
/// Steps for each byte of the payload.
const STEPS_PER_BYTE: u64 = 64;
/// Bytes that the views allocate for an input of any length, freed ones included.
const BYTES_FREE: u64 = 24 << 20;
/// Further ones for each byte of the payload.
const BYTES_PER_BYTE: u64 = 512;
/// Steps of the programs on a text as recorded for each of its bytes: a few passes for each rule of a target.
pub(super) const RAW_STEPS_PER_BYTE: u64 = 256;
/// Steps of the programs on a text of any length.
pub(super) const RAW_STEPS_FREE: u64 = 1 << 12;

/// # Panics
///
/// If the views of a payload cost more than its length allows.
pub(super) fn assert_bounded(budget: &ViewBudget<'_>, payload_len: usize) {
    let (steps, bytes, len) = (budget.steps(), budget.bytes(), payload_len as u64);
    assert!(steps <= ViewBudget::steps_max(), "{steps} steps, more than any event may cost");
    assert!(steps <= STEPS_FREE + STEPS_PER_BYTE * len, "{steps} steps for {len} bytes");
    assert!(bytes <= BYTES_FREE + BYTES_PER_BYTE * len, "{bytes} bytes allocated for {len} bytes");
}

/// # Panics
///
/// If the search of a payload as recorded cost more than its length allows.
pub(super) fn assert_raw_bounded(steps: u64, payload_len: usize) {
    let most = RAW_STEPS_FREE + RAW_STEPS_PER_BYTE * payload_len as u64;
    assert!(steps <= most, "{steps} steps for {payload_len} bytes as recorded");
}
