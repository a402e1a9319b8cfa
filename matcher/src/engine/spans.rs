//! Spans: where the literals and expressions that made a rule true occur. Computed for hits only, which are rare.

use super::plan::Plan;
use super::program::CheckOp;
use super::run::decode;
use crate::field::{Field, Fields};
use crate::rule::{Expr, Op, Rule, Test};
use crate::scan::glob::{Glob, Text};
use crate::scan::narrow::narrow;
use etwsieve_budget::{Budget, Exhausted};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

/// Maximum number of spans of one rule. The first span of every test precedes the second one of any.
pub const SPANS_MAX: usize = 16;

/// Bytes per unit: narrowed and decoded text.
const BYTES_PER_UNIT: usize = 4;
/// Steps to look up a test.
const TEST_STEPS: usize = 64;
/// Steps for each unit that a regular expression searches.
const REGEX_STEPS_PER_UNIT: usize = 8;

/// A match in a text field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The field.
    pub field: Field,
    /// Range in UTF-16 units from the beginning of the field.
    pub units: Range<usize>,
}

/// Selects spans, ascending and without duplicates: the first span of every list before the second one of any.
fn select(lists: &[Rc<[Span]>]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let longest = lists.iter().map(|list| list.len()).max().unwrap_or(0);
    for span in (0..longest).flat_map(|number| lists.iter().filter_map(move |list| list.get(number))) {
        if spans.len() == SPANS_MAX {
            break;
        }
        if !spans.contains(span) {
            spans.push(span.clone());
        }
    }
    spans.sort_by_key(|span| (span.field, span.units.start, span.units.end));
    spans
}

/// Finds spans in the text fields of one event. Tests that rules share run once.
pub(crate) struct SpanFinder<'a, 'b> {
    /// The budget. Once it is exhausted, no further spans are found.
    budget: &'a mut Budget<'b>,
    plan: &'a Plan,
    texts: Vec<FieldText<'a>>,
    fields: &'a Fields<'a>,
    /// The spans of each test that has run; `None` if it does not hold.
    known: HashMap<Test, Option<Rc<[Span]>>>,
}

struct FieldText<'a> {
    field: Field,
    units: &'a [[u8; 2]],
    narrow: Vec<u8>,
    /// The text for regular expressions.
    decoded: String,
}

impl<'a, 'b> SpanFinder<'a, 'b> {
    /// Prepares the texts.
    ///
    /// # Errors
    ///
    /// Returns [`Exhausted`] if the budget does not suffice for the texts.
    pub(crate) fn new(
        plan: &'a Plan,
        fields: &'a Fields<'a>,
        budget: &'a mut Budget<'b>,
    ) -> Result<Self, Exhausted> {
        let units = fields.kind().text_fields().iter().filter_map(|field| Some(fields.range(*field)?.len()));
        budget.allocate(BYTES_PER_UNIT * units.sum::<usize>())?;
        let text = |&field: &Field| {
            let units = fields.text(field)?.as_chunks().0;
            let (mut narrowed, mut decoded) = (Vec::new(), String::new());
            narrow(units, &mut narrowed, plan.isa);
            decode(units, &mut decoded, plan.isa);
            Some(FieldText { field, units, narrow: narrowed, decoded })
        };
        let texts = fields.kind().text_fields().iter().filter_map(text).collect();
        Ok(Self { budget, plan, texts, fields, known: HashMap::new() })
    }

