//! Arbitrary bytes as frames, as the payload of a DATA frame and as a hit.
#![no_main]

use etwsieve_tests::fuzz;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::frame::frame(data));
