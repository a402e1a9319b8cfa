//! The pipeline: passes events from sources through bounded channels to matcher threads, and hits to the caller.
//!
//! ```text
//! source thread ── buffers, one channel per thread ──► matcher threads ── hits ──► the caller's thread
//!       ▲                                                    │
//!       └──────────────────── free buffers ──────────────────┘
//! ```
//!
//! The channels carry raw payloads in buffers of a pool. An event without a hit costs one copy and no allocation. All
//! events of a script block go to the same matcher thread, which joins them. The [`Summary`] accounts for every event.

mod feed;
mod tally;
mod worker;

pub use feed::{DROPPED_AMSI_LAYOUT, DROPPED_CHANNEL_FULL, DROPPED_OVERSIZE};
pub use tally::{REASON_OTHER, REASONS_MAX, Reasons, Tally};

use crate::event::{ETW_EVENT_LEN_MAX, RawEvent};
use crate::ledger::{SourceSummary, Summary};
use crate::rules::ActiveRules;
use crate::search::Search;
use crate::source::{Source, SourceError};
use crate::stop::Stop;
use crossbeam_channel::{RecvTimeoutError, bounded};
use etwsieve_event::FileTime;
use etwsieve_transport::hit::HitV1;
use feed::Feed;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{Duration, Instant};
use worker::{Channels, Worker};

/// Treatment of an event if the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The source waits. For files.
    Wait,
    /// The event is dropped and counted. For live sessions, whose callback must not wait.
    Drop,
}

/// The bounds of a pipeline.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Number of matcher threads, at least 1.
    pub threads: usize,
    /// Maximum number of events between the source and the matchers. Each may permanently hold a buffer of
    /// [`PAYLOAD_LEN_MAX`](crate::event::PAYLOAD_LEN_MAX) bytes, which bounds the pool.
    pub channel_events: usize,
    /// Maximum number of payload bytes between the source and the matchers. A single event may exceed it.
    pub channel_bytes: usize,
    /// Treatment of events if the queue is full.
    pub when_full: WhenFull,
    /// Percentage of both limits that is reserved for events that PowerShell marks as warnings. Applies to
    /// [`WhenFull::Drop`] only.
    pub warning_reserve: u8,
    /// Distribution of events over the matcher threads.
    pub shard: Shard,
    /// Scopes and views whose hits are reported.
    pub search: Search,
}

/// The criterion that determines the matcher thread of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shard {
    /// The script block id. For files. There are always [`BLOCK_SHARDS`] shards, whatever the number of threads, so
    /// which fragments exceed the memory of a shard does not depend on that number.
    Block,
    /// The process and thread that wrote the event; one thread writes all fragments of a block. For live sessions,
    /// because nothing has to be parsed.
    Writer,
}

impl Shard {
    /// Returns the number of shards that a matcher thread may have to keep separate.
    fn count(self) -> usize {
        match self {
            Self::Block => BLOCK_SHARDS,
            Self::Writer => 1,
        }
    }
}

/// Number of shards of script blocks, each with its own memory limit. Further threads join no blocks.
pub const BLOCK_SHARDS: usize = 8;
/// Default of [`Settings::channel_events`].
pub const CHANNEL_EVENTS: usize = 256;
/// Default of [`Settings::channel_bytes`].
pub const CHANNEL_BYTES: usize = 8 << 20;
/// Maximum number of matcher threads: a file source is not fast enough for more.
pub const THREADS_MAX: usize = 64;
/// Maximum number of hits between the matchers and the caller. If this channel is full, the matchers wait.
const CHANNEL_HITS: usize = 64;
/// Maximum number of hits that the caller receives between two ticks.
const OUTCOMES_PER_TICK: usize = 256;
/// Maximum interval between two calls of [`Observer::tick`].
const TICK: Duration = Duration::from_millis(100);

impl Default for Settings {
    /// Returns the settings for files, with one matcher thread per processor: the reader mostly waits for the matchers.
    fn default() -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self {
            threads: processors.clamp(1, THREADS_MAX),
            channel_events: CHANNEL_EVENTS,
            channel_bytes: CHANNEL_BYTES,
            when_full: WhenFull::Wait,
            warning_reserve: 0,
            shard: Shard::Block,
            search: Search::default(),
        }
    }
}

impl Settings {
    /// Returns the initial capacity of a buffer in bytes. The callback of a live session must not allocate, so its
    /// buffers are allocated in advance; the system provides the memory when an event first uses it.
    fn buffer_len(&self) -> usize {
        if self.when_full == WhenFull::Drop { ETW_EVENT_LEN_MAX } else { 0 }
    }
}

/// The progress of a run. Other threads read it during the run.
#[derive(Debug)]
pub struct Progress {
    /// Bytes of the inputs that have been consumed.
    pub bytes: AtomicU64,
    /// Events seen.
    pub events: AtomicU64,
    /// The counts of each source.
    pub tallies: Box<[Tally]>,
}

impl Progress {
    /// Creates the progress of a run that has not started.
    pub fn new(sources: usize) -> Self {
        Self {
            bytes: AtomicU64::new(0),
            events: AtomicU64::new(0),
            tallies: (0..sources).map(|_| Tally::default()).collect(),
        }
    }
}

