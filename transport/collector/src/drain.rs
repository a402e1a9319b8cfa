//! `etwsieve-collector drain`: from JetStream into sinks, with acknowledgement after delivery.

use crate::config::{Config, ConfigError};
use crate::files::check_outputs;
use crate::nats::{NatsError, NatsFeed};
use crate::sink::config::{SinkConfig, SinkConfigError, check_all};
use crate::sink::{Feed, SinkCounts, Stop};
use crate::sinks::{Overview, Sinks, SinksError};
use etwsieve_transport::files::ClaimError;
use etwsieve_transport::metrics;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the state of each sink is logged.
const REPORT_EVERY: Duration = Duration::from_mins(1);
/// How often it is seen that all have ended.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Deliver hits from a JetStream cluster. Several drains with the same sinks share the work.
#[derive(Debug, clap::Args)]
pub struct DrainArgs {
    /// The servers: nats://[user:password@]HOST:PORT, several divided by commas.
    #[arg(long, value_name = "URL", required_unless_present = "config")]
    store: Option<String>,
    /// The configuration of the collector: its store, [nats] and [[sink]] tables.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A sink besides those of the configuration: jsonl:FILE.
    #[arg(long = "sink", value_name = "TYPE:PLACE")]
    sinks: Vec<String>,
    /// End when everything has been delivered.
    #[arg(long)]
    once: bool,
    /// Serve counts for Prometheus on this loopback address, such as 127.0.0.1:9479.
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
}

/// Why nothing is drained.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A word on the command line, or one that is missing.
    #[error("{0}")]
    Usage(String),
    /// A sink of the command line.
    #[error(transparent)]
    Sink(#[from] SinkConfigError),
    /// A sink would write into a file that is something else.
    #[error(transparent)]
    Output(#[from] ClaimError),
    /// A sink, or the cluster.
    #[error(transparent)]
    Sinks(#[from] SinksError<NatsError>),
    /// No thread.
    #[error("cannot start: {0}")]
    Io(#[from] std::io::Error),
}

impl DrainArgs {
    /// Runs until `stop`, or until everything was delivered if that was asked for. Gives the counts of each sink.
    ///
    /// # Errors
    ///
    /// [`DrainError`], before anything is delivered; later failures are tried again.
    pub fn run(&self, stop: &Stop) -> Result<Vec<(String, SinkCounts)>, DrainError> {
        let mut config = match &self.config {
            Some(path) => Config::load(path)?,
            None => Config::default(),
        };
        if let Some(url) = &self.store {
            config.store.clone_from(url);
        }
        for sink in &self.sinks {
            match sink.split_once(':') {
                Some(("jsonl", path)) if !path.is_empty() => {
                    // Relative to where the command is given.
                    let path = std::path::absolute(path)?;
                    config.sink.push(SinkConfig::jsonl(path));
                }
                _ => return Err(DrainError::Usage(format!("--sink {sink}: expected jsonl:FILE"))),
            }
        }
        if config.sink.is_empty() {
            let problem = "no sink: give --sink jsonl:FILE, or --config with [[sink]]";
            return Err(DrainError::Usage(problem.into()));
        }
        check_all(&config.sink, &config.folder)?;
        check_outputs(&config, self.config.as_deref())?;
        let Some(settings) = config.nats() else {
            let problem = "only hits in JetStream are drained: give --store nats://HOST:PORT; of an embedded store \
                           `serve` runs the sinks itself";
            return Err(DrainError::Usage(problem.into()));
        };

        let metrics = self.metrics.or(config.metrics.listen);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let sinks = Sinks::start(&config.sink, &config.folder, self.once, stop.clone(), |name| {
            // With --once a cluster that cannot be reached is an error; otherwise it is waited for.
            let feed = runtime.block_on(async {
                if self.once {
                    NatsFeed::connect(&settings, name).await
                } else {
                    NatsFeed::start(&settings, name).await
                }
            })?;
            Ok::<Box<dyn Feed>, NatsError>(Box::new(feed))
        })?;
        let overview = sinks.overview();
        let _metrics = metrics.map(|address| self.serve_metrics(address, &overview)).transpose()?.flatten();
        let mut reported = Instant::now();
        while !sinks.are_done() {
            std::thread::sleep(LOOK_EVERY);
            if reported.elapsed() >= REPORT_EVERY {
                reported = Instant::now();
                overview.log();
            }
        }
        Ok(sinks.join())
    }
    /// `None`, with a warning: the address of the configuration is in use, as a rule by `serve` with the same file.
    fn serve_metrics(
        &self,
        address: SocketAddr,
        overview: &Overview,
    ) -> Result<Option<metrics::Server>, DrainError> {
        let overview = overview.clone();
        let render: metrics::Render = Arc::new(move || {
            let mut text = metrics::Text::new();
            overview.render(&mut text);
            text.finish()
        });
        match metrics::Server::start(address, render) {
            Ok(server) => {
                tracing::info!("metrics on http://{}/metrics", server.local_addr());
                Ok(Some(server))
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse && self.metrics.is_none() => {
                tracing::warn!("no metrics: {address} of [metrics] is in use; give drain one with --metrics");
                Ok(None)
            }
            Err(error) => Err(DrainError::Usage(format!(
                "cannot serve metrics on {address}: {error}; try --metrics ADDR"
            ))),
        }
    }
}
