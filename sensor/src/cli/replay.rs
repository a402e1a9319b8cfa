//! `etwsieve replay`: searches recorded traces and writes the hits to standard output, the store and the spool.

use super::files::{Files, prepare_summary, write_summary};
use super::options::{CollectorArgs, RuleArgs};
use super::terminal::Terminal;
use super::{Exit, after_writing, print_error, rules, stop_on_signal, usage_error};
use crate::delivery::{self, CollectorSettings, Role};
use crate::input::{FileSource, Found, Skipped, find};
use crate::ledger::{LossLedger, Summary};
use crate::output::Format;
use crate::pipeline::{self, Observer, Progress, Settings};
use crate::rules::ActiveRules;
use crate::search::{ScopeChoice, Search, ViewChoice};
use crate::sorter::Sorter;
use crate::source::{Source, SourceError};
use crate::stop::Stop;
use clap::Args;
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

/// Maximum number of skipped files that are named on standard error.
const SKIPPED_SHOWN_MAX: usize = 5;
/// Size of the output buffer in bytes.
const OUTPUT_BUFFER_LEN: usize = 64 << 10;
/// Hits stored in one transaction.
const STORE_BATCH: usize = 256;

/// Search recorded traces (.etl, .evtx, .jsonl) and print the detections.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etwsieve replay trace.etl                        the built-in rule on one trace
  etwsieve replay --rules sigma/rules C:\\case\\logs  all rules of a folder on all traces of another folder
  etwsieve replay --store hits.db --summary run.json --format ecs logs/ > hits.jsonl
  zstd -dc trace.etl.zst | etwsieve replay -
A path that does not exist is a pattern if it contains *, ? or [...]: `logs\\*.evtx`, `case/**/*.etl` (** matches any number
of folders). A file with exactly that name takes precedence; [*] matches the character itself. Archives and compressed files
in folders are not read; they are reported, and counted in the summary.")]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    rules: RuleArgs,
    /// Match rules against single events, script blocks joined from several events, or both.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SCOPE,…", default_values_t = ScopeChoice::ALL)]
    scope: Vec<ScopeChoice>,
    /// Forms of the text to search.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "VIEW,…", default_values_t = ViewChoice::ALL)]
    view: Vec<ViewChoice>,
    /// Output format of detections [default: table on a terminal, jsonl otherwise].
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Also store hits in this SQLite database; it is created if it does not exist, and existing hits are not
    /// duplicated.
    #[arg(long, value_name = "DB")]
    store: Option<PathBuf>,
    #[command(flatten)]
    collector: CollectorArgs,
    /// With --collector: exit with code 1 if nothing has been acknowledged for this long; a later run sends the rest.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    collector_wait: u64,
    /// Write the counts of the run to this file, as one JSON object; - for standard output. Overwrites only an earlier
    /// summary.
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// Number of matcher threads [default: one per processor]. Does not change the output.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: Option<u16>,
    /// Also search content that PowerShell passes to the antimalware scanner (AMSI, event 1101), with the same rules.
    #[arg(long)]
    amsi: bool,
    /// Traces, folders that are searched for .etl, .evtx and .jsonl files, pipes, or - for standard input.
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
}

pub(super) fn run(args: &ReplayArgs, terminal: &Terminal) -> Exit {
    let rules = match rules::load(&args.rules) {
        Ok(matcher) => ActiveRules::new(matcher).with_amsi(args.amsi),
        Err(exit) => return exit,
    };
    let Found { mut files, errors: unreadable, skipped } = find(&args.paths);
    unreadable.iter().for_each(print_error);
    warn_of_skipped(&skipped);
    omit_stdout(&mut files);
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
    // Opened before the run, so that an unusable store does not waste its time.
    let store = match args.store.as_ref().map(Store::open).transpose() {
        Ok(store) => store,
        Err(error) => return usage_error(error),
    };
    let computer = delivery::computer_name();
    let started = settings.start(Role::Replay, args.store.as_deref(), &computer, Box::new(Vec::new));
    let sender = match started {
        Ok(sender) => sender,
        Err(error) => return usage_error(error),
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
    let mut observer =
        HitCollector { sorter: Sorter::default(), hits: 0, failed: None, terminal, stop: &stop };
    let progress = Progress::new(sources.len());
    let mut summary = pipeline::run(&mut sources, &rules, &settings, &stop, &progress, &mut observer);
    terminal.end_progress();
    if !unreadable.is_empty() {
        *summary.total.damaged.entry("unreadable").or_default() += unreadable.len() as u64;
    }
    let exit = match (summary.interrupted, summary.total.is_undamaged()) {
        (true, _) => Exit::Interrupted,
        (false, true) => Exit::Complete,
        (false, false) => Exit::Damaged,
    };
    if let Some(error) = observer.failed {
        return usage_error(format_args!("cannot sort the hits in temporary files: {error}"));
    }
    let format = args.format.unwrap_or_else(Format::for_stdout);
    let mut writer = ReplayOutput { format, store, sender, batch: Vec::new(), stored: 0, failed: None };
    let written = format.stdout_until(&stop).and_then(|out| writer.write(observer.sorter, out));
    print_summary(&summary, &skipped, &writer, args);
    let (sent, exit) = writer.sender.take().map_or((None, exit), |sender| {
        let (counts, exit) = deliver(sender, Duration::from_secs(args.collector_wait), &stop, exit);
        (Some(counts), exit)
    });
    if let Some(error) = writer.failed {
        return usage_error(error);
    }
    if let Some(report) = report
        && let Err(exit) =
            write_summary(report, &ReplaySummary::new(&summary, &skipped, sent.as_ref()), &stop)
    {
        return exit;
    }
    after_writing(written, exit)
}

/// The counts of a run and of the hits sent to the collector.
#[derive(Serialize)]
struct ReplaySummary<'a> {
    #[serde(flatten)]
    run: &'a Summary,
    /// Files in folders that may contain events but were not read.
    skipped: &'a Skipped,
    #[serde(skip_serializing_if = "Option::is_none")]
    collector: Option<Map<String, Value>>,
}

