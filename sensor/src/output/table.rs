//! Writes hits as a table: one aligned line per rule and event, with the start of the script.

use etwsieve_event::FileTime;
use etwsieve_transport::hit::{EventContent, HitV1, RuleRefV1, Utf16Text};
use etwsieve_transport::printable::clip;
use std::io::{self, Write};

/// Widths of the columns, in characters.
const LEVEL: usize = 13;
const HOST: usize = 24;
const PROCESS: usize = 7;
const RULE: usize = 58;
const TEXT: usize = 80;

const RESET: &str = "\x1b[0m";
const BOLD: &str = "\x1b[1m";

pub(super) fn header(out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{BOLD}{:<28} {:<LEVEL$} {:<HOST$} {:>PROCESS$} {:<RULE$} TEXT{RESET}",
        "TIME", "LEVEL", "COMPUTER OR SOURCE", "PROCESS", "RULE"
    )
}

/// Always writes colours; the stream removes them if it is not a terminal.
pub(super) fn write(hit: &HitV1, rule: &RuleRefV1, out: &mut dyn Write) -> io::Result<()> {
    // More units than fit, because some are not printed.
    let start = |text: &Utf16Text| Utf16Text(text.0[..text.0.len().min(4 * TEXT)].into()).to_string_lossy();
    let head = match &hit.content {
        EventContent::ScriptBlock { text, .. } | EventContent::Amsi { text, .. } => start(text),
        EventContent::Module { payload, .. } => start(payload),
        EventContent::Notice { detail } => detail.clone(),
    };
    let host = hit.computer.as_deref().unwrap_or_else(|| file_name(&hit.source));
    let process = hit.process_id.map_or_else(|| "-".into(), |id| id.to_string());
    writeln!(
        out,
        "{} {}{:<LEVEL$}{RESET} {:<HOST$} {:>PROCESS$} {:<RULE$} {}",
        FileTime(hit.time),
        colour(&rule.level),
        if rule.level.is_empty() { "-".into() } else { clip(&rule.level, LEVEL) },
        clip(host, HOST),
        process,
        clip(&rule.title, RULE),
        clip(&head, TEXT),
    )
}

fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

fn colour(level: &str) -> &'static str {
    match level {
        "critical" => "\x1b[1;31m",
        "high" => "\x1b[31m",
        "medium" => "\x1b[33m",
        "low" => "\x1b[36m",
        _ => "",
    }
}
