//! Errors of benchmarks.

use crate::answer::Difference;
use etwsieve::source::SourceError;
use etwsieve_etl::EtlError;
use std::io;
use std::path::PathBuf;

/// An error before or during a measurement.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A contestant's answer is not the expected one, so its time means nothing.
    #[error("wrong answer of {contestant} on {workload} with {rules}: {difference}")]
    WrongAnswer {
        /// The contestant.
        contestant: String,
        /// The workload.
        workload: String,
        /// The rule set.
        rules: String,
        /// The difference from the expected answer.
        difference: Difference,
    },
    /// The workload has an unexpected number of events.
    #[error("{workload} holds {found} events, expected {expected}")]
    EventCount {
        /// The workload.
        workload: String,
        /// Expected number of events.
        expected: u64,
        /// Actual number of events.
        found: u64,
    },
    /// A row of the expected verdicts names no event of the trace.
    #[error("{}: the trace has no event {key}", path.display())]
    NoSuchEvent {
        /// The file of verdicts.
        path: PathBuf,
        /// The key of the event in the row: its time, or its file and number.
        key: String,
    },
    /// Rules do not load.
    #[error("rules: {0}")]
    Rules(String),
    /// The trace cannot be read.
    #[error("trace: {0}")]
    Trace(#[from] EtlError),
    /// A recorded file cannot be read.
    #[error("{0}")]
    Source(#[from] SourceError),
    /// A peer does not work here.
    #[error("{name}: {detail}")]
    Peer {
        /// The name of the peer.
        name: String,
        /// Its error message.
        detail: String,
    },
    /// A script costs more than permitted.
    #[error("a script costs {ratio:.1} times an ordinary one; at most 50 are allowed")]
    TooExpensive {
        /// Its cost relative to an ordinary script.
        ratio: f64,
    },
    /// A plot cannot be drawn.
    #[error("plot: {0}")]
    Plot(String),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}
