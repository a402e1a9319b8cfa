//! `etwsieve watch`: searches PowerShell's events as they happen.

use super::files::{Files, prepare_summary, write_summary};
use super::options::{CollectorArgs, RuleArgs};
use super::terminal::Terminal;
use super::{Exit, rules, stop_on_signal, usage_error};
use crate::delivery::Role;
use crate::live::config::{Config, DEFAULT_PATH};
use crate::live::report::summary_line;
use crate::live::rule_files::RuleFiles;
use crate::output::Format;
use crate::search::{ScopeChoice, ViewChoice};
use crate::stop::Stop;
use crate::sys;
use clap::Args;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Search PowerShell's events as they happen (Windows; needs an elevated prompt or the service).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etwsieve watch                                   the built-in rule, detections on the terminal
  etwsieve watch --rules C:\\rules --output hits.jsonl --metrics 127.0.0.1:9477
  etwsieve watch --config C:\\ProgramData\\etwsieve\\etwsieve.toml
Ctrl-C stops the session and prints the counts of all events.")]
pub(super) struct WatchArgs {
    /// Configuration file; options override it [default: C:\ProgramData\etwsieve\etwsieve.toml if it exists].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    rules: RuleArgs,
    /// Match rules against single events, script blocks joined from several events, or both [default: both].
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SCOPE,…")]
    scope: Vec<ScopeChoice>,
    /// Forms of the text to search [default: all].
    #[arg(long, value_enum, value_delimiter = ',', value_name = "VIEW,…")]
    view: Vec<ViewChoice>,
    /// Output format of detections [default: table on a terminal, jsonl otherwise].
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Append detections to this file instead of writing them to standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also store hits in this SQLite database; it is created if it does not exist.
    #[arg(long, value_name = "DB")]
    store: Option<PathBuf>,
    #[command(flatten)]
    collector: CollectorArgs,
    /// Serve metrics for Prometheus on this loopback address, such as 127.0.0.1:9477.
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    /// Name of the session.
    #[arg(long, value_name = "NAME")]
    session: Option<String>,
    /// Also search content that PowerShell passes to the antimalware scanner (AMSI, event 1101), with the same rules.
    #[arg(long)]
    amsi: bool,
    /// Number of matcher threads [default: a quarter of the processors, at most 4].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: Option<u16>,
    /// Write the counts of the run to this file when it ends, as one JSON object; - for standard output. Overwrites
    /// only an earlier summary.
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
}

pub(super) fn run(args: &WatchArgs, verbose: u8) -> Exit {
    let (config, format) = match configure(args) {
        Ok(configured) => configured,
        Err(exit) => return exit,
    };
    Terminal::new(verbose, &config.log.level);
    if let Err(error) = sys::require("watch") {
        return usage_error(error);
    }
    let rule_args = RuleArgs { rules: config.rules.clone(), allow_bad_rules: config.allow_bad_rules };
    let rule_files = RuleFiles::new(config.rules.clone());
    let matcher = match rules::load(&rule_args) {
        Ok(matcher) => matcher,
        Err(exit) => return exit,
    };
    let report = match prepare_summary(args.summary.as_deref()) {
        Ok(report) => report,
        Err(exit) => return exit,
    };
    let stop = Stop::default();
    stop_on_signal(&stop);
    let summary = match sys::run_live(config, format, matcher, rule_files, stop.clone()) {
        Ok(summary) => summary,
        Err(error) => return usage_error(error),
    };
    anstream::eprintln!("{}", summary_line(&summary.run.total, &summary.etw));
    if let Some(report) = report
        && let Err(exit) = write_summary(report, &summary, &stop)
    {
        return exit;
    }
    // Ctrl-C is the normal end of a watch.
    Exit::Complete
}

/// Loads the configuration and applies the options. Returns it with the output format.
fn configure(args: &WatchArgs) -> Result<(Config, Format), Exit> {
    let mut config = load_config(args.config.as_deref())?;
    if !args.rules.rules.is_empty() {
        config.rules.clone_from(&args.rules.rules);
    }
    config.allow_bad_rules |= args.rules.allow_bad_rules;
    if !args.scope.is_empty() {
        config.search.scopes.clone_from(&args.scope);
    }
    if !args.view.is_empty() {
        config.search.views.clone_from(&args.view);
    }
    if let Some(name) = &args.session {
        config.session.name.clone_from(name);
    }
    config.session.amsi |= args.amsi;
    if let Some(threads) = args.threads {
        config.pipeline.threads = threads.into();
    }
    if args.output.is_some() {
        config.output.file.clone_from(&args.output);
    }
    if args.store.is_some() {
        config.output.store.clone_from(&args.store);
    }
    args.collector.apply(&mut config.collector);
    if args.metrics.is_some() {
        config.metrics.listen = args.metrics;
    }
    // The file has been checked; the options may still be invalid.
    config.validate().map_err(usage_error)?;
    let spool = config.collector.is_set().then(|| {
        config.collector.spool_path(Role::Watch, config.output.store.as_deref()).unwrap_or_default()
    });
    Files {
        rules: &config.rules,
        config: args.config.as_deref(),
        output: config.output.file.as_deref(),
        store: config.output.store.as_deref(),
        collector: Some(&config.collector),
        spool: spool.as_deref(),
        summary: args.summary.as_deref(),
        ..Files::default()
    }
    .check()?;
    let format = args.format.unwrap_or_else(|| {
        let set = Format::from(config.output.format);
        if config.output.file.is_none() && set == Format::Jsonl { Format::for_stdout() } else { set }
    });
    Ok((config, format))
}

/// Loads the named file, or the one at the default path if it exists, or else the defaults.
fn load_config(file: Option<&Path>) -> Result<Config, Exit> {
    let default = Path::new(DEFAULT_PATH);
    let path = file.or_else(|| default.is_file().then_some(default));
    let Some(path) = path else { return Ok(Config::default()) };
    // A file that was not named is used only if ordinary accounts cannot have written it.
    if file.is_none()
        && let Some(exposure) = sys::exposure(path)
    {
        return Err(usage_error(exposure));
    }
    Config::load(path).map_err(usage_error)
}
