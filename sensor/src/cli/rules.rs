//! `etwsieve rules check`, and the loading of rules for the other commands.

use super::{Exit, RuleArgs, RulesCheckArgs, after_writing, complain};
use crate::rules::from_paths;
use etwsieve_matcher::{EventKind, Kernel, Loaded, Matcher};
use std::io::{self, Write};

/// Loads the rules of a command, telling what was refused. `Err`: the command must not go on.
pub(super) fn load(args: &RuleArgs) -> Result<Matcher, Exit> {
    let (loaded, unreadable) = from_paths(&args.rules);
    report(&loaded);
    for error in &unreadable {
        complain(error);
    }
    let bad = loaded.errors.len() + unreadable.len();
    if bad > 0 && !args.allow_bad_rules {
        complain(format_args!("{bad} rules were refused; --allow-bad-rules goes on with the others"));
        return Err(Exit::Usage);
    }
    if loaded.rules.is_empty() {
        complain("no rule is left");
        return Err(Exit::Usage);
    }
    if bad > 0 {
        tracing::warn!(left_out = bad, loaded = loaded.rules.len(), "rules were left out");
    }
    let kernel = Kernel::from_env().map_err(|error| {
        complain(error);
        Exit::Usage
    })?;
    let matcher = Matcher::with_kernel(loaded.rules, kernel);
    tracing::info!(
        rules = matcher.rules().len(),
        filters = loaded.filters,
        kernel = matcher.kernel().as_str(),
        memory = matcher.memory(),
        "rules loaded"
    );
    Ok(matcher)
}

fn report(loaded: &Loaded) {
    for error in &loaded.errors {
        complain(error);
    }
    for note in &loaded.notes {
        tracing::warn!("{note}");
    }
}

/// Runs `rules check`.
pub(super) fn check(args: &RulesCheckArgs) -> Exit {
    let (loaded, unreadable) = from_paths(&args.paths);
    report(&loaded);
    for error in &unreadable {
        complain(error);
    }
    let exit = if loaded.errors.is_empty() && unreadable.is_empty() { Exit::Complete } else { Exit::Usage };
    let refused = loaded.errors.len() + unreadable.len();
    let filters = loaded.filters;
    let matcher = Matcher::new(loaded.rules);
    after_writing(print(&matcher, filters, refused), exit)
}

fn print(matcher: &Matcher, filters: usize, refused: usize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{} rules understood, {filters} filters applied, {refused} refused",
        matcher.rules().len()
    )?;
    for kind in EventKind::POWERSHELL.into_iter().filter(|kind| matcher.wants(*kind)) {
        let rules = matcher.rules().iter().filter(|rule| rule.events.contains(kind)).count();
        writeln!(
            out,
            "event {}: {rules} rules, {} needles in the gate, {} rules that no needle gates",
            kind.event_id(),
            matcher.gate_needles(kind),
            matcher.ungated(kind)
        )?;
    }
    Ok(())
}
