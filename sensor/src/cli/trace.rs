//! `etwsieve trace`: prints the facts of an .etl trace, or all of its events.

use super::options::FactFormat;
use super::terminal::Terminal;
use super::{Exit, after_writing, print_error, stop_on_signal};
use crate::input::{Found, TraceOnDisk, find_etl};
use crate::output::Format;
use crate::pipeline::Progress;
use crate::stop::Stop;
use clap::Args;
use data_encoding::HEXLOWER;
use etwsieve_etl::{ClockType, DamageLog, Event, Trace, TraceFile};
use etwsieve_transport::printable::clip;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use uuid::Uuid;

/// Maximum number of pairs of provider and event that are counted separately; a malicious trace could have millions.
const COUNTED_MAX: usize = 100_000;
/// Maximum number of damaged parts that are logged one by one.
const DAMAGE_LOGGED_MAX: usize = 20;
/// Number of events between two updates of the progress bar.
const PROGRESS_EVENTS: u64 = 4096;

/// Show the facts of .etl traces: system, clock, buffers, losses, damage, and counts by provider and event.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etwsieve trace trace.etl
  etwsieve trace --events --format jsonl trace.etl | head")]
pub(super) struct TraceArgs {
    /// Instead print one line per event, of any provider, in time order.
    #[arg(long)]
    events: bool,
    /// Output format [default: table on a terminal, jsonl otherwise].
    #[arg(long, value_enum)]
    format: Option<FactFormat>,
    /// Traces, folders that are searched for .etl files, pipes, or - for standard input.
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
}

pub(super) fn run(args: &TraceArgs, terminal: &Terminal) -> Exit {
    let format = args.format.unwrap_or_else(FactFormat::for_stdout);
    let Found { files, errors, .. } = find_etl(&args.paths);
    errors.iter().for_each(print_error);
    let mut exit = if errors.is_empty() { Exit::Complete } else { Exit::Damaged };
    let stop = Stop::default();
    stop_on_signal(&stop);
    let output = if format == FactFormat::Table { Format::Table } else { Format::Jsonl };
    let mut out = match output.stdout_until(&stop) {
        Ok(out) => BufWriter::new(out),
        Err(error) => return after_writing(Err(error), exit),
    };
    for path in files {
        let on_disk = match TraceOnDisk::open(path, stop.clone()) {
            Ok(on_disk) => on_disk,
            Err(_) if stop.requested() => break,
            Err(error) => {
                print_error(error);
                exit = Exit::Damaged;
                continue;
            }
        };
        let name = on_disk.name.as_str();
        let file = match TraceFile::open(on_disk.path()) {
            Ok(file) => file,
            Err(error) => {
                print_error(format_args!("{name}: {error}"));
                exit = Exit::Damaged;
                continue;
            }
        };
        let trace = match file.trace() {
            Ok(trace) => trace,
            Err(error) => {
                print_error(format_args!("{name}: {error}"));
                exit = Exit::Damaged;
                continue;
            }
        };
        let result = if args.events {
            print_events(&trace, format, &mut out, &stop).map(|log| log_damage(name, &log))
        } else {
            print_facts(name, &trace, format, &mut out, terminal, &stop).map(|log| log_damage(name, &log))
        };
        match result {
            Ok(true) => {}
            Ok(false) => exit = Exit::Damaged,
            Err(error) => return after_writing(Err(error), exit),
        }
        if stop.requested() {
            break;
        }
    }
    if stop.requested() {
        exit = Exit::Interrupted;
    }
    after_writing(out.flush(), exit)
}

/// Logs the damage of a trace. Returns true if there is none.
fn log_damage(name: &str, log: &DamageLog) -> bool {
    for damage in log.kept().iter().take(DAMAGE_LOGGED_MAX) {
        tracing::warn!("{name}: damaged {damage}");
    }
    let more = log.total().saturating_sub(DAMAGE_LOGGED_MAX as u64);
    if more > 0 {
        tracing::warn!("{name}: {more} more damaged parts");
    }
    log.is_empty()
}

