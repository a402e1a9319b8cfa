//! The command line: what each subcommand takes, and how it ends.

mod hits;
mod replay;
mod rules;
mod terminal;
mod trace;

use crate::output::Format;
use clap::{Args, Parser, Subcommand};
use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use terminal::Terminal;

/// How a command ended. The numbers are a promise to scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// Everything was read.
    Complete,
    /// Some input was damaged or unreadable; the rest was processed.
    Damaged,
    /// Wrong usage, refused rules, or an output that cannot be written.
    Usage,
    /// Stopped by Ctrl-C or a termination signal.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Complete => 0,
            Exit::Damaged => 1,
            Exit::Usage => 2,
            // What shells report for SIGINT.
            Exit::Interrupted => 130,
        })
    }
}

const AFTER_HELP: &str = "\
Exit codes: 0 everything was read; 1 some input was damaged or unreadable, the rest was processed;
2 wrong usage, refused rules, or an output that cannot be written; 130 stopped by Ctrl-C.
Diagnostics go to standard error; ETWSIEVE_LOG=debug (or a filter such as etwsieve=trace) shows more.";

/// Searches PowerShell script blocks in event traces with Sigma rules.
#[derive(Debug, Parser)]
#[command(name = "etwsieve", version, after_help = AFTER_HELP)]
struct Cli {
    /// Show more diagnostics; twice for even more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Replay(ReplayArgs),
    /// Work with rules.
    Rules {
        #[command(subcommand)]
        command: RulesCommand,
    },
    Hits(HitsArgs),
    Trace(TraceArgs),
}

/// Search recorded traces (.etl, .evtx, .jsonl) and print the detections.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etwsieve replay trace.etl                        the built-in rule on one trace
  etwsieve replay --rules sigma/rules C:\\case\\logs  all rules of a folder on all traces of another
  etwsieve replay --store hits.db --summary run.json --format ecs logs/ > hits.jsonl")]
struct ReplayArgs {
    #[command(flatten)]
    rules: RuleArgs,
    /// How detections are written [default: table on a terminal, jsonl otherwise].
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Also keep the hits in this SQLite database; it is created if absent, and a hit that it has is not doubled.
    #[arg(long, value_name = "DB")]
    store: Option<PathBuf>,
    /// Write the counts of the run to this file, as one JSON object.
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// Matcher threads [default: one less than there are processors]. The output does not depend on them.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: Option<u16>,
    /// Traces, or folders that are searched for .etl, .evtx and .jsonl files.
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
}

/// Where rules come from.
#[derive(Debug, Args)]
struct RuleArgs {
    /// Sigma rules and filters: files, or folders that are searched for .yml and .yaml [default: the built-in rule].
    #[arg(long, value_name = "FILE|DIR")]
    rules: Vec<PathBuf>,
    /// Go on without the rules that cannot be understood, and list them.
    #[arg(long)]
    allow_bad_rules: bool,
}

#[derive(Debug, Subcommand)]
enum RulesCommand {
    Check(RulesCheckArgs),
}

/// Check whether rules are understood, and show what each costs the gate.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etwsieve rules check my_rule.yml
  etwsieve rules check sigma/rules/windows/powershell")]
struct RulesCheckArgs {
    /// Rule files, or folders that are searched for .yml and .yaml.
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
}

/// Show the hits of a database that `replay --store` has written.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etwsieve hits hits.db
  etwsieve hits --stats hits.db
  sqlite3 hits.db 'SELECT * FROM detections'       grouped as the Splunk analytic groups them")]
struct HitsArgs {
    /// How hits are written [default: table on a terminal, jsonl otherwise].
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Count hits by rule and computer instead of listing them.
    #[arg(long)]
    stats: bool,
    /// The database.
    #[arg(value_name = "DB")]
    store: PathBuf,
}

/// Show the facts of .etl traces: system, clock, buffers, losses, damage, and counts by provider and event.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etwsieve trace trace.etl
  etwsieve trace --events --format jsonl trace.etl | head")]
struct TraceArgs {
    /// Write a line for every event, of any provider, in time order, instead.
    #[arg(long)]
    events: bool,
    /// How it is written [default: table on a terminal, jsonl otherwise].
    #[arg(long, value_enum)]
    format: Option<TraceFormat>,
    /// Traces.
    #[arg(required = true, value_name = "FILE")]
    paths: Vec<PathBuf>,
}

/// How `trace` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum TraceFormat {
    /// For reading.
    Table,
    /// JSON Lines.
    Jsonl,
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    // Clap itself ends with 2 on wrong usage and with 0 on --help.
    let cli = Cli::parse();
    let terminal = Terminal::new(cli.verbose);
    let exit = match cli.command {
        Command::Replay(args) => replay::run(&args, &terminal),
        Command::Rules { command: RulesCommand::Check(args) } => rules::check(&args),
        Command::Hits(args) => hits::run(&args),
        Command::Trace(args) => trace::run(&args, &terminal),
    };
    exit.into()
}

/// Tells an error on standard error.
fn complain(error: impl Display) {
    anstream::eprintln!("\x1b[1;31merror:\x1b[0m {error}");
}

/// The outcome of writing to standard output: a reader that has gone away is no error.
fn after_writing(result: std::io::Result<()>, exit: Exit) -> Exit {
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            complain(format_args!("cannot write the output: {error}"));
            Exit::Usage
        }
        _ => exit,
    }
}
