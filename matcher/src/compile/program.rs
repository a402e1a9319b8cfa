//! Compiles a rule's expression to a short program, and the checks that programs share.

use crate::compile::clause::{self, Clause};
use crate::compile::literals::LiteralTable;
use crate::compile::window::windows;
use crate::engine::program::{Check, CheckOp, Step};
use crate::field::EventKind;
use crate::rule::regex::build_regex;
use crate::rule::{Expr, Op, Test};
use crate::scan::glob::Glob;
use std::cmp::Ordering;
use std::collections::HashMap;

/// Greater than the cost of any part that is not negated.
const EXCLUSION_COST: u32 = 16;
/// Maximum number of clauses that are checked before a regular expression runs.
const REGEX_CLAUSES_MAX: usize = 4;
/// Maximum number of literals of such a clause.
const REGEX_CLAUSE_LITERALS_MAX: usize = 4;

/// Collects the checks of one kind of event while rules are compiled.
pub(crate) struct Checks<'a> {
    kind: EventKind,
    known: HashMap<&'a Test, u32>,
    pub(crate) list: Vec<Check>,
    pub(crate) literals: LiteralTable,
}

impl<'a> Checks<'a> {
    /// Starts with literals that already contain the needles of the gate.
    pub(crate) fn new(kind: EventKind, literals: LiteralTable) -> Self {
        Self { kind, known: HashMap::new(), list: Vec::new(), literals }
    }

    /// Compiles an expression to a program.
    pub(crate) fn program(&mut self, expr: &'a Expr) -> Vec<Step> {
        let mut steps = Vec::new();
        self.emit(expr, &mut steps);
        steps
    }

    fn emit(&mut self, expr: &'a Expr, steps: &mut Vec<Step>) {
        match expr {
            Expr::And(parts) => self.emit_list(parts, steps, true),
            Expr::Or(parts) => self.emit_list(parts, steps, false),
            Expr::Not(part) => {
                self.emit(part, steps);
                steps.push(Step::Not);
            }
            Expr::Test(test) => {
                let step = match self.check(test) {
                    Some(check) => Step::Check(check),
                    // Events of this kind do not have the field.
                    None => Step::Set(test.op == Op::Exists(false)),
                };
                steps.push(step);
            }
        }
    }

    /// Emits cheap parts first, and among those of a conjunction the rarest first. The rest is skipped once the outcome
    /// is known.
    fn emit_list(&mut self, parts: &'a [Expr], steps: &mut Vec<Step>, all: bool) {
        let keyed = |part| (cost(part), if all { self.frequency(part) } else { 0.0 }, part);
        let mut parts: Vec<(u32, f64, &Expr)> = parts.iter().map(keyed).collect();
        parts.sort_by(|a, b| match a.0.cmp(&b.0) {
            Ordering::Equal => a.1.total_cmp(&b.1),
            other => other,
        });
        let mut jumps = Vec::new();
        for (at, (_, _, part)) in parts.iter().enumerate() {
            if at > 0 {
                jumps.push(steps.len());
                steps.push(Step::Not); // replaced below
            }
            self.emit(part, steps);
        }
        if parts.is_empty() {
            steps.push(Step::Set(all));
        }
        let end = steps.len() as u32;
        for jump in jumps {
            steps[jump] = if all { Step::JumpIfFalse(end) } else { Step::JumpIfTrue(end) };
        }
    }

    fn frequency(&self, expr: &Expr) -> f64 {
        clause::necessary(expr, self.kind).map_or(1.0, |clause| clause.frequency)
    }

