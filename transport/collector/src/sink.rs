//! Sinks deliver stored hits to a file or another program, the receiver.
//!
//! A [`SinkRunner`] takes batches from a [`Feed`] (the embedded store or a JetStream consumer), passes them to a
//! [`Sink`] and acknowledges delivered batches to the feed. **Delivery is at least once**: a batch that was not
//! acknowledged before a crash is sent again. Every record contains sensor, epoch and sequence number, by which the
//! receiver can recognise it. Hits that the receiver refuses permanently are written to a dead-letter file, in which
//! every sensor has a share, or are dropped and counted if there is no room. All other failures are retried until the
//! hits are accepted.
//!
//! Memory is bounded by one batch and one request, and the records of a hit are bounded in proportion to its length
//! (`clamp.rs`). Everything here blocks; each sink runs on a separate thread.

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
mod set;
mod splunk;
mod syslog;

pub use backoff::Backoff;
pub use dead_letter::{DeadLetter, DeadLetterCounts};
pub use elastic::{Elastic, ElasticSettings};
pub use file::{FileSettings, JsonFile};
pub use http::Credentials;
pub use record::{Record, RecordFormat};
pub use runner::{SinkCounts, SinkRunner, SinkStats};
pub use set::{SinkOverview, SinkSet, SinkSetError};
pub use splunk::{Splunk, SplunkSettings};
pub use syslog::{Syslog, SyslogSettings};

use etwsieve_transport::hit::HitV1;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Maximum number of hits in a batch.
pub const BATCH_HITS_MAX: usize = 10_000;

/// A hit with its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkItem {
    /// The name in the certificate of the sensor.
    pub sensor: String,
    /// The epoch of the sequence number.
    pub epoch: [u8; 16],
    /// The sequence number in the epoch.
    pub sequence: u64,
    /// The hit. If it has no rules, it is delivered as a record with an empty rule.
    pub hit: HitV1,
    /// Number of rules of the same hit in earlier batches.
    pub rules_before: usize,
}

/// Limits of a batch. The first hit is always included, whatever its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Maximum number of hits, 1 to [`BATCH_HITS_MAX`].
    pub hits: usize,
    /// Maximum total length of the encoded hits, in bytes.
    pub bytes: usize,
}

/// The hits that a sink has not delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lag {
    /// Number of pending hits.
    pub hits: u64,
    /// Arrival time of the oldest pending hit, in seconds since 1970; `None` if there is none or it is not known.
    pub oldest: Option<u64>,
}

/// A feed cannot be read at the moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FeedError(pub String);

/// The source of a sink's hits, with a cursor that survives restarts.
///
/// There is one current batch: each [`next`](Self::next) must be followed by [`acknowledge`](Self::acknowledge), or the
/// batch is returned again.
pub trait Feed: Send {
    /// Returns the next batch, which is empty if no hits arrive within `wait`.
    ///
    /// # Errors
    ///
    /// The feed cannot be read at the moment. Hits that cannot be decoded are not an error: the feed counts, logs and
    /// skips them.
    fn next(&mut self, limits: BatchLimits, wait: Duration) -> Result<Vec<SinkItem>, FeedError>;

    /// Moves the cursor past the current batch, which was delivered completely.
    ///
    /// # Errors
    ///
    /// The cursor cannot be written at the moment. The batch may be returned again.
    fn acknowledge(&mut self) -> Result<(), FeedError>;

    /// Signals that the current batch is still being delivered and must not be given to another program. Called every
    /// few seconds.
    fn hold(&mut self) {}

    /// Stores the state of the sink for `etwsieve-collector status`, if the feed supports that. Called every few
    /// seconds, and when the sink fails or recovers.
    fn report(&mut self, _counts: &SinkCounts) {}

    /// Returns the pending hits, including those of the current batch.
    ///
    /// # Errors
    ///
    /// The feed cannot be read at the moment.
    fn lag(&mut self) -> Result<Lag, FeedError>;
}

/// The outcome of the delivery of one hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has confirmed it as far as its protocol allows.
    Delivered,
    /// The receiver will never accept it; contains the reason.
    Refused(String),
    /// The receiver does not accept it at the moment; contains the reason.
    Later(String),
}

/// Why a batch was not delivered: the receiver is unreachable, overloaded or configured incorrectly. The hits
/// themselves are not at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct SinkError {
    /// What happened and, if known, what to do.
    pub detail: String,
    /// The pause that the receiver asks for.
    pub retry_after: Option<Duration>,
}

impl SinkError {
    fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), retry_after: None }
    }
}

/// Lets a sink wait during a delivery.
pub trait DeliveryContext {
    /// Waits at most `time`. Returns `false` if the program stops and the delivery must be abandoned.
    fn wait(&mut self, time: Duration) -> bool;
}

/// Delivers hits to a receiver.
pub trait Sink: Send {
    /// Delivers a batch and returns the outcome of each hit, in the order of the batch.
    ///
    /// A hit is delivered when all of its records (one for each rule) are.
    ///
    /// # Errors
    ///
    /// No hit is known to be delivered; the whole batch will be passed again.
    fn deliver(
        &mut self,
        batch: &[SinkItem],
        context: &mut dyn DeliveryContext,
    ) -> Result<Vec<Outcome>, SinkError>;
}

/// Combines the outcome of a record with that of its hit: `Later` takes precedence over `Refused`, and both over
/// `Delivered`.
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
