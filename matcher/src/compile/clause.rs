//! Necessary clauses: sets of needles of which at least one occurs in every payload that a rule matches.
//!
//! The rarest clause of each rule goes into the gate. An empty clause means that the rule can never match. Needles are
//! in narrowed form (see `scan/narrow.rs`): folded ASCII, and 0xFF for every unit that is not ASCII.

use crate::compile::spelling::Spelling;
use crate::field::EventKind;
use crate::frequency::bits;
use crate::pattern::{Part, Pattern};
use crate::rule::{Expr, Op, Test};
use crate::scan::narrow::narrow_unit;
use regex_syntax::hir::{Class, Hir, HirKind};

/// Maximum number of needles in one clause; a rule with more is always a candidate.
pub(crate) const CLAUSE_NEEDLES_MAX: usize = 4096;
/// Maximum number of parts of a regular expression that are examined. The parts after them count as unknown.
const REGEX_PARTS_MAX: usize = 4096;
/// Maximum number of copies of a repeated part that are written out.
const REPEATS_SPELLED_MAX: u32 = 4;
/// Cost of each needle of the gate, as the bits of a frequency: among clauses that are rare enough, the shortest wins.
const NEEDLE_COST_BITS: f64 = 38.0;
/// Needles shorter than this cost the gate more: [`SHORT_COST_BITS`] for each missing byte.
const SHORT_LEN: usize = 4;
const SHORT_COST_BITS: f64 = 1.5;
/// A clause of at least this frequency is not selective.
const SELECTIVE_FREQUENCY_MAX: f64 = 0.125;

/// Needles of which at least one must occur in the text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clause {
    pub(crate) needles: Vec<Box<[u8]>>,
    /// Estimated probability that a needle occurs at a given position, plus the cost of the needles.
    pub(crate) frequency: f64,
}

impl Clause {
    pub(crate) fn new(needles: Vec<Box<[u8]>>) -> Self {
        let likely =
            |needle: &[u8]| SHORT_COST_BITS * SHORT_LEN.saturating_sub(needle.len()) as f64 - bits(needle);
        let frequency = needles.iter().map(|needle| likely(needle).exp2() + (-NEEDLE_COST_BITS).exp2()).sum();
        Self { needles, frequency }
    }

    /// Returns true if the clause is worth a place in the gate because most texts do not satisfy it.
    pub(crate) fn is_selective(&self) -> bool {
        self.frequency < SELECTIVE_FREQUENCY_MAX
    }

    /// Orders clauses by frequency. Clauses that can never hold are the rarest.
    pub(crate) fn rarer(&self, other: &Self) -> std::cmp::Ordering {
        self.frequency.total_cmp(&other.frequency)
    }
}

/// Returns the rarest necessary clause of `expr` for events of `kind`; `None` if it can match without any needle.
pub(crate) fn necessary(expr: &Expr, kind: EventKind) -> Option<Clause> {
    match expr {
        Expr::And(parts) => parts.iter().filter_map(|part| necessary(part, kind)).min_by(Clause::rarer),
        Expr::Or(parts) => union(parts.iter().map(|part| necessary(part, kind))),
        Expr::Not(_) => None,
        Expr::Test(Test { field, op }) => {
            if field.is_some_and(|field| !field.kinds().contains(kind)) {
                // Events of this kind do not have the field.
                return if matches!(op, Op::Exists(false)) { None } else { Some(Clause::default()) };
            }
            match op {
                Op::Text { pattern, .. } => of_pattern(pattern),
                Op::Regex(source) => of_regex(source).into_iter().next(),
                Op::Number(..) | Op::Exists(_) => None,
            }
        }
    }
}

fn union(parts: impl Iterator<Item = Option<Clause>>) -> Option<Clause> {
    let mut all = Clause::default();
    for part in parts {
        let part = part?;
        let before = all.needles.len();
        for needle in part.needles {
            if !all.needles.contains(&needle) {
                all.needles.push(needle);
            }
        }
        if all.needles.len() > before {
            all.frequency += part.frequency;
        }
        if all.needles.len() > CLAUSE_NEEDLES_MAX {
            return None;
        }
    }
    Some(all)
}

/// Returns the clause for the rarest run of units between the wildcards.
pub(crate) fn of_pattern(pattern: &Pattern) -> Option<Clause> {
    let mut spelling = Spelling::default();
    for part in pattern.parts() {
        match part {
            Part::Unit(unit) => spelling.push(vec![narrow_unit(*unit)]),
            Part::One | Part::Any => spelling.gap(),
        }
    }
    spelling.clauses(false).into_iter().min_by(Clause::rarer)
}

/// Returns clauses that all hold for every matching text, the rarest first.
pub(crate) fn of_regex(source: &str) -> Vec<Clause> {
    regex_syntax::parse(source).map_or_else(|_| Vec::new(), |hir| of_hir(&hir, &mut 0, false))
}

