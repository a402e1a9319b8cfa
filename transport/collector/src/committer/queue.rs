//! The sending side of the queue, with capacity for all sensors together and for each of them.

use super::QueuedEntry;
use super::progress::AckProgress;
use crate::backend::{Entry, Id};
use crate::counters::Counters;
use etwsieve_transport::wire::message::{BusyReason, RefusedV1};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Bytes per permit of the semaphore.
const PERMIT_BYTES: usize = 1024;
/// Approximate memory of an entry in addition to its payload.
const ENTRY_BYTES: usize = 256;
/// One sensor may fill at most 1/`SHARES` of the queue.
const SHARES: usize = 8;

/// Capacity for a number of entries and for their bytes.
#[derive(Clone, Debug)]
struct Capacity {
    frames: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    /// Maximum number of permits per entry: a longer entry takes all of them instead of waiting forever.
    bytes_max: usize,
}

impl Capacity {
    fn new(frames: usize, bytes: usize) -> Self {
        let bytes_max = (bytes / PERMIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            frames: Arc::new(Semaphore::new(frames.clamp(1, Semaphore::MAX_PERMITS))),
            bytes: Arc::new(Semaphore::new(bytes_max)),
            bytes_max,
        }
    }

    async fn take(&self, bytes: usize) -> Result<[OwnedSemaphorePermit; 2], Closed> {
        let permits = bytes.div_ceil(PERMIT_BYTES).min(self.bytes_max) as u32;
        let frame = Arc::clone(&self.frames).acquire_owned().await.map_err(|_| Closed)?;
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(permits).await.map_err(|_| Closed)?;
        Ok([frame, bytes])
    }
}

/// A sensor's share of the queue, used by all of its connections. It also identifies the sensor's flow.
#[derive(Clone, Debug)]
pub(crate) struct SensorShare {
    flow: u64,
    capacity: Capacity,
}

/// A reserved place in the queue, released when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    bytes: usize,
    counters: Arc<Counters>,
    /// Permits of the sensor's share and of the whole queue.
    _permits: [[OwnedSemaphorePermit; 2]; 2],
}

impl Reservation {
    /// Returns the memory of the entry in bytes, including its overhead.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.counters.waiting.add(-1);
        self.counters.waiting_bytes.add(-(self.bytes as i64));
    }
}

/// Tracks an entry until it is settled, and holds its place in the queue.
#[derive(Debug)]
pub(super) struct AckHandle {
    progress: Arc<AckProgress>,
    /// The sequence number of the ACK once this entry is durable.
    ack: u64,
    epoch: Id,
    numbers: (u64, u64),
    pub(super) sensor: Arc<str>,
    _room: Reservation,
}

impl AckHandle {
    pub(super) fn durable(&self) {
        self.progress.durable(self.ack);
    }

    pub(super) fn failed(&self, reason: BusyReason) {
        self.progress.failed(reason);
    }

    /// Reports that the entry can never be stored. `to` makes the message for the sensor.
    pub(super) fn refused(&self, to: impl FnOnce(Id, (u64, u64)) -> RefusedV1) {
        self.progress.refused(self.ack, to(self.epoch, self.numbers));
    }
}

/// The sending side of the queue.
#[derive(Clone)]
pub(crate) struct CommitQueue {
    /// Bounded by `capacity`: each entry in it holds a reservation.
    entries: mpsc::UnboundedSender<QueuedEntry>,
    capacity: Capacity,
    share: (usize, usize),
    flows: Arc<AtomicU64>,
    counters: Arc<Counters>,
    pub(super) health: Arc<super::StoreHealth>,
}

/// The committer has ended.
#[derive(Debug)]
pub(crate) struct Closed;

impl CommitQueue {
    pub(super) fn new(
        limits: &super::QueueLimits,
        counters: Arc<Counters>,
        health: Arc<super::StoreHealth>,
    ) -> (Self, mpsc::UnboundedReceiver<QueuedEntry>) {
        let (entries, receiver) = mpsc::unbounded_channel();
        let queue = Self {
            entries,
            capacity: Capacity::new(limits.entries, limits.bytes),
            share: (limits.entries / SHARES, limits.bytes / SHARES),
            flows: Arc::default(),
            counters,
            health,
        };
        (queue, receiver)
    }

    /// Creates the share of one sensor.
    pub(crate) fn share(&self) -> SensorShare {
        let flow = self.flows.fetch_add(1, Ordering::Relaxed);
        SensorShare { flow, capacity: Capacity::new(self.share.0, self.share.1) }
    }

    /// Waits for room for a payload of `len` bytes, in the order of the calls: first in the sensor's share, then in the
    /// whole queue.
    pub(crate) async fn room(&self, share: &SensorShare, len: usize) -> Result<Reservation, Closed> {
        let bytes = len + ENTRY_BYTES;
        let permits = [share.capacity.take(bytes).await?, self.capacity.take(bytes).await?];
        self.counters.waiting.add(1);
        self.counters.waiting_bytes.add(bytes as i64);
        Ok(Reservation { bytes, counters: Arc::clone(&self.counters), _permits: permits })
    }

    /// Adds an entry to the queue. `cost` is the cost of storing it, in bytes written.
    pub(crate) fn push(
        &self,
        entry: Entry,
        (share, cost): (&SensorShare, usize),
        progress: &Arc<AckProgress>,
        ack: u64,
        room: Reservation,
    ) -> Result<(), Closed> {
        let handle = AckHandle {
            progress: Arc::clone(progress),
            ack,
            epoch: entry.epoch,
            numbers: entry.item.numbers(),
            sensor: Arc::clone(&entry.sensor),
            _room: room,
        };
        self.entries.send(QueuedEntry { entry, handle, flow: share.flow, cost }).map_err(|_| Closed)
    }

    /// Returns why new connections are refused, if the store failed within the last second.
    pub(crate) fn recent_failure(&self) -> Option<BusyReason> {
        self.health.recent_failure()
    }
}
