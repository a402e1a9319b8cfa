//! `etwsieve hits`: prints the hits of a store.

use super::{Exit, after_writing, print_error, stop_on_signal, usage_error};
use crate::output::Format;
use crate::stop::Stop;
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use etwsieve_event::FileTime;
use etwsieve_event::time::TICKS_PER_SECOND;
use etwsieve_transport::printable::clip;
use etwsieve_transport::store::{ComputerStats, HitFilter, RuleStats, Store, StoreError, StoreStats};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::iter;
use std::path::PathBuf;
use std::time::Duration;

/// Interval at which `--follow` checks for new hits.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);
/// Width of a level, and maximum width of a title or name, in characters.
const LEVEL_WIDTH: usize = 13;
const TEXT_WIDTH_MAX: usize = 200;

/// Print the hits of a database that `replay --store` or `watch --store` has written.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etwsieve hits hits.db
  etwsieve hits --stats hits.db
  etwsieve hits --since 2h --rule endpoint --computer srv01 hits.db
  etwsieve hits --follow hits.db                   and new hits, until Ctrl-C
  sqlite3 hits.db 'SELECT * FROM detections'       grouped as in the Splunk analytic")]
pub(super) struct HitsArgs {
    /// Output format [default: table on a terminal, jsonl otherwise; with --stats always table].
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Count hits by rule and computer instead of listing them. Formats: table, jsonl.
    #[arg(long)]
    stats: bool,
    /// Only events at or after this time: 2026-11-25T18:00:00Z, or a duration before now such as 90s, 30m, 2h, 7d.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<FileTime>,
    /// Only events at or before this time; same forms as --since.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<FileTime>,
    /// Only hits of rules with this id, or with this text in the title.
    #[arg(long, value_name = "ID|TEXT")]
    rule: Option<String>,
    /// Only hits from this computer.
    #[arg(long, value_name = "NAME")]
    computer: Option<String>,
    /// Continue with new hits as they are stored, until Ctrl-C.
    #[arg(long, conflicts_with = "stats")]
    follow: bool,
    /// Database of hits.
    #[arg(value_name = "DB")]
    store: PathBuf,
}

pub(super) fn run(args: &HitsArgs) -> Exit {
    let filter = HitFilter {
        from: args.since.map(|time| time.0),
        until: args.until.map(|time| time.0),
        rule: args.rule.clone(),
        computer: args.computer.clone(),
        ..HitFilter::default()
    };
    if let (true, Some(format @ (Format::Ecs | Format::Splunk))) = (args.stats, args.format) {
        let value = format.to_possible_value();
        let name = value.as_ref().map_or("this value", PossibleValue::get_name);
        return usage_error(format_args!("--stats does not support --format {name}: use table or jsonl"));
    }
    let result = Store::open_read_only(&args.store).and_then(|store| {
        if args.follow {
            follow(&store, args, &filter)
        } else if !args.stats {
            Ok(list(&store, args, filter))
        } else if filter == HitFilter::default() {
            Ok(after_writing(print_stats(&store.stats()?, args.format), Exit::Complete))
        } else {
            let (stats, exit) = filtered_stats(&store, filter);
            Ok(after_writing(print_stats(&stats, args.format), exit))
        }
    });
    result.unwrap_or_else(|error: StoreError| usage_error(error))
}

/// Parses a time on the command line: RFC 3339, in UTC unless it has an offset, or a duration before now.
fn parse_time(text: &str) -> Result<FileTime, String> {
    time_at(text, FileTime::now().0).ok_or_else(|| {
        "expected a time such as 2026-11-25T18:00:00Z, or a duration such as 90s, 30m, 2h, 7d".into()
    })
}

