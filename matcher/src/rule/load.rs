//! Loads rule files into a set of rules and reports everything that is rejected or doubtful.

use crate::error::{Position, Problem, RuleError};
use crate::rule::Rule;
use crate::rule::filter::{self, FILTERS_MAX, Filter};
use crate::rule::identity::DerivedIds;
use crate::rule::loaded::Loaded;
use crate::rule::report::{Report, file_bytes_max, file_steps_max};
use crate::rule::sigma::{DocumentKind, document};
use crate::yaml::{self, Node};
use etwsieve_budget::Budget;
use std::collections::{HashMap, HashSet};

/// Maximum number of rules in a set.
pub const RULES_MAX: usize = 20_000;
/// Maximum work for all files of a set, in steps.
const SET_STEPS_MAX: u64 = 16 << 30;
/// Maximum memory of all rules of a set, in bytes.
const SET_BYTES_MAX: u64 = 1 << 30;

/// Loads rules and filters from files, given as name and text.
///
/// A document with an error is rejected and the rest is loaded; the caller decides whether to use a set with errors.
/// Rules for other log sources are counted and otherwise ignored.
///
/// # Complexity
///
/// Each file costs at most [`file_steps_max`] steps and [`file_bytes_max`] bytes, and there are limits for the set;
/// whatever exceeds them is rejected. Compiling the rules costs as much again.
pub fn load<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Loaded {
    let mut set = Set::default();
    for (file, text) in files {
        set.file(file, text);
    }
    set.finish()
}

#[derive(Default)]
struct Set {
    loaded: Loaded,
    filters: Vec<Filter>,
    /// The position at which each id was first used.
    seen: HashMap<String, String>,
    derived_ids: DerivedIds,
    /// Ids and names of rules for other log sources.
    others: HashSet<String>,
    correlations: Vec<Correlation>,
}

/// A correlation rule, whose log source is that of the rules it refers to.
struct Correlation {
    file: String,
    at: Position,
    rules: Vec<String>,
}

impl Set {
    fn file(&mut self, file: &str, text: &str) {
        let steps = file_steps_max(text.len()).min(SET_STEPS_MAX - self.loaded.steps.min(SET_STEPS_MAX));
        let bytes = file_bytes_max(text.len()).min(SET_BYTES_MAX - self.loaded.bytes.min(SET_BYTES_MAX));
        let mut report = Report::new(Budget::new(steps, bytes));
        let start = Position { line: 1, column: 1 };
        if let Err((at, problem)) = report.charge(start, text.len()) {
            report.error(at, problem);
        } else {
            self.documents(file, text, &mut report);
        }
        self.loaded.steps += report.budget.steps_spent();
        self.loaded.bytes += report.budget.bytes_spent();
        let place = |(at, problem): (Position, Problem)| RuleError {
            file: file.into(),
            line: at.line,
            column: at.column,
            problem,
        };
        report.errors.sort_by_key(|(at, _)| *at);
        report.warnings.sort_by_key(|(at, _)| *at);
        if report.more > 0 {
            report.errors.push((start, Problem::More(report.more)));
        }
        self.loaded.errors.extend(report.errors.into_iter().map(place));
        self.loaded.warnings.extend(report.warnings.into_iter().map(place));
    }

    fn documents(&mut self, file: &str, text: &str, report: &mut Report<'_>) {
        let parsed = yaml::parse(text);
        if parsed.documents.is_empty() && parsed.errors.is_empty() {
            // A file in which everything is commented out is intentional; one without any text was probably truncated.
            let start = Position { line: 1, column: 1 };
            if text.trim().is_empty() {
                self.loaded.refused += 1;
                report.error(start, Problem::Empty);
            } else {
                report.warn(start, Problem::Empty);
            }
        }
        self.loaded.refused += parsed.errors.len();
        for (at, problem) in parsed.errors {
            report.error(at, problem);
        }
        for own in &parsed.documents {
            let at = own.root.at;
            match document(own, file, report) {
                DocumentKind::Refused => self.loaded.refused += 1,
                DocumentKind::Other { id, name } => {
                    self.loaded.other_log_sources += 1;
                    self.others.extend([id.to_ascii_lowercase(), name]);
                }
                DocumentKind::Correlation { rules } => {
                    self.correlations.push(Correlation { file: file.into(), at, rules });
                }
                DocumentKind::Rule(rule) => self.rule(*rule, file, &own.root, report),
                DocumentKind::Filter(filter) if self.filters.len() < FILTERS_MAX => {
                    self.filters.push(*filter);
                }
                DocumentKind::Filter(_) => {
                    self.loaded.refused += 1;
                    report.error(at, Problem::TooLarge { what: "number of filters", max: FILTERS_MAX });
                }
            }
        }
    }

    fn rule(&mut self, mut rule: Rule, file: &str, document: &Node, report: &mut Report<'_>) {
        let at = document.at;
        if rule.id.is_empty() {
            rule.id = self.derived_ids.next(document, |id| self.seen.contains_key(id));
        }
        let id = rule.id.to_ascii_lowercase();
        let problem = if self.loaded.rules.len() == RULES_MAX {
            Some(Problem::TooLarge { what: "number of rules", max: RULES_MAX })
        } else if let Some(first) = self.seen.get(&id) {
            Some(Problem::DuplicateId { id: rule.id.clone(), first: first.clone() })
        } else {
            self.seen.insert(id, format!("{file}:{}", at.line));
            None
        };
        if let Some(problem) = problem {
            self.loaded.refused += 1;
            report.error(at, problem);
        } else {
            self.loaded.rules.push(rule);
        }
    }

    fn finish(mut self) -> Loaded {
        for correlation in self.correlations {
            let is_other = |name: &String| {
                self.others.contains(name) || self.others.contains(&name.to_ascii_lowercase())
            };
            // A correlation of other events is not lost here.
            if !correlation.rules.is_empty() && correlation.rules.iter().all(is_other) {
                self.loaded.other_log_sources += 1;
                continue;
            }
            self.loaded.refused += 1;
            self.loaded.errors.push(RuleError {
                file: correlation.file,
                line: correlation.at.line,
                column: correlation.at.column,
                problem: Problem::Unsupported("a correlation rule".into()),
            });
        }
        filter::apply(self.filters, &mut self.loaded);
        self.loaded
    }
}

#[cfg(test)]
mod tests;
