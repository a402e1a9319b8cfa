//! The way from the connections to the store: one bounded queue, and batches that are acknowledged when durable.
//!
//! While the store works on one batch the next one collects, so that batches grow with the load and nobody waits for a
//! timer. Entries of a connection keep their order.

use super::backend::{Backend, BackendError, Entry};
use super::counters::Counters;
use crate::wire::message::BusyReason;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

/// Most bytes of payloads in one batch, unless a single entry has more.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Batches in the store at a time: one is prepared while the other is written.
const BATCHES_MAX: usize = 2;
/// Bytes that one permit of the queue stands for.
const PERMIT_BYTES: usize = 1024;
/// What an entry takes beside its payload, roughly.
const ENTRY_BYTES: usize = 256;
/// How long after a failed batch new connections are turned away without trying.
const FAILURE_TIME: Duration = Duration::from_secs(1);

/// How far one epoch of one connection is durable. Written by the committer, read by the connection.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Frames settled, durable or not.
    settled: AtomicU64,
    /// The number of the ACK.
    ack: AtomicU64,
    /// 0, or one more than the wire value of the reason why something was not stored. Never cleared.
    failure: AtomicU8,
    /// Something has changed.
    pub(super) changed: Notify,
}

impl Progress {
    /// Frames settled, and the number to acknowledge or the reason why nothing more will be.
    pub(super) fn read(&self) -> (u64, Result<u64, BusyReason>) {
        // In this order: a failure is written before anything that was settled after it.
        let settled = self.settled.load(Ordering::Acquire);
        let ack = self.ack.load(Ordering::Acquire);
        match self.failure.load(Ordering::Acquire).checked_sub(1) {
            None => (settled, Ok(ack)),
            Some(reason) => {
                let reason = BusyReason::ALL.get(usize::from(reason)).copied();
                (settled, Err(reason.unwrap_or(BusyReason::StoreFailed)))
            }
        }
    }
}

/// An entry's claim to be acknowledged, and its room in the queue.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) progress: Arc<Progress>,
    /// The number of the ACK once this is durable.
    pub(super) ack: u64,
    room: Room,
}

impl Ticket {
    fn durable(&self) {
        self.progress.ack.fetch_max(self.ack, Ordering::Release);
        self.progress.settled.fetch_add(1, Ordering::Release);
        self.progress.changed.notify_one();
    }

    fn refused(&self, reason: BusyReason) {
        self.progress.failure.store(reason as u8 + 1, Ordering::Release);
        self.progress.settled.fetch_add(1, Ordering::Release);
        self.progress.changed.notify_one();
    }
}

/// Room in the queue; given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    bytes: usize,
    counters: Arc<Counters>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.counters.waiting.add(-1);
        self.counters.waiting_bytes.add(-(self.bytes as i64));
    }
}

struct Waiting {
    entry: Entry,
    ticket: Ticket,
}

/// The connections' end of the queue.
#[derive(Clone)]
pub(super) struct Queue {
    entries: mpsc::Sender<Waiting>,
    bytes: Arc<Semaphore>,
    permits_max: usize,
    counters: Arc<Counters>,
    health: Arc<Health>,
}

/// The committer has gone.
#[derive(Debug)]
pub(super) struct Closed;

impl Queue {
    /// Waits for room for a payload of `len` bytes, first come, first served.
    pub(super) async fn room(&self, len: usize) -> Result<Room, Closed> {
        let bytes = len + ENTRY_BYTES;
        let permits = bytes.div_ceil(PERMIT_BYTES).min(self.permits_max) as u32;
        let permit = Arc::clone(&self.bytes).acquire_many_owned(permits).await.map_err(|_| Closed)?;
        self.counters.waiting.add(1);
        self.counters.waiting_bytes.add(bytes as i64);
        Ok(Room { bytes, counters: Arc::clone(&self.counters), _permit: permit })
    }

    /// Puts an entry into the queue, waiting for a place. Dropping the future leaves the entry out.
    pub(super) async fn push(
        &self,
        entry: Entry,
        progress: &Arc<Progress>,
        ack: u64,
        room: Room,
    ) -> Result<(), Closed> {
        let ticket = Ticket { progress: Arc::clone(progress), ack, room };
        self.entries.send(Waiting { entry, ticket }).await.map_err(|_| Closed)
    }

    /// The reason to turn a new connection away, because the store has just failed.
    pub(super) fn recent_failure(&self) -> Option<BusyReason> {
        self.health.recent_failure()
    }
}

