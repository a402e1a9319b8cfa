//! The keeper: a task beside the publications that checks the streams, removes hits that every sink has taken, and warns
//! before a stream is full.

use super::connect::{Patience, chain};
use super::consumers::{self, Reader};
use super::layout::Layout;
use super::streams::{self, Role, Wanted};
use super::{NatsError, NatsSettings};
use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::{Info, Stream};
use etwsieve_transport::metrics::Text;
use futures_util::{FutureExt, StreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Advisories of the servers about streams: somebody creates, changes or deletes one.
const ADVISORIES: &str = "$JS.EVENT.ADVISORY.STREAM.*.*";
/// Time between two checks that advisories ask for.
const ADVISED_EVERY: Duration = Duration::from_millis(500);
/// Fill level above which a warning, and an error, is logged.
const WARN_AT: f64 = 0.7;
const ALARM_AT: f64 = 0.9;
/// Fill level above which hits that were taken are removed although a repetition could still come.
const PRESSURE_AT: f64 = 0.8;
/// Time between two warnings about the same stream.
const WARN_EVERY: Duration = Duration::from_mins(10);
/// Maximum number of steps of the search for the newest hit outside the duplicate window.
const SEARCH_STEPS_MAX: usize = 64;

/// A stream of hits at the last check.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct StreamLevel {
    /// Its name.
    pub stream: String,
    /// Bytes stored.
    pub bytes: u64,
    /// Maximum number of bytes; 0: no limit.
    pub bytes_max: u64,
    /// Messages stored.
    pub messages: u64,
    /// The sink that has taken least, and what it has not taken.
    pub slowest: Option<(String, u64)>,
}

impl StreamLevel {
    pub(super) fn of(info: &Info, readers: &[Reader]) -> Self {
        let slowest = readers.iter().max_by_key(|reader| reader.waiting);
        Self {
            stream: info.config.name.clone(),
            bytes: info.state.bytes,
            bytes_max: u64::try_from(info.config.max_bytes).unwrap_or(0),
            messages: info.state.messages,
            slowest: slowest.map(|reader| (reader.name.clone(), reader.waiting)),
        }
    }

    /// From 0 to 1; 0 without a limit.
    pub fn fill(&self) -> f64 {
        if self.bytes_max == 0 { 0.0 } else { self.bytes as f64 / self.bytes_max as f64 }
    }
}

impl fmt::Display for StreamLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, bytes, messages, .. } = self;
        write!(f, "{stream}: {messages} hits, {bytes} bytes")?;
        match self.bytes_max {
            0 => write!(f, ", no limit")?,
            max => write!(f, " of {max}, {:.1} % full", self.fill() * 100.0)?,
        }
        if self.fill() >= WARN_AT {
            f.write_str(if self.fill() >= ALARM_AT { ": ALMOST FULL" } else { ": filling up" })?;
        }
        Ok(())
    }
}

/// What the keeper knows, shared with the publications and the metrics.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Why hits of these streams may not be acknowledged now.
    breaches: Mutex<BTreeMap<String, String>>,
    levels: Mutex<BTreeMap<String, StreamLevel>>,
    /// Asks for a check at once.
    pub(super) wake: Notify,
    freed: AtomicU64,
    /// Streams of hits that were missing and created again.
    recreated: AtomicU64,
    /// Messages that were removed although a sink had not taken them.
    removed_unread: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Findings {
    /// Why nothing of a stream may be acknowledged; `None`: it may.
    pub(super) fn breach(&self, stream: &str) -> Option<String> {
        lock(&self.breaches).get(stream).cloned()
    }

    /// Adds gauges and counts to a scrape.
    pub(super) fn render(&self, text: &mut Text) {
        for level in lock(&self.levels).values() {
            let labels = [("stream", level.stream.as_str())];
            let mut gauge =
                |name: &'static str, help: &str, value: f64| text.gauge(name, help, &labels, value);
            gauge("etwsieve_collector_stream_bytes", "Bytes in a stream of hits.", level.bytes as f64);
            gauge(
                "etwsieve_collector_stream_max_bytes",
                "Maximum size of a stream of hits; 0: no limit.",
                level.bytes_max as f64,
            );
            gauge("etwsieve_collector_stream_messages", "Hits in a stream.", level.messages as f64);
            let waiting = level.slowest.as_ref().map_or(0, |(_, waiting)| *waiting);
            gauge(
                "etwsieve_collector_stream_waiting",
                "Hits that the slowest sink has not taken.",
                waiting as f64,
            );
        }
        let is_unusable = f64::from(u8::from(!lock(&self.breaches).is_empty()));
        let help = "1: a stream breaks the promise, its hits are not acknowledged; the log has the reason.";
        text.gauge("etwsieve_collector_stream_unusable", help, &[], is_unusable);
        let counts = [
            (
                "etwsieve_collector_stream_freed_total",
                "Hits removed because every sink had taken them.",
                &self.freed,
            ),
            (
                "etwsieve_collector_stream_recreated_total",
                "Streams that were missing and created again.",
                &self.recreated,
            ),
            (
                "etwsieve_collector_stream_removed_unread_total",
                "Hits removed by others before every sink had taken them.",
                &self.removed_unread,
            ),
        ];
        for (name, help, count) in counts {
            text.counter(name, help, &[], count.load(Ordering::Relaxed));
        }
    }
}

