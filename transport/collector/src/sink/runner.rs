//! Runs a sink with its feed and dead-letter file on one thread.

use super::{
    Backoff, BatchLimits, DeadLetter, DeadLetterCounts, DeliveryContext, Feed, FeedError, Lag, Outcome, Sink,
    SinkError, SinkItem,
};
use etwsieve_transport::stop::Stop;
use etwsieve_transport::time::unix_now;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time that the feed waits for hits.
const FEED_WAIT: Duration = Duration::from_millis(500);
/// Interval at which the current batch is held and the lag is measured.
const HOLD_EVERY: Duration = Duration::from_secs(5);
/// Maximum number of attempts to write refused hits to the dead-letter file, over about half a minute, before they are
/// dropped, so that one sensor's hits do not delay the others.
const DEAD_LETTER_ATTEMPTS_MAX: u32 = 6;
/// Minimum interval between two log lines about refused hits.
const LOG_EVERY: Duration = Duration::from_mins(1);
/// Maximum pause that a receiver may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(10);

/// The statistics of a sink, shared with metrics and log.
#[derive(Debug, Default)]
pub struct SinkStats {
    delivered: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
    read_errors: AtomicU64,
    /// In seconds since 1970; 0: never.
    last_delivery: AtomicU64,
    retries: AtomicU64,
    lag_hits: AtomicU64,
    /// In seconds since 1970; 0: there are no pending hits.
    lag_oldest: AtomicU64,
    error: Mutex<Option<String>>,
}

/// A snapshot of [`SinkStats`]. Counts are since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SinkCounts {
    /// Hits delivered.
    pub delivered: u64,
    /// Refused hits written to the dead-letter file.
    pub refused: u64,
    /// Refused hits dropped because the dead-letter file was full or could not be written.
    pub dropped: u64,
    /// Time of the last delivery, in seconds since 1970; `None`: none since the start.
    pub last_delivery: Option<u64>,
    /// Deliveries that failed completely or in part.
    pub retries: u64,
    /// Failed attempts to read hits from the feed.
    pub read_errors: u64,
    /// The pending hits, measured every few seconds.
    pub lag: Lag,
    /// Why the sink fails; `None` if it does not.
    pub error: Option<String>,
}

impl SinkStats {
    /// Takes a snapshot.
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

    /// Records the current error and returns whether it has changed.
    fn set_error(&self, error: Option<&str>) -> bool {
        let mut known = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        let news = known.as_deref() != error;
        *known = error.map(str::to_owned);
        news
    }
}

/// A sink with its feed and dead-letter file.
pub struct SinkRunner {
    /// The name of the sink in the log.
    pub name: String,
    /// The source of hits.
    pub feed: Box<dyn Feed>,
    /// Delivers the hits.
    pub sink: Box<dyn Sink>,
    /// Keeps refused hits.
    pub dead_letter: DeadLetter,
    /// Limits of a batch.
    pub limits: BatchLimits,
    /// Pauses between attempts.
    pub backoff: Backoff,
    /// Statistics.
    pub stats: Arc<SinkStats>,
}

/// Holds the current batch of the feed while the sink waits.
struct HeldBatch<'a> {
    feed: &'a mut dyn Feed,
    stats: &'a SinkStats,
    stop: &'a Stop,
    held: &'a mut Instant,
}

impl DeliveryContext for HeldBatch<'_> {
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
    runner: SinkRunner,
    stop: &'a Stop,
    /// When the lag was last measured; `None`: it must be measured now.
    measured: Option<Instant>,
    /// When the current batch was last held.
    held: Instant,
    refusals: Refusals,
}

/// Counts of refused hits that have not been logged.
#[derive(Default)]
struct Refusals {
    logged: Option<Instant>,
    kept: u64,
    dropped: u64,
}

