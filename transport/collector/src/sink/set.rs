//! The running sinks of a process: one thread each.

use crate::sink::config::{SinkConfig, SinkConfigError};
use crate::sink::{Feed, SinkCounts, SinkStats};
use etwsieve_transport::metrics::Text;
use etwsieve_transport::stop::Stop;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Interval at which the end of the sinks is checked.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Why the sinks cannot be started. Those that had been started are stopped again.
#[derive(Debug, thiserror::Error)]
pub enum SinkSetError<E: std::error::Error> {
    /// A sink is configured incorrectly.
    #[error(transparent)]
    Config(#[from] SinkConfigError),
    /// The feed of a sink cannot be opened.
    #[error("sink {name:?}: {source}")]
    Feed {
        /// The sink.
        name: String,
        /// Why.
        source: E,
    },
    /// The system refused to start a thread.
    #[error("cannot start a thread for a sink: {0}")]
    Thread(#[from] io::Error),
}

struct Running {
    name: String,
    stats: Arc<SinkStats>,
    thread: JoinHandle<()>,
}

/// The statistics of all sinks, for metrics and log.
#[derive(Clone, Debug, Default)]
pub struct SinkOverview(Vec<(String, Arc<SinkStats>)>);

/// Running sinks. Dropping the set requests their stop and does not wait for it.
#[derive(Default)]
pub struct SinkSet {
    running: Vec<Running>,
    stop: Stop,
}

impl Drop for SinkSet {
    fn drop(&mut self) {
        self.stop.request();
    }
}

impl SinkSet {
    /// Starts a sink for each configuration. Relative paths are resolved against `folder`; `feed` opens the feed of the
    /// sink with a given name. If `until_empty` is set, a sink ends when its feed is empty.
    ///
    /// # Errors
    ///
    /// A sink is configured incorrectly, its feed cannot be opened, or its thread cannot be started.
    pub fn start<E: std::error::Error>(
        configs: &[SinkConfig],
        folder: &Path,
        until_empty: bool,
        stop: Stop,
        mut feed: impl FnMut(&str) -> Result<Box<dyn Feed>, E>,
    ) -> Result<Self, SinkSetError<E>> {
        let mut sinks = Self { running: Vec::new(), stop };
        for config in configs {
            let name = config.name();
            let feed = feed(name).map_err(|source| SinkSetError::Feed { name: name.to_owned(), source })?;
            let runner = config.runner(folder, feed)?;
            let (name, stats) = (runner.name.clone(), Arc::clone(&runner.stats));
            let stop = sinks.stop.clone();
            let thread =
                Builder::new().name(format!("sink-{name}")).spawn(move || runner.run(&stop, until_empty))?;
            sinks.running.push(Running { name, stats, thread });
        }
        Ok(sinks)
    }

    /// Returns a handle to the statistics, which stays valid after the sinks have ended.
    pub fn overview(&self) -> SinkOverview {
        SinkOverview(self.running.iter().map(|sink| (sink.name.clone(), Arc::clone(&sink.stats))).collect())
    }

    /// Returns whether all sinks have ended.
    pub fn are_done(&self) -> bool {
        self.running.iter().all(|sink| sink.thread.is_finished())
    }

    /// Waits until all sinks have ended and returns their counts.
    ///
    /// # Panics
    ///
    /// Resumes the panic of a sink.
    pub fn join(mut self) -> Vec<(String, SinkCounts)> {
        let running = std::mem::take(&mut self.running);
        let counts = running.into_iter().map(|sink| {
            if let Err(panic) = sink.thread.join() {
                std::panic::resume_unwind(panic);
            }
            (sink.name, sink.stats.counts())
        });
        counts.collect()
    }

    /// Requests the stop of all sinks and waits at most `limit` for it. Hits that a sink is still delivering after that
    /// are delivered again after the next start.
    pub fn stop(self, limit: Duration) {
        self.stop.request();
        let end = Instant::now() + limit;
        while !self.are_done() && Instant::now() < end {
            thread::sleep(LOOK_EVERY);
        }
        for sink in self.running.iter().filter(|sink| !sink.thread.is_finished()) {
            tracing::warn!(
                sink = sink.name,
                "sink did not stop in time; its current batch will be delivered again after the next start"
            );
        }
    }
}

impl SinkOverview {
    /// Adds the statistics to a scrape.
    pub fn render(&self, text: &mut Text) {
        for (name, stats) in &self.0 {
            let (counts, labels) = (stats.counts(), [("sink", name.as_str())]);
            let totals = [
                ("etwsieve_collector_sink_delivered_total", "Hits delivered.", counts.delivered),
                (
                    "etwsieve_collector_sink_refused_total",
                    "Refused hits written to the dead-letter file.",
                    counts.refused,
                ),
                (
                    "etwsieve_collector_sink_dropped_total",
                    "Refused hits dropped because the dead-letter file was full.",
                    counts.dropped,
                ),
                ("etwsieve_collector_sink_retries_total", "Failed attempts to deliver.", counts.retries),
                (
                    "etwsieve_collector_sink_read_errors_total",
                    "Failed attempts to read hits from the store.",
                    counts.read_errors,
                ),
            ];
            for (name, help, total) in totals {
                text.counter(name, help, &labels, total);
            }
            let since =
                counts.lag.oldest.map_or(0, |oldest| crate::status::now().saturating_sub(oldest as i64));
            let levels = [
                ("etwsieve_collector_sink_waiting_hits", "Pending hits.", counts.lag.hits as f64),
                (
                    "etwsieve_collector_sink_lag_seconds",
                    "Age of the oldest pending hit in seconds.",
                    since as f64,
                ),
                (
                    "etwsieve_collector_sink_failing",
                    "1 while delivery fails; the log has the reason.",
                    f64::from(u8::from(counts.error.is_some())),
                ),
            ];
            for (name, help, level) in levels {
                text.gauge(name, help, &labels, level);
            }
        }
    }

    /// Logs one line per sink.
    pub fn log(&self) {
        for (name, stats) in &self.0 {
            let counts = stats.counts();
            tracing::info!(
                sink = name,
                delivered = counts.delivered,
                refused = counts.refused,
                dropped = counts.dropped,
                lag = counts.lag.hits,
                error = counts.error,
                "sink statistics"
            );
        }
    }
}
