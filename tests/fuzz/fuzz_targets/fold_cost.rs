//! Expensive scripts in the views: steps and bytes per unit, and time per step, count as coverage.

#![no_main]

use etwsieve_tests::fuzz::fold_cost::fold_cost;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

/// Counters that the engine reads after each run in addition to those of the compiler: one for each eighth of a power of two
/// that a figure has reached.
#[unsafe(link_section = "__libfuzzer_extra_counters")]
static COUNTERS: [AtomicU8; 3 * FIGURES] = [const { AtomicU8::new(0) }; 3 * FIGURES];
const FIGURES: usize = 256;
/// Minimum number of steps for a measurement of their time.
const STEPS_MIN: u64 = 200_000;

fn note(table: usize, figure: f64) {
    let place = (8.0 * figure.max(1.0).log2()) as usize;
    COUNTERS[table * FIGURES + place.min(FIGURES - 1)].store(1, Ordering::Relaxed);
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let start = Instant::now();
    let cost = fold_cost(data);
    let mut nanoseconds = start.elapsed().as_nanos();
    note(0, cost.steps as f64 / cost.units as f64);
    note(1, cost.bytes as f64 / cost.units as f64);
    if cost.steps >= STEPS_MIN {
        // The fastest of several runs, since other programs may slow down single ones.
        for _ in 0..3 {
            let start = Instant::now();
            fold_cost(data);
            nanoseconds = nanoseconds.min(start.elapsed().as_nanos());
        }
        note(2, 16.0 * nanoseconds as f64 / cost.steps as f64);
    }
});
