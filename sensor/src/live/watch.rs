//! A live run: feeds a source through the pipeline, writes and stores hits as they arrive, replaces rules when their
//! files change, and logs the counts at intervals.
//!
//! The caller passes the source, so nothing here depends on Windows.

mod writer;

use super::config::Config;
use super::counters::SessionCounters;
use super::notice::Notice;
use super::report::{self, HitCounts, LiveSummary};
use super::rule_files::{self, RuleFiles};
use crate::delivery::{self, DeliveryError, Role};
use crate::output::Format;
use crate::pipeline::{self, Progress, Settings, Shard, WhenFull};
use crate::rules::ActiveRules;
use crate::search::Search;
use crate::source::Source;
use crate::stop::Stop;
use crossbeam_channel::{Receiver, Sender, bounded};
use etwsieve_matcher::Matcher;
use etwsieve_transport::files::{OutputError, append_lines};
use etwsieve_transport::metrics::Server;
use etwsieve_transport::sender::HitSender;
use etwsieve_transport::store::{Store, StoreError};
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};
use writer::HitWriter;

/// Maximum number of queued notices; further ones are only logged.
const NOTICES_MAX: usize = 64;
/// How long the end of a run waits for the collector. Hits that are not acknowledged by then stay in the spool.
const SEND_PATIENCE: Duration = Duration::from_secs(2);

/// Why a live run cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The output cannot be opened, or is not a file of hits.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Hits cannot be sent.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    /// The metrics server cannot listen on its address.
    #[error("cannot serve metrics on {addr}: {source}")]
    Metrics {
        /// The address.
        addr: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
}

/// A run that is ready to start: outputs are open, and no session has been started yet.
pub struct Watch {
    config: Config,
    computer: String,
    rules: Arc<ActiveRules>,
    rule_files: RuleFiles,
    counters: Arc<SessionCounters>,
    progress: Arc<Progress>,
    hits: Arc<HitCounts>,
    stop: Stop,
    notices: (Sender<Notice>, Receiver<Notice>),
    format: Format,
    out: Box<dyn Write + Send>,
    store: Option<Store>,
    sender: Option<HitSender>,
    metrics: Option<Server>,
}

/// Handles that a run shares with its source.
#[derive(Clone)]
pub struct WatchHandles {
    /// The active rules, which determine the events to request.
    pub rules: Arc<ActiveRules>,
    /// Counters of losses and restarts.
    pub counters: Arc<SessionCounters>,
    /// Counts of the pipeline.
    pub progress: Arc<Progress>,
    /// Receives notices. Use `try_send`: the source must not wait for the writer.
    pub notices: Sender<Notice>,
    /// Ends the run.
    pub stop: Stop,
}

impl Watch {
    /// Opens all outputs of hits and counts. Hits contain `computer`. Create `rule_files` before loading the rules of
    /// `matcher`, so that no change is missed.
    ///
    /// # Errors
    ///
    /// [`WatchError`].
    pub fn new(
        config: Config,
        format: Format,
        computer: String,
        matcher: Matcher,
        rule_files: RuleFiles,
        stop: Stop,
    ) -> Result<Self, WatchError> {
        let out: Box<dyn Write + Send> = match &config.output.file {
            None => format.stdout(),
            Some(path) => {
                let expected = "a file of hits in this format";
                Box::new(append_lines(
                    path,
                    expected,
                    if format == Format::Table { is_table } else { is_json },
                )?)
            }
        };
        let store = config.output.store.as_ref().map(Store::open).transpose()?;
        let amsi = config.session.amsi;
        let mut watch = Self {
            config,
            computer,
            rules: Arc::new(ActiveRules::new(matcher).with_amsi(amsi)),
            rule_files,
            counters: Arc::default(),
            progress: Arc::new(Progress::new(1)),
            hits: Arc::default(),
            stop,
            notices: bounded(NOTICES_MAX),
            format,
            out,
            store,
            sender: None,
            metrics: None,
        };
        watch.start_sender()?;
        if let Some(addr) = watch.config.metrics.listen {
            watch.start_metrics(addr)?;
        }
        Ok(watch)
    }

    fn start_sender(&mut self) -> Result<(), DeliveryError> {
        let (progress, counters) = (Arc::clone(&self.progress), Arc::clone(&self.counters));
        let rules = Arc::clone(&self.rules);
        let ledger = move || report::status_counts(&progress, &counters, rules.current().0.rules().len());
        let store = self.config.output.store.as_deref();
        self.sender = self.config.collector.start(Role::Watch, store, &self.computer, Box::new(ledger))?;
        Ok(())
    }