impl SinkRunner {
    /// Delivers until `stop` is requested or, if `until_empty` is set, until the feed is empty.
    ///
    /// Failures are retried. A batch that is not acknowledged before the stop is delivered again after the next start.
    pub fn run(self, stop: &Stop, until_empty: bool) {
        let refusals = Refusals::default();
        let mut run = Run { runner: self, stop, measured: None, held: Instant::now(), refusals };
        run.deliver_all(until_empty);
        let SinkRunner { feed, stats, .. } = &mut run.runner;
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
                        // Report at once that no hits are pending.
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
                    self.complain("cannot read hits, will retry", &error.0);
                    self.stop.wait(self.runner.backoff.pause());
                }
            }
        }
    }

    /// Delivers a batch completely. Returns `false` if the program stops first.
    fn deliver(&mut self, mut pending: Vec<SinkItem>) -> bool {
        let mut dead_letter_attempts = 0;
        loop {
            let runner = &mut self.runner;
            let mut held_batch = HeldBatch {
                feed: &mut *runner.feed,
                stats: &runner.stats,
                stop: self.stop,
                held: &mut self.held,
            };
            let error = match runner.sink.deliver(&pending, &mut held_batch) {
                Ok(outcomes) => self.settle(&mut pending, outcomes, &mut dead_letter_attempts),
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
            self.complain("delivery failed, will retry", &error.detail);
            let asked = error.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
            let pause = self.runner.backoff.pause().max(asked);
            if !self.held_batch().wait(pause) {
                return false;
            }
        }
    }

    /// Removes delivered and refused hits from `pending`. Returns why hits are left, if any.
    fn settle(
        &mut self,
        pending: &mut Vec<SinkItem>,
        outcomes: Vec<Outcome>,
        dead_letter_attempts: &mut u32,
    ) -> Option<SinkError> {
        assert_eq!(outcomes.len(), pending.len(), "a sink returns an outcome for each hit");
        let written = self.write_dead_letters(pending, &outcomes, dead_letter_attempts);
        let (mut later, mut delivered, mut left) = (None, 0, Vec::new());
        for (item, outcome) in std::mem::take(pending).into_iter().zip(outcomes) {
            match outcome {
                Outcome::Delivered => delivered += 1,
                Outcome::Refused(_) if written.is_ok() => {}
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
        match written {
            Err(error) => Some(error),
            Ok(()) => later.map(SinkError::new),
        }
    }

    /// Writes refused hits to the dead-letter file.
    fn write_dead_letters(
        &mut self,
        batch: &[SinkItem],
        outcomes: &[Outcome],
        dead_letter_attempts: &mut u32,
    ) -> Result<(), SinkError> {
        let refused: Vec<(&SinkItem, &str)> = batch
            .iter()
            .zip(outcomes)
            .filter_map(|(item, outcome)| match outcome {
                Outcome::Refused(reason) => Some((item, reason.as_str())),
                _ => None,
            })
            .collect();
        let Some((first, reason)) = refused.first().copied() else { return Ok(()) };
        let runner = &mut self.runner;
        let mut held_batch = HeldBatch {
            feed: &mut *runner.feed,
            stats: &runner.stats,
            stop: self.stop,
            held: &mut self.held,
        };
        let written = match runner.dead_letter.write(&refused, &mut held_batch) {
            Ok(written) => written,
            Err(error) => {
                *dead_letter_attempts += 1;
                if *dead_letter_attempts < DEAD_LETTER_ATTEMPTS_MAX || self.stop.requested() {
                    return Err(error);
                }
                tracing::error!(sink = runner.name, hits = refused.len(), "refused hits dropped: {error}");
                DeadLetterCounts { kept: 0, dropped: refused.len() as u64 }
            }
        };
        runner.stats.refused.fetch_add(written.kept, Ordering::Relaxed);
        runner.stats.dropped.fetch_add(written.dropped, Ordering::Relaxed);
        self.refusals.kept += written.kept;
        self.refusals.dropped += written.dropped;
        if self.refusals.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            tracing::warn!(
                sink = runner.name,
                kept = self.refusals.kept,
                dropped = self.refusals.dropped,
                sensor = first.sensor,
                reason,
                file = %runner.dead_letter.path().display(),
                "hits refused by the receiver; those that do not fit into the dead-letter file are dropped"
            );
            self.refusals = Refusals { logged: Some(Instant::now()), ..Refusals::default() };
        }
        Ok(())
    }

    /// Acknowledges the batch. If that fails, it may be delivered again, and the receiver must recognise the
    /// repetition.
    fn acknowledge(&mut self) {
        if let Err(FeedError(detail)) = self.runner.feed.acknowledge() {
            self.complain("cannot acknowledge delivered hits", &detail);
            self.stop.wait(self.runner.backoff.pause());
        }
    }

    fn held_batch(&mut self) -> HeldBatch<'_> {
        let SinkRunner { feed, stats, .. } = &mut self.runner;
        HeldBatch { feed: &mut **feed, stats, stop: self.stop, held: &mut self.held }
    }

    fn measure(&mut self) {
        if self.measured.is_none_or(|at| at.elapsed() >= HOLD_EVERY) {
            report(&mut *self.runner.feed, &self.runner.stats);
            self.measured = Some(Instant::now());
        }
    }

    /// Records that the sink works, and logs it if it failed before.
    fn recover(&mut self) {
        self.runner.backoff.reset();
        if self.runner.stats.set_error(None) {
            tracing::info!(sink = self.runner.name, "recovered");
            self.measured = None;
        }
    }

    /// Records an error and logs it, once until it changes.
    fn complain(&mut self, what: &str, detail: &str) {
        let SinkRunner { name, feed, stats, .. } = &mut self.runner;
        if stats.set_error(Some(&format!("{what}: {detail}"))) {
            tracing::warn!(sink = name, detail, "{what}");
            report(&mut **feed, stats);
        }
    }
}