fn time_at(text: &str, now: u64) -> Option<FileTime> {
    if let Some(unit) = text.chars().last()
        && let Some(seconds) = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400), ('w', 604_800)]
            .into_iter()
            .find_map(|(known, seconds)| (known == unit).then_some(seconds))
    {
        let count: u64 = text[..text.len() - 1].parse().ok()?;
        let ticks = count.saturating_mul(seconds).saturating_mul(TICKS_PER_SECOND);
        return Some(FileTime(now.saturating_sub(ticks)));
    }
    // A sign after the seconds starts an offset.
    let sign = text.rfind(['+', '-']).filter(|at| *at >= "2026-11-25T18:00:00".len());
    let Some(at) = sign else { return FileTime::parse_iso(text) };
    let (hours, minutes) = text[at + 1..].split_once(':')?;
    let number = |part: &str, max: u64| {
        part.parse::<u64>()
            .ok()
            .filter(|number| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit()) && *number <= max)
    };
    let offset = (number(hours, 23)? * 60 + number(minutes, 59)?) * 60 * TICKS_PER_SECOND;
    let local = FileTime::parse_iso(&text[..at])?.0;
    // A positive offset means that the local time is ahead of UTC.
    let utc = if text[at..].starts_with('+') { local.checked_sub(offset) } else { local.checked_add(offset) };
    utc.map(FileTime)
}

fn list(store: &Store, args: &HitsArgs, filter: HitFilter) -> Exit {
    let format = args.format.unwrap_or_else(Format::for_stdout);
    let mut out = BufWriter::new(format.stdout());
    let mut exit = Exit::Complete;
    let written = format
        .header(&mut out)
        .and_then(|()| write_hits(store, filter, format, &mut out, &mut exit))
        .and_then(|()| out.flush());
    after_writing(written, exit)
}

/// Writes the stored hits in time order, and then new hits as they are stored.
fn follow(store: &Store, args: &HitsArgs, filter: &HitFilter) -> Result<Exit, StoreError> {
    let stop = Stop::default();
    stop_on_signal(&stop);
    let format = args.format.unwrap_or_else(Format::for_stdout);
    let mut out = match format.stdout_until(&stop) {
        Ok(out) => BufWriter::new(out),
        Err(error) => return Ok(after_writing(Err(error), Exit::Complete)),
    };
    let mut exit = Exit::Complete;
    let mut written = format.header(&mut out);
    let mut after_id = None;
    while written.is_ok() && !stop.requested() {
        let until_id = store.last_id()?;
        if after_id != Some(until_id) {
            let filter = HitFilter { after_id, until_id: Some(until_id), ..filter.clone() };
            written = write_hits(store, filter, format, &mut out, &mut exit).and_then(|()| out.flush());
            after_id = Some(until_id);
        }
        stop.wait(FOLLOW_EVERY);
    }
    // Ctrl-C is the normal end.
    Ok(after_writing(written, exit))
}

fn write_hits(
    store: &Store,
    filter: HitFilter,
    format: Format,
    out: &mut dyn Write,
    exit: &mut Exit,
) -> io::Result<()> {
    for stored in store.hits(filter) {
        match stored {
            Ok(stored) => format.write(&stored.hit, out)?,
            // A damaged row is reported and skipped.
            Err(error) => {
                print_error(error);
                *exit = Exit::Damaged;
            }
        }
    }
    Ok(())
}

/// Computes [`Store::stats`] for the hits that pass the filter, each with all of its rules.
fn filtered_stats(store: &Store, filter: HitFilter) -> (StoreStats, Exit) {
    let mut stats = StoreStats::default();
    let mut exit = Exit::Complete;
    let mut rules: BTreeMap<(String, String, String), (u64, u64, u64)> = BTreeMap::new();
    let mut computers: BTreeMap<Option<String>, (u64, u64, u64)> = BTreeMap::new();
    for stored in store.hits(filter) {
        let hit = match stored {
            Ok(stored) => stored.hit,
            Err(error) => {
                print_error(error);
                exit = Exit::Damaged;
                continue;
            }
        };
        let note = |(count, first, last): &mut (u64, u64, u64)| {
            (*first, *last) = if *count == 0 {
                (hit.time, hit.time)
            } else {
                ((*first).min(hit.time), (*last).max(hit.time))
            };
            *count += 1;
        };
        stats.hits += 1;
        note(computers.entry(hit.computer.clone()).or_default());
        for rule in &hit.rules {
            stats.detections += 1;
            note(rules.entry((rule.title.clone(), rule.id.clone(), rule.level.clone())).or_default());
        }
    }
    stats.rules = rules
        .into_iter()
        .map(|((title, id, level), (count, first, last))| RuleStats { id, title, level, count, first, last })
        .collect();
    stats.rules.sort_by_key(|rule| std::cmp::Reverse(rule.count));
    stats.computers = computers
        .into_iter()
        .map(|(computer, (count, first, last))| ComputerStats { computer, count, first, last })
        .collect();
    stats.computers.sort_by_key(|computer| std::cmp::Reverse(computer.count));
    (stats, exit)
}