impl<'a> ReplaySummary<'a> {
    fn new(run: &'a Summary, skipped: &'a Skipped, sent: Option<&SenderCounts>) -> Self {
        Self { run, skipped, collector: sent.map(delivery::named_counts) }
    }
}

/// Waits until all hits are acknowledged or `patience` has passed without progress, and reports the rest.
fn deliver(sender: HitSender, patience: Duration, stop: &Stop, exit: Exit) -> (SenderCounts, Exit) {
    let is_sent = sender.wait_sent(patience, || stop.requested());
    let counts = sender.finish();
    let line = delivery::summary_line(&counts);
    if is_sent {
        tracing::info!("{line}");
        return (counts, exit);
    }
    if stop.requested() {
        print_error(format_args!("stopped; {line}; a later run sends the rest"));
        return (counts, Exit::Interrupted);
    }
    print_error(format_args!(
        "no acknowledgement for {} s; {line}; a later run sends the rest",
        patience.as_secs()
    ));
    (counts, if exit == Exit::Complete { Exit::Damaged } else { exit })
}

/// Collects and sorts the hits of a run.
struct HitCollector<'a> {
    sorter: Sorter,
    hits: u64,
    failed: Option<io::Error>,
    terminal: &'a Terminal,
    stop: &'a Stop,
}

impl Observer for HitCollector<'_> {
    fn hit(&mut self, source: u32, hit: HitV1) {
        self.hits += 1;
        if self.failed.is_none()
            && let Err(error) = self.sorter.push(source, hit)
        {
            // Without the temporary file, hits would be lost silently.
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
struct ReplayOutput {
    format: Format,
    store: Option<Store>,
    sender: Option<HitSender>,
    batch: Vec<HitV1>,
    stored: u64,
    failed: Option<StoreError>,
}

impl ReplayOutput {
    fn write(&mut self, hits: Sorter, out: Box<dyn Write + Send>) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(OUTPUT_BUFFER_LEN, out);
        self.format.header(&mut out)?;
        let mut gone = None;
        hits.drain(|_, hit| {
            // The store receives its hits even if the reader of standard output has gone.
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

/// Removes the file that the shell has just created for standard output, as in `replay . > hits.jsonl`.
fn omit_stdout(files: &mut Vec<PathBuf>) {
    let is_empty = |path: &PathBuf| path.metadata().is_ok_and(|metadata| metadata.len() == 0);
    // If it is the only input, the command is wrong and fails later.
    if let Some(place) = position_of_stdout(files).filter(|_| files.len() > 1)
        && is_empty(&files[place])
    {
        let path = files.remove(place);
        tracing::info!("not reading {}, which is standard output", path.display());
    }
}

/// Warns of files in folders that are not read.
fn warn_of_skipped(skipped: &Skipped) {
    if skipped.is_empty() {
        return;
    }
    let mut line = String::new();
    if skipped.packed_files > 0 {
        let _ = write!(
            line,
            "{} archives or compressed files are not read, unpack them first",
            skipped.packed_files
        );
    }
    if skipped.linked_folders > 0 {
        let and = if line.is_empty() { "" } else { "; " };
        let count = skipped.linked_folders;
        let _ = write!(line, "{and}{count} links to folders are not followed, name the folders themselves");
    }
    let named = skipped.paths.len().min(SKIPPED_SHOWN_MAX);
    let more = if skipped.paths.len() > named { ", …" } else { "" };
    tracing::warn!("{line}: {}{more}", skipped.paths[..named].join(", "));
}

/// Prints the counts of the run: always after a stop, otherwise on a terminal or with diagnostics.
fn print_summary(summary: &Summary, skipped: &Skipped, writer: &ReplayOutput, args: &ReplayArgs) {
    let total = &summary.total;
    let dropped: u64 = total.dropped.values().sum();
    let damaged: u64 = total.damaged.values().sum();
    let mut line = format!(
        "{} {} files: {} events seen, {} searched, {} with hits, {} detections in the raw text, {} in other views ({} views cut short), {} in joined blocks, {dropped} dropped, {damaged} damaged parts, {:.2} s",
        if summary.interrupted { "stopped after" } else { "read" },
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
        let _ = write!(line, "; AMSI: {} seen, {} with hits", amsi.events_seen, amsi.events_matched);
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