/// A line of `--events`.
#[derive(Serialize)]
struct EventLine {
    time: String,
    provider: Option<String>,
    event_id: Option<u16>,
    event_version: u16,
    process_id: Option<u32>,
    thread_id: Option<u32>,
    activity_id: Option<String>,
    header: &'static str,
    payload_length: usize,
    payload_sha256: String,
}

impl EventLine {
    fn new(event: &Event<'_>) -> Self {
        Self {
            time: event.time.to_string(),
            provider: event.provider.map(|id| id.to_string()),
            event_id: event.event_id,
            event_version: event.version,
            process_id: event.process_id,
            thread_id: event.thread_id,
            activity_id: event.activity_id.filter(|id| !id.is_nil()).map(|id| id.to_string()),
            header: event.header.as_str(),
            payload_length: event.payload.len(),
            payload_sha256: HEXLOWER.encode(&Sha256::digest(event.payload)),
        }
    }
}

fn print_events(
    trace: &Trace<'_>,
    format: FactFormat,
    out: &mut impl Write,
    stop: &Stop,
) -> io::Result<DamageLog> {
    let mut events = trace.events();
    if format == FactFormat::Table {
        writeln!(
            out,
            "{:<28} {:<36} {:>6} {:>3} {:>10} {:>10} {:<10} {:>6} SHA-256 OF THE PAYLOAD",
            "TIME", "PROVIDER", "EVENT", "VER", "PROCESS", "THREAD", "HEADER", "BYTES"
        )?;
    }
    while !stop.requested()
        && let Some(event) = events.next()
    {
        let line = EventLine::new(&event);
        if format == FactFormat::Jsonl {
            serde_json::to_writer(&mut *out, &line)?;
            writeln!(out)?;
        } else {
            let number = |n: Option<u32>| n.map_or_else(|| "-".into(), |n| n.to_string());
            writeln!(
                out,
                "{:<28} {:<36} {:>6} {:>3} {:>10} {:>10} {:<10} {:>6} {}",
                line.time,
                line.provider.as_deref().unwrap_or("-"),
                number(line.event_id.map(u32::from)),
                line.event_version,
                number(line.process_id),
                number(line.thread_id),
                line.header,
                line.payload_length,
                line.payload_sha256
            )?;
        }
    }
    Ok(events.damage().clone())
}

/// The facts of a trace as one JSON object.
#[derive(Serialize)]
struct TraceFacts<'a> {
    source: String,
    bytes: u64,
    os_version: String,
    os_build: u32,
    file_version: String,
    clock: &'static str,
    clock_hz: u64,
    processors: u32,
    pointer_size: u32,
    start: Option<String>,
    end: Option<String>,
    boot: Option<String>,
    log_file_mode: u32,
    buffer_size: u32,
    buffers_written: u32,
    buffers_found: u64,
    buffers_compressed: u64,
    buffers_marking_loss: u64,
    unused_bytes: u64,
    events_lost: u32,
    buffers_lost: u32,
    never_closed: bool,
    logger_name: &'a str,
    log_file_name: &'a str,
    events: u64,
    first_event: Option<String>,
    last_event: Option<String>,
    events_by_header: BTreeMap<&'static str, u64>,
    events_by_id: Vec<CountLine>,
    events_by_id_not_listed: u64,
    damage: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct CountLine {
    provider: Option<String>,
    event_id: Option<u16>,
    count: u64,
}

