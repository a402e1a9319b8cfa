//! Rules that have more to match than literals: regular expressions, and patterns with `?`.
//!
//! What a disguise hides from them need not lie in a literal. But each way to match them has clauses, sets of needles of
//! which one must stand in the text. Where a clause does not hold in the text as recorded, a view has to make one of its
//! needles, so these count as literals; only where all clauses hold any mark may matter.

use crate::compile::clause::{Clause, necessary, of_pattern, of_regex};
use crate::field::EventKind;
use crate::pattern::Part;
use crate::rule::{Expr, Op};
use crate::scan::triggers::BACKTICK;
use memchr::memmem::Finder;
use memchr::{memchr_iter, memrchr_iter};
use regex_syntax::hir::{Class, Hir, HirKind};
use std::ops::Range;

/// Most needles of a clause that are searched for; a longer one is taken to hold.
const NEEDLES_MAX: usize = 16;
/// Bytes in which one needle is looked for in a step.
const BYTES_PER_STEP: usize = 32;

/// The ways in which one rule may match beyond its literals.
#[derive(Debug, Default)]
pub(super) struct NonLiteral {
    alternatives: Vec<Alternative>,
    /// No pattern with `?` is among them.
    pub(super) is_regex: bool,
}

#[derive(Debug)]
struct Alternative {
    clauses: Vec<Vec<Finder<'static>>>,
    /// What matches lies within one line.
    in_line: bool,
}

impl NonLiteral {
    /// Of a rule's expression; the needles of its clauses go to `needle`.
    pub(super) fn of(expr: &Expr, mut needle: impl FnMut(&[u8])) -> Self {
        let mut alternatives = Vec::new();
        for (clauses, in_line) in alternatives_of(expr).unwrap_or_default() {
            // No view has a backtick.
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

    /// Whether there is any.
    pub(super) fn is_any(&self) -> bool {
        !self.alternatives.is_empty()
    }

    /// Steps to ask whether it holds in a text of this length.
    pub(super) fn steps(&self, len: usize) -> usize {
        let needles = self
            .alternatives
            .iter()
            .flat_map(|alternative| &alternative.clauses)
            .map(Vec::len)
            .sum::<usize>();
        needles * (2 + len / BYTES_PER_STEP)
    }

    /// Whether all clauses of some way hold in a narrowed text; `None` if it can only match within a line, in whose text
    /// that is to be asked again.
    pub(super) fn holds(&self, text: &[u8]) -> Option<bool> {
        let stands = |clause: &Vec<Finder<'_>>| clause.iter().any(|needle| needle.find(text).is_some());
        let mut holding =
            self.alternatives.iter().filter(|alternative| alternative.clauses.iter().all(stands)).peekable();
        let is_any = holding.peek().is_some();
        (!is_any || holding.any(|alternative| !alternative.in_line)).then_some(is_any)
    }
}

/// The line of a narrowed text in which `at` is, with those that a backtick joins to it.
pub(super) fn line_of(text: &[u8], at: usize) -> Range<usize> {
    let joins = |end: usize| matches!(text[..end], [.., BACKTICK] | [.., BACKTICK, b'\r']);
    let at = at.min(text.len());
    let start = memrchr_iter(b'\n', &text[..at]).find(|end| !joins(*end)).map_or(0, |end| end + 1);
    let end = memchr_iter(b'\n', &text[at..]).map(|end| at + end).find(|end| !joins(*end));
    start..end.unwrap_or(text.len())
}

/// The clauses of each way, and whether they hold within one line; `None` for an expression of literals only.
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
                    // It may hold in another line.
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

/// Whether a regular expression matches no line end.
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
