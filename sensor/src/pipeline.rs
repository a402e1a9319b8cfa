//! The pipeline: sources, pooled buffers, bounded channels, matcher threads, hits.
//!
//! ```text
//! source thread ── buffers, one channel a thread ──► matcher threads ── hits ──► the caller's thread
//!       ▲                                                  │
//!       └───────────────── emptied buffers ────────────────┘
//! ```
//!
//! Raw payloads cross the channels; an event without a hit costs one copy and no allocation. Events of one script
//! block always go to the same matcher thread, which joins them. What becomes of each event is in the [`Summary`], exactly.

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
use worker::{Ends, Worker};

/// What happens to an event for which there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The source waits: for files, which can.
    Wait,
    /// The event is dropped and counted: for a live session, which cannot.
    Drop,
}

/// The bounds of a pipeline.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Matcher threads, at least 1.
    pub threads: usize,
    /// Most events between the source and the matchers. Each may hold a buffer of
    /// [`PAYLOAD_LEN_MAX`](crate::event::PAYLOAD_LEN_MAX) bytes for good, which bounds the pool.
    pub channel_events: usize,
    /// Most payload bytes between the source and the matchers. One event may always pass.
    pub channel_bytes: usize,
    /// What happens beyond these bounds.
    pub when_full: WhenFull,
    /// Per cent of both bounds that only events may use which PowerShell itself marked as warnings. Needs
    /// [`WhenFull::Drop`]: under pressure these are kept longest.
    pub warning_reserve: u8,
    /// How events are spread over the matcher threads.
    pub shard: Shard,
    /// The scopes and views of which hits are reported.
    pub search: Search,
}

/// What decides on the matcher thread of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shard {
    /// The script block's id, so that the fragments of a block meet: for files. There are [`BLOCK_SHARDS`] of them,
    /// however many threads, and what one has no room for depends on its own fragments alone.
    Block,
    /// The thread that wrote the event, which writes all fragments of its blocks. Nothing is parsed: for a live
    /// session.
    Writer,
}

impl Shard {
    /// Shards that a matcher thread may have to hold apart.
    fn count(self) -> usize {
        match self {
            Self::Block => BLOCK_SHARDS,
            Self::Writer => 1,
        }
    }
}

/// Groups of script blocks of a file that have bounds of their own. More threads than these join no blocks.
pub const BLOCK_SHARDS: usize = 8;
/// Events between a source and its matchers unless set otherwise.
pub const CHANNEL_EVENTS: usize = 256;
/// Payload bytes between a source and its matchers unless set otherwise.
pub const CHANNEL_BYTES: usize = 8 << 20;
/// Matcher threads beyond which a file source cannot keep up anyway.
pub const THREADS_MAX: usize = 64;
/// Hits between the matchers and the caller. A full channel makes the matchers wait.
const CHANNEL_HITS: usize = 64;
/// Most hits that the caller takes between two ticks.
const OUTCOMES_PER_TICK: usize = 256;
/// How often the caller hears of the progress.
const TICK: Duration = Duration::from_millis(100);

impl Default for Settings {
    /// For files: a matcher thread for each processor, since who reads mostly waits for them.
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
    /// What a buffer of the pool holds from the beginning, in bytes. A live source finds every buffer made, since
    /// its callback must not allocate; memory that no event has used yet is only reserved.
    fn buffer_len(&self) -> usize {
        if self.when_full == WhenFull::Drop { ETW_EVENT_LEN_MAX } else { 0 }
    }
}

/// How far a run has come; read while it goes on.
#[derive(Debug)]
pub struct Progress {
    /// Bytes of the inputs consumed.
    pub bytes: AtomicU64,
    /// Events seen.
    pub events: AtomicU64,
    /// The counts of each source.
    pub tallies: Box<[Tally]>,
}

impl Progress {
    /// Of a run that has not begun yet.
    pub fn new(sources: usize) -> Self {
        Self {
            bytes: AtomicU64::new(0),
            events: AtomicU64::new(0),
            tallies: (0..sources).map(|_| Tally::default()).collect(),
        }
    }
}

/// Events of a live session that were dropped together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Time of the last event before which some were dropped.
    pub until: FileTime,
    /// Running number, within the source, of the first event behind the gap.
    pub before_sequence: u64,
    /// How many were dropped.
    pub events: u64,
}

/// What matcher threads report.
#[expect(clippy::large_enum_variant, reason = "nearly all are hits")]
enum Outcome {
    Hit(u32, HitV1),
    Gap(u32, Gap),
}

/// What a run tells its caller, always on the caller's thread.
pub trait Observer {
    /// A hit, in no particular order. `source` is the index of its source.
    fn hit(&mut self, source: u32, hit: HitV1);

    /// Events were dropped. The counts tell all drops; this tells where they lie, as far as later events do.
    fn gap(&mut self, _source: u32, _gap: Gap) {}

    /// Called every so often, and once at the end.
    fn tick(&mut self, progress: &Progress);

    /// A source ended before its end.
    fn failed(&mut self, source: u32, error: &SourceError);
}

/// Runs the sources one after another through the matcher until they end or `stop` is requested.
///
/// A source that fails is reported to the observer, counted as damaged (`unreadable`), and the next one follows.
/// After a stop the events already taken are still searched, so that the summary is exact. The rules may be
/// exchanged during the run: every event is searched with those that are active when its turn comes.
///
/// # Panics
///
/// If the counts of the summary do not add up, which is a bug; if `progress` is not that of a fresh run of as
/// many sources; and if the observer panics.
pub fn run(
    sources: &mut [Box<dyn Source>],
    rules: &ActiveRules,
    settings: &Settings,
    stop: &Stop,
    progress: &Progress,
    observer: &mut dyn Observer,
) -> Summary {
    assert_eq!(progress.tallies.len(), sources.len(), "one tally for each source");
    if rules.asks_amsi() {
        progress.tallies.iter().for_each(|tally| tally.amsi().ask());
    }
    let uncounted = || Summary {
        interrupted: stop.requested(),
        rules: rules.current().0.rules().len(),
        ..Summary::default()
    };
    if sources.is_empty() {
        observer.tick(progress);
        return uncounted();
    }
    let start = Instant::now();
    let names: Vec<String> = sources.iter().map(|source| source.name()).collect();
    let threads = settings.threads.clamp(1, THREADS_MAX);
    // Every buffer of the pool fits into any of these channels, so that only the pool limits.
    let pool = settings.channel_events.max(1);
    let (emptied, free) = bounded::<Box<RawEvent>>(pool);
    let (outcomes_in, outcomes) = bounded(CHANNEL_HITS);
    let (failures_in, failures) = bounded(sources.len().max(1));

    let elapsed: Vec<Duration> = thread::scope(|scope| {
        let mut senders = Vec::with_capacity(threads);
        let mut workers = Vec::with_capacity(threads);
        for _ in 0..threads {
            let (sender, receiver) = bounded::<Box<RawEvent>>(pool);
            senders.push(sender);
            let ends = Ends { events: receiver, emptied: emptied.clone(), outcomes: outcomes_in.clone() };
            let worker = Worker::new(rules, &names, &progress.tallies, ends, settings, stop);
            workers.push(scope.spawn(move || worker.run()));
        }
        drop((emptied, outcomes_in));
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
                    // Room for one failure of each source.
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
            // What is there at once is taken at once; the observer may write it out at the tick.
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

    let mut summary = uncounted();
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

/// A panic of a thread is a panic of the run.
fn join<T>(handle: thread::ScopedJoinHandle<'_, T>) -> T {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
