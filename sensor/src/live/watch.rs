//! A live run: the source through the pipeline, hits written and stored as they come, rules exchanged when their
//! files change, losses told every so often.
//!
//! Nothing here knows Windows; the source is handed in.

use super::config::Config;
use super::counters::SessionCounters;
use super::notice::Notice;
use super::report::{self, EtwLosses, HitCounts, LiveSummary};
use super::rule_folder::{self, RuleFolder};
use crate::delivery::{self, DeliveryError, Role};
use crate::output::Format;
use crate::pipeline::{self, Gap, Observer, Progress, Settings, Shard, WhenFull};
use crate::rules::ActiveRules;
use crate::search::Search;
use crate::source::{Source, SourceError};
use crate::stop::Stop;
use crossbeam_channel::{Receiver, Sender, bounded};
use etwsieve_matcher::Matcher;
use etwsieve_transport::hit::HitV1;
use etwsieve_transport::metrics::Server;
use etwsieve_transport::sender::Sender as HitSender;
use etwsieve_transport::store::{Store, StoreError};
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Notices that wait to be written; more are only logged.
const NOTICES_MAX: usize = 64;
/// Hits that wait for the database; more than this, and the oldest are given up.
const STORE_PENDING_MAX: usize = 4096;
/// Hits stored in one transaction.
const STORE_BATCH: usize = 256;
/// How long a database that failed is left alone.
const STORE_RETRY: Duration = Duration::from_secs(5);
/// How long the end of a run waits for the collector; what is left stays in the spool.
const SEND_PATIENCE: Duration = Duration::from_secs(2);
/// How often a waiting thread looks whether the run has ended.
const TICK: Duration = Duration::from_millis(50);

/// Why a live run cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The output cannot be opened.
    #[error("cannot append to {}: {source}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
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
                let file = OpenOptions::new().create(true).append(true).open(path);
                Box::new(file.map_err(|source| WatchError::Output { path: path.clone(), source })?)
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
                let left_out = reloaded.loaded.errors.len() + reloaded.unreadable.len();
                let kernel = rules.current().0.kernel();
                rules.replace(Matcher::with_kernel(reloaded.loaded.rules, kernel));
                counters.reloads.fetch_add(1, Ordering::Relaxed);
                tracing::info!(rules = count, left_out, "rules loaded again");
            }
            Err(error) => {
                counters.reload_failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!("the changed rules are refused, the old ones stay active: {error}");
            }
        }
    }
}

/// Takes hits and notices as they come.
struct Writer<'a> {
    name: String,
    computer: String,
    format: Format,
    out: BufWriter<Box<dyn Write + Send>>,
    unflushed: bool,
    store: Option<Store>,
    sender: Option<HitSender>,
    /// Hits for the database.
    pending: Vec<HitV1>,
    /// When the database last failed.
    store_failed: Option<Instant>,
    notices: Receiver<Notice>,
    counts: &'a HitCounts,
    counters: &'a SessionCounters,
    stop: &'a Stop,
    /// Events dropped in the gaps since the last report.
    gaps: u64,
    reported: Instant,
    report_every: Duration,
}

impl Writer<'_> {
    fn take(&mut self, mut hit: HitV1) {
        if hit.computer.is_none() && !self.computer.is_empty() {
            hit.computer = Some(self.computer.clone());
        }
        match self.format.write(&hit, &mut self.out) {
            Ok(()) => {
                self.unflushed = true;
                self.counts.written.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => self.output_failed(&error),
        }
        if let Some(sender) = &self.sender {
            sender.offer(&hit);
        }
        if self.store.is_some() {
            self.pending.push(hit);
            if self.pending.len() >= STORE_BATCH {
                self.flush_store();
            }
        }
    }

    fn output_failed(&mut self, error: &io::Error) {
        if self.store.is_none() && self.sender.is_none() {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
            // Nobody would ever see a hit.
            if !self.stop.requested() {
                tracing::error!("cannot write the output, the sensor stops: {error}");
            }
            self.stop.request();
        }
    }

    fn take_notices(&mut self) {
        while let Ok(notice) = self.notices.try_recv() {
            let number = self.counts.notices.fetch_add(1, Ordering::Relaxed);
            let hit = notice.into_hit(&self.name, &self.computer, number);
            self.take(hit);
        }
    }

    fn flush_store(&mut self) {
        let Some(store) = &mut self.store else { return };
        if self.pending.is_empty() || self.store_failed.is_some_and(|at| at.elapsed() < STORE_RETRY) {
            self.limit_pending();
            return;
        }
        match store.insert_batch(&self.pending) {
            Ok(_) => {
                self.counts.stored.fetch_add(self.pending.len() as u64, Ordering::Relaxed);
                self.pending.clear();
                self.store_failed = None;
            }
            Err(error) => {
                tracing::error!(waiting = self.pending.len(), "cannot store hits, trying again: {error}");
                self.store_failed = Some(Instant::now());
                self.limit_pending();
            }
        }
    }

    fn limit_pending(&mut self) {
        let over = self.pending.len().saturating_sub(STORE_PENDING_MAX);
        if over > 0 {
            self.counts.lost.fetch_add(over as u64, Ordering::Relaxed);
            self.pending.drain(..over);
        }
    }

    fn flush(&mut self) {
        if std::mem::take(&mut self.unflushed)
            && let Err(error) = self.out.flush()
        {
            self.output_failed(&error);
        }
        self.flush_store();
    }

    fn finish(&mut self) {
        self.store_failed = None;
        self.flush();
        if !self.pending.is_empty() {
            self.counts.lost.fetch_add(self.pending.len() as u64, Ordering::Relaxed);
        }
    }
}

impl Observer for Writer<'_> {
    fn hit(&mut self, _source: u32, hit: HitV1) {
        self.take(hit);
    }

    fn gap(&mut self, _source: u32, gap: Gap) {
        self.gaps += gap.events;
        tracing::debug!(until = %gap.until, before = gap.before_sequence, events = gap.events, "gap");
    }

    fn tick(&mut self, progress: &Progress) {
        self.take_notices();
        self.flush();
        if self.reported.elapsed() >= self.report_every {
            self.reported = Instant::now();
            let line = report::line(&report::ledger(progress), &EtwLosses::read(self.counters));
            if std::mem::take(&mut self.gaps) > 0 {
                tracing::warn!("{line}");
            } else {
                tracing::info!("{line}");
            }
        }
    }

    fn failed(&mut self, _source: u32, error: &SourceError) {
        tracing::error!("{error}");
    }
}
