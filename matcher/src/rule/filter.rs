//! Filters, which narrow the rules that they refer to.
//!
//! A filter applies to rules whose events are all within the filter's log source, as in pySigma. A rule that reads
//! other events too would lose hits that the author of the filter never considered.

use crate::error::{Position, Problem, RuleError};
use crate::field::EventKinds;
use crate::rule::loaded::Loaded;
use crate::rule::{Expr, Origin, Rule};
use std::collections::HashMap;

/// Maximum number of filters in a set.
pub(crate) const FILTERS_MAX: usize = 2_000;
/// Maximum memory that filters add to the rules of a set, in bytes.
const FILTERS_LEN_MAX: usize = 256 << 20;
/// Maximum number of rules that are listed because a filter does not apply to them.
const FOREIGN_MAX: usize = 10;

/// A filter.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) origin: Origin,
    pub(crate) at: Position,
    pub(crate) events: EventKinds,
    /// Ids or names of rules; `None` means every rule of the same log source.
    pub(crate) rules: Option<Vec<String>>,
    pub(crate) expr: Expr,
}

/// Applies filters: both the condition of a rule and those of its filters must hold.
pub(crate) fn apply(filters: Vec<Filter>, loaded: &mut Loaded) {
    let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
    for (at, rule) in loaded.rules.iter().enumerate() {
        // Ids are compared as UUIDs, ignoring case.
        for name in [rule.id.to_ascii_lowercase(), rule.name.clone()] {
            if !name.is_empty() {
                by_name.entry(name).or_default().push(at);
            }
        }
    }
    let mut len = 0;
    for filter in filters {
        let problem = |problem| RuleError {
            file: filter.origin.file.clone(),
            line: filter.at.line,
            column: filter.at.column,
            problem,
        };
        let named = named(&filter, &by_name, &loaded.rules);
        let (targets, foreign): (Vec<_>, Vec<_>) =
            named.into_iter().partition(|&at| filter.events.covers(loaded.rules[at].events));
        if filter.rules.is_some() {
            for &at in foreign.iter().take(FOREIGN_MAX) {
                let name = label(&loaded.rules[at]);
                let found = problem(Problem::FilterLogSource(name));
                // A filter that applies to no rule is an error; one that applies to other rules as well is a warning.
                if targets.is_empty() {
                    loaded.errors.push(found);
                } else {
                    loaded.warnings.push(found);
                }
            }
            if targets.is_empty() && !foreign.is_empty() {
                loaded.refused += 1;
                continue;
            }
        }
        if targets.is_empty() {
            loaded.warnings.push(problem(Problem::FilterUnused));
            continue;
        }
        len += targets.len() * filter.expr.memory();
        if len > FILTERS_LEN_MAX {
            loaded.errors.push(problem(Problem::TooLarge {
                what: "memory of filters in bytes",
                max: FILTERS_LEN_MAX,
            }));
            loaded.refused += 1;
            return;
        }
        loaded.filters += 1;
        for at in targets {
            let rule = &mut loaded.rules[at];
            match &mut rule.expr {
                // The depth must not grow with each filter, because expressions are traversed recursively.
                Expr::And(parts) => parts.push(filter.expr.clone()),
                expr => {
                    let own = std::mem::replace(expr, Expr::And(Vec::new()));
                    *expr = Expr::And(vec![own, filter.expr.clone()]);
                }
            }
        }
    }
}

/// Returns the rules that the filter refers to, ascending and without duplicates.
fn named(filter: &Filter, by_name: &HashMap<String, Vec<usize>>, rules: &[Rule]) -> Vec<usize> {
    let Some(names) = &filter.rules else { return (0..rules.len()).collect() };
    let of = |name: &str| by_name.get(name).into_iter().flatten().copied();
    let mut found: Vec<usize> = names
        .iter()
        .flat_map(|name| of(name).chain(of(&name.to_ascii_lowercase())).collect::<Vec<_>>())
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn label(rule: &Rule) -> String {
    [&rule.id, &rule.name, &rule.title].into_iter().find(|text| !text.is_empty()).cloned().unwrap_or_default()
}