/// The task.
pub(super) struct Keeper {
    context: Context,
    settings: NatsSettings,
    wanted: Vec<Wanted>,
    findings: Arc<Findings>,
    warned: BTreeMap<String, (Instant, bool)>,
    /// First sequence number up to which messages removed unread were counted, by stream and consumer.
    counted: BTreeMap<(String, String), u64>,
    logged: Option<String>,
    is_first: bool,
}

impl Keeper {
    /// Checks everything once, as often as it takes to get an answer.
    ///
    /// # Errors
    ///
    /// [`NatsError::Settings`]: streams that the cluster will never have.
    pub(super) async fn start(
        context: Context,
        settings: NatsSettings,
        layout: Layout,
    ) -> Result<Self, NatsError> {
        let wanted = streams::wanted(&settings, layout);
        let mut keeper = Self {
            context,
            settings,
            wanted,
            findings: Arc::default(),
            warned: BTreeMap::new(),
            counted: BTreeMap::new(),
            logged: None,
            is_first: true,
        };
        let mut patience = Patience::default();
        while let Err(error) = keeper.check().await {
            patience.wait(error).await?;
        }
        keeper.is_first = false;
        Ok(keeper)
    }

    pub(super) fn findings(&self) -> Arc<Findings> {
        Arc::clone(&self.findings)
    }

