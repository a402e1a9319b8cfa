//! `etwsieve replay`: recorded traces through the pipeline, hits to standard output and the store.

use super::files::{Files, prepare_summary, write_summary};
use super::{Exit, ReplayArgs, after_writing, complain, rules, stop_on_signal};
use crate::cli::terminal::Terminal;
use crate::delivery::{self, CollectorSettings, Role};
use crate::input::{FileSource, Found, Skipped, find};
use crate::ledger::{LossLedger, Summary};
use crate::output::Format;
use crate::pipeline::{self, Observer, Progress, Settings};
use crate::rules::ActiveRules;
use crate::search::Search;
use crate::sorter::Sorter;
use crate::source::{Source, SourceError};
use crate::stop::Stop;
use etwsieve_transport::files::position_of_stdout;
use etwsieve_transport::hit::HitV1;
use etwsieve_transport::printable;
use etwsieve_transport::sender::{HitSender, SenderCounts};
use etwsieve_transport::store::{Store, StoreError};
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Skipped files that are named on standard error.
const SKIPPED_SHOWN_MAX: usize = 5;
/// Bytes of hits written at a time.
const OUTPUT_BUFFER_LEN: usize = 64 << 10;
/// Hits stored in one transaction.
const STORE_BATCH: usize = 256;

pub(super) fn run(args: &ReplayArgs, terminal: &Terminal) -> Exit {
    let rules = match rules::load(&args.rules) {
        Ok(matcher) => ActiveRules::new(matcher).with_amsi(args.amsi),
        Err(exit) => return exit,
    };
    let Found { mut files, errors: unreadable, skipped } = find(&args.paths);
    for error in &unreadable {
        complain(error);
    }
    tell_skipped(&skipped);
    leave_out_stdout(&mut files);
    let mut settings = CollectorSettings::default();
    args.collector.apply(&mut settings);
    let spool = settings.is_set().then(|| settings.spool_path(Role::Replay, args.store.as_deref())).flatten();
    let checked = Files {
        inputs: &files,
        rules: &args.rules.rules,
        store: args.store.as_deref(),
        collector: Some(&settings),
        spool: spool.as_deref(),
        summary: args.summary.as_deref(),
        ..Files::default()
    }
    .check();
    let report = match checked.and_then(|()| prepare_summary(args.summary.as_deref())) {
        Ok(report) => report,
        Err(exit) => return exit,
    };
    // Before the work, so that an unusable store costs nobody an hour.
    let store = match args.store.as_ref().map(Store::open).transpose() {
        Ok(store) => store,
        Err(error) => {
            complain(error);
            return Exit::Usage;
        }
    };
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

    let source = |path| Box::new(FileSource::new(path).until(stop.clone())) as Box<dyn Source>;
    let mut sources: Vec<Box<dyn Source>> = files.into_iter().map(source).collect();
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
    let written = format.stdout_until(&stop).and_then(|out| writer.write(collector.sorter, out));
    tell(&summary, &skipped, &writer, args);
    let (sent, exit) = writer.sender.take().map_or((None, exit), |sender| {
        let (counts, exit) = deliver(sender, Duration::from_secs(args.collector_wait), &stop, exit);
        (Some(counts), exit)
    });
    if let Some(error) = writer.failed {
        complain(error);
        return Exit::Usage;
    }
    if let Some(report) = report
        && let Err(exit) =
            write_summary(report, &ReplaySummary::new(&summary, &skipped, sent.as_ref()), &stop)
    {
        return exit;
    }
    after_writing(written, exit)
}

/// The counts of a run, and what became of its hits on their way to the collector.
#[derive(Serialize)]
struct ReplaySummary<'a> {
    #[serde(flatten)]
    run: &'a Summary,
    /// What was left out of folders: it may hold events, but was not read.
    skipped: &'a Skipped,
    #[serde(skip_serializing_if = "Option::is_none")]
    collector: Option<Map<String, Value>>,
}

impl<'a> ReplaySummary<'a> {
    fn new(run: &'a Summary, skipped: &'a Skipped, sent: Option<&SenderCounts>) -> Self {
        Self { run, skipped, collector: sent.map(delivery::summary) }
    }
}

/// Waits until everything is acknowledged, or there is no hope, and tells what is left.
fn deliver(sender: HitSender, patience: Duration, stop: &Stop, exit: Exit) -> (SenderCounts, Exit) {
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
    sender: Option<HitSender>,
    batch: Vec<HitV1>,
    stored: u64,
    failed: Option<StoreError>,
}

impl Writer {
    fn write(&mut self, hits: Sorter, out: Box<dyn Write + Send>) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(OUTPUT_BUFFER_LEN, out);
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

/// Leaves out the file that the shell has just made for standard output, as in `replay . > hits.jsonl`.
fn leave_out_stdout(files: &mut Vec<PathBuf>) {
    let is_empty = |path: &PathBuf| path.metadata().is_ok_and(|metadata| metadata.len() == 0);
    // As the only input it is a mistake, and refused later.
    if let Some(place) = position_of_stdout(files).filter(|_| files.len() > 1)
        && is_empty(&files[place])
    {
        let path = files.remove(place);
        tracing::info!("{} is standard output, and not read", path.display());
    }
}

/// Says what of the folders is not read.
fn tell_skipped(skipped: &Skipped) {
    if skipped.is_empty() {
        return;
    }
    let mut line = String::new();
    if skipped.packed_files > 0 {
        let _ = write!(
            line,
            "{} archives or compressed files are not read; unpack them first",
            skipped.packed_files
        );
    }
    if skipped.linked_folders > 0 {
        let and = if line.is_empty() { "" } else { "; " };
        let count = skipped.linked_folders;
        let _ = write!(line, "{and}{count} links to folders are not followed; name the folders themselves");
    }
    let named = skipped.paths.len().min(SKIPPED_SHOWN_MAX);
    let more = if skipped.paths.len() > named { ", …" } else { "" };
    tracing::warn!("{line}: {}{more}", skipped.paths[..named].join(", "));
}

/// Tells people how the run went: always after a stop, otherwise on a terminal or when asked for diagnostics.
fn tell(summary: &Summary, skipped: &Skipped, writer: &Writer, args: &ReplayArgs) {
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
    if let Some(lost) = total.lost.filter(LossLedger::is_any) {
        let _ = write!(line, "; {lost}");
    }
    if !skipped.is_empty() {
        let _ = write!(line, "; {} skipped", skipped.packed_files + skipped.linked_folders);
    }
    if let Some(path) = &args.store {
        let _ = write!(line, "; {} new in {}", writer.stored, printable::path(path));
    }
    if summary.interrupted || io::stderr().is_terminal() {
        anstream::eprintln!("{line}");
    } else {
        tracing::info!("{line}");
    }
}
