//! Stream maintenance: a task that checks the streams, removes hits that every sink has received, and warns before a
//! stream is full.

use super::connect::{ConnectRetry, chain};
use super::consumers::{self, ConsumerState};
use super::layout::StreamLayout;
use super::streams::{self, Role, StreamSpec};
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

/// Subject of the advisories that servers send when a stream is created, changed or deleted.
const ADVISORIES: &str = "$JS.EVENT.ADVISORY.STREAM.*.*";
/// Minimum time between two checks.
const ADVISED_EVERY: Duration = Duration::from_millis(500);
/// Fill levels above which a warning and an error are logged.
const WARN_AT: f64 = 0.7;
const ALARM_AT: f64 = 0.9;
/// Fill level above which hits that all sinks have received are removed even within the duplicate window.
const PRESSURE_AT: f64 = 0.8;
/// Time between two warnings about the same stream.
const WARN_EVERY: Duration = Duration::from_mins(10);
/// Maximum number of steps of the binary search for the newest hit outside the duplicate window.
const SEARCH_STEPS_MAX: usize = 64;

/// The state of a stream of hits at the last check.
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
    /// The slowest sink and its number of pending hits.
    pub slowest: Option<(String, u64)>,
}

impl StreamLevel {
    pub(super) fn of(info: &Info, consumers_of: &[ConsumerState]) -> Self {
        let slowest = consumers_of.iter().max_by_key(|reader| reader.waiting);
        Self {
            stream: info.config.name.clone(),
            bytes: info.state.bytes,
            bytes_max: u64::try_from(info.config.max_bytes).unwrap_or(0),
            messages: info.state.messages,
            slowest: slowest.map(|reader| (reader.name.clone(), reader.waiting)),
        }
    }

    /// Returns the fill level from 0 to 1; 0 without a limit.
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

/// The results of the checks, shared with the publisher and the metrics.
#[derive(Debug, Default)]
pub(super) struct StreamHealth {
    /// Why hits in these streams may not be acknowledged.
    violations: Mutex<BTreeMap<String, String>>,
    levels: Mutex<BTreeMap<String, StreamLevel>>,
    /// Requests an immediate check.
    pub(super) wake: Notify,
    freed: AtomicU64,
    /// Streams of hits that were missing and created again.
    recreated: AtomicU64,
    /// Messages that were removed before every sink had received them.
    removed_unread: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StreamHealth {
    /// Returns why hits in a stream may not be acknowledged; `None` if they may.
    pub(super) fn violation(&self, stream: &str) -> Option<String> {
        lock(&self.violations).get(stream).cloned()
    }

    /// Adds gauges and counters to a scrape.
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
            gauge("etwsieve_collector_stream_waiting", "Pending hits of the slowest sink.", waiting as f64);
        }
        let is_unusable = f64::from(u8::from(!lock(&self.violations).is_empty()));
        let help = "1 while a stream is unusable and its hits are not acknowledged; the log has the reason.";
        text.gauge("etwsieve_collector_stream_unusable", help, &[], is_unusable);
        let counts = [
            (
                "etwsieve_collector_stream_freed_total",
                "Hits removed after every sink had received them.",
                &self.freed,
            ),
            (
                "etwsieve_collector_stream_recreated_total",
                "Streams that were missing and created again.",
                &self.recreated,
            ),
            (
                "etwsieve_collector_stream_removed_unread_total",
                "Hits removed before every sink had received them.",
                &self.removed_unread,
            ),
        ];
        for (name, help, count) in counts {
            text.counter(name, help, &[], count.load(Ordering::Relaxed));
        }
    }
}

/// The maintenance task.
pub(super) struct StreamMaintenance {
    context: Context,
    settings: NatsSettings,
    required: Vec<StreamSpec>,
    health: Arc<StreamHealth>,
    warned: BTreeMap<String, (Instant, bool)>,
    /// The sequence number up to which messages removed unread were counted, by stream and consumer.
    counted: BTreeMap<(String, String), u64>,
    logged: Option<String>,
    is_first: bool,
}

