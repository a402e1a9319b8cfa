//! The oracle: rules evaluated plainly, one after another, without a gate, a program or shared work.
//!
//! Slow on purpose. Tests compare the [`Matcher`](crate::Matcher) with it on every event they can find.

use crate::field::{EventKind, Field, Fields};
use crate::pattern::{Part, Pattern, fold};
use crate::rule::modifier::build_regex;
use crate::rule::{Expr, Op, Rule, Test};
use std::cell::RefCell;
use std::collections::HashMap;

/// Whether the rule matches this payload.
///
/// # Panics
///
/// If a regular expression of the rule does not compile; the loader lets none through.
pub fn matches(rule: &Rule, kind: EventKind, payload: &[u8]) -> bool {
    rule.events.contains(kind) && holds(&rule.expr, kind, &Fields::split(kind, payload))
}

fn holds(expr: &Expr, kind: EventKind, fields: &Fields<'_>) -> bool {
    match expr {
        Expr::And(parts) => parts.iter().all(|part| holds(part, kind, fields)),
        Expr::Or(parts) => parts.iter().any(|part| holds(part, kind, fields)),
        Expr::Not(part) => !holds(part, kind, fields),
        Expr::Test(Test { field: Some(field), op }) => field_holds(*field, op, fields),
        Expr::Test(Test { field: None, op }) => {
            kind.text_fields().iter().any(|field| field_holds(*field, op, fields))
        }
    }
}

fn field_holds(field: Field, op: &Op, fields: &Fields<'_>) -> bool {
    let units = fields
        .text(field)
        .map(|bytes| bytes.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect::<Vec<u16>>());
    match op {
        Op::Exists(wanted) => (units.is_some() || fields.number(field).is_some()) == *wanted,
        Op::Number(comparison, value) => fields.number(field).is_some_and(|n| comparison.holds(n, *value)),
        Op::Text { pattern, cased } => units.is_some_and(|units| pattern_matches(pattern, *cased, &units)),
        Op::Regex(source) => {
            units.is_some_and(|units| regex_matches(source, &String::from_utf16_lossy(&units)))
        }
    }
}

/// Expressions are kept: building one takes a thousand times as long as using it.
fn regex_matches(source: &str, text: &str) -> bool {
    thread_local! {
        static BUILT: RefCell<HashMap<String, regex::Regex>> = RefCell::default();
    }
    BUILT.with_borrow_mut(|built| {
        let regex = built.entry(source.to_owned()).or_insert_with_key(|source| {
            build_regex(source).expect("the loader lets only expressions through that build")
        });
        regex.is_match(text)
    })
}

/// A wildcard match by dynamic programming over characters; a lone surrogate is a character.
pub(crate) fn pattern_matches(pattern: &Pattern, cased: bool, units: &[u16]) -> bool {
    let folded = |unit: u16| if cased { unit } else { fold(unit) };
    // reached[i]: the parts so far match the first i units.
    let mut reached = vec![false; units.len() + 1];
    reached[0] = true;
    for part in pattern.parts() {
        let mut next = vec![false; units.len() + 1];
        for at in 0..=units.len() {
            if !reached[at] {
                continue;
            }
            match part {
                Part::Any => next[at..].fill(true),
                Part::Unit(unit) if units.get(at).is_some_and(|u| folded(*u) == folded(*unit)) => {
                    next[at + 1] = true;
                }
                Part::One if at < units.len() => next[at + char_units(&units[at..])] = true,
                Part::Unit(_) | Part::One => {}
            }
            if *part == Part::Any {
                break;
            }
        }
        reached = next;
    }
    reached[units.len()]
}

/// Units of the character at the start of `units`, which is not empty.
fn char_units(units: &[u16]) -> usize {
    let high = (0xD800..0xDC00).contains(&units[0]);
    let low = units.get(1).is_some_and(|unit| (0xDC00..0xE000).contains(unit));
    1 + usize::from(high && low)
}

#[cfg(test)]
mod tests {
    use super::pattern_matches;
    use crate::pattern::Pattern;

    #[test]
    fn wildcards() {
        let rows = [
            ("abc", "ABC", true),
            ("abc", "abcd", false),
            ("a*c", "a\r\nc", true),
            ("a?c", "a\u{1F600}c", true),
            ("a??c", "a\u{1F600}c", false),
            ("*", "", true),
            ("?", "", false),
            ("", "", true),
            ("*b*", "abc", true),
            ("*b", "abc", false),
            ("a*b*a", "aba", true),
            ("a*a", "a", false),
            ("\u{212A}", "k", false),
        ];
        for (pattern, text, expected) in rows {
            let units: Vec<u16> = text.encode_utf16().collect();
            assert_eq!(
                pattern_matches(&Pattern::parse(pattern), false, &units),
                expected,
                "{pattern:?} {text:?}"
            );
        }
        assert!(!pattern_matches(&Pattern::parse("a"), true, &[u16::from(b'A')]));
    }
}
