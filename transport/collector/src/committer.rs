//! The way from the connections to the store: one bounded queue, and batches that are acknowledged when durable.
//!
//! While the store works on one batch the next one collects, so that batches grow with the load and nobody waits for a
//! timer. Entries of a connection keep their order; sensors take turns ([`fair`]).

mod fair;
mod progress;
mod queue;

pub(super) use progress::Progress;
pub(super) use queue::{Queue, Room, Share};

use crate::backend::{Appended, Backend, BackendError, Entry, EntryError};
use crate::counters::Counters;
use crate::quota::Quota;
use etwsieve_transport::wire::message::{BusyReason, NAME_LEN_MAX, RefusedV1};
use fair::Fair;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt};
use queue::Ticket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Cost of one batch, in bytes written, beyond which no entry is added.
const BATCH_COST_MAX: usize = 4 << 20;
/// Batches in the store at a time: one is prepared while the other is written.
const BATCHES_MAX: usize = 2;
/// How long after a failed batch new connections are turned away without trying.
const FAILURE_TIME: Duration = Duration::from_secs(1);

/// An entry in the queue.
struct Waiting {
    entry: Entry,
    ticket: Ticket,
    /// Of its sensor's share.
    line: u64,
    /// What writing it takes, in bytes written.
    cost: usize,
}

/// When the store failed last.
struct Health {
    start: Instant,
    /// Milliseconds since `start` and, in the lowest byte, one more than the wire value of the reason; 0: it works.
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
    let health = Arc::new(Health { start: Instant::now(), failed: AtomicU64::new(0) });
    let (queue, receiver) = Queue::new(&bounds, Arc::clone(&counters), Arc::clone(&health));
    let committer = Committer {
        backend,
        bounds,
        counters,
        health,
        receiver,
        waiting: Fair::default(),
        conflicts: Quota::default(),
        failures: Quota::default(),
        refusals: Quota::default(),
    };
    (queue, tokio::spawn(committer.run()))
}

struct Committer {
    backend: Arc<dyn Backend>,
    bounds: Bounds,
    counters: Arc<Counters>,
    health: Arc<Health>,
    receiver: mpsc::UnboundedReceiver<Waiting>,
    waiting: Fair<(Entry, Ticket)>,
    conflicts: Quota,
    failures: Quota,
    refusals: Quota,
}

type Outcome = (Vec<Ticket>, Result<Appended, BackendError>);

impl Committer {
    async fn run(mut self) {
        let mut working: FuturesOrdered<BoxFuture<'static, Outcome>> = FuturesOrdered::new();
        let mut is_open = true;
        loop {
            if working.len() < BATCHES_MAX {
                while let Ok(waiting) = self.receiver.try_recv() {
                    self.line_up(waiting);
                }
                if !self.waiting.is_empty() {
                    let (entries, tickets) = self.collect();
                    if self.bounds.ack_before_sync {
                        tickets.iter().for_each(Ticket::durable);
                    }
                    let stored = self.backend.append(entries);
                    working.push_back(Box::pin(async move { (tickets, stored.await) }));
                    continue;
                }
            }
            tokio::select! {
                biased;
                Some(outcome) = working.next() => self.settle(outcome),
                first = self.receiver.recv(), if is_open && working.len() < BATCHES_MAX => match first {
                    Some(first) => self.line_up(first),
                    None => is_open = false,
                },
                else => return,
            }
        }
    }

    fn line_up(&mut self, waiting: Waiting) {
        self.waiting.push(waiting.line, waiting.cost, (waiting.entry, waiting.ticket));
    }

    /// Takes a batch out of what waits.
    fn collect(&mut self) -> (Vec<Entry>, Vec<Ticket>) {
        let (mut entries, mut tickets) = (Vec::new(), Vec::new());
        let mut spent = 0;
        while entries.len() < self.bounds.batch.max(1)
            && spent < BATCH_COST_MAX
            && let Some((cost, (entry, ticket))) = self.waiting.pop()
        {
            spent += cost;
            entries.push(entry);
            tickets.push(ticket);
        }
        (entries, tickets)
    }

    fn settle(&self, (tickets, stored): Outcome) {
        let appended = match stored {
            Ok(appended) => appended,
            Err(error) => {
                self.counters.batches_failed.add(1);
                self.health.set(Some(&error));
                if let Some(suppressed) = self.failures.admit() {
                    tracing::error!(
                        frames = tickets.len(),
                        suppressed,
                        "a batch was not stored and not acknowledged: {error}"
                    );
                }
                for ticket in &tickets {
                    ticket.failed(error.reason());
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
                "numbers came again with other contents; both were stored: somebody runs a copy of a sensor"
            );
        }
        if self.bounds.ack_before_sync {
            return;
        }
        let mut errors = appended.errors.into_iter().peekable();
        for (index, ticket) in tickets.iter().enumerate() {
            match errors.next_if(|(at, _)| *at == index) {
                None => ticket.durable(),
                Some((_, error)) => self.settle_error(ticket, error),
            }
        }
    }

    /// Only the sensor of this entry hears of it.
    fn settle_error(&self, ticket: &Ticket, error: EntryError) {
        match error {
            EntryError::Failed(error) => {
                self.counters.entries_failed.add(1);
                if let Some(suppressed) = self.failures.admit() {
                    tracing::error!(sensor = %ticket.sensor, suppressed, "a frame was not stored: {error}");
                }
                ticket.failed(error.reason());
            }
            EntryError::Refused(refusal) => {
                self.counters.refused(refusal.reason);
                let mut detail = refusal.detail;
                ticket.refused(|epoch, (from, to)| {
                    if let Some(suppressed) = self.refusals.admit() {
                        tracing::error!(
                            sensor = %ticket.sensor, from, to, suppressed,
                            "a frame cannot be stored and is refused: {detail}"
                        );
                    }
                    detail.truncate(detail.floor_char_boundary(NAME_LEN_MAX));
                    RefusedV1 { epoch, from, to, reason: refusal.reason, detail }
                });
            }
        }
    }
}
