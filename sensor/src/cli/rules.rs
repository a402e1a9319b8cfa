//! `etwsieve rules`, and the loading of rules for the other commands.

use super::options::RuleArgs;
use super::terminal::Terminal;
use super::{Exit, after_writing, cost, print_error, usage_error};
use crate::input::InputError;
use crate::rules::from_paths;
use clap::{Args, Subcommand};
use etwsieve_matcher::{EventKind, KERNEL_VARIABLE, Kernel, Loaded, Matcher, RuleError};
use serde::Serialize;
use std::io::{self, Write};
use std::path::PathBuf;

/// Subcommands of `rules`.
#[derive(Debug, Subcommand)]
pub(super) enum RulesCommand {
    Check(RulesCheckArgs),
    Cost(cost::RulesCostArgs),
}

/// Check rules, list all errors and warnings, and show the size of the prefilter.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etwsieve rules check my_rule.yml
  etwsieve rules check sigma/rules                 rules for other log sources are counted and skipped
  etwsieve rules check --format json my_rules | jq .errors")]
pub(super) struct RulesCheckArgs {
    /// Output format; the same on a terminal and in a pipe.
    #[arg(long, value_enum, default_value_t = CheckFormat::Text)]
    format: CheckFormat,
    /// Exit with 2 if there are warnings.
    #[arg(long)]
    deny_warnings: bool,
    /// Rule files, or folders that are searched for .yml and .yaml files.
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
}

/// Output formats of `rules check`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum CheckFormat {
    /// Problems on standard error, a summary on standard output.
    Text,
    /// One JSON object on standard output.
    Json,
}

pub(super) fn run(command: &RulesCommand, terminal: &Terminal) -> Exit {
    match command {
        RulesCommand::Check(args) => check(args),
        RulesCommand::Cost(args) => cost::run(args, terminal),
    }
}

/// Loads the rules of a command, and lists the invalid ones. `Err`: the command must not continue.
pub(super) fn load(args: &RuleArgs) -> Result<Matcher, Exit> {
    let (loaded, unreadable) = from_paths(&args.rules);
    list(&loaded, &unreadable);
    let bad = loaded.refused + unreadable.len();
    if bad > 0 && !args.allow_bad_rules {
        let (noun, pronoun) = if bad == 1 { ("rule", "it") } else { ("rules", "them") };
        return Err(usage_error(format_args!(
            "{bad} {noun} rejected; pass --allow-bad-rules to continue without {pronoun}"
        )));
    }
    if loaded.rules.is_empty() {
        return Err(usage_error(no_rule_message(&loaded)));
    }
    if bad > 0 {
        tracing::warn!(rejected = bad, loaded = loaded.rules.len(), "continuing without invalid rules");
    }
    if loaded.other_log_sources > 0 {
        let (rules, others) = (loaded.rules.len(), loaded.other_log_sources);
        anstream::eprintln!("rules: {rules} loaded, {others} for other log sources");
    }
    let kernel =
        Kernel::select(&std::env::var_os(KERNEL_VARIABLE).unwrap_or_default()).map_err(usage_error)?;
    let matcher = Matcher::with_kernel(loaded.rules, kernel);
    tracing::info!(
        rules = matcher.rules().len(),
        filters = loaded.filters,
        other_log_sources = loaded.other_log_sources,
        kernel = matcher.kernel().as_str(),
        memory = matcher.memory(),
        "rules loaded"
    );
    Ok(matcher)
}

/// Returns the error message for a set of rules in which none is valid.
pub(super) fn no_rule_message(loaded: &Loaded) -> String {
    match loaded.other_log_sources {
        0 => "no valid rule is left".to_owned(),
        others => format!(
            "no rule for PowerShell: {others} rules are for other log sources than category ps_script, category ps_module and service powershell"
        ),
    }
}

fn list(loaded: &Loaded, unreadable: &[InputError]) {
    loaded.errors.iter().for_each(print_error);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    unreadable.iter().for_each(print_error);
}