fn print_stats(stats: &StoreStats, format: Option<Format>) -> io::Result<()> {
    if format == Some(Format::Jsonl) {
        return write_stats(stats, BufWriter::new(Format::Jsonl.stdout()));
    }
    let mut out = BufWriter::new(io::stdout().lock());
    writeln!(out, "{} events with hits, {} detections", stats.hits, stats.detections)?;
    writeln!(out, "\n{:>8} {:<13} {:<28} {:<28} RULE", "COUNT", "LEVEL", "FIRST", "LAST")?;
    for rule in &stats.rules {
        let (first, last) = (FileTime(rule.first), FileTime(rule.last));
        writeln!(
            out,
            "{:>8} {:<13} {first} {last} {} ({})",
            rule.count,
            clip(&rule.level, LEVEL_WIDTH),
            clip(&rule.title, TEXT_WIDTH_MAX),
            clip(&rule.id, TEXT_WIDTH_MAX)
        )?;
    }
    writeln!(out, "\n{:>8} {:<28} {:<28} COMPUTER", "EVENTS", "FIRST", "LAST")?;
    for computer in &stats.computers {
        let (first, last) = (FileTime(computer.first), FileTime(computer.last));
        let name = computer
            .computer
            .as_deref()
            .map_or_else(|| "(unknown)".into(), |name| clip(name, TEXT_WIDTH_MAX));
        writeln!(out, "{:>8} {first} {last} {name}", computer.count)?;
    }
    out.flush()
}

/// Writes the counts as JSON Lines: a line for the total, then one for each rule and each computer.
fn write_stats(stats: &StoreStats, mut out: impl Write) -> io::Result<()> {
    let total = json!({ "kind": "total", "events": stats.hits, "detections": stats.detections });
    let rules = stats.rules.iter().map(|rule| {
        json!({
            "kind": "rule",
            "rule_id": rule.id,
            "rule_title": rule.title,
            "level": rule.level,
            "events": rule.count,
            "first": FileTime(rule.first).to_string(),
            "last": FileTime(rule.last).to_string(),
        })
    });
    let computers = stats.computers.iter().map(|computer| {
        json!({
            "kind": "computer",
            "computer": computer.computer,
            "events": computer.count,
            "first": FileTime(computer.first).to_string(),
            "last": FileTime(computer.last).to_string(),
        })
    });
    iter::once(total).chain(rules).chain(computers).try_for_each(|line| writeln!(out, "{line}"))?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::time_at;
    use etwsieve_event::FileTime;

    #[test]
    fn times_are_absolute_or_relative_to_now() {
        let at = |text| FileTime::parse_iso(text).unwrap().0;
        let now = at("2026-11-25T18:00:00");
        let rows = [
            ("2026-11-25T17:00:00Z", Some(at("2026-11-25T17:00:00"))),
            ("2026-11-25 17:00:00.5", Some(at("2026-11-25T17:00:00.5"))),
            ("2026-11-25T17:00:00+02:00", Some(at("2026-11-25T15:00:00"))),
            ("2026-11-25T17:00:00.25-00:30", Some(at("2026-11-25T17:30:00.25"))),
            ("90s", Some(at("2026-11-25T17:58:30"))),
            ("30m", Some(at("2026-11-25T17:30:00"))),
            ("2h", Some(at("2026-11-25T16:00:00"))),
            ("7d", Some(at("2026-11-18T18:00:00"))),
            ("99999999w", Some(0)),
            ("99999999999999999999h", None),
            ("h", None),
            ("-2h", None),
            ("2026-11-25", None),
            ("2026-11-25T17:00:00+2", None),
            ("2026-11-25T17:00:00+24:00", None),
            ("", None),
            ("ü", None),
        ];
        for (text, expected) in rows {
            assert_eq!(time_at(text, now).map(|time| time.0), expected, "{text}");
        }
    }
}