/// Like [`of_regex`], but each clause has a single needle, or one per alternative of an alternation.
pub(crate) fn singles_of_regex(hir: &Hir) -> Vec<Clause> {
    of_hir(hir, &mut 0, true)
}

fn of_hir(hir: &Hir, parts: &mut usize, is_single: bool) -> Vec<Clause> {
    let mut walk = Walk { spelling: Spelling::default(), clauses: Vec::new(), parts, is_single };
    walk.part(hir);
    let Walk { spelling, mut clauses, .. } = walk;
    clauses.extend(spelling.clauses(is_single));
    clauses.sort_by(Clause::rarer);
    clauses
}

/// Traverses an expression from left to right and records which bytes each position may have, and gaps.
struct Walk<'a> {
    spelling: Spelling,
    /// The clauses of alternations found so far.
    clauses: Vec<Clause>,
    /// Number of parts visited so far in the whole expression.
    parts: &'a mut usize,
    is_single: bool,
}

impl Walk<'_> {
    fn part(&mut self, hir: &Hir) {
        *self.parts += 1;
        if *self.parts > REGEX_PARTS_MAX {
            return self.spelling.gap();
        }
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => {}
            HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
                Ok(text) => text.encode_utf16().for_each(|unit| self.spelling.push(vec![narrow_unit(unit)])),
                Err(_) => self.spelling.gap(),
            },
            HirKind::Class(class) => self.class(class),
            HirKind::Repetition(repetition) if repetition.min > 0 => {
                let exact = repetition.max == Some(repetition.min) && repetition.min <= REPEATS_SPELLED_MAX;
                for _ in 0..repetition.min.min(REPEATS_SPELLED_MAX) {
                    self.part(&repetition.sub);
                }
                if !exact {
                    // The last copy, which is adjacent to what follows.
                    self.spelling.gap();
                    self.part(&repetition.sub);
                }
            }
            HirKind::Repetition(_) => self.spelling.gap(),
            HirKind::Capture(capture) => self.part(&capture.sub),
            HirKind::Concat(parts) => parts.iter().for_each(|part| self.part(part)),
            HirKind::Alternation(parts) => {
                self.spelling.gap();
                let rarest = |part| of_hir(part, self.parts, self.is_single).into_iter().next();
                self.clauses.extend(union(parts.iter().map(rarest)));
            }
        }
    }

    fn class(&mut self, class: &Class) {
        let Class::Unicode(class) = class else { return self.spelling.gap() };
        let mut bytes = Vec::new();
        let mut pairs = false;
        for range in class.ranges() {
            let (start, end) = (u32::from(range.start()), u32::from(range.end()));
            bytes.extend((start..=end.min(0x7F)).map(|c| narrow_unit(c as u16)));
            if end > 0x7F {
                bytes.push(narrow_unit(0x80));
            }
            pairs |= end > 0xFFFF;
        }
        bytes.sort_unstable();
        bytes.dedup();
        self.spelling.push(bytes.clone());
        if pairs {
            // The character has one unit or two, so the distance between its neighbours is unknown.
            self.spelling.gap();
            self.spelling.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{of_pattern, of_regex};
    use crate::pattern::Pattern;

    /// Shows 0xFF as `~`.
    fn shown(clause: Option<super::Clause>) -> Option<Vec<String>> {
        let shown = |needle: &[u8]| {
            needle.iter().map(|&byte| if byte == 0xFF { '~' } else { char::from(byte) }).collect()
        };
        Some(clause?.needles.iter().map(|needle| shown(needle)).collect())
    }

    #[test]
    fn clauses_of_patterns() {
        let rows = [
            ("*Enter-PSSession*", Some("enter-pssession")),
            ("New*-Object?x", Some("-object")),
            ("*", None),
            ("\u{e4}\u{e4}", Some("~~")),
            ("\u{e4}Ab\u{e4}", Some("~ab~")),
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
        let rows: [(&str, Option<&[&str]>); 11] = [
            (r"\$PSHome\[\s*\d{1,3}", Some(&["$pshome["])),
            (r"(Get-Item|gci) .{1,64}-Path", Some(&["get-item", "gci"])),
            (r"x`(\w+|-|.)`[ab]c{2,}", Some(&["`acc", "`bcc"])),
            (r#""(\{[01]\}){2,}"\s*-f"#, Some(&["\"{0}{0}", "\"{0}{1}", "\"{1}{0}", "\"{1}{1}"])),
            (r"(?:get-item|new-object)", Some(&["get-item", "new-object"])),
            (r"a?b*", None),
            (r"(abc)+", Some(&["abc"])),
            (r"(?i)environment", Some(&["environment"])),
            (r"(?i)clip", Some(&["clip"])),
            (r"(?i)books", Some(&["books", "book~", "boo~s", "boo~~"])),
            (r"\w+", None),
        ];
        for (source, expected) in rows {
            let expected = expected.map(|list| list.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
            assert_eq!(
                shown(of_regex(source).into_iter().next().filter(super::Clause::is_selective)),
                expected,
                "{source}"
            );
        }
    }
}
