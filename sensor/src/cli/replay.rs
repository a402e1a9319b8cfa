//! `etwsieve replay`: recorded traces through the pipeline, hits to standard output and the store.

use super::{Exit, ReplayArgs, after_writing, complain, rules};
use crate::cli::terminal::Terminal;
use crate::delivery::{self, CollectorSettings, Role};
use crate::input::{FileSource, traces};
use crate::ledger::Summary;
use crate::output::Format;
use crate::pipeline::{self, Observer, Progress, Settings};
use crate::rules::ActiveRules;
use crate::search::Search;
use crate::sorter::Sorter;
use crate::source::{Source, SourceError};
use crate::stop::Stop;
use etwsieve_transport::hit::HitV1;
use etwsieve_transport::sender::{Sender, SenderCounts};
use etwsieve_transport::store::{Store, StoreError};
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

/// Hits stored in one transaction.
const STORE_BATCH: usize = 256;

pub(super) fn run(args: &ReplayArgs, terminal: &Terminal) -> Exit {
    let rules = match rules::load(&args.rules) {
        Ok(matcher) => ActiveRules::new(matcher).with_amsi(args.amsi),
        Err(exit) => return exit,
    };
    let (files, unreadable) = traces(&args.paths);
    for error in &unreadable {
        complain(error);
    }
    // Before the work, so that an unusable store costs nobody an hour.
    let store = match args.store.as_ref().map(Store::open).transpose() {
        Ok(store) => store,
        Err(error) => {
            complain(error);
            return Exit::Usage;
        }
    };
    let mut settings = CollectorSettings::default();
    args.collector.apply(&mut settings);
    let computer = delivery::computer_name();
    let started = settings.start(Role::Replay, args.store.as_deref(), &computer, Box::new(Vec::new));
    let sender = match started {
        Ok(sender) => sender,
        Err(error) => {
            complain(error);
            return Exit::Usage;
        }
    };
    let stop = Stop::default();
    stop_on_signal(&stop);

    let mut sources: Vec<Box<dyn Source>> =
        files.into_iter().map(|path| Box::new(FileSource::new(path)) as Box<dyn Source>).collect();
    let mut settings = Settings { search: Search::of(&args.scope, &args.view), ..Settings::default() };
    if let Some(threads) = args.threads {
        settings.threads = usize::from(threads);
    }
    terminal.start_progress(sources.iter().map(|source| source.len()).sum());
    let mut collector = Collector { sorter: Sorter::default(), hits: 0, failed: None, terminal, stop: &stop };
    let progress = Progress::new(sources.len());
    let mut summary = pipeline::run(&mut sources, &rules, &settings, &stop, &progress, &mut collector);
    terminal.end_progress();
    if !unreadable.is_empty() {
        *summary.total.damaged.entry("unreadable").or_default() += unreadable.len() as u64;
    }
    let exit = match (summary.interrupted, summary.total.is_undamaged()) {
        (true, _) => Exit::Interrupted,
        (false, true) => Exit::Complete,
        (false, false) => Exit::Damaged,
    };
    if let Some(error) = collector.failed {
        complain(format_args!("cannot keep the hits in order: {error}"));
        return Exit::Usage;
    }
    let format = args.format.unwrap_or_else(Format::for_stdout);
    let mut writer = Writer { format, store, sender, batch: Vec::new(), stored: 0, failed: None };
    let written = writer.write(collector.sorter);
    tell(&summary, &writer, args);
    let (sent, exit) = writer.sender.take().map_or((None, exit), |sender| {
        let (counts, exit) = deliver(sender, Duration::from_secs(args.collector_wait), &stop, exit);
        (Some(counts), exit)
    });
    if let Some(error) = writer.failed {
        complain(error);
        return Exit::Usage;
    }
    if let Some(path) = &args.summary
        && let Err(error) = write_summary(path, &ReplaySummary::new(&summary, sent.as_ref()))
    {
        complain(format_args!("cannot write the summary to {}: {error}", path.display()));
        return Exit::Usage;
    }
    after_writing(written, exit)
}

/// The counts of a run, and what became of its hits on their way to the collector.
#[derive(Serialize)]
struct ReplaySummary<'a> {
    #[serde(flatten)]
    run: &'a Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    collector: Option<Map<String, Value>>,
}

impl<'a> ReplaySummary<'a> {
    fn new(run: &'a Summary, sent: Option<&SenderCounts>) -> Self {
        Self { run, collector: sent.map(delivery::summary) }
    }
}

