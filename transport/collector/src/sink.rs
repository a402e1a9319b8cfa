//! Sinks: where hits go from the store, a file or another program.
//!
//! A [`Runner`] takes batches from a [`Feed`] (the embedded store, or a JetStream consumer), hands them to a [`Sink`] and
//! acknowledges to the feed what arrived. **Delivery is at least once**: what was sent and not acknowledged before a crash
//! is sent again, under the same sensor, epoch and sequence number, which every record carries so that its reader can
//! tell. What the other side refuses for good goes to a dead-letter file first, in which every sensor has a share; beyond
//! that it is counted as dropped. Everything else is tried until it is taken.
//!
//! Memory is bounded by one batch and one request, and the records of a hit are bounded in proportion to it (`clamp.rs`). Everything here blocks, and runs on a thread of its own.

mod append;
mod backoff;
mod bulk;
mod clamp;
pub mod config;
mod dead_letter;
mod elastic;
mod file;
mod http;
mod record;
mod runner;
mod splunk;
mod syslog;

pub use backoff::Backoff;
pub use dead_letter::{Buried, DeadLetter};
pub use elastic::{Elastic, ElasticSettings};
pub use file::{FileSettings, JsonFile};
pub use http::Credentials;
pub use record::{Record, RecordFormat};
pub use runner::{Runner, SinkCounts, SinkStats, Stop};
pub use splunk::{Splunk, SplunkSettings};
pub use syslog::{Syslog, SyslogSettings};

use etwsieve_transport::hit::HitV1;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Most hits of a batch.
pub const BATCH_HITS_MAX: usize = 10_000;

/// A hit, and who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The sensor: the name in its certificate.
    pub sensor: String,
    /// The epoch of the sequence number.
    pub epoch: [u8; 16],
    /// The sequence number in the epoch.
    pub sequence: u64,
    /// The hit. Without rules it is delivered as a record with an empty rule.
    pub hit: HitV1,
    /// Number of rules of the same hit in earlier batches.
    pub rules_before: usize,
}

/// How much a batch may hold. The first hit is in it whatever its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most hits, 1 to [`BATCH_HITS_MAX`].
    pub hits: usize,
    /// Most bytes of encoded hits.
    pub bytes: usize,
}

/// How far a sink is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lag {
    /// Hits that wait.
    pub hits: u64,
    /// Since when the oldest of them waits, in seconds since 1970; `None`: nothing waits, or it is not known.
    pub oldest: Option<u64>,
}

/// Why a feed gives nothing. It may pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FeedError(pub String);

/// Where a sink's hits come from, under a cursor that survives restarts.
///
/// One batch is out at a time: each [`next`](Self::next) is followed by [`acknowledge`](Self::acknowledge), or the batch
/// comes again.
pub trait Feed: Send {
    /// Takes the next batch. Empty: nothing came within `wait`.
    ///
    /// # Errors
    ///
    /// Where the hits are cannot be read now. Hits that cannot be decoded are no error: the feed counts them, says so
    /// and goes on.
    fn next(&mut self, limits: BatchLimits, wait: Duration) -> Result<Vec<Item>, FeedError>;

    /// The last batch was delivered as a whole: never hand it out again.
    ///
    /// # Errors
    ///
    /// The cursor cannot be written now. The batch counts as not acknowledged, and may come again.
    fn acknowledge(&mut self) -> Result<(), FeedError>;

    /// The last batch is still being worked on: do not give it to somebody else yet. Called every few seconds.
    fn hold(&mut self) {}

    /// Stores the state of the sink for `etwsieve-collector status`, if the feed can. Called every few seconds, and when the
    /// sink fails or recovers.
    fn report(&mut self, _counts: &SinkCounts) {}

    /// How many hits wait, those of the last batch among them.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    fn lag(&mut self) -> Result<Lag, FeedError>;
}

/// What became of one hit of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The other side has it, as sure as it can say.
    Delivered,
    /// The other side will never take it; why.
    Refused(String),
    /// The other side does not take it now; why.
    Later(String),
}

/// Why a batch, or the rest of it, was not taken now: unreachable, overloaded, set up wrongly. Never a verdict on a hit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct SinkError {
    /// What happened, and what to do where that is known.
    pub detail: String,
    /// When the other side wants to be asked again.
    pub retry_after: Option<Duration>,
}

impl SinkError {
    fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), retry_after: None }
    }
}

/// What a sink that waits calls now and then.
pub trait Progress {
    /// Waits for a while, at most `time`; `false`: give up, the program stops.
    fn wait(&mut self, time: Duration) -> bool;
}

/// A place that hits are delivered to.
pub trait Sink: Send {
    /// Delivers a batch and says for each hit what became of it, in the order of the batch.
    ///
    /// A hit is delivered when all of its records (one for each rule) are.
    ///
    /// # Errors
    ///
    /// Nothing is known to be delivered; the whole batch will come again.
    fn deliver(&mut self, batch: &[Item], progress: &mut dyn Progress) -> Result<Vec<Outcome>, SinkError>;
}

/// Joins what became of one record to what became of its hit: the worst counts, and what may still be taken comes first.
fn join(outcome: &mut Outcome, record: Outcome) {
    let rank = |it: &Outcome| match it {
        Outcome::Delivered => 0,
        Outcome::Refused(_) => 1,
        Outcome::Later(_) => 2,
    };
    if rank(&record) > rank(outcome) {
        *outcome = record;
    }
}
