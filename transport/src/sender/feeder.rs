//! The bounded queue between the pipeline and the spool, and the thread that writes queued hits to the spool in
//! batches.

use super::{Shared, now_ms};
use crate::spool::{Spool, TAIL_BYTES_MAX};
use crate::wire::message::GapReason;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Maximum number of queued hits; further hits are dropped.
pub const QUEUE_HITS_MAX: usize = 4096;
/// Maximum size of the queued hits, in bytes; a hit of any size is accepted if the queue is empty.
pub const QUEUE_BYTES_MAX: usize = 8 << 20;
/// No hit is added to a batch that has reached this size, in bytes.
const BATCH_BYTES: usize = 2 << 20;
/// Maximum time until acknowledgements are written if no hits come.
const FORGET_EVERY: Duration = Duration::from_millis(200);
/// Pause after a failed write.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Maximum number of attempts to write the last hits when the sender stops.
const LAST_ATTEMPTS: usize = 3;

#[derive(Debug)]
enum Item {
    Hit(Vec<u8>),
    /// A number of hits that were dropped at this point.
    Gap(GapReason, u64),
}

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "the flags are independent")]
struct State {
    items: VecDeque<Item>,
    hits: usize,
    bytes: usize,
    /// Items were taken and are not in the spool yet.
    is_busy: bool,
    /// Acknowledgements arrived that the spool has not written yet.
    has_acknowledged: bool,
    is_patient: bool,
    is_closed: bool,
}

/// Queued hits, and the dropped ones between them.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an encoded hit, or returns it if there is no room.
    pub(super) fn offer(&self, hit: Vec<u8>) -> Result<(), Vec<u8>> {
        let mut state = self.state();
        let is_full =
            state.hits >= QUEUE_HITS_MAX || state.hits > 0 && state.bytes + hit.len() > QUEUE_BYTES_MAX;
        if is_full || state.is_closed {
            return Err(hit);
        }
        state.hits += 1;
        state.bytes += hit.len();
        state.items.push_back(Item::Hit(hit));
        self.changed.notify_one();
        Ok(())
    }

    /// Counts a dropped hit at its place between the queued ones.
    pub(super) fn drop_one(&self, reason: GapReason) {
        let mut state = self.state();
        let many = state.items.len() > 2 * QUEUE_HITS_MAX;
        match state.items.back_mut() {
            // There is at most one gap between two hits, so the length of the queue stays bounded.
            Some(Item::Gap(known, count)) if *known == reason || many => *count += 1,
            _ => state.items.push_back(Item::Gap(reason, 1)),
        }
        self.changed.notify_one();
    }

    /// From now on hits stay in the queue while the disk takes none, instead of replacing older ones in the spool.
    pub(super) fn set_patient(&self) {
        self.state().is_patient = true;
    }

    pub(super) fn acknowledged(&self) {
        self.state().has_acknowledged = true;
        self.changed.notify_one();
    }

    /// Returns true if everything queued so far is in the spool.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state();
        state.items.is_empty() && !state.is_busy
    }

    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_one();
    }

    /// Waits for items, until `until` at the latest (forever if `None`), and moves them to `batch`. Nothing is taken
    /// from a patient queue without `has_room`. Returns true if the queue is closed and empty.
    fn take(&self, until: Option<Instant>, has_room: bool, batch: &mut Vec<Item>) -> bool {
        let mut state = self.state();
        loop {
            let may_take = has_room || !state.is_patient || state.is_closed;
            let is_over = until.is_some_and(|until| Instant::now() >= until);
            if (may_take && !state.items.is_empty())
                || state.is_closed
                || state.has_acknowledged && until.is_none()
                || is_over
            {
                break;
            }
            state = match until {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        state.has_acknowledged = false;
        if has_room || !state.is_patient || state.is_closed {
            let mut bytes = 0;
            while bytes < BATCH_BYTES
                && let Some(item) = state.items.pop_front()
            {
                if let Item::Hit(hit) = &item {
                    bytes += hit.len();
                    state.bytes -= hit.len();
                    state.hits -= 1;
                }
                batch.push(item);
            }
        }
        state.is_busy = !batch.is_empty();
        state.is_closed && state.items.is_empty()
    }

    fn done(&self) {
        self.state().is_busy = false;
    }
}

/// Writes queued hits to the spool until the queue is closed.
pub(super) fn run(shared: &Shared) {
    let mut batch = Vec::new();
    let mut retry: Option<Instant> = None;
    let mut forget: Option<Instant> = None;
    loop {
        let has_room = retry.is_none() || shared.spool().unwritten_bytes() < TAIL_BYTES_MAX / 2;
        let is_last = shared.queue.take(retry.or(forget), has_room, &mut batch);
        let now = Instant::now();
        let mut spool = shared.spool();
        let has_come = !batch.is_empty();
        for item in batch.drain(..) {
            match item {
                Item::Hit(hit) => spool.push(&hit, now_ms()),
                Item::Gap(reason, count) => spool.push_gap(count, reason, now_ms()),
            }
        }
        let is_due = match (retry, forget) {
            (Some(at), _) => now >= at,
            (None, Some(at)) => has_come || now >= at,
            (None, None) => has_come,
        };
        if is_last {
            return write_rest(shared, spool);
        }
        if !is_due {
            // Wait for further acknowledgements and write them together.
            spool.limit_unwritten();
            if spool.has_unwritten() && retry.is_none() {
                forget = Some(forget.unwrap_or(now + FORGET_EVERY));
            }
            drop(spool);
            shared.queue.done();
            shared.inbox.notify();
            continue;
        }
        forget = None;
        match spool.flush(now_ms()) {
            Ok(()) => retry = None,
            Err(error) => {
                if retry.is_none() {
                    tracing::error!("cannot write the spool, hits stay in memory: {error}");
                }
                retry = Some(now + RETRY_EVERY);
            }
        }
        drop(spool);
        shared.queue.done();
        shared.inbox.notify();
    }
}

/// Writes the last hits, with a few attempts, and drops them if the disk takes none.
fn write_rest<'s>(shared: &'s Shared, mut spool: MutexGuard<'s, Spool>) {
    for attempt in 1..=LAST_ATTEMPTS {
        match spool.flush(now_ms()) {
            Ok(()) => break,
            Err(error) if attempt == LAST_ATTEMPTS => {
                let lost = spool.drop_unwritten();
                tracing::error!(lost, "cannot write the spool, hits are lost: {error}");
            }
            Err(_) => {
                drop(spool);
                std::thread::sleep(RETRY_EVERY / 2);
                spool = shared.spool();
            }
        }
    }
    drop(spool);
    shared.queue.done();
    shared.inbox.notify();
}