/// When the store failed last.
struct Health {
    start: Instant,
    /// Milliseconds since `start`, and the reason as in [`Progress::failure`]; 0: it works.
    failed: AtomicU64,
}

impl Health {
    fn set(&self, error: Option<&BackendError>) {
        let failed = error
            .map_or(0, |error| (self.start.elapsed().as_millis() as u64) << 8 | (error.reason() as u64 + 1));
        self.failed.store(failed, Ordering::Relaxed);
    }

    fn recent_failure(&self) -> Option<BusyReason> {
        let failed = self.failed.load(Ordering::Relaxed);
        let reason = BusyReason::ALL.get((failed & 0xFF).checked_sub(1)? as usize)?;
        let ago = self.start.elapsed().checked_sub(Duration::from_millis(failed >> 8))?;
        (ago < FAILURE_TIME).then_some(*reason)
    }
}

/// What bounds the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Most entries that wait.
    pub(super) entries: usize,
    /// Most bytes of them.
    pub(super) bytes: usize,
    /// Most entries in a batch.
    pub(super) batch: usize,
    /// Acknowledge before the store has synced: for proving that the fault campaign finds the loss.
    pub(super) ack_before_sync: bool,
}

/// Makes the queue and the task that empties it. The task ends when all clones of the queue are gone.
pub(super) fn start(
    backend: Arc<dyn Backend>,
    bounds: Bounds,
    counters: Arc<Counters>,
) -> (Queue, tokio::task::JoinHandle<()>) {
    let (entries, receiver) = mpsc::channel(bounds.entries.max(1));
    let permits_max = (bounds.bytes / PERMIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
    let health = Arc::new(Health { start: Instant::now(), failed: AtomicU64::new(0) });
    let queue = Queue {
        entries,
        bytes: Arc::new(Semaphore::new(permits_max)),
        permits_max,
        counters: Arc::clone(&counters),
        health: Arc::clone(&health),
    };
    let committer = Committer { backend, bounds, counters, health, receiver };
    (queue, tokio::spawn(committer.run()))
}

struct Committer {
    backend: Arc<dyn Backend>,
    bounds: Bounds,
    counters: Arc<Counters>,
    health: Arc<Health>,
    receiver: mpsc::Receiver<Waiting>,
}

type Outcome = (Vec<Ticket>, Result<super::backend::Appended, BackendError>);

impl Committer {
    async fn run(mut self) {
        let mut working: FuturesOrdered<BoxFuture<'static, Outcome>> = FuturesOrdered::new();
        let mut is_open = true;
        while is_open || !working.is_empty() {
            tokio::select! {
                biased;
                Some(outcome) = working.next() => self.settle(outcome),
                first = self.receiver.recv(), if is_open && working.len() < BATCHES_MAX => match first {
                    Some(first) => {
                        let (entries, tickets) = self.collect(first);
                        if self.bounds.ack_before_sync {
                            tickets.iter().for_each(Ticket::durable);
                        }
                        let stored = self.backend.append(entries);
                        working.push_back(Box::pin(async move { (tickets, stored.await) }));
                    }
                    None => is_open = false,
                },
            }
        }
    }

    /// What waits behind `first` and fits the batch.
    fn collect(&mut self, first: Waiting) -> (Vec<Entry>, Vec<Ticket>) {
        let mut bytes = first.ticket.room.bytes;
        let (mut entries, mut tickets) = (vec![first.entry], vec![first.ticket]);
        while entries.len() < self.bounds.batch
            && bytes < BATCH_BYTES_MAX
            && let Ok(waiting) = self.receiver.try_recv()
        {
            bytes += waiting.ticket.room.bytes;
            entries.push(waiting.entry);
            tickets.push(waiting.ticket);
        }
        (entries, tickets)
    }

    fn settle(&self, (tickets, stored): Outcome) {
        match stored {
            Ok(appended) => {
                self.counters.appended(appended);
                self.health.set(None);
                if appended.conflicts > 0 {
                    tracing::warn!(
                        conflicts = appended.conflicts,
                        "numbers came again with other contents; both were stored: somebody runs a copy of a sensor"
                    );
                }
                if !self.bounds.ack_before_sync {
                    tickets.iter().for_each(Ticket::durable);
                }
            }
            Err(error) => {
                self.counters.batches_failed.add(1);
                self.health.set(Some(&error));
                tracing::error!(
                    frames = tickets.len(),
                    "a batch was not stored and not acknowledged: {error}"
                );
                for ticket in &tickets {
                    ticket.refused(error.reason());
                }
            }
        }
    }
}
