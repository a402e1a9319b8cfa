//! Arbitrary bytes as the payload of an event.
#![no_main]

use etwsieve_tests::fuzz;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::payload::payload(data));
