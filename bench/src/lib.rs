//! How fast the sensor is, beside what else could do its work and beside what no program can exceed.
//!
//! A [`Workload`](workload::Workload) is a trace and the payloads in it, a [`RuleSet`](rules::RuleSet) what to
//! search for, and a [`Contestant`](contestant::Contestant) searches the one for the other. Every pass of every
//! contestant gives an [`Answer`](answer::Answer) that is compared with the one owed: a wrong one is an error and
//! no time. Contestants of one workload and rule set take turns in one process ([`measure`]), so that their ratios
//! hold even where the machine is busy; absolute numbers carry over to no other machine.
//!
//! `cargo run --release -p etwsieve-bench -- report` runs all of it and writes the ratios, `cargo bench -p etwsieve-bench` follows single parts
//! over time with criterion, and `tests/` counts allocations.

pub mod alloc;
pub mod answer;
pub mod callback;
pub mod contestant;
pub mod error;
pub mod facts;
pub mod generate;
#[cfg(feature = "peers")]
pub mod hs;
pub mod literals;
pub mod measure;
pub mod narrow;
pub mod programs;
pub mod reader;
pub mod reference;
pub mod replay;
pub mod report;
pub mod rules;
mod snippets;
pub mod transport;
pub mod under_attack;
pub mod views;
pub mod workload;
pub mod worst;

/// Counts what every benchmark and test of this crate allocates.
#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// Whether a program of `benches/` is to measure (`cargo bench`) or only to run once (`cargo test --benches`).
pub fn is_measuring() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}
