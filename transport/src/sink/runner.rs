//! The runner: one sink, its feed, its dead letters, on one thread.

use super::{
    Backoff, BatchLimits, DeadLetter, Feed, FeedError, Item, Lag, Outcome, Progress, Sink, SinkError,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the feed is asked to wait for hits.
const FEED_WAIT: Duration = Duration::from_millis(500);
/// How often the feed hears that its batch is still worked on, and how often the lag is measured.
const HOLD_EVERY: Duration = Duration::from_secs(5);
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
    retries: AtomicU64,
    lag_hits: AtomicU64,
    /// Seconds since 1970; 0: nothing waits.
    lag_oldest: AtomicU64,
    error: Mutex<Option<String>>,
}

/// [`SinkStats`] at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkCounts {
    /// Hits delivered since the start.
    pub delivered: u64,
    /// Hits in the dead-letter file since the start.
    pub refused: u64,
    /// Attempts that failed, as a whole or in part.
    pub retries: u64,
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
            retries: read(&self.retries),
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
    held: Instant,
}

impl Progress for Holding<'_> {
    fn wait(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            if self.held.elapsed() >= HOLD_EVERY {
                self.feed.hold();
                if let Ok(lag) = self.feed.lag() {
                    self.stats.set_lag(lag);
                }
                self.held = Instant::now();
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

impl Runner {
    /// Delivers until `stop`, or, if `until_empty`, until the feed has nothing more.
    ///
    /// Whatever fails is tried again; a batch that was not acknowledged when it stops comes again after the next start.
    pub fn run(mut self, stop: &Stop, until_empty: bool) {
        let mut measured: Option<Instant> = None;
        while !stop.requested() {
            match self.feed.next(self.limits, FEED_WAIT) {
                Ok(batch) if batch.is_empty() => {
                    self.stats.set_error(None);
                    self.measure(&mut measured);
                    if until_empty && self.feed.lag().is_ok_and(|lag| lag.hits == 0) {
                        return;
                    }
                }
                Ok(batch) => {
                    self.measure(&mut measured);
                    if !self.deliver(batch, stop) {
                        return;
                    }
                    self.acknowledge(stop);
                }
                Err(error) => {
                    self.complain("cannot read hits", &error.0);
                    stop.wait(self.backoff.pause());
                }
            }
        }
    }

    /// Delivers a whole batch; `false`: the program stops before it is done.
    fn deliver(&mut self, mut pending: Vec<Item>, stop: &Stop) -> bool {
        loop {
            let mut holding =
                Holding { feed: &mut *self.feed, stats: &self.stats, stop, held: Instant::now() };
            let result = self.sink.deliver(&pending, &mut holding);
            let error = match result {
                Ok(outcomes) => self.settle(&mut pending, outcomes),
                Err(error) => Some(error),
            };
            let Some(error) = error else {
                self.backoff.reset();
                if self.stats.set_error(None) {
                    tracing::info!(sink = self.name, "delivers");
                }
                return true;
            };
            self.stats.retries.fetch_add(1, Ordering::Relaxed);
            self.complain("does not deliver", &error.detail);
            let asked = error.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
            let pause = self.backoff.pause().max(asked);
            let mut holding =
                Holding { feed: &mut *self.feed, stats: &self.stats, stop, held: Instant::now() };
            if !holding.wait(pause) {
                return false;
            }
        }
    }

    /// Takes out of `pending` what is done with. What is left, and why.
    fn settle(&mut self, pending: &mut Vec<Item>, outcomes: Vec<Outcome>) -> Option<SinkError> {
        assert_eq!(outcomes.len(), pending.len(), "a sink tells what became of each hit");
        let refused: Vec<(&Item, &str)> = pending
            .iter()
            .zip(&outcomes)
            .filter_map(|(item, outcome)| match outcome {
                Outcome::Refused(reason) => Some((item, reason.as_str())),
                _ => None,
            })
            .collect();
        let buried = if refused.is_empty() { Ok(()) } else { self.dead_letter.write(&refused) };
        if buried.is_ok() && !refused.is_empty() {
            tracing::warn!(
                sink = self.name,
                hits = refused.len(),
                reason = refused[0].1,
                file = %self.dead_letter.path().display(),
                "hits were refused"
            );
            self.stats.refused.fetch_add(refused.len() as u64, Ordering::Relaxed);
        }
        let mut later = None;
        let mut left = Vec::new();
        for (item, outcome) in std::mem::take(pending).into_iter().zip(outcomes) {
            match outcome {
                Outcome::Delivered => _ = self.stats.delivered.fetch_add(1, Ordering::Relaxed),
                Outcome::Refused(_) if buried.is_ok() => {}
                Outcome::Refused(_) => left.push(item),
                Outcome::Later(reason) => {
                    later.get_or_insert(reason);
                    left.push(item);
                }
            }
        }
        *pending = left;
        match buried {
            Err(error) => Some(error),
            Ok(()) => later.map(SinkError::new),
        }
    }

    /// A batch whose acknowledgement fails may come again: the other side sees it twice, which it can tell.
    fn acknowledge(&mut self, stop: &Stop) {
        if let Err(FeedError(detail)) = self.feed.acknowledge() {
            self.complain("cannot note what it has delivered", &detail);
            stop.wait(self.backoff.pause());
        }
    }

    fn measure(&mut self, measured: &mut Option<Instant>) {
        if measured.is_none_or(|at| at.elapsed() >= HOLD_EVERY)
            && let Ok(lag) = self.feed.lag()
        {
            self.stats.set_lag(lag);
            *measured = Some(Instant::now());
        }
    }

    /// Says what is in the way, once until it changes.
    fn complain(&self, what: &str, detail: &str) {
        if self.stats.set_error(Some(&format!("{what}: {detail}"))) {
            tracing::warn!(sink = self.name, detail, "{what}");
        }
    }
}
