//! The necessary clause of a rule: a set of needles of which at least one stands in every payload that matches.
//!
//! The rarest clause of each rule goes into the gate. An empty clause means that the rule can never match.

use crate::compile::rarity::bits;
use crate::field::EventKind;
use crate::pattern::{Part, Pattern};
use crate::rule::{Expr, Op, Test};
use regex_syntax::hir::{Class, Hir, HirKind};

/// Folded ASCII needles.
pub(crate) type Clause = Vec<Box<[u8]>>;

/// Most needles in one clause; a rule with more is always a candidate.
pub(crate) const CLAUSE_NEEDLES_MAX: usize = 4096;

/// The rarest necessary clause of `expr` for events of `kind`; `None` if it can match without any needle.
pub(crate) fn necessary(expr: &Expr, kind: EventKind) -> Option<Clause> {
    match expr {
        Expr::And(parts) => parts.iter().filter_map(|part| necessary(part, kind)).min_by(rarer),
        Expr::Or(parts) => union(parts.iter().map(|part| necessary(part, kind))),
        Expr::Not(_) => None,
        Expr::Test(Test { field, op }) => {
            if field.is_some_and(|field| !field.kinds().contains(kind)) {
                // The field is absent from these events.
                return if matches!(op, Op::Exists(false)) { None } else { Some(Vec::new()) };
            }
            match op {
                Op::Text { pattern, .. } => of_pattern(pattern),
                Op::Regex(source) => of_regex(source),
                Op::Number(..) | Op::Exists(_) => None,
            }
        }
    }
}

/// Likelihood, as estimated, that some needle of the clause stands in a text.
fn frequency(clause: &Clause) -> f64 {
    clause.iter().map(|needle| (-bits(needle)).exp2()).sum()
}

fn rarer(a: &Clause, b: &Clause) -> std::cmp::Ordering {
    frequency(a).total_cmp(&frequency(b))
}

fn union(parts: impl Iterator<Item = Option<Clause>>) -> Option<Clause> {
    let mut all = Vec::new();
    for part in parts {
        for needle in part? {
            if !all.contains(&needle) {
                all.push(needle);
            }
        }
        if all.len() > CLAUSE_NEEDLES_MAX {
            return None;
        }
    }
    Some(all)
}

/// The rarest run of ASCII units between the wildcards.
fn of_pattern(pattern: &Pattern) -> Option<Clause> {
    let mut runs = Runs::default();
    for part in pattern.parts() {
        match part {
            Part::Unit(unit) => runs.push(u32::from(*unit)),
            Part::One | Part::Any => runs.end(),
        }
    }
    runs.rarest()
}

fn of_regex(source: &str) -> Option<Clause> {
    of_hir(&regex_syntax::parse(source).ok()?)
}

fn of_hir(hir: &Hir) -> Option<Clause> {
    match hir.kind() {
        HirKind::Concat(parts) => {
            let mut runs = Runs::default();
            let mut best: Option<Clause> = None;
            for part in parts {
                if let Some(chars) = exact_chars(part) {
                    for c in chars {
                        runs.push(c);
                    }
                } else {
                    runs.end();
                    best = [best, of_hir(part)].into_iter().flatten().min_by(rarer);
                }
            }
            [best, runs.rarest()].into_iter().flatten().min_by(rarer)
        }
        HirKind::Alternation(parts) => union(parts.iter().map(of_hir)),
        HirKind::Repetition(repetition) if repetition.min > 0 => of_hir(&repetition.sub),
        HirKind::Capture(capture) => of_hir(&capture.sub),
        _ => {
            let mut runs = Runs::default();
            for c in exact_chars(hir)? {
                runs.push(c);
            }
            runs.rarest()
        }
    }
}

/// The characters that this part stands for, if there is but one way to read it apart from ASCII case.
///
/// A case-insensitive `k` or `s` is none: it also matches U+212A or U+017F.
fn exact_chars(hir: &Hir) -> Option<Vec<u32>> {
    match hir.kind() {
        HirKind::Literal(literal) => {
            Some(std::str::from_utf8(&literal.0).ok()?.chars().map(u32::from).collect())
        }
        HirKind::Class(Class::Unicode(class)) => {
            let mut chars =
                class.ranges().iter().flat_map(|range| u32::from(range.start())..=u32::from(range.end()));
            let (first, second) = (chars.next()?, chars.next());
            let letter = u8::try_from(first).is_ok_and(|b| b.is_ascii_uppercase());
            let same = second.is_none_or(|second| letter && second == first + 0x20);
            (same && chars.next().is_none()).then(|| vec![first])
        }
        _ => None,
    }
}

/// Collects runs of ASCII characters, folded.
#[derive(Default)]
struct Runs {
    done: Vec<Vec<u8>>,
    open: Vec<u8>,
}

impl Runs {
    fn push(&mut self, c: u32) {
        match u8::try_from(c) {
            Ok(byte) if byte.is_ascii() => self.open.push(byte.to_ascii_lowercase()),
            _ => self.end(),
        }
    }

    fn end(&mut self) {
        if !self.open.is_empty() {
            self.done.push(std::mem::take(&mut self.open));
        }
    }

    fn rarest(mut self) -> Option<Clause> {
        self.end();
        let rarest = self.done.into_iter().max_by(|a, b| bits(a).total_cmp(&bits(b)))?;
        Some(vec![rarest.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::{of_pattern, of_regex};
    use crate::pattern::Pattern;

    fn shown(clause: Option<super::Clause>) -> Option<Vec<String>> {
        Some(clause?.iter().map(|needle| String::from_utf8(needle.to_vec()).unwrap()).collect())
    }

    #[test]
    fn clauses_of_patterns() {
        let rows = [
            ("*Enter-PSSession*", Some("enter-pssession")),
            ("New*-Object?x", Some("-object")),
            ("*", None),
            ("\u{e4}\u{e4}", None),
            ("\u{e4}Ab\u{e4}", Some("ab")),
        ];
        for (pattern, expected) in rows {
            assert_eq!(
                shown(of_pattern(&Pattern::parse(pattern))),
                expected.map(|n| vec![n.to_owned()]),
                "{pattern}"
            );
        }
    }

    #[test]
    fn clauses_of_regular_expressions() {
        let rows: [(&str, Option<&[&str]>); 9] = [
            (r"\$PSHome\[\s*\d{1,3}", Some(&["$pshome["])),
            (r"(Get-Item|gci) .{1,64}-Path", Some(&["-path"])),
            (r"(?:get-item|new-object)", Some(&["get-item", "new-object"])),
            (r"a?b*", None),
            (r"(abc)+", Some(&["abc"])),
            (r"(?i)environment", Some(&["environment"])),
            (r"(?i)clip", Some(&["clip"])),
            (r"(?i)books", Some(&["boo"])),
            (r"\w+", None),
        ];
        for (source, expected) in rows {
            let expected = expected.map(|list| list.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
            assert_eq!(shown(of_regex(source)), expected, "{source}");
        }
    }
}
