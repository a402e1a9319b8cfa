//! The sinks of one process: a thread for each, their counts, and their end.

use crate::sink::config::{SinkConfig, SinkConfigError};
use crate::sink::{Feed, SinkCounts, SinkStats, Stop};
use etwsieve_transport::metrics::Text;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, Builder, JoinHandle};
use std::time::{Duration, Instant};

/// How often it is seen whether all have ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Why sinks cannot be started; those before it have been stopped again.
#[derive(Debug, thiserror::Error)]
pub enum SinksError<E: std::error::Error> {
    /// One of the configuration.
    #[error(transparent)]
    Config(#[from] SinkConfigError),
    /// Where its hits come from cannot be opened.
    #[error("sink {name:?}: {source}")]
    Feed {
        /// The sink.
        name: String,
        /// Why.
        source: E,
    },
    /// There is no thread to be had.
    #[error("cannot start a thread for a sink: {0}")]
    Thread(#[from] io::Error),
}

struct Running {
    name: String,
    stats: Arc<SinkStats>,
    thread: JoinHandle<()>,
}

/// What all sinks have done, for whoever shows it.
#[derive(Clone, Debug, Default)]
pub struct Overview(Vec<(String, Arc<SinkStats>)>);

/// Sinks at work. Dropping it asks them to stop, without waiting.
#[derive(Default)]
pub struct Sinks {
    running: Vec<Running>,
    stop: Stop,
}

impl Drop for Sinks {
    fn drop(&mut self) {
        self.stop.request();
    }
}

impl Sinks {
    /// Starts a sink for each table. Relative paths start at `folder`; `feed` gives the hits of the sink of that name.
    /// With `until_empty` each ends when there is nothing more for it.
    ///
    /// # Errors
    ///
    /// [`SinksError`].
    pub fn start<E: std::error::Error>(
        configs: &[SinkConfig],
        folder: &Path,
        until_empty: bool,
        stop: Stop,
        mut feed: impl FnMut(&str) -> Result<Box<dyn Feed>, E>,
    ) -> Result<Self, SinksError<E>> {
        let mut sinks = Self { running: Vec::new(), stop };
        for config in configs {
            let name = config.name();
            let feed = feed(name).map_err(|source| SinksError::Feed { name: name.to_owned(), source })?;
            let runner = config.runner(folder, feed)?;
            let (name, stats) = (runner.name.clone(), Arc::clone(&runner.stats));
            let stop = sinks.stop.clone();
            let thread =
                Builder::new().name(format!("sink-{name}")).spawn(move || runner.run(&stop, until_empty))?;
            sinks.running.push(Running { name, stats, thread });
        }
        Ok(sinks)
    }

    /// What they have done so far and will have done.
    pub fn overview(&self) -> Overview {
        Overview(self.running.iter().map(|sink| (sink.name.clone(), Arc::clone(&sink.stats))).collect())
    }

    /// Whether all have ended.
    pub fn are_done(&self) -> bool {
        self.running.iter().all(|sink| sink.thread.is_finished())
    }

    /// Waits until all have ended: because the stop was asked for, or there is nothing more.
    ///
    /// # Panics
    ///
    /// Goes on with the panic of a sink.
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

    /// Asks all to stop and waits for it, at most `limit`: one that is in the middle of a request is left behind then.
    /// What was not acknowledged comes again after the next start.
    pub fn stop(self, limit: Duration) {
        self.stop.request();
        let end = Instant::now() + limit;
        while !self.are_done() && Instant::now() < end {
            thread::sleep(LOOK_EVERY);
        }
        for sink in self.running.iter().filter(|sink| !sink.thread.is_finished()) {
            tracing::warn!(
                sink = sink.name,
                "the sink is left in the middle of a delivery, which will come again"
            );
        }
    }
}

impl Overview {
    /// Adds them to a scrape.
    pub fn render(&self, text: &mut Text) {
        for (name, stats) in &self.0 {
            let (counts, labels) = (stats.counts(), [("sink", name.as_str())]);
            let totals = [
                ("etwsieve_collector_sink_delivered_total", "Hits delivered.", counts.delivered),
                ("etwsieve_collector_sink_refused_total", "Hits in the dead-letter file.", counts.refused),
                (
                    "etwsieve_collector_sink_dropped_total",
                    "Refused hits for which the dead-letter file had no room.",
                    counts.dropped,
                ),
                ("etwsieve_collector_sink_retries_total", "Attempts that failed.", counts.retries),
                (
                    "etwsieve_collector_sink_read_errors_total",
                    "Attempts to read hits that failed.",
                    counts.read_errors,
                ),
            ];
            for (name, help, total) in totals {
                text.counter(name, help, &labels, total);
            }
            let since =
                counts.lag.oldest.map_or(0, |oldest| crate::status::now().saturating_sub(oldest as i64));
            let levels = [
                ("etwsieve_collector_sink_waiting_hits", "Hits that wait.", counts.lag.hits as f64),
                ("etwsieve_collector_sink_lag_seconds", "Since when the oldest of them waits.", since as f64),
                (
                    "etwsieve_collector_sink_failing",
                    "1: it does not get on; the log says why.",
                    f64::from(u8::from(counts.error.is_some())),
                ),
            ];
            for (name, help, level) in levels {
                text.gauge(name, help, &labels, level);
            }
        }
    }

    /// Writes a line for each into the log.
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
                "sink"
            );
        }
    }
}
