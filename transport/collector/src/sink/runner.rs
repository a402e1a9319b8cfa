//! The runner: one sink, its feed, its dead letters, on one thread.

use super::{
    Backoff, BatchLimits, Buried, DeadLetter, Feed, FeedError, Item, Lag, Outcome, Progress, Sink, SinkError,
};
use etwsieve_transport::time::unix_now;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the feed is asked to wait for hits.
const FEED_WAIT: Duration = Duration::from_millis(500);
/// How often the feed hears that its batch is still worked on, and how often the lag is measured.
const HOLD_EVERY: Duration = Duration::from_secs(5);
/// Attempts to write refused hits to the dead-letter file, over about half a minute, before they are dropped: one sensor's
/// hits must not keep the others waiting.
const BURIAL_ATTEMPTS_MAX: u32 = 6;
/// How often it is logged that hits are refused or dropped.
const LOG_EVERY: Duration = Duration::from_mins(1);
/// Longest pause that the other side may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(10);

/// A request to stop, which also ends pauses. Shared by cloning.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    /// Asks for the stop.
    pub fn request(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Whether somebody asked.
    pub fn requested(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `time` or for the stop; whether it was asked for.
    pub fn wait(&self, time: Duration) -> bool {
        let asked = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_timeout_while(asked, time, |asked| !*asked);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// What a sink has done and how it is, shared with whoever shows it.
#[derive(Debug, Default)]
pub struct SinkStats {
    delivered: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
    read_errors: AtomicU64,
    /// Seconds since 1970; 0: never.
    last_delivery: AtomicU64,
    retries: AtomicU64,
    lag_hits: AtomicU64,
    /// Seconds since 1970; 0: nothing waits.
    lag_oldest: AtomicU64,
    error: Mutex<Option<String>>,
}

/// [`SinkStats`] at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SinkCounts {
    /// Hits delivered since the start.
    pub delivered: u64,
    /// Hits in the dead-letter file since the start.
    pub refused: u64,
    /// Refused hits for which the dead-letter file had no room, or that could not be written to it, since the start.
    pub dropped: u64,
    /// When a hit was delivered last, in seconds since 1970; `None`: not since the start.
    pub last_delivery: Option<u64>,
    /// Attempts that failed, as a whole or in part.
    pub retries: u64,
    /// Attempts to read hits that failed.
    pub read_errors: u64,
    /// How far it is behind, measured every few seconds.
    pub lag: Lag,
    /// Why it does not get on; `None`: it does.
    pub error: Option<String>,
}

impl SinkStats {
    /// The counts now.
    pub fn counts(&self) -> SinkCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        SinkCounts {
            delivered: read(&self.delivered),
            refused: read(&self.refused),
            dropped: read(&self.dropped),
            last_delivery: Some(read(&self.last_delivery)).filter(|time| *time > 0),
            retries: read(&self.retries),
            read_errors: read(&self.read_errors),
            lag: Lag {
                hits: read(&self.lag_hits),
                oldest: Some(read(&self.lag_oldest)).filter(|oldest| *oldest > 0),
            },
            error: self.error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    fn set_lag(&self, lag: Lag) {
        self.lag_hits.store(lag.hits, Ordering::Relaxed);
        self.lag_oldest.store(lag.oldest.unwrap_or_default(), Ordering::Relaxed);
    }

    /// Remembers what is in the way and returns whether that is news.
    fn set_error(&self, error: Option<&str>) -> bool {
        let mut known = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        let news = known.as_deref() != error;
        *known = error.map(str::to_owned);
        news
    }
}

/// A sink with everything that it needs.
pub struct Runner {
    /// Name of the sink, for people.
    pub name: String,
    /// Where hits come from.
    pub feed: Box<dyn Feed>,
    /// Where they go.
    pub sink: Box<dyn Sink>,
    /// What is refused.
    pub dead_letter: DeadLetter,
    /// The size of a batch.
    pub limits: BatchLimits,
    /// Pauses between attempts.
    pub backoff: Backoff,
    /// Counts.
    pub stats: Arc<SinkStats>,
}

/// Keeps the feed's batch while a sink waits.
struct Holding<'a> {
    feed: &'a mut dyn Feed,
    stats: &'a SinkStats,
    stop: &'a Stop,
    held: &'a mut Instant,
}

impl Progress for Holding<'_> {
    fn wait(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            if self.held.elapsed() >= HOLD_EVERY {
                self.feed.hold();
                report(self.feed, self.stats);
                *self.held = Instant::now();
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return !self.stop.requested();
            }
            if self.stop.wait(left.min(HOLD_EVERY)) {
                return false;
            }
        }
    }
}

