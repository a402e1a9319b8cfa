//! `etwsieve-collector drain`: from JetStream into sinks, with acknowledgement after delivery.

use super::nats::{NatsError, NatsFeed, NatsSettings};
use crate::sink::config::{SinkConfig, SinkConfigError, check_all};
use crate::sink::{SinkCounts, Stop};
use serde::Deserialize;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Longest configuration, in bytes.
const CONFIG_LEN_MAX: u64 = 256 * 1024;
/// How often the state of each sink is logged.
const REPORT_EVERY: Duration = Duration::from_mins(1);

/// Deliver hits from a JetStream cluster. Several drains with the same sinks share the work.
#[derive(Debug, clap::Args)]
pub struct DrainArgs {
    /// The servers: nats://[user:password@]HOST:PORT, several divided by commas.
    #[arg(long, value_name = "URL", required_unless_present = "config")]
    store: Option<String>,
    /// Configuration with [[sink]] tables, and [nats] for credentials and limits.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A sink besides those of the configuration: jsonl:FILE.
    #[arg(long = "sink", value_name = "TYPE:PLACE")]
    sinks: Vec<String>,
    /// End when everything has been delivered.
    #[arg(long)]
    once: bool,
}

/// Why nothing is drained.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The configuration, in words.
    #[error("{0}")]
    Config(String),
    /// One of its sinks.
    #[error(transparent)]
    Sink(#[from] SinkConfigError),
    /// The cluster.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// No thread.
    #[error("cannot start: {0}")]
    Io(#[from] std::io::Error),
}

/// What a drain reads of a configuration.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Document {
    nats: NatsSettings,
    sink: Vec<SinkConfig>,
}

impl DrainArgs {
    /// Runs until `stop`, or until everything was delivered if that was asked for. Gives the counts of each sink.
    ///
    /// # Errors
    ///
    /// [`DrainError`], before anything is delivered; later failures are tried again.
    pub fn run(&self, stop: &Stop) -> Result<Vec<(String, SinkCounts)>, DrainError> {
        let mut document = Document::default();
        let mut folder = PathBuf::new();
        if let Some(path) = &self.config {
            document = read(path)?;
            folder = path.parent().map(Path::to_owned).unwrap_or_default();
        }
        if let Some(url) = &self.store {
            document.nats.servers = vec![url.clone()];
        }
        for sink in &self.sinks {
            match sink.split_once(':') {
                Some(("jsonl", path)) if !path.is_empty() => {
                    document.sink.push(SinkConfig::jsonl(path.into()));
                }
                _ => return Err(DrainError::Config(format!("--sink {sink}: expected jsonl:FILE"))),
            }
        }
        if document.sink.is_empty() {
            return Err(DrainError::Config(
                "no sink: give --sink jsonl:FILE, or --config with [[sink]]".into(),
            ));
        }
        check_all(&document.sink, &folder)?;

        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let mut sinks = Vec::new();
        for config in &document.sink {
            let feed = runtime.block_on(NatsFeed::connect(&document.nats, config.name()))?;
            let runner = config.runner(&folder, Box::new(feed))?;
            let (name, stats) = (runner.name.clone(), Arc::clone(&runner.stats));
            let (stop, once) = (stop.clone(), self.once);
            let thread = std::thread::Builder::new()
                .name(format!("sink-{name}"))
                .spawn(move || runner.run(&stop, once))?;
            sinks.push((name, stats, thread));
        }
        let mut waited = Duration::ZERO;
        let pause = Duration::from_millis(200);
        while sinks.iter().any(|(_, _, thread)| !thread.is_finished()) {
            std::thread::sleep(pause);
            waited += pause;
            if waited >= REPORT_EVERY {
                waited = Duration::ZERO;
                for (name, stats, _) in &sinks {
                    let counts = stats.counts();
                    tracing::info!(
                        sink = name,
                        delivered = counts.delivered,
                        refused = counts.refused,
                        lag = counts.lag.hits,
                        error = counts.error,
                        "sink"
                    );
                }
            }
        }
        let counts =
            |(name, stats, thread): (_, Arc<crate::sink::SinkStats>, std::thread::JoinHandle<()>)| {
                // A panic there is ours, and goes on here.
                if let Err(panic) = thread.join() {
                    std::panic::resume_unwind(panic);
                }
                (name, stats.counts())
            };
        Ok(sinks.into_iter().map(counts).collect())
    }
}

fn read(path: &Path) -> Result<Document, DrainError> {
    let config = |detail: String| DrainError::Config(format!("{}: {detail}", path.display()));
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(CONFIG_LEN_MAX + 1).read_to_string(&mut text))
        .map_err(|error| config(error.to_string()))?;
    if text.len() as u64 > CONFIG_LEN_MAX {
        return Err(config(format!("longer than {CONFIG_LEN_MAX} bytes")));
    }
    toml::from_str(&text).map_err(|error| config(error.to_string()))
}
