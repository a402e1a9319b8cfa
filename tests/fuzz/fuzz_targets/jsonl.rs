//! Arbitrary bytes as JSON Lines.
#![no_main]

use etwsieve_tests::fuzz;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::jsonl::jsonl(data));
