//! The command line: what each subcommand takes, and how it ends.

mod config;
mod cost;
mod files;
mod hits;
mod live;
mod replay;
mod rules;
mod terminal;
mod trace;

use crate::delivery::{CollectorOrder, CollectorSettings, SpoolKeep};
use crate::output::Format;
use crate::search::{ScopeChoice, ViewChoice};
use crate::stop::Stop;
use clap::{Args, Parser, Subcommand};
use etwsieve_etl::FileTime;
use etwsieve_transport::files::is_stopped;
use etwsieve_transport::printable::{Lines, is_hidden};
use std::fmt::Display;
use std::net::SocketAddr;
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
Exit codes: 0 everything was read (and sent, with --collector); 1 some input was damaged or unreadable, the rest was
processed, or hits are left in the spool; 2 wrong usage, refused rules, or an output that cannot be written; 130 stopped by Ctrl-C.
Diagnostics go to standard error; ETWSIEVE_LOG=debug (or a filter such as etwsieve=trace) shows more.";

/// Searches PowerShell script blocks with Sigma rules: live on Windows, in recorded traces anywhere.
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
    Watch(WatchArgs),
    Replay(ReplayArgs),
    Record(RecordArgs),
    Doctor(DoctorArgs),
    /// Work with the Windows service, which runs `watch` from the start of the system.
    Service {
        #[command(subcommand)]
        command: ServiceCommand,
    },
    /// Work with the configuration of the live sensor.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Work with rules.
    Rules {
        #[command(subcommand)]
        command: RulesCommand,
    },
    Hits(HitsArgs),
    Trace(TraceArgs),
}

/// Search PowerShell's events as they happen (Windows; needs an elevated prompt or the service).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etwsieve watch                                   the built-in rule, detections on the terminal
  etwsieve watch --rules C:\\rules --output hits.jsonl --metrics 127.0.0.1:9477
  etwsieve watch --config C:\\ProgramData\\etwsieve\\etwsieve.toml
Ctrl-C stops the session and prints what became of every event.")]
struct WatchArgs {
    /// The configuration; options here override it [default: C:\ProgramData\etwsieve\etwsieve.toml if it is there].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    rules: RuleArgs,
    /// What rules are held against: each event by itself, script blocks joined from several events.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SCOPE,…")]
    scope: Vec<ScopeChoice>,
    /// In which forms: as recorded, as PowerShell understands it, by cmdlet and parameter.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "VIEW,…")]
    view: Vec<ViewChoice>,
    /// How detections are written [default: table on a terminal, jsonl otherwise].
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Append detections to this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also keep the hits in this SQLite database; it is created if absent.
    #[arg(long, value_name = "DB")]
    store: Option<PathBuf>,
    #[command(flatten)]
    collector: CollectorArgs,
    /// Serve counts for Prometheus on this loopback address, such as 127.0.0.1:9477.
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    /// Name of the session.
    #[arg(long, value_name = "NAME")]
    session: Option<String>,
    /// Also search what PowerShell hands to the antimalware scanner (AMSI, event 1101), with the same rules.
    #[arg(long)]
    amsi: bool,
    /// Matcher threads [default: a quarter of the processors, at most 4].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: Option<u16>,
    /// Write the counts of the run to this file when it ends, as one JSON object; - for standard output. An earlier summary
    /// is replaced, any other file is not.
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
}

/// Record PowerShell's events to an .etl file that `replay` reads (Windows).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etwsieve record evidence.etl                     until Ctrl-C
  etwsieve record --seconds 600 --size-max 512 busy.etl")]
struct RecordArgs {
    /// Stop after so many seconds.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Stop when the file has so many megabytes.
    #[arg(long, value_name = "MB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    size_max: u32,
    /// Also record what is handed to the antimalware scanner (AMSI, event 1101).
    #[arg(long)]
    amsi: bool,
    /// Name of the session.
    #[arg(long, value_name = "NAME", default_value = "etwsieve-record")]
    session: String,
    /// The file to write; it must not exist.
    #[arg(value_name = "OUT.etl")]
    path: PathBuf,
}

