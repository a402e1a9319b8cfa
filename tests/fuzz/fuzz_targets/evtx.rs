//! Arbitrary bytes as an event log file, or as its chunks.
#![no_main]

use etwsieve_tests::fuzz;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::evtx::evtx(data));