impl StreamMaintenance {
    /// Checks all streams once, and retries until that succeeds.
    ///
    /// # Errors
    ///
    /// [`NatsError::Settings`] if the cluster can never have such streams.
    pub(super) async fn start(
        context: Context,
        settings: NatsSettings,
        layout: StreamLayout,
    ) -> Result<Self, NatsError> {
        let required = streams::required(&settings, layout);
        let mut maintenance = Self {
            context,
            settings,
            required,
            health: Arc::default(),
            warned: BTreeMap::new(),
            counted: BTreeMap::new(),
            logged: None,
            is_first: true,
        };
        let mut retry = ConnectRetry::default();
        while let Err(error) = maintenance.check().await {
            retry.wait(error).await?;
        }
        maintenance.is_first = false;
        Ok(maintenance)
    }

    pub(super) fn health(&self) -> Arc<StreamHealth> {
        Arc::clone(&self.health)
    }

    pub(super) async fn run(mut self) {
        // If the account may not subscribe to advisories, there are only the regular checks.
        let mut advisories = self.context.client().subscribe(ADVISORIES).await.ok();
        let names: BTreeSet<String> = self.required.iter().map(|it| it.config.name.clone()).collect();
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
                () = self.health.wake.notified() => {}
            }
            // One check covers all advisories received so far.
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