/// Tell whether a sensor on this machine would see anything, and if not, why (Windows).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etwsieve doctor
  etwsieve doctor --canary                         starts PowerShell and waits for its script block
Exit codes: 0 the sensor would see script blocks; 1 something is missing; 2 wrong usage.")]
struct DoctorArgs {
    /// Start PowerShell with a script block that holds a random word, and tell whether and how soon it arrives.
    #[arg(long)]
    canary: bool,
    /// Name of the sensor's session.
    #[arg(long, value_name = "NAME", default_value = "etwsieve")]
    session: String,
}

/// What `service` does.
#[derive(Debug, Subcommand)]
enum ServiceCommand {
    /// Install the service: automatic start, least-privilege account, restart after a crash.
    Install {
        /// The configuration that the service uses [default: C:\ProgramData\etwsieve\etwsieve.toml].
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Install even if ordinary accounts can change the program or its configuration, and only warn.
        #[arg(long)]
        allow_exposed: bool,
    },
    /// Remove the service.
    Uninstall,
    /// Start the service.
    Start,
    /// Stop the service.
    Stop,
    /// Show the state of the service.
    Status,
    /// What the service manager runs.
    #[command(hide = true)]
    Run {
        /// The configuration.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// What `config` does.
#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a configuration and the rules that it names.
    Check {
        /// The file.
        #[arg(value_name = "FILE")]
        path: PathBuf,
    },
    /// Print a configuration with every key explained; without a file, the defaults.
    Print {
        /// The file.
        #[arg(value_name = "FILE")]
        path: Option<PathBuf>,
    },
}

/// Search recorded traces (.etl, .evtx, .jsonl) and print the detections.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etwsieve replay trace.etl                        the built-in rule on one trace
  etwsieve replay --rules sigma/rules C:\\case\\logs  all rules of a folder on all traces of another
  etwsieve replay --store hits.db --summary run.json --format ecs logs/ > hits.jsonl
  zstd -dc trace.etl.zst | etwsieve replay -
A path that does not exist is a pattern if it contains *, ? or [...]: `logs\\*.evtx`, `case/**/*.etl` (** stands for any
number of folders). A file of exactly that name is preferred; [*] stands for the character itself. Archives and compressed
files in folders are not read; they are reported, and counted in the summary.")]
struct ReplayArgs {
    #[command(flatten)]
    rules: RuleArgs,
    /// What rules are held against: each event by itself, script blocks joined from several events.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SCOPE,…", default_values_t = ScopeChoice::ALL)]
    scope: Vec<ScopeChoice>,
    /// In which forms: as recorded, as PowerShell understands it, by cmdlet and parameter.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "VIEW,…", default_values_t = ViewChoice::ALL)]
    view: Vec<ViewChoice>,
    /// How detections are written [default: table on a terminal, jsonl otherwise].
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Also keep the hits in this SQLite database; it is created if absent, and a hit that it has is not doubled.
    #[arg(long, value_name = "DB")]
    store: Option<PathBuf>,
    #[command(flatten)]
    collector: CollectorArgs,
    /// With --collector: end with exit code 1 when nothing has been acknowledged for so long; a later run sends the rest.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    collector_wait: u64,
    /// Write the counts of the run to this file, as one JSON object; - for standard output. An earlier summary is replaced,
    /// any other file is not.
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// Matcher threads [default: one for each processor]. The output does not depend on them.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: Option<u16>,
    /// Also search what PowerShell hands to the antimalware scanner (AMSI, event 1101), with the same rules.
    #[arg(long)]
    amsi: bool,
    /// Traces, folders that are searched for .etl, .evtx and .jsonl files, pipes, or - for standard input.
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
}

/// Where rules come from.
#[derive(Debug, Args)]
struct RuleArgs {
    /// Sigma rules and filters: files, or folders that are searched for .yml and .yaml [default: the built-in rule].
    #[arg(long, value_name = "FILE|DIR")]
    rules: Vec<PathBuf>,
    /// Continue without the rules that are refused, and list them.
    #[arg(long)]
    allow_bad_rules: bool,
}

/// Where hits are sent.
#[derive(Debug, Args)]
struct CollectorArgs {
    /// Send hits to this collector; several, separated by commas or given one by one, are tried in turn.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    collector: Vec<String>,
    /// Certificate, key and authority of this sensor, as `etwsieve-collector pki issue` writes them.
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// Where hits wait until a collector has acknowledged them [default: beside --store, else in the data folder].
    #[arg(long, value_name = "FILE|DIR")]
    spool: Option<PathBuf>,
    /// Most megabytes that wait; what exceeds them is given up, counted, and told to the collector [default: 256].
    #[arg(long, value_name = "MB")]
    spool_max: Option<u64>,
    /// What a full spool keeps [default: oldest].
    #[arg(long, value_enum)]
    spool_keep: Option<SpoolKeep>,
    /// Order in which collectors are tried [default: shuffled].
    #[arg(long, value_enum)]
    collector_order: Option<CollectorOrder>,
    /// Send without TLS, to a collector on this machine only.
    #[arg(long)]
    insecure_loopback: bool,
}

impl CollectorArgs {
    /// Puts what was said on the command line into `settings`.
    fn apply(&self, settings: &mut CollectorSettings) {
        if !self.collector.is_empty() {
            settings.addresses.clone_from(&self.collector);
        }
        if self.bundle.is_some() {
            settings.bundle.clone_from(&self.bundle);
        }
        if self.spool.is_some() {
            settings.spool.clone_from(&self.spool);
        }
        settings.spool_max_mb = self.spool_max.unwrap_or(settings.spool_max_mb);
        settings.spool_keep = self.spool_keep.unwrap_or(settings.spool_keep);
        settings.order = self.collector_order.unwrap_or(settings.order);
        settings.insecure_loopback |= self.insecure_loopback;
    }
}

#[derive(Debug, Subcommand)]
enum RulesCommand {
    Check(RulesCheckArgs),
    Cost(RulesCostArgs),
}

/// Show what each rule costs on recorded traces: how often it is a candidate, how often it matches, its share of time.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etwsieve rules cost sigma/rules/windows/powershell busy-server.etl
  etwsieve rules cost my_rule.yml traces/ --format jsonl")]
struct RulesCostArgs {
    /// A rule file, or a folder that is searched for .yml and .yaml.
    #[arg(value_name = "RULES")]
    rules: PathBuf,
    /// Continue without the rules that are refused, and list them.
    #[arg(long)]
    allow_bad_rules: bool,
    /// How it is written [default: table on a terminal, jsonl otherwise].
    #[arg(long, value_enum)]
    format: Option<TraceFormat>,
    /// Traces, or folders that are searched for .etl, .evtx and .jsonl files.
    #[arg(required = true, value_name = "TRACE|DIR")]
    traces: Vec<PathBuf>,
}

/// Check rules, list all errors and warnings, and show what the rules cost the prefilter.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etwsieve rules check my_rule.yml
  etwsieve rules check sigma/rules                 rules of other log sources are counted and skipped
  etwsieve rules check --format json my_rules | jq .errors")]
struct RulesCheckArgs {
    /// Output format.
    #[arg(long, value_enum, default_value_t = CheckFormat::Text)]
    format: CheckFormat,
    /// Exit with 2 if there are warnings.
    #[arg(long)]
    deny_warnings: bool,
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
  etwsieve hits --since 2h --rule endpoint --computer srv01 hits.db
  etwsieve hits --follow hits.db                   and what comes, until Ctrl-C
  sqlite3 hits.db 'SELECT * FROM detections'       grouped as the Splunk analytic groups them")]
struct HitsArgs {
    /// How hits are written [default: table on a terminal, jsonl otherwise; with --stats: table].
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Count hits by rule and computer instead of listing them. Formats: table, jsonl.
    #[arg(long)]
    stats: bool,
    /// Only events from this time on: 2026-11-25T18:00:00Z, or how long ago, such as 90s, 30m, 2h, 7d.
    #[arg(long, value_name = "TIME", value_parser = hits::parse_time)]
    since: Option<FileTime>,
    /// Only events up to this time, with it; as --since.
    #[arg(long, value_name = "TIME", value_parser = hits::parse_time)]
    until: Option<FileTime>,
    /// Only hits of rules with this id, or with this text in their title.
    #[arg(long, value_name = "ID|TEXT")]
    rule: Option<String>,
    /// Only hits of this computer.
    #[arg(long, value_name = "NAME")]
    computer: Option<String>,
    /// Go on with the hits that are stored from now on, until Ctrl-C.
    #[arg(long, conflicts_with = "stats")]
    follow: bool,
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
    /// Traces, folders that are searched for .etl files, pipes, or - for standard input.
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
}

/// How `rules check` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum CheckFormat {
    /// For reading: problems on standard error, a summary on standard output.
    Text,
    /// One JSON object on standard output.
    Json,
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
    let cli = Cli::try_parse().unwrap_or_else(|error| printable_usage(&error));
    let terminal = || Terminal::new(cli.verbose, "warn");
    let exit = match cli.command {
        Command::Watch(args) => match live::watch_config(&args) {
            Ok((config, format)) => {
                Terminal::new(cli.verbose, &config.log.level);
                live::watch(&args, config, format)
            }
            Err(exit) => exit,
        },
        Command::Replay(args) => replay::run(&args, &terminal()),
        Command::Trace(args) => trace::run(&args, &terminal()),
        Command::Record(args) => live::record(&args, &terminal()),
        Command::Doctor(args) => live::doctor(&args, &terminal()),
        Command::Service { command } => live::service(&command, &terminal),
        Command::Config { command } => {
            terminal();
            match command {
                ConfigCommand::Check { path } => config::check(&path),
                ConfigCommand::Print { path } => config::print(path.as_deref()),
            }
        }
        Command::Rules { command: RulesCommand::Cost(args) } => cost::run(&args, &terminal()),
        Command::Rules { command: RulesCommand::Check(args) } => {
            terminal();
            rules::check(&args)
        }
        Command::Hits(args) => {
            terminal();
            hits::run(&args)
        }
    };
    exit.into()
}

/// Ends the process as clap does, with a message in which no argument commands the terminal: a shell may have made
/// arguments of file names.
fn printable_usage(error: &clap::Error) -> ! {
    let text = error.to_string();
    if error.use_stderr() && text.chars().any(|c| c != '\n' && is_hidden(c)) {
        anstream::eprintln!("{}", Lines(text.trim_end()));
        std::process::exit(error.exit_code());
    }
    error.exit()
}

/// Reports an error on standard error.
fn complain(error: impl Display) {
    anstream::eprintln!("\x1b[1;31merror:\x1b[0m {}", Lines(error));
}

/// The first signal requests a clean stop; the second one ends the process at once.
fn stop_on_signal(stop: &Stop) {
    let stop = stop.clone();
    let result = ctrlc::set_handler(move || {
        if stop.requested() {
            std::process::exit(130);
        }
        stop.request();
    });
    if let Err(error) = result {
        tracing::warn!("Ctrl-C will end the run without a summary: {error}");
    }
}

/// The outcome of writing to standard output: a reader that has gone away is no error.
fn after_writing(result: std::io::Result<()>, exit: Exit) -> Exit {
    match result {
        Err(error) if is_stopped(&error) => {
            complain("stopped; the rest is not written, because nothing reads standard output");
            Exit::Interrupted
        }
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            complain(format_args!("cannot write the output: {error}"));
            Exit::Usage
        }
        _ => exit,
    }
}
