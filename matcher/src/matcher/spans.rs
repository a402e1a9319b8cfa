//! What matched: the places of the literals and expressions that made a rule true. Only for hits, which are rare.

use super::Matcher;
use crate::compile::plan::Plan;
use crate::compile::program::CheckOp;
use crate::field::{Field, Fields};
use crate::matcher::run::decode;
use crate::rule::{Expr, Op, Rule, Test};
use crate::scan::glob::{Glob, Text};
use crate::scan::kernel::Usable;
use crate::scan::narrow::narrow;
use etwsieve_budget::{Budget, Exhausted};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

/// Most spans of one rule: the first of each of its tests before the second of any.
pub const SPANS_MAX: usize = 16;

/// Bytes for each unit: narrowed and decoded.
const BYTES_PER_UNIT: usize = 4;
/// Steps to look a test up.
const TEST_STEPS: usize = 64;
/// Steps for each unit that a regular expression searches.
const REGEX_STEPS_PER_UNIT: usize = 8;

/// What matched, in a text field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The field.
    pub field: Field,
    /// UTF-16 units, counted from the field's beginning.
    pub units: Range<usize>,
}

impl Matcher {
    /// Where the rules that match an event or a joined block do so: for each of `rules`, in their order, what made it
    /// true, ascending, at most [`SPANS_MAX`]. Nothing for a rule that does not match.
    ///
    /// # Complexity
    ///
    /// Each test of the rules looks at the text once more.
    pub fn spans(&self, fields: &Fields<'_>, rules: &[u32]) -> Vec<Vec<Span>> {
        // Hits are not cut short.
        let mut budget = Budget::new(u64::MAX, u64::MAX);
        match SpanFinder::new(self.plan(fields.kind()), fields, self.usable, &mut budget) {
            Ok(mut finder) => finder.of_rules(&self.rules, rules),
            Err(_) => vec![Vec::new(); rules.len()],
        }
    }
}

/// The first spans of each list before the second of any, ascending, none twice.
fn few(lists: &[Rc<[Span]>]) -> Vec<Span> {
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

/// Looks at one event's text fields; tests that rules share are made once.
pub(crate) struct SpanFinder<'a, 'b> {
    /// What it may cost. Once it is exhausted, nothing more is found.
    budget: &'a mut Budget<'b>,
    plan: &'a Plan,
    texts: Vec<FieldText<'a>>,
    fields: &'a Fields<'a>,
    /// What is known of a test: where it holds, or that it does not.
    known: HashMap<Test, Option<Rc<[Span]>>>,
}

struct FieldText<'a> {
    field: Field,
    units: &'a [[u8; 2]],
    narrow: Vec<u8>,
    /// Made for regular expressions.
    decoded: String,
}

impl<'a, 'b> SpanFinder<'a, 'b> {
    /// # Errors
    ///
    /// [`Exhausted`] if the budget does not suffice for the texts.
    pub(crate) fn new(
        plan: &'a Plan,
        fields: &'a Fields<'a>,
        usable: Usable,
        budget: &'a mut Budget<'b>,
    ) -> Result<Self, Exhausted> {
        let units = fields.kind().text_fields().iter().filter_map(|field| Some(fields.range(*field)?.len()));
        budget.allocate(BYTES_PER_UNIT * units.sum::<usize>())?;
        let text = |&field: &Field| {
            let units = fields.text(field)?.as_chunks().0;
            let (mut narrowed, mut decoded) = (Vec::new(), String::new());
            narrow(units, &mut narrowed, usable);
            decode(units, &mut decoded, usable);
            Some(FieldText { field, units, narrow: narrowed, decoded })
        };
        let texts = fields.kind().text_fields().iter().filter_map(text).collect();
        Ok(Self { budget, plan, texts, fields, known: HashMap::new() })
    }