/// Waits until everything is acknowledged, or there is no hope, and tells what is left.
fn deliver(sender: Sender, patience: Duration, stop: &Stop, exit: Exit) -> (SenderCounts, Exit) {
    let is_sent = sender.wait_sent(patience, || stop.requested());
    let counts = sender.finish();
    let line = delivery::line(&counts);
    if is_sent {
        tracing::info!("{line}");
        return (counts, exit);
    }
    if stop.requested() {
        complain(format_args!("stopped; {line}; a later run sends the rest"));
        return (counts, Exit::Interrupted);
    }
    complain(format_args!(
        "nothing was acknowledged for {} s; {line}; a later run sends the rest",
        patience.as_secs()
    ));
    (counts, if exit == Exit::Complete { Exit::Damaged } else { exit })
}

/// The first signal asks for a clean stop; the second ends the process at once.
pub(super) fn stop_on_signal(stop: &Stop) {
    let stop = stop.clone();
    let result = ctrlc::set_handler(move || {
        if stop.requested() {
            std::process::exit(130);
        }
        stop.request();
    });
    if let Err(error) = result {
        tracing::warn!("Ctrl-C will end the replay without a summary: {error}");
    }
}

/// Takes the hits of a run.
struct Collector<'a> {
    sorter: Sorter,
    hits: u64,
    failed: Option<io::Error>,
    terminal: &'a Terminal,
    stop: &'a Stop,
}

impl Observer for Collector<'_> {
    fn hit(&mut self, source: u32, hit: HitV1) {
        self.hits += 1;
        if self.failed.is_none()
            && let Err(error) = self.sorter.push(source, hit)
        {
            // Going on would lose hits silently.
            self.failed = Some(error);
            self.stop.request();
        }
    }

    fn tick(&mut self, progress: &Progress) {
        self.terminal.show(progress, self.hits);
    }

    fn failed(&mut self, _source: u32, error: &SourceError) {
        tracing::error!("{error}");
    }
}

/// Writes sorted hits to standard output, to the store and to the spool.
struct Writer {
    format: Format,
    store: Option<Store>,
    sender: Option<Sender>,
    batch: Vec<HitV1>,
    stored: u64,
    failed: Option<StoreError>,
}

impl Writer {
    fn write(&mut self, hits: Sorter) -> io::Result<()> {
        let mut out = BufWriter::new(self.format.stdout());
        self.format.header(&mut out)?;
        let mut gone = None;
        hits.drain(|_, hit| {
            // A reader of the output that has gone away does not keep the store from its hits.
            if gone.is_none()
                && let Err(error) = self.format.write(&hit, &mut out)
            {
                gone = Some(error);
            }
            if let Some(sender) = &self.sender {
                sender.send(&hit, || false);
            }
            if self.store.is_some() {
                self.batch.push(hit);
                if self.batch.len() == STORE_BATCH {
                    self.flush_store();
                }
            }
            Ok(())
        })?;
        self.flush_store();
        gone.map_or_else(|| out.flush(), Err)
    }

    fn flush_store(&mut self) {
        let Some(store) = &mut self.store else { return };
        if self.failed.is_none() && !self.batch.is_empty() {
            match store.insert_batch(&self.batch) {
                Ok(inserted) => self.stored += inserted.hits,
                Err(error) => self.failed = Some(error),
            }
        }
        self.batch.clear();
    }
}

pub(super) fn write_summary(path: &Path, summary: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(summary)?;
    text.push('\n');
    fs::write(path, text)
}

/// Tells people how the run went: always after a stop, otherwise on a terminal or when asked for diagnostics.
fn tell(summary: &Summary, writer: &Writer, args: &ReplayArgs) {
    let total = &summary.total;
    let dropped: u64 = total.dropped.values().sum();
    let damaged: u64 = total.damaged.values().sum();
    let mut line = format!(
        "{} {} files: {} events seen, {} searched, {} with hits, {} detections, {} in other views ({} cut short), {} of joined blocks, {dropped} dropped, {damaged} damaged parts, {:.2} s",
        if summary.interrupted { "stopped within" } else { "read" },
        summary.sources.len(),
        total.events_seen,
        total.events_selected - dropped,
        total.events_matched,
        total.detections,
        total.view_detections,
        total.views_cut,
        total.blocks.detections,
        total.elapsed_seconds,
    );
    if let Some(amsi) = &total.amsi {
        let _ = write!(line, "; of AMSI {} seen, {} with hits", amsi.events_seen, amsi.events_matched);
    }
    if let Some(path) = &args.store {
        let _ = write!(line, "; {} new in {}", writer.stored, path.display());
    }
    if summary.interrupted || io::stderr().is_terminal() {
        anstream::eprintln!("{line}");
    } else {
        tracing::info!("{line}");
    }
}
