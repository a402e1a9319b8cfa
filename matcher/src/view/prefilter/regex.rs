//! Rules that depend on more than literals: regular expressions, and patterns with `?`.
//!
//! Obfuscation may hide a match of these without being inside a literal. But each alternative of such a rule has
//! clauses, sets of needles of which one must occur in the text. If a clause does not hold in the text as recorded, a
//! view has to produce one of its needles, so these needles count as literals. Only if all clauses hold may any trigger
//! matter.

use crate::compile::clause::{Clause, necessary, of_pattern, of_regex};
use crate::field::EventKind;
use crate::pattern::Part;
use crate::rule::{Expr, Op};
use crate::scan::triggers::BACKTICK;
use memchr::memmem::Finder;
use memchr::{memchr_iter, memrchr_iter};
use regex_syntax::hir::{Class, Hir, HirKind};
use std::ops::Range;

/// Maximum number of needles of a clause that is tested; a longer one is assumed to hold.
const NEEDLES_MAX: usize = 16;
/// Bytes searched for one needle per step.
const BYTES_PER_STEP: usize = 32;

/// The alternatives of one rule that depend on more than literals.
#[derive(Debug, Default)]
pub(super) struct NonLiteral {
    alternatives: Vec<Alternative>,
    /// True if none of them is a pattern with `?`.
    pub(super) is_regex: bool,
}

#[derive(Debug)]
struct Alternative {
    clauses: Vec<Vec<Finder<'static>>>,
    /// True if matches are within one line.
    in_line: bool,
}

impl NonLiteral {
    /// Derives them from a rule's expression; `needle` receives the needles of their clauses.
    pub(super) fn of(expr: &Expr, mut needle: impl FnMut(&[u8])) -> Self {
        let mut alternatives = Vec::new();
        for (clauses, in_line) in alternatives_of(expr).unwrap_or_default() {
            // No view contains a backtick.
            let never = |clause: &Clause| clause.needles.iter().all(|needle| needle.contains(&BACKTICK));
            if clauses.iter().any(never) {
                continue;
            }
            clauses.iter().flat_map(|clause| &clause.needles).for_each(|own| needle(own));
            let finders = |clause: &Clause| -> Vec<_> {
                clause.needles.iter().map(|needle| Finder::new(&needle[..]).into_owned()).collect()
            };
            let short = clauses.iter().filter(|clause| clause.needles.len() <= NEEDLES_MAX);
            alternatives.push(Alternative { clauses: short.map(finders).collect(), in_line });
        }
        let is_regex = !has_one(expr);
        Self { alternatives, is_regex }
    }

    /// Returns true if there are any.
    pub(super) fn is_any(&self) -> bool {
        !self.alternatives.is_empty()
    }

    /// Returns the steps of [`holds`](Self::holds) for a text of this length.
    pub(super) fn steps(&self, len: usize) -> usize {
        let needles = self
            .alternatives
            .iter()
            .flat_map(|alternative| &alternative.clauses)
            .map(Vec::len)
            .sum::<usize>();
        needles * (2 + len / BYTES_PER_STEP)
    }

    /// Returns true if all clauses of an alternative hold in a narrowed text; `None` if all such alternatives match
    /// within a line only, for which this must be called again.
    pub(super) fn holds(&self, text: &[u8]) -> Option<bool> {
        let stands = |clause: &Vec<Finder<'_>>| clause.iter().any(|needle| needle.find(text).is_some());
        let mut holding =
            self.alternatives.iter().filter(|alternative| alternative.clauses.iter().all(stands)).peekable();
        let is_any = holding.peek().is_some();
        (!is_any || holding.any(|alternative| !alternative.in_line)).then_some(is_any)
    }
}

/// Returns the line of a narrowed text that contains `at`, with those that a backtick joins to it.
pub(super) fn line_of(text: &[u8], at: usize) -> Range<usize> {
    let joins = |end: usize| matches!(text[..end], [.., BACKTICK] | [.., BACKTICK, b'\r']);
    let at = at.min(text.len());
    let start = memrchr_iter(b'\n', &text[..at]).find(|end| !joins(*end)).map_or(0, |end| end + 1);
    let end = memchr_iter(b'\n', &text[at..]).map(|end| at + end).find(|end| !joins(*end));
    start..end.unwrap_or(text.len())
}

/// Returns the clauses of each alternative, and whether it matches within one line; `None` for an expression of
/// literals only.
fn alternatives_of(expr: &Expr) -> Option<Vec<(Vec<Clause>, bool)>> {
    match expr {
        Expr::Or(parts) => {
            let alternatives: Vec<_> = parts.iter().filter_map(alternatives_of).flatten().collect();
            (!alternatives.is_empty()).then_some(alternatives)
        }
        Expr::And(parts) => {
            let (at, mut alternatives) =
                parts.iter().enumerate().find_map(|(at, part)| Some((at, alternatives_of(part)?)))?;
            for (other, part) in parts.iter().enumerate() {
                if other != at
                    && let Some(clause) = necessary(part, EventKind::ScriptBlock)
                {
                    // The clause may hold in another line.
                    alternatives
                        .iter_mut()
                        .filter(|(_, in_line)| !in_line)
                        .for_each(|(alternative, _)| alternative.push(clause.clone()));
                }
            }
            Some(alternatives)
        }
        Expr::Not(_) => None,
        Expr::Test(test) => match &test.op {
            Op::Regex(source) => Some(vec![(of_regex(source), is_in_line(source))]),
            Op::Text { pattern, .. } if pattern.parts().contains(&Part::One) => {
                Some(vec![(of_pattern(pattern).into_iter().collect(), false)])
            }
            Op::Text { .. } | Op::Number(..) | Op::Exists(_) => None,
        },
    }
}

fn has_one(expr: &Expr) -> bool {
    match expr {
        Expr::And(parts) | Expr::Or(parts) => parts.iter().any(has_one),
        Expr::Not(_) => false,
        Expr::Test(test) => {
            matches!(&test.op, Op::Text { pattern, .. } if pattern.parts().contains(&Part::One))
        }
    }
}

/// Returns true if a regular expression matches no line end.
fn is_in_line(source: &str) -> bool {
    regex_syntax::parse(source).is_ok_and(|hir| !has_newline(&hir))
}

fn has_newline(hir: &Hir) -> bool {
    let is_newline = |c: char| matches!(c, '\n' | '\r');
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => false,
        HirKind::Literal(literal) => literal.0.iter().any(|byte| is_newline(char::from(*byte))),
        HirKind::Class(Class::Unicode(class)) => {
            class.ranges().iter().any(|range| (range.start()..=range.end()).contains(&'\n'))
        }
        HirKind::Class(Class::Bytes(_)) => true,
        HirKind::Repetition(repetition) => has_newline(&repetition.sub),
        HirKind::Capture(capture) => has_newline(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().any(has_newline),
    }
}