/// Measures the lag and reports the state of the sink to the feed.
fn report(feed: &mut dyn Feed, stats: &SinkStats) {
    if let Ok(lag) = feed.lag() {
        stats.set_lag(lag);
    }
    feed.report(&stats.counts());
}

/// State of a run between batches.
struct Run<'a> {
    runner: Runner,
    stop: &'a Stop,
    /// When the lag was measured last; `None`: it is due.
    measured: Option<Instant>,
    /// When the feed was last told that its batch is still in progress.
    held: Instant,
    refusals: Refusals,
}

/// Refused hits that were not logged yet.
#[derive(Default)]
struct Refusals {
    logged: Option<Instant>,
    kept: u64,
    dropped: u64,
}

impl Runner {
    /// Delivers until `stop`, or, if `until_empty`, until the feed has nothing more.
    ///
    /// Whatever fails is tried again; a batch that was not acknowledged when it stops comes again after the next start.
    pub fn run(self, stop: &Stop, until_empty: bool) {
        let refusals = Refusals::default();
        let mut run = Run { runner: self, stop, measured: None, held: Instant::now(), refusals };
        run.deliver_all(until_empty);
        let Runner { feed, stats, .. } = &mut run.runner;
        report(&mut **feed, stats);
    }
}

impl Run<'_> {
    fn deliver_all(&mut self, until_empty: bool) {
        let mut was_busy = true;
        while !self.stop.requested() {
            match self.runner.feed.next(self.runner.limits, FEED_WAIT) {
                Ok(batch) if batch.is_empty() => {
                    self.recover();
                    if std::mem::take(&mut was_busy) {
                        // Report at once that nothing is pending any more.
                        self.measured = None;
                    }
                    self.measure();
                    if until_empty && self.runner.feed.lag().is_ok_and(|lag| lag.hits == 0) {
                        return;
                    }
                }
                Ok(batch) => {
                    was_busy = true;
                    self.measure();
                    self.held = Instant::now();
                    if !self.deliver(batch) {
                        return;
                    }
                    self.acknowledge();
                }
                Err(error) => {
                    self.runner.stats.read_errors.fetch_add(1, Ordering::Relaxed);
                    self.complain("cannot read hits", &error.0);
                    self.stop.wait(self.runner.backoff.pause());
                }
            }
        }
    }

    /// Delivers a whole batch; `false`: the program stops before it is done.
    fn deliver(&mut self, mut pending: Vec<Item>) -> bool {
        let mut burials = 0;
        loop {
            let runner = &mut self.runner;
            let mut holding = Holding {
                feed: &mut *runner.feed,
                stats: &runner.stats,
                stop: self.stop,
                held: &mut self.held,
            };
            let error = match runner.sink.deliver(&pending, &mut holding) {
                Ok(outcomes) => self.settle(&mut pending, outcomes, &mut burials),
                Err(error) => Some(error),
            };
            let Some(error) = error else {
                self.recover();
                return true;
            };
            if self.stop.requested() {
                return false;
            }
            self.runner.stats.retries.fetch_add(1, Ordering::Relaxed);
            self.complain("does not deliver", &error.detail);
            let asked = error.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
            let pause = self.runner.backoff.pause().max(asked);
            if !self.holding().wait(pause) {
                return false;
            }
        }
    }

    /// Takes out of `pending` what is done with. What is left, and why.
    fn settle(
        &mut self,
        pending: &mut Vec<Item>,
        outcomes: Vec<Outcome>,
        burials: &mut u32,
    ) -> Option<SinkError> {
        assert_eq!(outcomes.len(), pending.len(), "a sink tells what became of each hit");
        let buried = self.bury(pending, &outcomes, burials);
        let (mut later, mut delivered, mut left) = (None, 0, Vec::new());
        for (item, outcome) in std::mem::take(pending).into_iter().zip(outcomes) {
            match outcome {
                Outcome::Delivered => delivered += 1,
                Outcome::Refused(_) if buried.is_ok() => {}
                Outcome::Refused(_) => left.push(item),
                Outcome::Later(reason) => {
                    later.get_or_insert(reason);
                    left.push(item);
                }
            }
        }
        if delivered > 0 {
            self.runner.stats.delivered.fetch_add(delivered, Ordering::Relaxed);
            self.runner.stats.last_delivery.store(unix_now(), Ordering::Relaxed);
        }
        *pending = left;
        match buried {
            Err(error) => Some(error),
            Ok(()) => later.map(SinkError::new),
        }
    }

    /// Puts what was refused into the dead-letter file, as far as there is room.
    fn bury(&mut self, batch: &[Item], outcomes: &[Outcome], burials: &mut u32) -> Result<(), SinkError> {
        let refused: Vec<(&Item, &str)> = batch
            .iter()
            .zip(outcomes)
            .filter_map(|(item, outcome)| match outcome {
                Outcome::Refused(reason) => Some((item, reason.as_str())),
                _ => None,
            })
            .collect();
        let Some((first, reason)) = refused.first().copied() else { return Ok(()) };
        let runner = &mut self.runner;
        let mut holding =
            Holding { feed: &mut *runner.feed, stats: &runner.stats, stop: self.stop, held: &mut self.held };
        let buried = match runner.dead_letter.write(&refused, &mut holding) {
            Ok(buried) => buried,
            Err(error) => {
                *burials += 1;
                if *burials < BURIAL_ATTEMPTS_MAX || self.stop.requested() {
                    return Err(error);
                }
                tracing::error!(
                    sink = runner.name,
                    hits = refused.len(),
                    "refused hits are dropped: {error}"
                );
                Buried { kept: 0, dropped: refused.len() as u64 }
            }
        };
        runner.stats.refused.fetch_add(buried.kept, Ordering::Relaxed);
        runner.stats.dropped.fetch_add(buried.dropped, Ordering::Relaxed);
        self.refusals.kept += buried.kept;
        self.refusals.dropped += buried.dropped;
        if self.refusals.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            tracing::warn!(
                sink = runner.name,
                kept = self.refusals.kept,
                dropped = self.refusals.dropped,
                sensor = first.sensor,
                reason,
                file = %runner.dead_letter.path().display(),
                "hits were refused; those dropped have no room in the dead-letter file"
            );
            self.refusals = Refusals { logged: Some(Instant::now()), ..Refusals::default() };
        }
        Ok(())
    }

    /// A batch whose acknowledgement fails may come again: the other side sees it twice, which it can tell.
    fn acknowledge(&mut self) {
        if let Err(FeedError(detail)) = self.runner.feed.acknowledge() {
            self.complain("cannot note what it has delivered", &detail);
            self.stop.wait(self.runner.backoff.pause());
        }
    }

    fn holding(&mut self) -> Holding<'_> {
        let Runner { feed, stats, .. } = &mut self.runner;
        Holding { feed: &mut **feed, stats, stop: self.stop, held: &mut self.held }
    }

    fn measure(&mut self) {
        if self.measured.is_none_or(|at| at.elapsed() >= HOLD_EVERY) {
            report(&mut *self.runner.feed, &self.runner.stats);
            self.measured = Some(Instant::now());
        }
    }

    /// Notes that the sink works (again).
    fn recover(&mut self) {
        self.runner.backoff.reset();
        if self.runner.stats.set_error(None) {
            tracing::info!(sink = self.runner.name, "delivers");
            self.measured = None;
        }
    }

    /// Says what is in the way, once until it changes.
    fn complain(&mut self, what: &str, detail: &str) {
        let Runner { name, feed, stats, .. } = &mut self.runner;
        if stats.set_error(Some(&format!("{what}: {detail}"))) {
            tracing::warn!(sink = name, detail, "{what}");
            report(&mut **feed, stats);
        }
    }
}
