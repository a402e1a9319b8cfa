//! Why a benchmark has no result.

use crate::answer::Difference;
use etwsieve::source::SourceError;
use etwsieve_etl::EtlError;
use std::io;
use std::path::PathBuf;

/// What goes wrong before or while measuring.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A contestant's answer is not the one owed: its time means nothing.
    #[error("wrong answer of {contestant} on {workload} with {rules}: {difference}")]
    WrongAnswer {
        /// Who answered.
        contestant: String,
        /// On what.
        workload: String,
        /// To which question.
        rules: String,
        /// What is owed and what was found.
        difference: Difference,
    },
    /// The workload is not what it claims to be.
    #[error("{workload} holds {found} events, expected {expected}")]
    EventCount {
        /// The workload.
        workload: String,
        /// Events that it ought to have.
        expected: u64,
        /// Events that it has.
        found: u64,
    },
    /// A row of the expected verdicts names no event of the trace.
    #[error("{}: the trace has no event {key}", path.display())]
    NoSuchEvent {
        /// The file of verdicts.
        path: PathBuf,
        /// What the row names the event by: its time, or its file and number.
        key: String,
    },
    /// Rules that ought to load do not.
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
        /// Which.
        name: String,
        /// What it says.
        detail: String,
    },
    /// A script costs more than any may.
    #[error("a script costs {ratio:.1} times an ordinary one; at most 50 are allowed")]
    TooExpensive {
        /// How many ordinary scripts it costs.
        ratio: f64,
    },
    /// A plot cannot be drawn.
    #[error("plot: {0}")]
    Plot(String),
    /// Something cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}