    /// Whether some of the spans are unknown.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.budget.exhausted().is_some()
    }

    /// The spans of each of these rules.
    pub(crate) fn of_rules(&mut self, all: &[Rule], rules: &[u32]) -> Vec<Vec<Span>> {
        let of_rule = |rule: &u32| Some(few(&self.expr(&all.get(*rule as usize)?.expr)?));
        rules.iter().map(of_rule).map(Option::unwrap_or_default).collect()
    }

    /// The spans of the tests that make the expression true, a list for each; `None` if it is not.
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

    /// Where a test holds; `None` if it does not.
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
                    // A search for each span; the way to it is counted once more.
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
    /// The expression as it was compiled for the rules.
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

    /// Whether the pattern matches; adds where its literals stand.
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

    /// Whether the expression matches; adds where, empty matches left out.
    fn regex(&self, regex: &regex::Regex, spans: &mut Vec<Span>) -> bool {
        // Bytes of the decoded text, and the units that they were.
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

#[cfg(test)]
mod tests {
    use super::{SPANS_MAX, Span};
    use crate::field::{EventKind, Fields};
    use crate::{Matcher, load};

    const ID: &str = "339311ba-d4cc-4a10-b04e-417ef95bc8b6";

    fn spans(detection: &str, text: &str) -> Vec<String> {
        let rule = format!(
            "title: t\nlogsource:\n  product: windows\n  category: ps_script\ndetection:\n{detection}\n"
        );
        let loaded = load([("test.yml", rule.as_str())]);
        assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
        let mut payload = vec![1, 0, 0, 0, 1, 0, 0, 0];
        payload.extend(format!("{text}\0{ID}\0C:\\p.ps1\0").encode_utf16().flat_map(u16::to_le_bytes));
        let fields = Fields::split(EventKind::ScriptBlock, &payload);
        let matcher = Matcher::new(loaded.rules);
        let shown = |Span { field, units }: &Span| {
            let bytes = &fields.text(*field).unwrap()[2 * units.start..2 * units.end];
            let units: Vec<u16> = bytes.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
            format!(
                "{field:?} {} {}",
                bytes.as_ptr() as usize - payload.as_ptr() as usize,
                String::from_utf16(&units).unwrap()
            )
        };
        matcher.spans(&fields, &[0])[0].iter().map(shown).collect()
    }

    #[test]
    fn what_made_the_rule_true() {
        let rows: [(&str, &str, &str, &[&str]); 9] = [
            (
                "both",
                "  s:\n    ScriptBlockText|contains|all: [foo, bar]\n  condition: s",
                "BAR foo bar",
                &["ScriptBlockText 8 BAR", "ScriptBlockText 16 foo", "ScriptBlockText 24 bar"],
            ),
            (
                "one of two",
                "  s:\n    ScriptBlockText|contains: [foo, bar]\n  condition: s",
                "x bar",
                &["ScriptBlockText 12 bar"],
            ),
            (
                "half of an alternative is none",
                "  a:\n    ScriptBlockText|contains|all: [foo, baz]\n  b:\n    ScriptBlockText|contains: bar\n  condition: a or b",
                "foo bar",
                &["ScriptBlockText 16 bar"],
            ),
            (
                "what is excluded is no span",
                "  a:\n    ScriptBlockText|contains: foo\n  b:\n    ScriptBlockText|contains: bar\n  condition: a and not b",
                "foo",
                &["ScriptBlockText 8 foo"],
            ),
            (
                "expression",
                "  s:\n    ScriptBlockText|re: 'b.r'\n  condition: s",
                "\u{1F600}\u{e9}b\u{1F600}r bar",
                &["ScriptBlockText 14 b\u{1F600}r", "ScriptBlockText 24 bar"],
            ),
            (
                "pattern",
                "  s:\n    ScriptBlockText: 'a*b?'\n  condition: s",
                "axxxbc",
                &["ScriptBlockText 8 a", "ScriptBlockText 16 bc"],
            ),
            ("keyword in the path", "  s:\n    - p.ps\n  condition: s", "x", &["Path 92 p.ps"]),
            ("number", "  s:\n    MessageTotal: 1\n  condition: s", "x", &[]),
            ("no match", "  s:\n    ScriptBlockText|contains: foo\n  condition: s", "x", &[]),
        ];
        for (name, detection, text, expected) in rows {
            assert_eq!(spans(detection, text), expected, "{name}");
        }
    }

    #[test]
    fn every_test_shows_before_one_shows_all() {
        let text = format!("{}bar", "foo ".repeat(100));
        let spans = spans("  s:\n    ScriptBlockText|contains|all: [foo, bar]\n  condition: s", &text);
        assert_eq!(spans.len(), SPANS_MAX);
        assert!(spans[SPANS_MAX - 1].ends_with("bar"), "{spans:?}");
    }
}