    fn start_metrics(&mut self, addr: SocketAddr) -> Result<(), WatchError> {
        let (progress, counters) = (Arc::clone(&self.progress), Arc::clone(&self.counters));
        let (hits, rules) = (Arc::clone(&self.hits), Arc::clone(&self.rules));
        let collector = self.sender.as_ref().map(HitSender::watch_counts);
        let render = move || {
            let collector = collector.as_ref().map(|counts| counts());
            let rules = rules.current().0.rules().len();
            report::metrics(&progress, &counters, &hits, rules, collector.as_ref())
        };
        let server =
            Server::start(addr, Arc::new(render)).map_err(|source| WatchError::Metrics { addr, source })?;
        tracing::info!("serving metrics on http://{}/metrics", server.local_addr());
        self.metrics = Some(server);
        Ok(())
    }

    /// Returns what the source needs.
    pub fn handles(&self) -> WatchHandles {
        WatchHandles {
            rules: Arc::clone(&self.rules),
            counters: Arc::clone(&self.counters),
            progress: Arc::clone(&self.progress),
            notices: self.notices.0.clone(),
            stop: self.stop.clone(),
        }
    }

    /// Runs until the stop is requested or the source ends, and returns the summary of the run.
    pub fn run(self, source: Box<dyn Source>) -> LiveSummary {
        let Self {
            config,
            computer,
            rules,
            rule_files,
            counters,
            progress,
            hits,
            stop,
            notices,
            format,
            out,
            store,
            sender,
            metrics,
        } = self;
        let name = source.name();
        let mut sources = [source];
        let settings = Settings {
            threads: config.pipeline.matcher_threads(),
            channel_events: config.pipeline.queue_events,
            channel_bytes: config.pipeline.queue_bytes,
            when_full: WhenFull::Drop,
            warning_reserve: config.pipeline.warning_reserve_percent,
            shard: Shard::Writer,
            search: Search::of(&config.search.scopes, &config.search.views),
        };
        let mut writer = HitWriter {
            name,
            computer,
            format,
            out: BufWriter::new(out),
            unflushed: false,
            store,
            sender,
            pending: Vec::new(),
            store_failed: None,
            notices: notices.1,
            counts: &hits,
            counters: &counters,
            stop: &stop,
            gaps: 0,
            reported: Instant::now(),
            report_every: Duration::from_secs(config.guardian.report_every_seconds),
        };
        if let Err(error) = writer.format.header(&mut writer.out) {
            tracing::error!("cannot write the output: {error}");
        }
        let ended = stop.child();
        let summary = thread::scope(|scope| {
            if config.reload.check_seconds > 0 && !config.rules.is_empty() {
                scope.spawn(|| reload(&config, rule_files, &rules, &counters, &stop, &ended));
            }
            let summary = pipeline::run(&mut sources, &rules, &settings, &stop, &progress, &mut writer);
            ended.request();
            summary
        });
        writer.take_notices();
        writer.finish();
        let collector = writer.sender.take().map(|sender| {
            let start = Instant::now();
            sender.wait_sent(SEND_PATIENCE, || start.elapsed() >= SEND_PATIENCE);
            sender.finish()
        });
        if let Some(counts) = &collector {
            tracing::info!("{}", delivery::summary_line(counts));
        }
        drop(metrics);
        LiveSummary::new(summary, &counters, &hits, collector.as_ref())
    }
}

/// Returns whether a file starts like JSON Lines.
fn is_json(head: &[u8]) -> bool {
    head.starts_with(b"{\"")
}

/// Returns whether a file starts like a table, with or without colours.
fn is_table(head: &[u8]) -> bool {
    head.starts_with(b"TIME ") || head.starts_with(b"\x1b[1mTIME ")
}

/// Replaces the rules when their files have changed, until the run has `ended`. Wakes the threads that wait for `stop`,
/// so that the source requests the events of the new rules.
fn reload(
    config: &Config,
    mut rule_files: RuleFiles,
    rules: &ActiveRules,
    counters: &SessionCounters,
    stop: &Stop,
    ended: &Stop,
) {
    let every = Duration::from_secs(config.reload.check_seconds);
    while !ended.wait(every) {
        if !rule_files.changed() {
            continue;
        }
        match rule_files::reload(&config.rules, config.allow_bad_rules) {
            Ok(reloaded) => {
                let count = reloaded.loaded.rules.len();
                let rejected = reloaded.loaded.refused + reloaded.unreadable.len();
                let other_log_sources = reloaded.loaded.other_log_sources;
                let kernel = rules.current().0.kernel();
                rules.replace(Matcher::with_kernel(reloaded.loaded.rules, kernel));
                stop.wake();
                counters.reloads.fetch_add(1, Ordering::Relaxed);
                tracing::info!(rules = count, rejected, other_log_sources, "rules reloaded");
            }
            Err(error) => {
                counters.reload_failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!("the changed rules were rejected, the previous rules stay active: {error}");
            }
        }
    }
}
