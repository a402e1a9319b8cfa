//! Sensor and collector in memory, under simulated time, over a network with faults.
//!
//! In the manner of quinn's `Pair`: both sides of the protocol are state machines, so a schedule of thousands of events
//! runs in a fraction of a millisecond, and its seed repeats it exactly. The network delays and divides bytes, loses what
//! is in flight when a connection is cut, and delivers bytes of an old connection while a new one is in use. The
//! collector restarts, its store fails as a whole or for single frames, and it refuses hits. The sensor restarts, and its
//! spool overflows. After the faults have ended everything must be acknowledged within a bounded time.
//!
//! Invariants, checked exactly:
//!
//! - a number is acknowledged only if its hit is stored, or its loss is recorded;
//! - at the end every number of every epoch is either stored or lost, and lost only if the sensor dropped the hit or the
//!   collector refused it;
//! - no hit is stored twice, and no number is stored with two contents;
//! - neither side ever considers the other one to violate the protocol.
//!
//! A failure prints its seed; `PROTOCOL_SEED=… cargo test --test protocol` runs that schedule alone, and
//! `PROTOCOL_SCHEDULES=…` sets the number of schedules.

#![allow(clippy::unwrap_used, clippy::panic_in_result_fn, reason = "a panic fails the test")]
#![allow(unreachable_pub, reason = "the modules belong to one test")]

mod collector;
mod network;
mod sensor;
mod simulation;

use simulation::{Coverage, Simulation};

/// Prints the seed of a schedule that panics.
struct PrintSeed(u64);

impl Drop for PrintSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the schedule with PROTOCOL_SEED={} failed", self.0);
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_stored_twice() {
    let seeds = match variable("PROTOCOL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("PROTOCOL_SCHEDULES").unwrap_or(4000),
    };
    let is_single = seeds.clone().count() == 1;
    let start = std::time::Instant::now();
    let mut coverage = Coverage::default();
    for seed in seeds.clone() {
        let _print = PrintSeed(seed);
        coverage += Simulation::new(seed).run();
    }
    eprintln!("{} schedules in {:?}: {coverage:?}", seeds.count(), start.elapsed());
    if !is_single {
        coverage.assert_complete();
    }
}
