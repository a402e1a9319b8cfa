//! The interface between the server and a store.
//!
//! The server groups the entries of all connections into batches, keeping the order of each connection, passes them to
//! [`Backend::append`], and acknowledges them to the sensors only after that has returned `Ok`. Sensors send everything
//! again that was not acknowledged, so a back end must recognise an entry by sensor, epoch and sequence number.

use etwsieve_transport::wire::message::{BusyReason, GapV1, RefusalReason, StatusV1};
use futures_util::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::Arc;

/// A random 128-bit number that identifies a sensor's process (its epoch) or its spool (its instance).
pub type Id = [u8; 16];

pub use etwsieve_transport::protocol::SEQUENCE_MAX;

/// A frame that must be acknowledged once it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name in the sensor's certificate.
    pub sensor: Arc<str>,
    /// The epoch of its sequence numbers.
    pub epoch: Id,
    /// The contents of the frame.
    pub item: EntryBody,
}

/// The validated contents of a DATA or GAP frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryBody {
    /// A DATA frame.
    Hit {
        /// Its sequence number: 1 to [`SEQUENCE_MAX`].
        sequence: u64,
        /// The version of the encoding, 1 for [`HitV1`](etwsieve_transport::hit::HitV1).
        version: u8,
        /// The encoded hit as it was sent, without the sequence number. It is known to decode.
        bytes: Vec<u8>,
    },
    /// A GAP frame with sequence numbers from 1 to [`SEQUENCE_MAX`].
    Gap(GapV1),
}

impl EntryBody {
    /// Returns the first and the last sequence number that the frame covers.
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
    /// The contents of the frame.
    pub status: StatusV1,
}

/// Why an entry can never be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason that is sent to the sensor.
    pub reason: RefusalReason,
    /// An explanation for people.
    pub detail: String,
}

impl Refusal {
    /// The refusal of a hit that names no rule: no sink could report what was detected.
    pub fn without_rules() -> Self {
        Self { reason: RefusalReason::NotStorable, detail: "a hit without rules".into() }
    }
}

/// Why one entry of a batch is not durable although the store works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryError {
    /// It can never be stored. The sensor is informed and does not send it again. Before a back end returns this, it
    /// records the loss durably if it can, as a gap with
    /// [`GapReason::Refused`](etwsieve_transport::wire::message::GapReason).
    Refused(Refusal),
    /// It was not stored this time. Only its connection gets BUSY, and its sensor sends it again.
    Failed(BackendError),
}

/// The outcome of a batch. Every entry that is not listed in `errors` is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// New hits, without conflicts.
    pub new: u64,
    /// Hits and gaps that were already stored with the same contents.
    pub repeated: u64,
    /// Hits whose sequence number was already used for a different hit. Both are stored. A copy of the sensor is
    /// running.
    pub conflicts: u64,
    /// New gaps.
    pub gaps: u64,
    /// Hits that these gaps declare lost and that are not stored, as far as the back end can tell.
    pub lost: u64,
    /// Entries that are not durable, with their index in the batch, in ascending order.
    pub errors: Vec<(usize, EntryError)>,
}

/// Why the store as a whole failed, rather than one entry. Nothing of the batch is acknowledged; entries that were
/// stored anyway are recognised when the sensors send them again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The store is full.
    #[error("store full: {0}")]
    Full(String),
    /// It cannot be written, or a sync has failed.
    #[error("cannot write to the store: {0}")]
    Failed(String),
    /// It is too slow for the load, or cannot be reached at the moment.
    #[error("store overloaded: {0}")]
    Overload(String),
    /// It is stopped.
    #[error("store stopped")]
    Stopped,
}

impl BackendError {
    /// Returns the reason that is sent to the sensors in BUSY.
    pub const fn reason(&self) -> BusyReason {
        match self {
            Self::Full(_) => BusyReason::DiskFull,
            Self::Failed(_) => BusyReason::StoreFailed,
            Self::Overload(_) => BusyReason::Overload,
            Self::Stopped => BusyReason::Stopping,
        }
    }
}

/// A change in the connections of a sensor, which `status` shows. Losing one does no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// A connection has sent its first HELLO.
    Connected {
        /// The name in its certificate.
        sensor: Arc<str>,
        /// The address of the sensor.
        address: SocketAddr,
        /// The instance id of the sensor's spool, from the HELLO.
        instance: Id,
        /// The program and version, from the HELLO.
        software: String,
        /// The name of the computer, from the HELLO.
        computer: String,
        /// When its certificate expires, in seconds since 1970; `None` without TLS.
        certificate_expires: Option<i64>,
    },
    /// A connection that had sent a HELLO has ended.
    Disconnected {
        /// The name in its certificate.
        sensor: Arc<str>,
    },
}

/// A store of the collector.
pub trait Backend: Send + Sync + 'static {
    /// Stores a batch, which is not empty, and returns when it is durable: synced by the embedded store, or confirmed
    /// by the cluster. Batches become durable in the order of the calls. The caller may pass the next batch before the
    /// last one has returned.
    ///
    /// An entry that cannot be stored never fails the others; it is reported in [`Appended::errors`]. An error means
    /// that the store as a whole failed and nothing of the batch is durable. An entry that comes again is written again
    /// unless it is known to be durable; after a failed sync, nothing that it covered is.
    fn append(&self, batch: Vec<Entry>) -> BoxFuture<'static, Result<Appended, BackendError>>;

    /// Stores STATUS frames, at most one per sensor. A back end may delay them in favour of hits. After an error they
    /// are dropped, because sensors send new ones soon. An error never affects hits.
    fn record_heartbeats(&self, heartbeats: Vec<Heartbeat>) -> BoxFuture<'static, Result<(), BackendError>>;

    /// Returns the highest durable sequence number of the epoch; 0 if there is none or the back end cannot tell.
    fn durable(&self, sensor: Arc<str>, epoch: Id) -> BoxFuture<'static, Result<u64, BackendError>>;

    /// Records a connection event for `status` without blocking. A back end without a place for it ignores it.
    fn record_connection_event(&self, event: ConnectionEvent) {
        let _ = event;
    }

    /// Finishes pending batches and closes the store. Later calls return [`BackendError::Stopped`].
    fn stop(&self) -> BoxFuture<'static, ()>;
}