/// Consecutive drops of events of a live session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Time of the last event before which events were dropped.
    pub until: FileTime,
    /// Number within the source of the first event after the gap.
    pub before_sequence: u64,
    /// Number of dropped events.
    pub events: u64,
}

/// Messages from matcher threads.
#[expect(clippy::large_enum_variant, reason = "nearly all are hits")]
enum Outcome {
    Hit(u32, HitV1),
    Gap(u32, Gap),
}

/// Receives the results of a run, on the thread that called [`run`].
pub trait Observer {
    /// Receives a hit of the source with this index. Hits arrive in no particular order.
    fn hit(&mut self, source: u32, hit: HitV1);

    /// Reports where events were dropped. The counts include all drops; gaps are known only if a later event arrives.
    fn gap(&mut self, _source: u32, _gap: Gap) {}

    /// Called at least every 100 ms, and once at the end.
    fn tick(&mut self, progress: &Progress);

    /// Reports that a source failed.
    fn failed(&mut self, source: u32, error: &SourceError);
}

/// Runs the sources one after another through the matcher until they end or `stop` is requested.
///
/// A source that fails is reported to the observer and counted as damaged (`unreadable`); the run continues with the
/// next source. After a stop, events that are in the queue are still searched, so that the summary is exact. The rules
/// may be replaced during the run: each event is searched with the rules that are active at that time.
///
/// # Panics
///
/// If the counts of the summary do not add up, which is a bug; if `progress` was not created for this number of
/// sources; if the observer panics.
pub fn run(
    sources: &mut [Box<dyn Source>],
    rules: &ActiveRules,
    settings: &Settings,
    stop: &Stop,
    progress: &Progress,
    observer: &mut dyn Observer,
) -> Summary {
    assert_eq!(progress.tallies.len(), sources.len(), "one tally for each source");
    if rules.searches_amsi() {
        progress.tallies.iter().for_each(|tally| tally.amsi().enable());
    }
    let empty_summary = || Summary {
        interrupted: stop.requested(),
        rules: rules.current().0.rules().len(),
        ..Summary::default()
    };
    if sources.is_empty() {
        observer.tick(progress);
        return empty_summary();
    }
    let start = Instant::now();
    let names: Vec<String> = sources.iter().map(|source| source.name()).collect();
    let threads = settings.threads.clamp(1, THREADS_MAX);
    // Each channel has room for all buffers of the pool, so only the size of the pool limits the queue.
    let pool = settings.channel_events.max(1);
    let (returned, free) = bounded::<Box<RawEvent>>(pool);
    let (outcomes_in, outcomes) = bounded(CHANNEL_HITS);
    let (failures_in, failures) = bounded(sources.len().max(1));

    let elapsed: Vec<Duration> = thread::scope(|scope| {
        let mut senders = Vec::with_capacity(threads);
        let mut workers = Vec::with_capacity(threads);
        for _ in 0..threads {
            let (sender, receiver) = bounded::<Box<RawEvent>>(pool);
            senders.push(sender);
            let channels =
                Channels { events: receiver, returned: returned.clone(), outcomes: outcomes_in.clone() };
            let worker = Worker::new(rules, &names, &progress.tallies, channels, settings, stop);
            workers.push(scope.spawn(move || worker.run()));
        }
        drop((returned, outcomes_in));
        let mut feed = Feed::new(rules, settings, &names, senders, free, progress, stop);
        let reader = scope.spawn(move || {
            let mut elapsed = Vec::with_capacity(sources.len());
            for (number, source) in (0u32..).zip(sources.iter_mut()) {
                let start = Instant::now();
                let result = if stop.requested() { Ok(()) } else { source.run(&mut feed) };
                feed.end_of_source(source.len());
                elapsed.push(start.elapsed());
                if let Err(error) = result {
                    progress.tallies[number as usize].damaged("unreadable", 1);
                    // The channel has room for one failure per source.
                    let _ = failures_in.send((number, error));
                }
            }
            elapsed
        });
        loop {
            let first = match outcomes.recv_timeout(TICK) {
                Ok(outcome) => Some(outcome),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            // Takes all available outcomes before the tick, at which the observer may flush its output.
            for outcome in first.into_iter().chain(outcomes.try_iter()).take(OUTCOMES_PER_TICK) {
                match outcome {
                    Outcome::Hit(source, hit) => observer.hit(source, hit),
                    Outcome::Gap(source, gap) => observer.gap(source, gap),
                }
            }
            observer.tick(progress);
            failures.try_iter().for_each(|(source, error)| observer.failed(source, &error));
        }
        workers.into_iter().for_each(join);
        join(reader)
    });
    failures.try_iter().for_each(|(source, error)| observer.failed(source, &error));
    observer.tick(progress);

    let mut summary = empty_summary();
    for ((source, tally), elapsed) in names.into_iter().zip(&progress.tallies).zip(elapsed) {
        let mut ledger = tally.read();
        ledger.elapsed_seconds = elapsed.as_secs_f64();
        assert!(
            ledger.balances() && ledger.events_waiting == 0,
            "every event of {source} is accounted for: {ledger:?}"
        );
        summary.total.add(&ledger);
        summary.sources.push(SourceSummary { source, ledger });
    }
    summary.total.elapsed_seconds = start.elapsed().as_secs_f64();
    summary
}

/// Waits for a thread, and passes on its panic.
fn join<T>(handle: thread::ScopedJoinHandle<'_, T>) -> T {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