    pub(super) async fn run(mut self) {
        // Where advisories may not be read, the regular check must do.
        let mut advisories = self.context.client().subscribe(ADVISORIES).await.ok();
        let names: BTreeSet<String> = self.wanted.iter().map(|it| it.config.name.clone()).collect();
        let mut next = Instant::now() + self.settings.check_every;
        loop {
            let advised = async {
                let Some(advisories) = &mut advisories else { return std::future::pending().await };
                while let Some(message) = advisories.next().await {
                    if message.subject.rsplit('.').next().is_some_and(|name| names.contains(name)) {
                        return;
                    }
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = advised => {}
                () = self.findings.wake.notified() => {}
            }
            // One check answers all advisories until now.
            if let Some(advisories) = &mut advisories {
                while advisories.next().now_or_never().flatten().is_some() {}
            }
            if let Err(error) = self.check().await {
                self.log_once(&error.to_string());
            } else {
                self.logged = None;
            }
            tokio::time::sleep(ADVISED_EVERY.min(self.settings.check_every)).await;
            next = Instant::now() + self.settings.check_every;
        }
    }

    fn log_once(&mut self, text: &str) {
        if self.logged.as_deref() != Some(text) {
            tracing::warn!("{text}; will retry");
            self.logged = Some(text.to_owned());
        }
    }

    /// One check of all streams; the first error, after all were tried.
    async fn check(&mut self) -> Result<(), NatsError> {
        let mut failure = None;
        let (mut levels, mut hits) = (BTreeMap::new(), Vec::new());
        for wanted in self.wanted.clone() {
            let name = wanted.config.name.clone();
            match streams::check(&self.context, &wanted, !self.is_first).await {
                Ok(checked) => {
                    if checked.is_new && !self.is_first && wanted.role == Role::Hits {
                        self.findings.recreated.fetch_add(1, Ordering::Relaxed);
                        tracing::error!(
                            stream = name,
                            "somebody has deleted the stream; it has been created again, and hits that sinks had not taken are lost"
                        );
                    }
                    self.judge(&wanted, checked.breach);
                    if wanted.role == Role::Hits {
                        hits.push(name);
                    }
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        // Behind the check of all streams, because this reads the ledger.
        for name in hits {
            match self.tend(&name).await {
                Ok(level) => _ = levels.insert(name, level),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        lock(&self.findings.levels).extend(levels);
        failure.map_or(Ok(()), Err)
    }

    /// Notes whether a stream keeps the promise. That of the last statuses makes none.
    fn judge(&mut self, wanted: &Wanted, breach: Option<String>) {
        let name = &wanted.config.name;
        if wanted.role == Role::Status {
            if let Some(breach) = breach {
                self.log_once(&breach);
            }
            return;
        }
        // A stream that gives no answer keeps its verdict.
        let mut breaches = lock(&self.findings.breaches);
        match breach {
            Some(breach) if breaches.get(name) != Some(&breach) => {
                tracing::error!("hits are not acknowledged: {breach}");
                breaches.insert(name.clone(), breach);
            }
            Some(_) => {}
            None => {
                if breaches.remove(name).is_some() {
                    tracing::info!(stream = name, "the stream is as it must be; hits are acknowledged again");
                }
            }
        }
    }

    /// Looks at the consumers of a stream of hits, removes what all have taken, and warns.
    async fn tend(&mut self, name: &str) -> Result<StreamLevel, NatsError> {
        let failed =
            |error: &dyn std::error::Error| NatsError::jetstream(format!("the stream {name}"), chain(error));
        // In this order: what was removed until now is below what the consumers say afterwards.
        let stream = self.context.get_stream(name).await.map_err(|error| failed(&error))?;
        let info = stream.cached_info().clone();
        let readers = consumers::readers(&stream).await?;
        let level = StreamLevel::of(&info, &readers);
        self.count_removed_unread(name, &info, &readers);
        if self.settings.free_taken {
            let sinks = self.sinks(&readers).await?;
            self.free(&stream, &info, &readers, &sinks, level.fill() >= PRESSURE_AT).await?;
        }
        self.warn(&level);
        Ok(level)
    }

    /// The sinks of the ledger; those that are missing there are added, so that every collector counts them.
    async fn sinks(&self, readers: &[Reader]) -> Result<BTreeSet<String>, NatsError> {
        let mut sinks = consumers::registered(&self.context).await?;
        let running = readers.iter().filter(|reader| reader.is_sink).map(|reader| &reader.name);
        for name in self.settings.sinks.iter().chain(running) {
            if sinks.insert(name.clone()) {
                consumers::register(&self.context, name).await?;
            }
        }
        Ok(sinks)
    }

    /// Removes hits that every sink has taken and that no repetition is expected of.
    async fn free(
        &self,
        stream: &Stream,
        info: &Info,
        readers: &[Reader],
        sinks: &BTreeSet<String>,
        is_pressed: bool,
    ) -> Result<(), NatsError> {
        let known: BTreeSet<&str> = readers.iter().map(|reader| reader.name.as_str()).collect();
        // A sink without a consumer has taken nothing.
        if sinks.iter().any(|sink| !known.contains(sink.as_str())) {
            return Ok(());
        }
        let Some(floor) = readers.iter().map(|reader| reader.floor).min() else { return Ok(()) };
        let first = info.state.first_sequence;
        let until = if is_pressed { floor } else { self.outside_window(stream, first, floor).await };
        if until < first || info.state.messages == 0 {
            return Ok(());
        }
        let purged = stream.purge().sequence(until + 1).await;
        let purged = purged
            .map_err(|error| NatsError::jetstream(format!("to free {}", info.config.name), chain(&error)))?;
        self.findings.freed.fetch_add(purged.purged, Ordering::Relaxed);
        tracing::debug!(
            stream = info.config.name,
            until,
            hits = purged.purged,
            "removed hits that every sink has taken"
        );
        Ok(())
    }

    /// The highest sequence number from `first` to `last` whose message is older than the duplicate window; below
    /// `first`: none.
    async fn outside_window(&self, stream: &Stream, first: u64, last: u64) -> u64 {
        let Some(cutoff) = SystemTime::now().checked_sub(self.settings.duplicate_window()) else { return 0 };
        // From here on `low` is old enough and `high` is not, or not known to be.
        let (mut low, mut high) = (first.saturating_sub(1), last + 1);
        let mut middle = last;
        for _ in 0..SEARCH_STEPS_MAX {
            if low + 1 >= high {
                break;
            }
            let message = stream.get_raw_message(middle).await;
            if message.is_ok_and(|message| SystemTime::from(message.time) < cutoff) {
                low = middle;
            } else {
                high = middle;
            }
            middle = low + (high - low) / 2;
        }
        low
    }

    /// Counts hits that were removed by age, by somebody's purge, or with a stream, before a sink had them.
    fn count_removed_unread(&mut self, name: &str, info: &Info, readers: &[Reader]) {
        let first = info.state.first_sequence;
        for reader in readers {
            let counted = self.counted.entry((name.to_owned(), reader.name.clone())).or_default();
            let from = (reader.floor + 1).max(*counted);
            if first > from {
                let hits = first - from;
                self.findings.removed_unread.fetch_add(hits, Ordering::Relaxed);
                tracing::error!(
                    stream = name,
                    sink = reader.name,
                    "up to {hits} hits were removed before the sink had taken them: by their age, or by somebody else"
                );
            }
            *counted = first;
        }
    }

    fn warn(&mut self, level: &StreamLevel) {
        let fill = level.fill();
        if fill < WARN_AT {
            if self.warned.remove(&level.stream).is_some() {
                tracing::info!(stream = level.stream, "the stream has room again");
            }
            return;
        }
        let is_alarm = fill >= ALARM_AT;
        let is_known =
            |(at, was_alarm): &(Instant, bool)| at.elapsed() < WARN_EVERY && (*was_alarm || !is_alarm);
        if self.warned.get(&level.stream).is_some_and(is_known) {
            return;
        }
        self.warned.insert(level.stream.clone(), (Instant::now(), is_alarm));
        let percent = (fill * 100.0) as u64;
        let sink = match &level.slowest {
            Some((sink, waiting)) => format!("the slowest sink is {sink:?} with {waiting} hits to take"),
            None => "no sink has ever read it, so nothing can be removed".into(),
        };
        let text = format!(
            "the stream {} is {percent} % full; {sink}; once it is full, sensors keep their hits",
            level.stream
        );
        if is_alarm { tracing::error!("{text}") } else { tracing::warn!("{text}") }
    }
}
