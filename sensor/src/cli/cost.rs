//! `etwsieve rules cost`: measures the cost of each rule on recorded traces.

use super::options::{FactFormat, RuleArgs};
use super::terminal::Terminal;
use super::{Exit, after_writing, print_error, rules, stop_on_signal};
use crate::event::{self, EventRef};
use crate::input::{FileSource, expand, traces};
use crate::output::Format;
use crate::rules::ENDINGS;
use crate::source::{Damage, Sink, Source};
use crate::stop::Stop;
use clap::Args;
use etwsieve_matcher::{CostMeter, EventKind, Matcher, Payload, Repeats, Scratch};
use etwsieve_transport::printable::clip;
use serde_json::json;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Instant;
use uuid::Uuid;

/// Maximum length of a title in the table, in characters.
const TITLE_WIDTH_MAX: usize = 200;

/// Measure the cost of each rule on recorded traces: how often it passes the prefilter, how often it matches, and its
/// share of the time.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etwsieve rules cost --rules sigma/rules/windows/powershell busy-server.etl
  etwsieve rules cost --rules my_rule.yml --format jsonl traces/
Without --rules, a first path that contains rules is used as rules, as in earlier versions.")]
pub(super) struct RulesCostArgs {
    #[command(flatten)]
    rules: RuleArgs,
    /// Output format [default: table on a terminal, jsonl otherwise].
    #[arg(long, value_enum)]
    format: Option<FactFormat>,
    /// Traces, or folders that are searched for .etl, .evtx and .jsonl files.
    #[arg(required = true, value_name = "FILE|DIR")]
    traces: Vec<PathBuf>,
}

impl RulesCostArgs {
    /// Separates rules and traces. Earlier versions had no --rules: the first path named the rules.
    fn rules_and_traces(&self) -> (RuleArgs, &[PathBuf]) {
        let allow_bad_rules = self.rules.allow_bad_rules;
        if let ([first, traces @ ..], true) = (&self.traces[..], self.rules.rules.is_empty())
            && !traces.is_empty()
            && is_rules(first)
        {
            return (RuleArgs { rules: vec![first.clone()], allow_bad_rules }, traces);
        }
        (RuleArgs { rules: self.rules.rules.clone(), allow_bad_rules }, &self.traces)
    }
}

/// Returns whether the path is a rule file or a folder that contains some.
fn is_rules(path: &PathBuf) -> bool {
    let has_ending = |path: &PathBuf| {
        path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
    };
    has_ending(path) || path.is_dir() && !expand(std::slice::from_ref(path), &ENDINGS).0.is_empty()
}

pub(super) fn run(args: &RulesCostArgs, terminal: &Terminal) -> Exit {
    let (rule_args, trace_paths) = args.rules_and_traces();
    let matcher = match rules::load(&rule_args) {
        // Repeated scripts are searched again, so that each event shows its full cost.
        Ok(matcher) => matcher.with_repeats(Repeats::Never),
        Err(exit) => return exit,
    };
    let (files, unreadable) = traces(trace_paths);
    unreadable.iter().for_each(print_error);
    let mut damaged = !unreadable.is_empty();
    let stop = Stop::default();
    stop_on_signal(&stop);
    let mut sources: Vec<FileSource> =
        files.into_iter().map(|path| FileSource::new(path).until(stop.clone())).collect();
    terminal.start_progress(sources.iter().map(Source::len).sum());
    let meter = CostMeter::new(matcher.rules().len(), nanoseconds);
    let (scratch, name) = (Scratch::default(), String::new());
    let mut sink =
        MeteredSink { matcher: &matcher, scratch, meter, stop: &stop, name, events: 0, damaged: 0 };
    for source in &mut sources {
        if stop.requested() {
            break;
        }
        sink.name = source.name();
        if let Err(error) = source.run(&mut sink) {
            print_error(error);
            damaged = true;
        }
    }
    terminal.end_progress();
    damaged |= sink.damaged > 0;
    let written = match args.format.unwrap_or_else(FactFormat::for_stdout) {
        FactFormat::Table => print_table(&sink),
        FactFormat::Jsonl => print_lines(&sink),
    };
    let exit = match (stop.requested(), damaged) {
        (true, _) => Exit::Interrupted,
        (false, true) => Exit::Damaged,
        (false, false) => Exit::Complete,
    };
    after_writing(written, exit)
}

