//! Benchmarks of the sensor against peers that could do its work, and against limits that no program can exceed.
//!
//! A [`Workload`](workload::Workload) is a trace with its payloads, a [`RuleSet`](rules::RuleSet) is what to search for,
//! and a [`Contestant`](contestant::Contestant) searches the workload. Every pass of every contestant gives an
//! [`Answer`](answer::Answer) that is compared with the expected one; a wrong answer is an error. Contestants of one
//! workload and rule set take turns in one process ([`measure`]), so that their ratios are valid even on a busy machine.
//! Absolute numbers apply to one machine only.
//!
//! `cargo run --release -p etwsieve-bench -- report` runs all races and writes their ratios, `cargo bench -p etwsieve-bench`
//! measures single parts with criterion, and `tests/` counts allocations and memory.

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

/// Counts the allocations of every benchmark and test of this crate.
#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// Returns whether a program of `benches/` measures (`cargo bench`) or runs only once (`cargo test --benches`).
pub fn is_measuring() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}
