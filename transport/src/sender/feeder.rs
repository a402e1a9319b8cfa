//! From the pipeline to the spool: a queue that never makes anybody wait, and the thread that empties it, as many hits
//! at a time as have come meanwhile.

use super::{Shared, now_ms};
use crate::spool::{Spool, TAIL_BYTES_MAX};
use crate::wire::message::GapReason;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Hits that wait for the spool; more are dropped.
pub const QUEUE_HITS_MAX: usize = 4096;
/// Bytes of the hits that wait for the spool; one hit may always come.
pub const QUEUE_BYTES_MAX: usize = 8 << 20;
/// Bytes written in one transaction, beyond which no hit is added.
const BATCH_BYTES: usize = 2 << 20;
/// How long acknowledgements may wait until they are written, if there is nothing else to write.
const FORGET_EVERY: Duration = Duration::from_millis(200);
/// How long a disk that takes nothing is left alone.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Most attempts to write the rest at the end.
const LAST_ATTEMPTS: usize = 3;

#[derive(Debug)]
enum Item {
    Hit(Vec<u8>),
    /// Hits that were dropped here.
    Gap(GapReason, u64),
}

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and any combination can be")]
struct State {
    items: VecDeque<Item>,
    hits: usize,
    bytes: usize,
    /// Taken out and not in the spool yet.
    is_busy: bool,
    /// Something was acknowledged.
    has_acknowledged: bool,
    is_patient: bool,
    is_closed: bool,
}

/// Hits on their way to the spool, and where between them some were dropped.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an encoded hit, or gives it back.
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

    /// Counts a hit that was dropped, at its place.
    pub(super) fn drop_one(&self, reason: GapReason) {
        let mut state = self.state();
        let many = state.items.len() > 2 * QUEUE_HITS_MAX;
        match state.items.back_mut() {
            // At most one run between two hits, and one more.
            Some(Item::Gap(known, count)) if *known == reason || many => *count += 1,
            _ => state.items.push_back(Item::Gap(reason, 1)),
        }
        self.changed.notify_one();
    }

    /// From now on a full disk makes the queue fill up, rather than have the oldest given up.
    pub(super) fn set_patient(&self) {
        self.state().is_patient = true;
    }

    pub(super) fn acknowledged(&self) {
        self.state().has_acknowledged = true;
        self.changed.notify_one();
    }

    /// Whether everything that was taken is in the spool.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state();
        state.items.is_empty() && !state.is_busy
    }

    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_one();
    }

    /// Waits for something to write, no longer than until `until` (for ever without), and moves it to `batch`.
    /// `has_room`: whether hits can be taken. Returns whether the queue is closed and empty.
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

/// Empties the queue into the spool until it is closed.
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
            // Acknowledgements wait for more of them.
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
                    tracing::error!("hits are kept in memory: {error}");
                }
                retry = Some(now + RETRY_EVERY);
            }
        }
        drop(spool);
        shared.queue.done();
        shared.inbox.notify();
    }
}

/// The last writes, tried a few times. What the disk does not take is given up.
fn write_rest<'s>(shared: &'s Shared, mut spool: MutexGuard<'s, Spool>) {
    for attempt in 1..=LAST_ATTEMPTS {
        match spool.flush(now_ms()) {
            Ok(()) => break,
            Err(error) if attempt == LAST_ATTEMPTS => {
                let lost = spool.give_up_unwritten();
                tracing::error!(lost, "hits are lost with the end of the process: {error}");
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
