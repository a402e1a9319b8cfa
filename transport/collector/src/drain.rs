//! `etwsieve-collector drain`: delivers hits from JetStream to sinks.

use crate::config::{Config, ConfigError};
use crate::files::check_outputs;
use crate::nats::{NatsError, NatsFeed};
use crate::sink::config::{SinkConfig, SinkConfigError, check_all};
use crate::sink::{Feed, SinkCounts};
use crate::sink::{SinkOverview, SinkSet, SinkSetError};
use etwsieve_transport::files::ClaimError;
use etwsieve_transport::metrics;
use etwsieve_transport::stop::Stop;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Interval at which the state of each sink is logged.
const REPORT_EVERY: Duration = Duration::from_mins(1);
/// Interval at which the end of the sinks is checked.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Deliver hits from a JetStream cluster to sinks. Several instances with the same sinks share the work.
#[derive(Debug, clap::Args)]
pub struct DrainArgs {
    /// Cluster URL, nats://[user:password@]HOST:PORT; separate several servers with commas.
    #[arg(long, value_name = "URL", required_unless_present = "config")]
    store: Option<String>,
    /// Configuration of the collector; its store, [nats] and [[sink]] tables are used.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Additional sink, given as jsonl:FILE.
    #[arg(long = "sink", value_name = "TYPE:PLACE")]
    sinks: Vec<String>,
    /// Exit when everything is delivered.
    #[arg(long)]
    once: bool,
    /// Serve Prometheus metrics on this loopback address, such as 127.0.0.1:9479.
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
}

/// Why draining cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An option is invalid or missing.
    #[error("{0}")]
    Usage(String),
    /// A sink is configured incorrectly.
    #[error(transparent)]
    Sink(#[from] SinkConfigError),
    /// A sink would overwrite a file that belongs to something else.
    #[error(transparent)]
    Output(#[from] ClaimError),
    /// A sink or its feed cannot be started.
    #[error(transparent)]
    SinkSet(#[from] SinkSetError<NatsError>),
    /// The system refused to start a thread.
    #[error("cannot start: {0}")]
    Io(#[from] std::io::Error),
}

impl DrainArgs {
    /// Runs until `stop` is requested or, with `--once`, until everything is delivered. Returns the counts of each
    /// sink.
    ///
    /// # Errors
    ///
    /// [`DrainError`], before anything is delivered; later failures are retried.
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
                    // Relative to the current directory, not to the configuration.
                    let path = std::path::absolute(path)?;
                    config.sink.push(SinkConfig::jsonl(path));
                }
                _ => return Err(DrainError::Usage(format!("--sink {sink}: expected jsonl:FILE"))),
            }
        }
        if config.sink.is_empty() {
            let problem = "no sink; pass --sink jsonl:FILE, or --config with a [[sink]] table";
            return Err(DrainError::Usage(problem.into()));
        }
        check_all(&config.sink, &config.folder)?;
        check_outputs(&config, self.config.as_deref())?;
        let Some(settings) = config.nats() else {
            let problem = "the store is not a cluster; pass --store nats://HOST:PORT (for an embedded store, \
                           `serve` runs the sinks itself)";
            return Err(DrainError::Usage(problem.into()));
        };

        let metrics = self.metrics.or(config.metrics.listen);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let sinks = SinkSet::start(&config.sink, &config.folder, self.once, stop.clone(), |name| {
            // An unreachable cluster is an error with --once; otherwise the sink keeps trying.
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
    /// Returns `None`, with a warning, if the address in the configuration is in use, usually by `serve`.
    fn serve_metrics(
        &self,
        address: SocketAddr,
        overview: &SinkOverview,
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
                tracing::warn!(
                    "metrics disabled: {address} from [metrics] is in use; pass another address with --metrics"
                );
                Ok(None)
            }
            Err(error) => Err(DrainError::Usage(format!(
                "cannot serve metrics on {address}: {error}; pass another address with --metrics"
            ))),
        }
    }
}
