//! The pipeline: sources, pooled buffers, bounded channels, matcher threads, hits.
//!
//! ```text
//! source thread ── buffers, one channel a thread ──► matcher threads ── hits ──► the caller's thread
//!       ▲                                                  │
//!       └───────────────── emptied buffers ────────────────┘
//! ```
//!
//! Raw payloads cross the channels; an event without a hit costs one copy and no allocation. Events of one script
//! block always go to the same matcher thread. What becomes of each event is in the [`Summary`], exactly.

mod feed;
mod worker;

pub use feed::{DROPPED_CHANNEL_FULL, DROPPED_OVERSIZE};

use crate::event::RawEvent;
use crate::ledger::{Ledger, SourceSummary, Summary};
use crate::source::{Source, SourceError};
use crate::stop::Stop;
use crossbeam_channel::{RecvTimeoutError, bounded};
use etwsieve_matcher::Matcher;
use etwsieve_transport::hit::HitV1;
use feed::Feed;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{Duration, Instant};
use worker::Worker;

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
}

/// Events between a source and its matchers unless set otherwise.
pub const CHANNEL_EVENTS: usize = 256;
/// Payload bytes between a source and its matchers unless set otherwise.
pub const CHANNEL_BYTES: usize = 8 << 20;
/// Matcher threads beyond which a file source cannot keep up anyway.
pub const THREADS_MAX: usize = 64;
/// Hits between the matchers and the caller. A full channel makes the matchers wait.
const CHANNEL_HITS: usize = 64;
/// How often the caller hears of the progress.
const TICK: Duration = Duration::from_millis(100);

impl Default for Settings {
    /// For files: one matcher thread less than there are processors.
    fn default() -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self {
            threads: processors.saturating_sub(1).clamp(1, THREADS_MAX),
            channel_events: CHANNEL_EVENTS,
            channel_bytes: CHANNEL_BYTES,
            when_full: WhenFull::Wait,
        }
    }
}

/// How far a run has come; read while it goes on.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of the inputs consumed.
    pub bytes: AtomicU64,
    /// Events seen.
    pub events: AtomicU64,
}

/// What a run tells its caller, always on the caller's thread.
pub trait Observer {
    /// A hit, in no particular order. `source` is the index of its source.
    fn hit(&mut self, source: u32, hit: HitV1);

    /// Called every so often, and once at the end.
    fn tick(&mut self, progress: &Progress);

    /// A source ended before its end.
    fn failed(&mut self, source: u32, error: &SourceError);
}

/// Runs the sources one after another through the matcher until they end or `stop` is requested.
///
/// A source that fails is reported to the observer, counted as damaged (`unreadable`), and the next one follows.
/// After a stop the events already taken are still searched, so that the summary is exact.
///
/// # Panics
///
/// If the counts of the summary do not add up, which is a bug; and if the observer panics.
pub fn run(
    sources: &mut [Box<dyn Source>],
    matcher: &Matcher,
    settings: &Settings,
    stop: &Stop,
    observer: &mut dyn Observer,
) -> Summary {
    let start = Instant::now();
    let names: Vec<String> = sources.iter().map(|source| source.name()).collect();
    let progress = Progress::default();
    let threads = settings.threads.clamp(1, THREADS_MAX);
    // Every buffer of the pool fits into any of these channels, so that only the pool limits.
    let pool = settings.channel_events.max(1);
    let (emptied, free) = bounded::<Box<RawEvent>>(pool);
    let (hits_in, hits) = bounded(CHANNEL_HITS);
    let (failures_in, failures) = bounded(sources.len().max(1));

    let mut ledgers: Vec<Ledger> = thread::scope(|scope| {
        let mut senders = Vec::with_capacity(threads);
        let mut workers = Vec::with_capacity(threads);
        for _ in 0..threads {
            let (sender, receiver) = bounded::<Box<RawEvent>>(pool);
            senders.push(sender);
            let worker = Worker::new(matcher, &names, receiver, emptied.clone(), hits_in.clone());
            workers.push(scope.spawn(move || worker.run()));
        }
        drop((emptied, hits_in));
        let mut feed = Feed::new(matcher, settings, senders, free, &progress, stop);
        let reader = scope.spawn(move || {
            let mut ledgers = Vec::with_capacity(sources.len());
            for (number, source) in (0u32..).zip(sources.iter_mut()) {
                let start = Instant::now();
                let result = if stop.requested() { Ok(()) } else { source.run(&mut feed) };
                let mut ledger = feed.end_of_source(source.len());
                ledger.elapsed_seconds = start.elapsed().as_secs_f64();
                if let Err(error) = result {
                    *ledger.damaged.entry("unreadable").or_default() += 1;
                    // Room for one failure of each source.
                    let _ = failures_in.send((number, error));
                }
                ledgers.push(ledger);
            }
            ledgers
        });
        loop {
            match hits.recv_timeout(TICK) {
                Ok((source, hit)) => observer.hit(source, hit),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            observer.tick(&progress);
            failures.try_iter().for_each(|(source, error)| observer.failed(source, &error));
        }
        let mut ledgers = join(reader);
        for worker in workers {
            for (ledger, own) in ledgers.iter_mut().zip(join(worker)) {
                ledger.add(&own);
            }
        }
        ledgers
    });
    failures.try_iter().for_each(|(source, error)| observer.failed(source, &error));
    observer.tick(&progress);

    let mut summary =
        Summary { interrupted: stop.requested(), rules: matcher.rules().len(), ..Summary::default() };
    for (source, ledger) in names.into_iter().zip(ledgers.drain(..)) {
        assert!(ledger.balances(), "every event of {source} is accounted for: {ledger:?}");
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
