//! Arbitrary text as a script, in every view.
#![no_main]

use etwsieve_tests::fuzz;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::views::views(data));