fn check(args: &RulesCheckArgs) -> Exit {
    let (mut loaded, unreadable) = from_paths(&args.paths);
    let is_good =
        loaded.refused == 0 && unreadable.is_empty() && (loaded.warnings.is_empty() || !args.deny_warnings);
    let exit = if is_good { Exit::Complete } else { Exit::Usage };
    let matcher = Matcher::new(std::mem::take(&mut loaded.rules));
    let result = CheckResult::new(&loaded, &unreadable, &matcher);
    let written = match args.format {
        CheckFormat::Text => {
            list(&loaded, &unreadable);
            result.print()
        }
        CheckFormat::Json => result.print_json(),
    };
    after_writing(written, exit)
}

/// The result of `rules check`. The field names are those of the JSON output in `docs/rules.md`.
#[derive(Debug, Serialize)]
struct CheckResult {
    /// Version of the JSON format.
    version: u32,
    loaded: usize,
    other_log_sources: usize,
    filters: usize,
    /// Number of rules, filters and paths that were rejected.
    refused: usize,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    events: Vec<EventCost>,
}

/// An error or a warning.
#[derive(Debug, Serialize)]
struct Problem {
    file: String,
    line: Option<usize>,
    column: Option<usize>,
    code: &'static str,
    construct: Option<String>,
    message: String,
    suggestion: Option<String>,
}

/// Size of the prefilter for one kind of event.
#[derive(Debug, Serialize)]
struct EventCost {
    event_id: u16,
    rules: usize,
    needles: usize,
    /// Rules without a prefilter.
    ungated: usize,
}

impl CheckResult {
    /// Creates the result. The rules have been moved from `loaded` into `matcher`.
    fn new(loaded: &Loaded, unreadable: &[InputError], matcher: &Matcher) -> Self {
        let kinds = EventKind::POWERSHELL.into_iter().filter(|kind| matcher.wants(*kind));
        let events = kinds.map(|kind| EventCost {
            event_id: kind.event_id(),
            rules: matcher.rules().iter().filter(|rule| rule.events.contains(kind)).count(),
            needles: matcher.gate_needles(kind),
            ungated: matcher.ungated(kind),
        });
        Self {
            version: 1,
            loaded: matcher.rules().len(),
            other_log_sources: loaded.other_log_sources,
            filters: loaded.filters,
            refused: loaded.refused + unreadable.len(),
            errors: loaded
                .errors
                .iter()
                .map(Problem::of_rule)
                .chain(unreadable.iter().map(Problem::of_path))
                .collect(),
            warnings: loaded.warnings.iter().map(Problem::of_rule).collect(),
            events: events.collect(),
        }
    }

    fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "rules: {} loaded, {} for other log sources, {} filters applied, {} rejected, {} warnings",
            self.loaded,
            self.other_log_sources,
            self.filters,
            self.refused,
            self.warnings.len()
        )?;
        for event in &self.events {
            writeln!(
                out,
                "event {}: {} rules, {} literals in the prefilter, {} rules without a prefilter",
                event.event_id, event.rules, event.needles, event.ungated
            )?;
        }
        Ok(())
    }

    fn print_json(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, self)?;
        writeln!(out)
    }
}

impl Problem {
    fn of_rule(error: &RuleError) -> Self {
        Self {
            file: error.file.clone(),
            line: Some(error.line),
            column: Some(error.column),
            code: error.problem.code(),
            construct: error.problem.construct(),
            message: error.message(),
            suggestion: error.problem.suggestion().map(str::to_owned),
        }
    }

    fn of_path(error: &InputError) -> Self {
        Self {
            file: error.path().map_or_else(String::new, |path| path.display().to_string()),
            line: None,
            column: None,
            code: "unreadable",
            construct: None,
            message: error.to_string(),
            suggestion: None,
        }
    }
}