    /// Returns true if some spans are unknown.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.budget.exhausted().is_some()
    }

    /// Returns the spans of each of these rules.
    pub(crate) fn of_rules(&mut self, all: &[Rule], rules: &[u32]) -> Vec<Vec<Span>> {
        let of_rule = |rule: &u32| Some(select(&self.expr(&all.get(*rule as usize)?.expr)?));
        rules.iter().map(of_rule).map(Option::unwrap_or_default).collect()
    }

    /// Returns the spans of the tests that make the expression true, one list per test; `None` if it is false.
    fn expr(&mut self, expr: &Expr) -> Option<Vec<Rc<[Span]>>> {
        match expr {
            Expr::And(parts) => {
                let lists: Option<Vec<_>> = parts.iter().map(|part| self.expr(part)).collect();
                lists.map(|lists| lists.concat())
            }
            Expr::Or(parts) => {
                let mut lists = parts.iter().filter_map(|part| self.expr(part)).peekable();
                lists.peek()?;
                Some(lists.flatten().collect())
            }
            Expr::Not(part) => self.expr(part).is_none().then(Vec::new),
            Expr::Test(test) => {
                if let Some(known) = self.known.get(test) {
                    return known.clone().map(|list| vec![list]);
                }
                let found: Option<Rc<[Span]>> = self.test(test).map(Into::into);
                self.known.insert(test.clone(), found.clone());
                found.map(|list| vec![list])
            }
        }
    }

    /// Returns the spans of a test; `None` if it does not hold.
    fn test(&mut self, test: &Test) -> Option<Vec<Span>> {
        self.budget.charge(TEST_STEPS).ok()?;
        let mut spans = Vec::new();
        let mut holds = false;
        let fields = self.fields;
        let asked = |field: Field| test.field.is_none_or(|own| own == field);
        match &test.op {
            Op::Number(comparison, value) => {
                holds = test
                    .field
                    .and_then(|field| fields.number(field))
                    .is_some_and(|n| comparison.holds(n, *value));
            }
            Op::Exists(wanted) => {
                let is_there = |field| fields.range(field).is_some() || fields.number(field).is_some();
                holds = test.field.is_some_and(is_there) == *wanted;
            }
            Op::Text { pattern, cased } => {
                let glob = Glob::new(pattern, *cased);
                for text in self.texts.iter().filter(|text| asked(text.field)) {
                    self.budget.charge(glob.steps(text.units.len())).ok()?;
                    holds |= text.glob(&glob, &mut spans);
                }
            }
            Op::Regex(source) => {
                let regex = self.regex(source)?;
                for text in self.texts.iter().filter(|text| asked(text.field)) {
                    // Each span takes a search; the text up to it is counted twice.
                    let steps = REGEX_STEPS_PER_UNIT.saturating_mul(2 * text.units.len());
                    self.budget.charge(steps).ok()?;
                    holds |= text.regex(regex, &mut spans);
                }
            }
        }
        holds.then_some(spans)
    }
}

impl<'a> SpanFinder<'a, '_> {
    /// Returns the compiled expression of the plan.
    fn regex(&self, source: &str) -> Option<&'a regex::Regex> {
        self.plan.checks.iter().find_map(|check| match &check.op {
            CheckOp::Regex { regex, .. } if regex.as_str() == source => Some(&**regex),
            _ => None,
        })
    }
}

impl FieldText<'_> {
    fn span(&self, units: Range<usize>) -> Span {
        Span { field: self.field, units }
    }

    /// Returns true if the pattern matches, and appends the positions of its literals.
    fn glob(&self, glob: &Glob, spans: &mut Vec<Span>) -> bool {
        let text = Text { narrow: &self.narrow, units: self.units };
        let before = spans.len();
        if let Some(occurrences) = glob.occurrences(text) {
            spans.extend(occurrences.take(SPANS_MAX).map(|units| self.span(units)));
            return spans.len() > before;
        }
        let is_match = glob.places(text, |units| {
            if spans.len() - before < SPANS_MAX {
                spans.push(self.span(units));
            }
        });
        if !is_match {
            spans.truncate(before);
        }
        is_match
    }

    /// Returns true if the expression matches, and appends the matches that are not empty.
    fn regex(&self, regex: &regex::Regex, spans: &mut Vec<Span>) -> bool {
        // Position in bytes of the decoded text, and in units.
        let (mut byte, mut unit) = (0, 0);
        let mut units_to = |to: usize| {
            unit += self.decoded.get(byte..to).map_or(0, |part| part.encode_utf16().count());
            byte = to;
            unit
        };
        let mut is_match = false;
        for found in regex.find_iter(&self.decoded).take(SPANS_MAX) {
            is_match = true;
            let (start, end) = (units_to(found.start()), units_to(found.end()));
            if start < end {
                spans.push(self.span(start..end));
            }
        }
        is_match
    }
}