fn print_facts(
    name: &str,
    trace: &Trace<'_>,
    format: FactFormat,
    out: &mut impl Write,
    terminal: &Terminal,
    stop: &Stop,
) -> io::Result<DamageLog> {
    terminal.start_progress(trace.len());
    let progress = Progress::new(0);
    let mut by_id: BTreeMap<(Option<Uuid>, Option<u16>), u64> = BTreeMap::new();
    let (mut by_header, mut first, mut last) = (BTreeMap::new(), None, None);
    let (mut count, mut not_listed) = (0u64, 0);
    let mut events = trace.events();
    while !stop.requested()
        && let Some(event) = events.next()
    {
        count += 1;
        *by_header.entry(event.header.as_str()).or_default() += 1;
        let key = (event.provider, event.event_id);
        if by_id.len() < COUNTED_MAX || by_id.contains_key(&key) {
            *by_id.entry(key).or_default() += 1;
        } else {
            not_listed += 1;
        }
        first = first.or(Some(event.time));
        last = Some(event.time);
        if count.is_multiple_of(PROGRESS_EVENTS) {
            progress.events.store(count, Ordering::Relaxed);
            progress.bytes.store(events.bytes_consumed(), Ordering::Relaxed);
            terminal.show(&progress, 0);
        }
    }
    terminal.end_progress();
    let log = events.damage().clone();
    if stop.requested() {
        // Incomplete counts would look like those of the whole trace.
        return Ok(log);
    }
    let info = trace.info();
    let mut events_by_id: Vec<CountLine> = by_id
        .into_iter()
        .map(|((provider, event_id), count)| CountLine {
            provider: provider.map(|id| id.to_string()),
            event_id,
            count,
        })
        .collect();
    events_by_id.sort_by_key(|line| std::cmp::Reverse(line.count));
    let facts = TraceFacts {
        source: name.to_owned(),
        bytes: trace.len(),
        os_version: format!("{}.{}", info.os_version.0, info.os_version.1),
        os_build: info.os_build,
        file_version: format!("{}.{}", info.file_version.0, info.file_version.1),
        clock: clock_name(info.clock.kind),
        clock_hz: info.clock.hz,
        processors: info.processors,
        pointer_size: info.pointer_size,
        start: info.start.map(|time| time.to_string()),
        end: info.end.map(|time| time.to_string()),
        boot: info.boot.map(|time| time.to_string()),
        log_file_mode: info.log_file_mode,
        buffer_size: info.buffer_size,
        buffers_written: info.buffers_written,
        buffers_found: info.buffers_found,
        buffers_compressed: info.buffers_compressed,
        buffers_marking_loss: info.buffers_marking_loss,
        unused_bytes: info.unused_bytes,
        events_lost: info.events_lost,
        buffers_lost: info.buffers_lost,
        never_closed: info.is_never_closed(),
        logger_name: &info.logger_name,
        log_file_name: &info.log_file_name,
        events: count,
        first_event: first.map(|time| time.to_string()),
        last_event: last.map(|time| time.to_string()),
        events_by_header: by_header,
        events_by_id,
        events_by_id_not_listed: not_listed,
        damage: log.counts().map(|(kind, count)| (kind.as_str(), count)).collect(),
    };
    if format == FactFormat::Jsonl {
        serde_json::to_writer(&mut *out, &facts)?;
        writeln!(out)?;
    } else {
        print_table(&facts, out)?;
    }
    Ok(log)
}

fn clock_name(kind: ClockType) -> &'static str {
    match kind {
        ClockType::PerformanceCounter => "performance counter",
        ClockType::SystemTime => "system time",
        ClockType::CpuCycles => "processor cycles",
        ClockType::Other(_) => "unknown",
    }
}

/// Prints the names and values of the JSON object as a table, then the counts.
fn print_table(facts: &TraceFacts<'_>, out: &mut impl Write) -> io::Result<()> {
    let serde_json::Value::Object(object) = serde_json::to_value(facts)? else { return Ok(()) };
    for (name, value) in object.iter().filter(|(name, _)| !name.starts_with("events_by_id")) {
        let text = match value {
            serde_json::Value::String(text) => clip(text, 400),
            serde_json::Value::Null => "-".into(),
            serde_json::Value::Object(inner) if inner.is_empty() => "none".into(),
            serde_json::Value::Object(inner) => {
                inner.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
            }
            other => other.to_string(),
        };
        writeln!(out, "{:<22} {text}", name.replace('_', " "))?;
    }
    writeln!(out, "\n{:>10} {:>6} PROVIDER", "COUNT", "EVENT")?;
    for line in &facts.events_by_id {
        let id = line.event_id.map_or_else(|| "-".into(), |id| id.to_string());
        writeln!(out, "{:>10} {id:>6} {}", line.count, line.provider.as_deref().unwrap_or("-"))?;
    }
    if facts.events_by_id_not_listed > 0 {
        writeln!(out, "{:>10} events of other kinds", facts.events_by_id_not_listed)?;
    }
    writeln!(out)
}
