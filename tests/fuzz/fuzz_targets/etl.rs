//! Arbitrary bytes as a trace.
#![no_main]

use etwsieve_tests::fuzz;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::etl::etl(data));
