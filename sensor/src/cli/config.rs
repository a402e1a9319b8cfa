//! `etwsieve config check` and `etwsieve config print`.

use super::{Exit, after_writing, print_error, usage_error};
use crate::live::config::Config;
use crate::rules::from_paths;
use clap::Subcommand;
use etwsieve_transport::printable::{self, Printable};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Subcommands of `config`.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check a configuration and the rules that it names.
    Check {
        /// Configuration file.
        #[arg(value_name = "FILE")]
        path: PathBuf,
    },
    /// Print a configuration with an explanation of every key; without FILE the default configuration.
    Print {
        /// Configuration file.
        #[arg(value_name = "FILE")]
        path: Option<PathBuf>,
    },
}

pub(super) fn run(command: &ConfigCommand) -> Exit {
    match command {
        ConfigCommand::Check { path } => check(path),
        ConfigCommand::Print { path } => print(path.as_deref()),
    }
}

/// Checks the configuration at `path` and the rules that it names.
fn check(path: &Path) -> Exit {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => return usage_error(error),
    };
    let (loaded, unreadable) = from_paths(&config.rules);
    loaded.errors.iter().for_each(print_error);
    unreadable.iter().for_each(print_error);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let rejected = loaded.refused + unreadable.len();
    let rules = loaded.rules.len();
    if rules == 0 {
        print_error(super::rules::no_rule_message(&loaded));
    }
    let exit =
        if rules == 0 || rejected > 0 && !config.allow_bad_rules { Exit::Usage } else { Exit::Complete };
    let written = writeln!(
        io::stdout().lock(),
        "{} is valid; rules: {rules} loaded, {} for other log sources, {} filters applied, {rejected} rejected",
        printable::path(path),
        loaded.other_log_sources,
        loaded.filters
    );
    after_writing(written, exit)
}

/// Prints the configuration at `path`, or the default one, with an explanation of every key.
fn print(path: Option<&Path>) -> Exit {
    match path.map_or_else(|| Ok(Config::default()), Config::load) {
        Ok(config) => {
            let text = config.documented();
            let mut out = io::stdout().lock();
            // Values may contain control characters, which are escaped for a terminal.
            let written = if out.is_terminal() {
                text.lines().try_for_each(|line| writeln!(out, "{}", Printable(line)))
            } else {
                out.write_all(text.as_bytes())
            };
            after_writing(written, Exit::Complete)
        }
        Err(error) => usage_error(error),
    }
}
