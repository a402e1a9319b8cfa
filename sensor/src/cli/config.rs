//! `etwsieve config check` and `etwsieve config print`.

use super::{Exit, after_writing, complain};
use crate::live::config::Config;
use crate::rules::from_paths;
use etwsieve_transport::printable::{self, Printable};
use std::io::{self, IsTerminal, Write};
use std::path::Path;

/// Checks the configuration at `path` and the rules that it names.
pub(super) fn check(path: &Path) -> Exit {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            complain(error);
            return Exit::Usage;
        }
    };
    let (loaded, unreadable) = from_paths(&config.rules);
    for error in &loaded.errors {
        complain(error);
    }
    for error in &unreadable {
        complain(error);
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let refused = loaded.refused + unreadable.len();
    let rules = loaded.rules.len();
    if rules == 0 {
        complain(super::rules::nothing_left(&loaded));
    }
    let exit =
        if rules == 0 || refused > 0 && !config.allow_bad_rules { Exit::Usage } else { Exit::Complete };
    let written = writeln!(
        io::stdout().lock(),
        "{} is valid; rules: {rules} loaded, {} for other log sources, {} filters applied, {refused} refused",
        printable::path(path),
        loaded.other_log_sources,
        loaded.filters
    );
    after_writing(written, exit)
}

/// Writes the configuration at `path`, or the default one, with every key explained.
pub(super) fn print(path: Option<&Path>) -> Exit {
    match path.map_or_else(|| Ok(Config::default()), Config::load) {
        Ok(config) => {
            let text = config.documented();
            let mut out = io::stdout().lock();
            // Values come from a file; on a terminal none of them commands it.
            let written = if out.is_terminal() {
                text.lines().try_for_each(|line| writeln!(out, "{}", Printable(line)))
            } else {
                out.write_all(text.as_bytes())
            };
            after_writing(written, Exit::Complete)
        }
        Err(error) => {
            complain(error);
            Exit::Usage
        }
    }
}
