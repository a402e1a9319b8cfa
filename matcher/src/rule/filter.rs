//! Filters: they narrow the rules that they name.
//!
//! A filter is applied to rules whose events are all events of the filter's log source, as pySigma does. A rule that reads
//! more events than the filter is about would lose hits that the filter's author never looked at.

use crate::error::{Position, Problem, RuleError};
use crate::field::EventKinds;
use crate::rule::loaded::Loaded;
use crate::rule::{Expr, Origin, Rule};
use std::collections::HashMap;

/// Most filters in a set.
pub(crate) const FILTERS_MAX: usize = 2_000;
/// Most memory that all filters together add to the rules of a set, in bytes.
const FILTERS_LEN_MAX: usize = 256 << 20;
/// Most rules that are listed because a filter does not apply to them.
const FOREIGN_MAX: usize = 10;

/// A filter.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) origin: Origin,
    pub(crate) at: Position,
    pub(crate) events: EventKinds,
    /// Ids or names of rules; `None`: every rule of the same log source.
    pub(crate) rules: Option<Vec<String>>,
    pub(crate) expr: Expr,
}

/// Applies all filters: the conditions of a rule and of its filters must hold.
pub(crate) fn apply(filters: Vec<Filter>, loaded: &mut Loaded) {
    let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
    for (at, rule) in loaded.rules.iter().enumerate() {
        // Ids are compared as the UUIDs they are.
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
                // A filter of which nothing is left is broken; one that applies to other rules as well is doubtful.
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
                // No deeper with each filter: expressions are walked recursively.
                Expr::And(parts) => parts.push(filter.expr.clone()),
                expr => {
                    let own = std::mem::replace(expr, Expr::And(Vec::new()));
                    *expr = Expr::And(vec![own, filter.expr.clone()]);
                }
            }
        }
    }
}

/// The rules that the filter names, ascending and each once.
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