    /// Checks all streams; returns the first error after all were tried.
    async fn check(&mut self) -> Result<(), NatsError> {
        let mut failure = None;
        let (mut levels, mut hits) = (BTreeMap::new(), Vec::new());
        for required in self.required.clone() {
            let name = required.config.name.clone();
            match streams::check(&self.context, &required, !self.is_first).await {
                Ok(checked) => {
                    if checked.is_new && !self.is_first && required.role == Role::Hits {
                        self.health.recreated.fetch_add(1, Ordering::Relaxed);
                        tracing::error!(
                            stream = name,
                            "stream was deleted and has been created again; hits that sinks had not received are lost"
                        );
                    }
                    self.judge(&required, checked.violation);
                    if required.role == Role::Hits {
                        hits.push(name);
                    }
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        // After all streams are checked, because this reads the ledger.
        for name in hits {
            match self.tend(&name).await {
                Ok(level) => _ = levels.insert(name, level),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        lock(&self.health.levels).extend(levels);
        failure.map_or(Ok(()), Err)
    }

    /// Records whether hits in a stream may be acknowledged. The stream of statuses does not matter for that.
    fn judge(&mut self, required: &StreamSpec, violation: Option<String>) {
        let name = &required.config.name;
        if required.role == Role::Status {
            if let Some(violation) = violation {
                self.log_once(&violation);
            }
            return;
        }
        // A stream that does not answer keeps its last result.
        let mut violations = lock(&self.health.violations);
        match violation {
            Some(violation) if violations.get(name) != Some(&violation) => {
                tracing::error!("hits are not acknowledged until this is fixed: {violation}");
                violations.insert(name.clone(), violation);
            }
            Some(_) => {}
            None => {
                if violations.remove(name).is_some() {
                    tracing::info!(stream = name, "stream is usable again, hits are acknowledged");
                }
            }
        }
    }

    /// Checks the consumers of a stream of hits, removes hits that all sinks have received, and warns.
    async fn tend(&mut self, name: &str) -> Result<StreamLevel, NatsError> {
        let failed =
            |error: &dyn std::error::Error| NatsError::jetstream(format!("the stream {name}"), chain(error));
        // In this order, so that the consumers' floors are newer than the first sequence number of the stream.
        let stream = self.context.get_stream(name).await.map_err(|error| failed(&error))?;
        let info = stream.cached_info().clone();
        let consumers_of = consumers::consumers_of(&stream).await?;
        let level = StreamLevel::of(&info, &consumers_of);
        self.count_removed_unread(name, &info, &consumers_of);
        if self.settings.free_taken {
            let sinks = self.sinks(&consumers_of).await?;
            self.free(&stream, &info, &consumers_of, &sinks, level.fill() >= PRESSURE_AT).await?;
        }
        self.warn(&level);
        Ok(level)
    }

    /// Returns the sinks in the ledger and adds missing ones, so that every collector respects them.
    async fn sinks(&self, consumers_of: &[ConsumerState]) -> Result<BTreeSet<String>, NatsError> {
        let mut sinks = consumers::registered(&self.context).await?;
        let running = consumers_of.iter().filter(|reader| reader.is_sink).map(|reader| &reader.name);
        for name in self.settings.sinks.iter().chain(running) {
            if sinks.insert(name.clone()) {
                consumers::register(&self.context, name).await?;
            }
        }
        Ok(sinks)
    }

    /// Removes hits that every sink has received and that are outside the duplicate window.
    async fn free(
        &self,
        stream: &Stream,
        info: &Info,
        consumers_of: &[ConsumerState],
        sinks: &BTreeSet<String>,
        is_pressed: bool,
    ) -> Result<(), NatsError> {
        let known: BTreeSet<&str> = consumers_of.iter().map(|reader| reader.name.as_str()).collect();
        // A sink without a consumer has received nothing.
        if sinks.iter().any(|sink| !known.contains(sink.as_str())) {
            return Ok(());
        }
        let Some(floor) = consumers_of.iter().map(|reader| reader.floor).min() else { return Ok(()) };
        let first = info.state.first_sequence;
        let until = if is_pressed { floor } else { self.outside_window(stream, first, floor).await };
        if until < first || info.state.messages == 0 {
            return Ok(());
        }
        let purged = stream.purge().sequence(until + 1).await;
        let purged = purged
            .map_err(|error| NatsError::jetstream(format!("to free {}", info.config.name), chain(&error)))?;
        self.health.freed.fetch_add(purged.purged, Ordering::Relaxed);
        tracing::debug!(
            stream = info.config.name,
            until,
            hits = purged.purged,
            "removed hits that every sink has received"
        );
        Ok(())
    }

    /// Returns the highest sequence number from `first` to `last` whose message is older than the duplicate window; a
    /// number below `first` if there is none.
    async fn outside_window(&self, stream: &Stream, first: u64, last: u64) -> u64 {
        let Some(cutoff) = SystemTime::now().checked_sub(self.settings.duplicate_window()) else { return 0 };
        // Invariant: `low` is old enough, `high` is not or not known to be.
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

    /// Counts hits that were removed, by age, by a purge or with the stream, before a sink had received them.
    fn count_removed_unread(&mut self, name: &str, info: &Info, consumers_of: &[ConsumerState]) {
        let first = info.state.first_sequence;
        for reader in consumers_of {
            let counted = self.counted.entry((name.to_owned(), reader.name.clone())).or_default();
            let from = (reader.floor + 1).max(*counted);
            if first > from {
                let hits = first - from;
                self.health.removed_unread.fetch_add(hits, Ordering::Relaxed);
                tracing::error!(
                    stream = name,
                    sink = reader.name,
                    "up to {hits} hits were removed before the sink had received them, because of their age or by an administrator"
                );
            }
            *counted = first;
        }
    }

    fn warn(&mut self, level: &StreamLevel) {
        let fill = level.fill();
        if fill < WARN_AT {
            if self.warned.remove(&level.stream).is_some() {
                tracing::info!(stream = level.stream, "stream has room again");
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
            Some((sink, waiting)) => format!("the slowest sink is {sink:?} with {waiting} pending hits"),
            None => "no sink has ever read it, so no hits can be removed".into(),
        };
        let text = format!(
            "stream {} is {percent} % full; {sink}; once it is full, sensors keep their hits",
            level.stream
        );
        if is_alarm { tracing::error!("{text}") } else { tracing::warn!("{text}") }
    }
}