    fn check(&mut self, test: &'a Test) -> Option<u32> {
        if let Some(&check) = self.known.get(test) {
            return Some(check);
        }
        let fields = match test.field {
            Some(field) if field.kinds().contains(self.kind) => vec![field],
            Some(_) => return None,
            None => self.kind.text_fields().to_vec(),
        };
        let op = match &test.op {
            Op::Text { pattern, cased } => {
                let glob = Glob::new(pattern, *cased);
                let mut literals: Vec<u32> =
                    glob.needles().map(|needle| self.literals.number(needle.into())).collect();
                if literals.is_empty()
                    && let Some(clause) = clause::of_pattern(pattern)
                {
                    literals =
                        clause.needles.into_iter().map(|needle| self.literals.number(needle)).collect();
                }
                CheckOp::Glob { glob, literals }
            }
            // The loader has built it before. A rule made by hand with an invalid expression never matches.
            Op::Regex(source) => CheckOp::Regex {
                regex: Box::new(build_regex(source).ok()?),
                windows: windows(source),
                clauses: self.quick(clause::of_regex(source)),
            },
            Op::Number(comparison, value) => CheckOp::Number(*comparison, *value),
            Op::Exists(wanted) => CheckOp::Exists(*wanted),
        };
        let number = self.list.len() as u32;
        self.list.push(Check { fields, op });
        self.known.insert(test, number);
        Some(number)
    }
}

impl Checks<'_> {
    /// Selects the clauses that are cheap to check, the rarest first.
    fn quick(&mut self, all: Vec<Clause>) -> Vec<Vec<u32>> {
        let mut clauses: Vec<Vec<u32>> = Vec::new();
        for clause in all {
            let few = clause.needles.len() <= REGEX_CLAUSE_LITERALS_MAX;
            let is_gate = || clause.needles.iter().all(|needle| self.literals.is_gate(needle));
            if clauses.len() < REGEX_CLAUSES_MAX && (few || is_gate()) {
                clauses.push(clause.needles.into_iter().map(|needle| self.literals.number(needle)).collect());
            }
        }
        clauses
    }
}

/// Returns the cost class of a part: numbers, literal text, patterns on raw units, regular expressions, and last
/// negations.
fn cost(expr: &Expr) -> u32 {
    match expr {
        Expr::And(parts) | Expr::Or(parts) => parts.iter().map(cost).max().unwrap_or(0),
        // An exclusion is rarely decisive, and never for what is not selected.
        Expr::Not(part) => EXCLUSION_COST + cost(part),
        Expr::Test(Test { op, .. }) => match op {
            Op::Number(..) | Op::Exists(_) => 0,
            Op::Text { pattern, cased } => {
                2 + 2 * u32::from(*cased || pattern.parts().contains(&crate::pattern::Part::One))
            }
            Op::Regex(_) => 8,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::Checks;
    use crate::compile::literals::LiteralTable;
    use crate::engine::program::{CheckOp, run};
    use crate::field::{EventKind, Field};
    use crate::rule::{Comparison, Expr, Op, Test};
    use proptest::prelude::*;

    fn test(number: i64) -> Expr {
        Expr::Test(Test { field: Some(Field::MessageNumber), op: Op::Number(Comparison::Eq, number) })
    }

    fn value(expr: &Expr, truth: u8) -> bool {
        match expr {
            Expr::And(parts) => parts.iter().all(|part| value(part, truth)),
            Expr::Or(parts) => parts.iter().any(|part| value(part, truth)),
            Expr::Not(part) => !value(part, truth),
            Expr::Test(Test { op: Op::Number(_, bit), .. }) => truth >> bit & 1 != 0,
            Expr::Test(_) => unreachable!("tests here are numbers"),
        }
    }

    proptest! {
        #[test]
        fn programs_equal_their_expressions(
            expr in (0i64..8).prop_map(test).prop_recursive(5, 40, 5, |inner| prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Expr::And),
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Expr::Or),
                inner.prop_map(|part| Expr::Not(Box::new(part))),
            ]),
            truth: u8,
        ) {
            let mut checks = Checks::new(EventKind::ScriptBlock, LiteralTable::default());
            let program = checks.program(&expr);
            let verdict = run(&program, |number| match checks.list[number as usize].op {
                CheckOp::Number(_, bit) => truth >> bit & 1 != 0,
                _ => unreachable!("checks here are numbers"),
            });
            prop_assert_eq!(verdict, value(&expr, truth));
        }
    }
}
