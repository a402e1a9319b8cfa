//! The literals of rules, for contestants that can only search for literals.
//!
//! A literal is a longest run of ASCII units between the wildcards of a pattern. Contestants answer one of two questions:
//! which of *all* literals occur in a text, or which *gate* literals. Gate literals are chosen such that a rule can match
//! only a text that contains one of the rule's gate literals. The choice uses the frequencies of the text that is searched,
//! which favours these peers.

use crate::narrow::narrow_unit;
use etwsieve_matcher::pattern::{Part, fold};
use etwsieve_matcher::rule::{Expr, Op, Test};
use etwsieve_matcher::{EventKind, Rule};
use memchr::memmem;
use std::collections::HashMap;

/// Assumed information per byte, in bits, of a literal that does not occur in the sample.
const BITS_PER_BYTE: f64 = 2.5;
/// A clause is not used if one of its literals occurs at more than one in this many positions.
const PLACES_MIN: f64 = 64.0;

/// A literal of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Literal {
    /// One byte per UTF-16 unit, in lower case.
    pub narrowed: Vec<u8>,
    /// UTF-16LE bytes, spelled as in the rule.
    pub spelled: Vec<u8>,
}

/// Distinct literals in order of their first occurrence; the number of a literal is its index.
#[derive(Clone, Debug, Default)]
pub struct Literals {
    /// The literals.
    pub list: Vec<Literal>,
    numbers: HashMap<Vec<u8>, u32>,
}

/// Gate literals, and the rules that need them.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    /// The literals.
    pub literals: Literals,
    /// For each rule the literals of which one must occur in the text; `None` if the rule needs none.
    pub clauses: Vec<Option<Vec<u32>>>,
}

impl Literals {
    /// Returns all literals of these rules about script blocks.
    pub fn all(rules: &[Rule]) -> Self {
        let mut all = Self::default();
        for rule in rules {
            all.collect(&rule.expr);
        }
        all
    }

    fn collect(&mut self, expr: &Expr) {
        match expr {
            Expr::And(parts) | Expr::Or(parts) => parts.iter().for_each(|part| self.collect(part)),
            Expr::Not(part) => self.collect(part),
            Expr::Test(test) if is_asked(test) => {
                for literal in runs(test) {
                    self.number(literal);
                }
            }
            Expr::Test(_) => {}
        }
    }

    fn number(&mut self, literal: Literal) -> u32 {
        let next = self.list.len() as u32;
        let list = &mut self.list;
        *self.numbers.entry(literal.narrowed.clone()).or_insert_with(|| {
            list.push(literal);
            next
        })
    }

    /// Number of literals.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns true if the list is empty.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl Gate {
    /// Chooses the rarest necessary literals of each rule, by their frequency in a sample of narrowed text.
    pub fn new(rules: &[Rule], sample: &[u8]) -> Self {
        let mut choice = Choice { sample, frequencies: HashMap::new() };
        let mut gate = Self::default();
        for rule in rules {
            let clause = choice.clause(&rule.expr).filter(|(_, frequency)| *frequency < 1.0 / PLACES_MIN);
            let numbers = clause.map(|(literals, _)| {
                literals.into_iter().map(|literal| gate.literals.number(literal)).collect()
            });
            gate.clauses.push(numbers);
        }
        gate
    }
}

struct Choice<'a> {
    sample: &'a [u8],
    frequencies: HashMap<Vec<u8>, f64>,
}

impl Choice<'_> {
    /// Returns literals of which one occurs in every text that matches `expr`, and their frequency per position.
    fn clause(&mut self, expr: &Expr) -> Option<(Vec<Literal>, f64)> {
        match expr {
            Expr::And(parts) => {
                let clauses = parts.iter().filter_map(|part| self.clause(part));
                clauses.collect::<Vec<_>>().into_iter().min_by(|a, b| a.1.total_cmp(&b.1))
            }
            Expr::Or(parts) => {
                let mut all = (Vec::new(), 0.0);
                for part in parts {
                    let (literals, frequency) = self.clause(part)?;
                    all.0.extend(literals);
                    all.1 += frequency;
                }
                Some(all)
            }
            Expr::Test(test) if is_asked(test) => {
                let rated: Vec<_> =
                    runs(test).into_iter().map(|run| (self.frequency(&run.narrowed), run)).collect();
                let (frequency, literal) = rated.into_iter().min_by(|a, b| a.0.total_cmp(&b.0))?;
                Some((vec![literal], frequency))
            }
            Expr::Not(_) | Expr::Test(_) => None,
        }
    }

    fn frequency(&mut self, narrowed: &[u8]) -> f64 {
        let sample = self.sample;
        *self.frequencies.entry(narrowed.to_vec()).or_insert_with(|| {
            let count = memmem::find_iter(sample, narrowed).count() as f64;
            count / sample.len().max(1) as f64 + (-BITS_PER_BYTE * narrowed.len() as f64).exp2()
        })
    }
}

/// Returns whether the test reads a text field of event 4104.
fn is_asked(test: &Test) -> bool {
    test.field.is_none_or(|field| field.kinds().contains(EventKind::ScriptBlock) && !field.is_number())
}

/// Returns the literals of a pattern; no literals for other tests.
fn runs(test: &Test) -> Vec<Literal> {
    let Op::Text { pattern, .. } = &test.op else { return Vec::new() };
    let is_ascii = |part: &Part| matches!(part, Part::Unit(unit) if *unit < 0x80);
    let run = |parts: &[Part]| {
        let units: Vec<u16> = parts
            .iter()
            .filter_map(|part| if let Part::Unit(unit) = part { Some(*unit) } else { None })
            .collect();
        Literal {
            narrowed: units.iter().map(|unit| narrow_unit(fold(*unit))).collect(),
            spelled: units.iter().flat_map(|unit| unit.to_le_bytes()).collect(),
        }
    };
    let parts = pattern.parts().split(|part| !is_ascii(part));
    parts.filter(|parts| !parts.is_empty()).map(run).collect()
}

#[cfg(test)]
mod tests {
    use super::{Gate, Literals};
    use crate::rules::RuleSet;

    fn shown(literals: &Literals) -> Vec<String> {
        literals.list.iter().map(|literal| String::from_utf8(literal.narrowed.clone()).unwrap()).collect()
    }

    #[test]
    fn the_rarest_literals_make_the_gate() {
        let rules = RuleSet::builtin().rules;
        let all = Literals::all(&rules);
        let mut names = shown(&all);
        names.sort();
        assert_eq!(names, ["-computername", "enter-pssession"]);
        assert!(all.list.iter().all(|literal| literal.spelled.len() == 2 * literal.narrowed.len()));
        let rows = [
            (b"get-date; test-connection -computername a".as_slice(), "enter-pssession"),
            (b"enter-pssession enter-pssession -id 4", "-computername"),
        ];
        for (sample, expected) in rows {
            let gate = Gate::new(&rules, sample);
            assert_eq!(shown(&gate.literals), [expected]);
            assert_eq!(gate.clauses, [Some(vec![0])]);
        }
        // A literal that occurs everywhere excludes nothing.
        let everywhere = b"enter-pssession-computername";
        assert_eq!(Gate::new(&rules, everywhere).clauses, [None]);
    }
}
