//! Moves entries from the connections to the store through one bounded queue, in batches that are acknowledged when
//! they are durable.
//!
//! The next batch fills while the store writes the last one, so batches grow with the load and no timer is needed.
//! Entries of a connection keep their order. Sensors take turns ([`fair`]).

mod fair;
mod progress;
mod queue;

pub(super) use progress::AckProgress;
pub(super) use queue::{CommitQueue, Reservation, SensorShare};

use crate::backend::{Appended, Backend, BackendError, Entry, EntryError};
use crate::counters::Counters;
use crate::log_limit::LogLimit;
use etwsieve_transport::wire::message::{BusyReason, NAME_LEN_MAX, RefusedV1};
use fair::FairQueue;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt};
use queue::AckHandle;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Cost of a batch, in bytes written, above which no further entry is added.
const BATCH_COST_MAX: usize = 4 << 20;
/// Maximum number of batches in the store: one is prepared while the other is written.
const BATCHES_MAX: usize = 2;
/// Time after a failed batch during which new connections are refused without trying the store.
const FAILURE_TIME: Duration = Duration::from_secs(1);

/// An entry in the queue.
struct QueuedEntry {
    entry: Entry,
    handle: AckHandle,
    /// The flow of its sensor.
    flow: u64,
    /// The cost of storing it, in bytes written.
    cost: usize,
}

/// Records when the store last failed.
struct StoreHealth {
    start: Instant,
    /// Milliseconds since `start`, shifted by 8, and the wire value of the reason plus one; 0: the store works.
    failed: AtomicU64,
}

impl StoreHealth {
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

/// Limits of the queue and its batches.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    /// Maximum number of queued entries.
    pub(super) entries: usize,
    /// Maximum total size of the queued entries, in bytes.
    pub(super) bytes: usize,
    /// Maximum number of entries in a batch.
    pub(super) batch: usize,
    /// Acknowledge before the store has synced, so that the fault campaign can prove that it finds the loss.
    pub(super) ack_before_sync: bool,
}

/// Creates the queue and starts the task that drains it. The task ends when all clones of the queue are dropped.
pub(super) fn start(
    backend: Arc<dyn Backend>,
    limits: QueueLimits,
    counters: Arc<Counters>,
) -> (CommitQueue, tokio::task::JoinHandle<()>) {
    let health = Arc::new(StoreHealth { start: Instant::now(), failed: AtomicU64::new(0) });
    let (queue, receiver) = CommitQueue::new(&limits, Arc::clone(&counters), Arc::clone(&health));
    let committer = Committer {
        backend,
        limits,
        counters,
        health,
        receiver,
        waiting: FairQueue::default(),
        conflicts: LogLimit::default(),
        failures: LogLimit::default(),
        refusals: LogLimit::default(),
    };
    (queue, tokio::spawn(committer.run()))
}

struct Committer {
    backend: Arc<dyn Backend>,
    limits: QueueLimits,
    counters: Arc<Counters>,
    health: Arc<StoreHealth>,
    receiver: mpsc::UnboundedReceiver<QueuedEntry>,
    waiting: FairQueue<(Entry, AckHandle)>,
    conflicts: LogLimit,
    failures: LogLimit,
    refusals: LogLimit,
}

type BatchResult = (Vec<AckHandle>, Result<Appended, BackendError>);

impl Committer {
    async fn run(mut self) {
        let mut working: FuturesOrdered<BoxFuture<'static, BatchResult>> = FuturesOrdered::new();
        let mut is_open = true;
        loop {
            if working.len() < BATCHES_MAX {
                while let Ok(waiting) = self.receiver.try_recv() {
                    self.enqueue(waiting);
                }
                if !self.waiting.is_empty() {
                    let (entries, handles) = self.collect();
                    if self.limits.ack_before_sync {
                        handles.iter().for_each(AckHandle::durable);
                    }
                    let stored = self.backend.append(entries);
                    working.push_back(Box::pin(async move { (handles, stored.await) }));
                    continue;
                }
            }
            tokio::select! {
                biased;
                Some(outcome) = working.next() => self.settle(outcome),
                first = self.receiver.recv(), if is_open && working.len() < BATCHES_MAX => match first {
                    Some(first) => self.enqueue(first),
                    None => is_open = false,
                },
                else => return,
            }
        }
    }

    fn enqueue(&mut self, waiting: QueuedEntry) {
        self.waiting.push(waiting.flow, waiting.cost, (waiting.entry, waiting.handle));
    }

    /// Takes the next batch from the queue.
    fn collect(&mut self) -> (Vec<Entry>, Vec<AckHandle>) {
        let (mut entries, mut handles) = (Vec::new(), Vec::new());
        let mut spent = 0;
        while entries.len() < self.limits.batch.max(1)
            && spent < BATCH_COST_MAX
            && let Some((cost, (entry, handle))) = self.waiting.pop()
        {
            spent += cost;
            entries.push(entry);
            handles.push(handle);
        }
        (entries, handles)
    }

    fn settle(&self, (handles, stored): BatchResult) {
        let appended = match stored {
            Ok(appended) => appended,
            Err(error) => {
                self.counters.batches_failed.add(1);
                self.health.set(Some(&error));
                if let Some(suppressed) = self.failures.admit() {
                    tracing::error!(
                        frames = handles.len(),
                        suppressed,
                        "batch not stored, sensors will resend it: {error}"
                    );
                }
                for handle in &handles {
                    handle.failed(error.reason());
                }
                return;
            }
        };
        self.counters.appended(&appended);
        self.health.set(None);
        if appended.conflicts > 0
            && let Some(suppressed) = self.conflicts.admit()
        {
            tracing::warn!(
                conflicts = appended.conflicts,
                suppressed,
                "sequence numbers reused with different contents, both hits stored: a copy of a sensor is running"
            );
        }
        if self.limits.ack_before_sync {
            return;
        }
        let mut errors = appended.errors.into_iter().peekable();
        for (index, handle) in handles.iter().enumerate() {
            match errors.next_if(|(at, _)| *at == index) {
                None => handle.durable(),
                Some((_, error)) => self.settle_error(handle, error),
            }
        }
    }

    /// Reports the error of one entry to its sensor only.
    fn settle_error(&self, handle: &AckHandle, error: EntryError) {
        match error {
            EntryError::Failed(error) => {
                self.counters.entries_failed.add(1);
                if let Some(suppressed) = self.failures.admit() {
                    tracing::error!(
                        sensor = %handle.sensor, suppressed, "frame not stored, the sensor will resend it: {error}"
                    );
                }
                handle.failed(error.reason());
            }
            EntryError::Refused(refusal) => {
                self.counters.refused(refusal.reason);
                let mut detail = refusal.detail;
                handle.refused(|epoch, (from, to)| {
                    if let Some(suppressed) = self.refusals.admit() {
                        tracing::error!(
                            sensor = %handle.sensor, from, to, suppressed,
                            "frame refused, it can never be stored: {detail}"
                        );
                    }
                    detail.truncate(detail.floor_char_boundary(NAME_LEN_MAX));
                    RefusedV1 { epoch, from, to, reason: refusal.reason, detail }
                });
            }
        }
    }
}
