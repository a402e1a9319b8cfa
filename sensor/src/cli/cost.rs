//! `etwsieve rules cost`: which rules are expensive on one's own traces.

use super::{Exit, RuleArgs, RulesCostArgs, TraceFormat, after_writing, complain, rules, stop_on_signal};
use crate::cli::terminal::Terminal;
use crate::event::{self, EventRef};
use crate::input::{FileSource, traces};
use crate::output::Format;
use crate::source::{Damage, Sink, Source};
use crate::stop::Stop;
use etwsieve_matcher::{CostMeter, EventKind, Matcher, Payload, Repeats, Scratch};
use etwsieve_transport::printable::clip;
use serde_json::json;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::OnceLock;
use std::time::Instant;
use uuid::Uuid;

/// Longest title in the table, in characters.
const TITLE_WIDTH_MAX: usize = 200;

/// Runs `rules cost`.
pub(super) fn run(args: &RulesCostArgs, terminal: &Terminal) -> Exit {
    let rule_args = RuleArgs { rules: vec![args.rules.clone()], allow_bad_rules: args.allow_bad_rules };
    let matcher = match rules::load(&rule_args) {
        // Every event pays here, so that no rule hides behind a repeat.
        Ok(matcher) => matcher.with_repeats(Repeats::Never),
        Err(exit) => return exit,
    };
    let (files, unreadable) = traces(&args.traces);
    for error in &unreadable {
        complain(error);
    }
    let mut damaged = !unreadable.is_empty();
    let stop = Stop::default();
    stop_on_signal(&stop);
    let mut sources: Vec<FileSource> =
        files.into_iter().map(|path| FileSource::new(path).until(stop.clone())).collect();
    terminal.start_progress(sources.iter().map(Source::len).sum());
    let meter = CostMeter::new(matcher.rules().len(), nanoseconds);
    let (scratch, name) = (Scratch::default(), String::new());
    let mut sink = Metered { matcher: &matcher, scratch, meter, stop: &stop, name, events: 0, damaged: 0 };
    for source in &mut sources {
        if stop.requested() {
            break;
        }
        sink.name = source.name();
        if let Err(error) = source.run(&mut sink) {
            complain(error);
            damaged = true;
        }
    }
    terminal.end_progress();
    damaged |= sink.damaged > 0;
    let is_table = match args.format {
        Some(format) => format == TraceFormat::Table,
        None => io::stdout().is_terminal(),
    };
    let written = if is_table { table(&sink) } else { lines(&sink) };
    let exit = match (stop.requested(), damaged) {
        (true, _) => Exit::Interrupted,
        (false, true) => Exit::Damaged,
        (false, false) => Exit::Complete,
    };
    after_writing(written, exit)
}

/// Nanoseconds since the first call.
fn nanoseconds() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Searches every event with the meter running.
struct Metered<'a> {
    matcher: &'a Matcher,
    scratch: Scratch,
    meter: CostMeter,
    stop: &'a Stop,
    /// What the source is called.
    name: String,
    events: u64,
    damaged: u64,
}

impl Sink for Metered<'_> {
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

impl Metered<'_> {
    /// Indices of the rules that were candidates, the most expensive first.
    fn order(&self) -> Vec<usize> {
        let costs = self.meter.rules();
        let mut order: Vec<usize> = (0..costs.len()).filter(|rule| costs[*rule].candidates > 0).collect();
        order.sort_by_key(|rule| std::cmp::Reverse(costs[*rule].ticks));
        order
    }

    fn per_event(&self, nanoseconds: u64) -> f64 {
        nanoseconds as f64 / self.events.max(1) as f64
    }
}

fn table(sink: &Metered<'_>) -> io::Result<()> {
    let mut out = BufWriter::new(anstream::AutoStream::auto(io::stdout()));
    let order = sink.order();
    let meter = &sink.meter;
    writeln!(
        out,
        "{} events; {:.0} ns an event before any rule, {:.0} ns for the rules; {} of {} rules were candidates",
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

fn lines(sink: &Metered<'_>) -> io::Result<()> {
    let mut out = BufWriter::new(Format::Jsonl.stdout());
    for rule in sink.order() {
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
