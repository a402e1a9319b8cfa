//! The connections' end of the queue: room for entries, bounded for all sensors together and for each of them.

use super::Waiting;
use super::progress::Progress;
use crate::backend::{Entry, Id};
use crate::counters::Counters;
use etwsieve_transport::wire::message::{BusyReason, RefusedV1};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Bytes that one permit of the queue stands for.
const PERMIT_BYTES: usize = 1024;
/// What an entry takes beside its payload, roughly.
const ENTRY_BYTES: usize = 256;
/// The part of the queue that one sensor may fill: one in so many.
const SHARES: usize = 8;

/// Places for entries and for their bytes.
#[derive(Clone, Debug)]
struct Places {
    frames: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    /// Most permits that one entry takes: a longer one takes all, rather than none for ever.
    bytes_max: usize,
}

impl Places {
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

/// A sensor's part of the queue, shared by its connections. It also names the sensor's line when batches are made up.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    line: u64,
    places: Places,
}

/// Room in the queue; given back when dropped.
#[derive(Debug)]
pub(crate) struct Room {
    bytes: usize,
    counters: Arc<Counters>,
    /// Of the sensor's share and of the whole.
    _permits: [[OwnedSemaphorePermit; 2]; 2],
}

impl Room {
    /// Bytes of the entry, with what it takes beside its payload.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.counters.waiting.add(-1);
        self.counters.waiting_bytes.add(-(self.bytes as i64));
    }
}

/// An entry's claim to be acknowledged, and its room in the queue.
#[derive(Debug)]
pub(super) struct Ticket {
    progress: Arc<Progress>,
    /// The number of the ACK once this is durable.
    ack: u64,
    epoch: Id,
    numbers: (u64, u64),
    pub(super) sensor: Arc<str>,
    _room: Room,
}

impl Ticket {
    pub(super) fn durable(&self) {
        self.progress.durable(self.ack);
    }

    pub(super) fn failed(&self, reason: BusyReason) {
        self.progress.failed(reason);
    }

    /// `to` tells the sensor why.
    pub(super) fn refused(&self, to: impl FnOnce(Id, (u64, u64)) -> RefusedV1) {
        self.progress.refused(self.ack, to(self.epoch, self.numbers));
    }
}

/// The connections' end of the queue.
#[derive(Clone)]
pub(crate) struct Queue {
    /// Bounded by the places, of which each entry in it holds one.
    entries: mpsc::UnboundedSender<Waiting>,
    places: Places,
    share: (usize, usize),
    lines: Arc<AtomicU64>,
    counters: Arc<Counters>,
    pub(super) health: Arc<super::Health>,
}

/// The committer has gone.
#[derive(Debug)]
pub(crate) struct Closed;

impl Queue {
    pub(super) fn new(
        bounds: &super::Bounds,
        counters: Arc<Counters>,
        health: Arc<super::Health>,
    ) -> (Self, mpsc::UnboundedReceiver<Waiting>) {
        let (entries, receiver) = mpsc::unbounded_channel();
        let queue = Self {
            entries,
            places: Places::new(bounds.entries, bounds.bytes),
            share: (bounds.entries / SHARES, bounds.bytes / SHARES),
            lines: Arc::default(),
            counters,
            health,
        };
        (queue, receiver)
    }

    /// Makes the share of one sensor.
    pub(crate) fn share(&self) -> Share {
        let line = self.lines.fetch_add(1, Ordering::Relaxed);
        Share { line, places: Places::new(self.share.0, self.share.1) }
    }

    /// Waits for room for a payload of `len` bytes, first come, first served: in the sensor's share, then in the whole.
    pub(crate) async fn room(&self, share: &Share, len: usize) -> Result<Room, Closed> {
        let bytes = len + ENTRY_BYTES;
        let permits = [share.places.take(bytes).await?, self.places.take(bytes).await?];
        self.counters.waiting.add(1);
        self.counters.waiting_bytes.add(bytes as i64);
        Ok(Room { bytes, counters: Arc::clone(&self.counters), _permits: permits })
    }

    /// Puts an entry into the queue. `cost` is what writing it takes, in bytes written.
    pub(crate) fn push(
        &self,
        entry: Entry,
        (share, cost): (&Share, usize),
        progress: &Arc<Progress>,
        ack: u64,
        room: Room,
    ) -> Result<(), Closed> {
        let ticket = Ticket {
            progress: Arc::clone(progress),
            ack,
            epoch: entry.epoch,
            numbers: entry.item.numbers(),
            sensor: Arc::clone(&entry.sensor),
            _room: room,
        };
        self.entries.send(Waiting { entry, ticket, line: share.line, cost }).map_err(|_| Closed)
    }

    /// The reason to turn a new connection away, because the store has just failed.
    pub(crate) fn recent_failure(&self) -> Option<BusyReason> {
        self.health.recent_failure()
    }
}