/// Returns the nanoseconds since the first call.
fn nanoseconds() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Searches every event and measures its cost.
struct MeteredSink<'a> {
    matcher: &'a Matcher,
    scratch: Scratch,
    meter: CostMeter,
    stop: &'a Stop,
    /// Name of the current source.
    name: String,
    events: u64,
    damaged: u64,
}

impl Sink for MeteredSink<'_> {
    fn wants(&self, provider: &Uuid, event_id: u16) -> bool {
        event::kind(provider, event_id)
            .is_some_and(|kind| kind != EventKind::Amsi && self.matcher.wants(kind))
    }

    fn event(&mut self, event: &EventRef<'_>) -> ControlFlow<()> {
        if let Some(kind) = EventKind::from_event_id(event.header.event_id) {
            let payload = Payload { kind, process_id: event.header.process_id, bytes: event.payload };
            self.matcher.find_metered(&payload, &mut self.scratch, &mut self.meter);
            self.events += 1;
        }
        self.unwanted()
    }

    fn unwanted(&mut self) -> ControlFlow<()> {
        if self.stop.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn damaged(&mut self, damage: &Damage) {
        self.damaged += 1;
        tracing::warn!("{}: {damage}", self.name);
    }

    fn progress(&mut self, _bytes: u64) {}
}

impl MeteredSink<'_> {
    /// Returns the indices of the rules that passed the prefilter at least once, the most expensive first.
    fn by_cost(&self) -> Vec<usize> {
        let costs = self.meter.rules();
        let mut order: Vec<usize> = (0..costs.len()).filter(|rule| costs[*rule].candidates > 0).collect();
        order.sort_by_key(|rule| std::cmp::Reverse(costs[*rule].ticks));
        order
    }

    fn per_event(&self, nanoseconds: u64) -> f64 {
        nanoseconds as f64 / self.events.max(1) as f64
    }
}

fn print_table(sink: &MeteredSink<'_>) -> io::Result<()> {
    let mut out = BufWriter::new(anstream::AutoStream::auto(io::stdout()));
    let order = sink.by_cost();
    let meter = &sink.meter;
    writeln!(
        out,
        "{} events; per event {:.0} ns for the prefilter and {:.0} ns for the rules; {} of {} rules passed the prefilter",
        sink.events,
        sink.per_event(meter.gate_ticks()),
        sink.per_event(meter.rule_ticks()),
        order.len(),
        meter.rules().len(),
    )?;
    writeln!(
        out,
        "\x1b[1m{:>7} {:>11} {:>9} {:>12} RULE\x1b[0m",
        "SHARE", "CANDIDATE", "MATCH", "NS/CANDIDATE"
    )?;
    for rule in order {
        let cost = meter.rules()[rule];
        writeln!(
            out,
            "{:>6.1}% {:>10.2}% {:>9} {:>12} {}",
            100.0 * meter.share(rule),
            100.0 * cost.candidates as f64 / sink.events.max(1) as f64,
            cost.matches,
            cost.ticks / cost.candidates.max(1),
            clip(&sink.matcher.rules()[rule].title, TITLE_WIDTH_MAX),
        )?;
    }
    out.flush()
}

fn print_lines(sink: &MeteredSink<'_>) -> io::Result<()> {
    let mut out = BufWriter::new(Format::Jsonl.stdout());
    for rule in sink.by_cost() {
        let (cost, named) = (sink.meter.rules()[rule], &sink.matcher.rules()[rule]);
        let line = json!({
            "rule_id": named.id,
            "rule_title": named.title,
            "events": sink.events,
            "candidates": cost.candidates,
            "matches": cost.matches,
            "nanoseconds": cost.ticks,
            "share": sink.meter.share(rule),
        });
        writeln!(out, "{line}")?;
    }
    out.flush()
}
