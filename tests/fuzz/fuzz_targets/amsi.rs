//! Arbitrary bytes as an event of the antimalware scanner.
#![no_main]

use etwsieve_tests::fuzz;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::amsi::amsi(data));
