//! A live run: the source through the pipeline, hits written and stored as they come, rules exchanged when their
//! files change, losses told every so often.
//!
//! Nothing here knows Windows; the source is handed in.

mod writer;

use super::config::Config;
use super::counters::SessionCounters;
use super::notice::Notice;
use super::report::{self, HitCounts, LiveSummary};
use super::rule_folder::{self, RuleFolder};
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
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use writer::Writer;

/// Notices that wait to be written; more are only logged.
const NOTICES_MAX: usize = 64;
/// How long the end of a run waits for the collector; what is left stays in the spool.
const SEND_PATIENCE: Duration = Duration::from_secs(2);
/// How often a waiting thread looks whether the run has ended.
const TICK: Duration = Duration::from_millis(50);

/// Why a live run cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The output cannot be opened, or is a file of something else.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Hits cannot be sent.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    /// The address of the metrics cannot be had.
    #[error("cannot serve metrics on {addr}: {source}")]
    Metrics {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// A run that is ready to begin: outputs are open, no session has been started yet.
pub struct Watch {
    config: Config,
    computer: String,
    rules: Arc<ActiveRules>,
    folder: RuleFolder,
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

/// What a source shares with its run.
#[derive(Clone)]
pub struct Shared {
    /// The rules; they decide which events are wanted.
    pub rules: Arc<ActiveRules>,
    /// Where losses and restarts are counted.
    pub counters: Arc<SessionCounters>,
    /// The counts of the pipeline.
    pub progress: Arc<Progress>,
    /// Takes notices. Never wait for it.
    pub notices: Sender<Notice>,
    /// Ends the run.
    pub stop: Stop,
}

impl Watch {
    /// Opens everything that hits and counts go to. `computer` is the name that hits bear; `folder` has looked at
    /// the rule files before `matcher` was made of them, so that no change is missed.
    ///
    /// # Errors
    ///
    /// [`WatchError`].
    pub fn new(
        config: Config,
        format: Format,
        computer: String,
        matcher: Matcher,
        folder: RuleFolder,
        stop: Stop,
    ) -> Result<Self, WatchError> {
        let out: Box<dyn Write + Send> = match &config.output.file {
            None => format.stdout(),
            Some(path) => {
                let expected = "a file of hits in this form, to which hits can be appended";
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
            folder,
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
        watch.deliver()?;
        if let Some(addr) = watch.config.metrics.listen {
            watch.serve(addr)?;
        }
        Ok(watch)
    }

    fn deliver(&mut self) -> Result<(), DeliveryError> {
        let (progress, counters) = (Arc::clone(&self.progress), Arc::clone(&self.counters));
        let rules = Arc::clone(&self.rules);
        let ledger = move || report::status_counts(&progress, &counters, rules.current().0.rules().len());
        let store = self.config.output.store.as_deref();
        self.sender = self.config.collector.start(Role::Watch, store, &self.computer, Box::new(ledger))?;
        Ok(())
    }

    fn serve(&mut self, addr: SocketAddr) -> Result<(), WatchError> {
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
        tracing::info!("metrics on http://{}/metrics", server.local_addr());
        self.metrics = Some(server);
        Ok(())
    }

    /// What the source needs.
    pub fn shared(&self) -> Shared {
        Shared {
            rules: Arc::clone(&self.rules),
            counters: Arc::clone(&self.counters),
            progress: Arc::clone(&self.progress),
            notices: self.notices.0.clone(),
            stop: self.stop.clone(),
        }
    }

    /// Runs until the stop is requested or the source ends, and returns the summary of it all.
    pub fn run(self, source: Box<dyn Source>) -> LiveSummary {
        let Self {
            config,
            computer,
            rules,
            folder,
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
        let mut writer = Writer {
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
        let ended = AtomicBool::new(false);
        let summary = thread::scope(|scope| {
            if config.reload.check_seconds > 0 && !config.rules.is_empty() {
                scope.spawn(|| reload(&config, folder, &rules, &counters, &ended));
            }
            let summary = pipeline::run(&mut sources, &rules, &settings, &stop, &progress, &mut writer);
            ended.store(true, Ordering::Release);
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
            tracing::info!("{}", delivery::line(counts));
        }
        drop(metrics);
        LiveSummary::new(summary, &counters, &hits, collector.as_ref())
    }
}

/// Whether a file begins as lines of JSON do.
fn is_json(head: &[u8]) -> bool {
    head.starts_with(b"{\"")
}

/// Whether a file begins as a table does, with or without colours.
fn is_table(head: &[u8]) -> bool {
    head.starts_with(b"TIME ") || head.starts_with(b"\x1b[1mTIME ")
}

/// Exchanges the rules when their files have changed, until the run has ended.
fn reload(
    config: &Config,
    mut folder: RuleFolder,
    rules: &ActiveRules,
    counters: &SessionCounters,
    ended: &AtomicBool,
) {
    let every = Duration::from_secs(config.reload.check_seconds);
    let mut looked = Instant::now();
    while !ended.load(Ordering::Acquire) {
        thread::sleep(TICK);
        if looked.elapsed() < every {
            continue;
        }
        looked = Instant::now();
        if !folder.changed() {
            continue;
        }
        match rule_folder::reload(&config.rules, config.allow_bad_rules) {
            Ok(reloaded) => {
                let count = reloaded.loaded.rules.len();
                let left_out = reloaded.loaded.refused + reloaded.unreadable.len();
                let other_log_sources = reloaded.loaded.other_log_sources;
                let kernel = rules.current().0.kernel();
                rules.replace(Matcher::with_kernel(reloaded.loaded.rules, kernel));
                counters.reloads.fetch_add(1, Ordering::Relaxed);
                tracing::info!(rules = count, left_out, other_log_sources, "rules loaded again");
            }
            Err(error) => {
                counters.reload_failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!("the changed rules are refused, the old ones stay active: {error}");
            }
        }
    }
}
