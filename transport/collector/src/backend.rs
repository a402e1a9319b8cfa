//! What the collector needs of a store: that it says "durable" only when it is so.
//!
//! The server collects entries of all connections into batches, in the order of each connection, gives them to
//! [`Backend::append`], and acknowledges them to the sensors when that has returned well, never before. Everything that
//! can be sent twice will be: a backend knows an entry again by sensor, epoch and sequence number.

use etwsieve_transport::wire::message::{BusyReason, GapV1, RefusalReason, StatusV1};
use futures_util::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::Arc;

/// A random number of 128 bits: of a start of a sensor's process, or of its spool.
pub type Id = [u8; 16];

pub use etwsieve_transport::protocol::SEQUENCE_MAX;

/// One frame of a sensor that asks to be acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name in the sensor's certificate.
    pub sensor: Arc<str>,
    /// The epoch of its numbers.
    pub epoch: Id,
    /// What it says.
    pub item: Item,
}

/// The contents of a frame, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A DATA frame.
    Hit {
        /// Its number in the epoch: 1 to [`SEQUENCE_MAX`].
        sequence: u64,
        /// Version of the struct, 1 for [`HitV1`](etwsieve_transport::hit::HitV1).
        version: u8,
        /// The encoded hit as it was sent, without the number. It decodes.
        bytes: Vec<u8>,
    },
    /// A GAP frame; its numbers are 1 to [`SEQUENCE_MAX`].
    Gap(GapV1),
}

impl Item {
    /// The first and the last of its numbers.
    pub const fn numbers(&self) -> (u64, u64) {
        match self {
            Self::Hit { sequence, .. } => (*sequence, *sequence),
            Self::Gap(gap) => (gap.from, gap.to),
        }
    }
}

/// The last STATUS of a sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The name in the sensor's certificate.
    pub sensor: Arc<str>,
    /// What it reports.
    pub status: StatusV1,
}

/// Why an entry cannot be stored, now or later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason on the wire.
    pub reason: RefusalReason,
    /// The cause, for people.
    pub detail: String,
}

impl Refusal {
    /// Of a hit that names no rule: nothing was detected, and no sink could say what.
    pub fn without_rules() -> Self {
        Self { reason: RefusalReason::NotStorable, detail: "a hit without rules".into() }
    }
}

/// Why one entry of a batch is not durable although the store works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryError {
    /// It can never be stored. Its sensor is told so and does not send it again. Before a backend returns this, it
    /// records the loss durably if it can, as a gap with [`GapReason::Refused`](etwsieve_transport::wire::message::GapReason).
    Refused(Refusal),
    /// It was not stored this time. Its connection alone gets BUSY, and its sensor sends it again.
    Failed(BackendError),
}

/// The outcome of a batch. Every entry that is not among the errors is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Hits under a number that had none; conflicts are not among them.
    pub new: u64,
    /// Hits and gaps that were there already, with the same contents.
    pub repeated: u64,
    /// Hits under a number that has another one: both are stored now. Somebody runs a copy of that sensor.
    pub conflicts: u64,
    /// Gaps that were new.
    pub gaps: u64,
    /// Hits that these gaps declare lost and that are not stored, as far as the backend can tell.
    pub lost: u64,
    /// Entries that are not durable, by their index in the batch, ascending.
    pub errors: Vec<(usize, EntryError)>,
}

/// Why the store as a whole failed, rather than one entry. Nothing of the batch is acknowledged; parts that were stored
/// nevertheless are recognised when the sensors send them again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// There is no room left.
    #[error("no room left: {0}")]
    Full(String),
    /// It cannot be written, or a sync has failed.
    #[error("the store cannot be written: {0}")]
    Failed(String),
    /// It is too slow for what comes, or cannot be reached for the moment.
    #[error("the store does not keep up: {0}")]
    Overload(String),
    /// It has been stopped.
    #[error("the store has been stopped")]
    Stopped,
}

impl BackendError {
    /// What the sensors are told.
    pub const fn reason(&self) -> BusyReason {
        match self {
            Self::Full(_) => BusyReason::DiskFull,
            Self::Failed(_) => BusyReason::StoreFailed,
            Self::Overload(_) => BusyReason::Overload,
            Self::Stopped => BusyReason::Stopping,
        }
    }
}

/// What a collector tells about its connections, for `status`. Losing one harms nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A connection has said HELLO for the first time.
    Connected {
        /// The name in its certificate.
        sensor: Arc<str>,
        /// Where it comes from.
        address: SocketAddr,
        /// Of the HELLO: the sensor's spool.
        instance: Id,
        /// Of the HELLO.
        software: String,
        /// Of the HELLO.
        computer: String,
        /// When its certificate ends, in seconds since 1970; `None` without TLS.
        certificate_expires: Option<i64>,
    },
    /// A connection that had said HELLO has ended.
    Disconnected {
        /// The name in its certificate.
        sensor: Arc<str>,
    },
}

/// A store of the collector.
pub trait Backend: Send + Sync + 'static {
    /// Stores a batch, which is not empty, and returns when it is durable: synced by the embedded store, confirmed by
    /// the cluster. Batches become durable in the order in which they were given; the caller may give the next one
    /// before the last has returned.
    ///
    /// An entry that cannot be stored never fails the others: it is reported in [`Appended::errors`]. An error means
    /// that the store as a whole failed: nothing of the batch counts as durable, and a failed sync is never believed
    /// later. An entry that comes again is either known to be durable or written again.
    fn append(&self, batch: Vec<Entry>) -> BoxFuture<'static, Result<Appended, BackendError>>;

    /// Stores the last STATUS of each sensor, at most one for each. Less urgent than hits: a backend may let them wait.
    /// An error drops them, since the sensors send others soon; it never touches hits.
    fn record_heartbeats(&self, heartbeats: Vec<Heartbeat>) -> BoxFuture<'static, Result<(), BackendError>>;

    /// The highest sequence number of the epoch that is durable; 0 if there is none, or if the backend cannot tell.
    fn durable(&self, sensor: Arc<str>, epoch: Id) -> BoxFuture<'static, Result<u64, BackendError>>;

    /// Takes a note for `status`, without waiting. A backend without a place for it forgets it.
    fn note(&self, note: Note) {
        let _ = note;
    }

    /// Finishes what was given and closes the store. Everything after it is [`BackendError::Stopped`].
    fn stop(&self) -> BoxFuture<'static, ()>;
}
