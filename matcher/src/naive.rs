//! The oracle: evaluates rules one after another, without a gate, programs or shared work.
//!
//! It is slow on purpose. Tests compare the [`Matcher`](crate::Matcher) with it on every available event.

use crate::block::GAP;
use crate::field::{EventKind, Field, Fields};
use crate::pattern::{Part, Pattern, fold};
use crate::rule::regex::build_regex;
use crate::rule::{Calls, Expr, Op, Rule, Test};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

/// Returns true if the rule matches this payload in the raw view.
///
/// # Panics
///
/// Panics if a regular expression of the rule does not compile, which the loader prevents.
pub fn matches(rule: &Rule, kind: EventKind, payload: &[u8]) -> bool {
    rule.calls != Calls::Only
        && rule.events.contains(kind)
        && holds(&rule.expr, kind, &Fields::split(kind, payload))
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

/// A fragment: the process that wrote it, and the payload.
pub type NaiveFragment<'a> = (Option<u32>, &'a [u8]);

/// A block as the oracle joins it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NaiveBlock {
    /// Index of its first fragment received.
    pub first: usize,
    /// True if a number from 1 to its total is missing.
    pub is_partial: bool,
    /// The script, with a [`GAP`] for each missing fragment.
    pub text: Vec<u16>,
    /// The rules that match the whole block and none of its fragments, ascending.
    pub rules: Vec<u32>,
}

/// Joins the fragments of one source in the order in which they came, and evaluates rules on each block, in the order
/// of the first fragments. Blocks with a single fragment are omitted.
///
/// # Panics
///
/// Panics under the same condition as [`matches()`].
pub fn blocks(rules: &[Rule], fragments: &[NaiveFragment<'_>]) -> Vec<NaiveBlock> {
    type Open<'a> = BTreeMap<i32, &'a [u8]>;
    let (mut done, mut open) = (Vec::new(), BTreeMap::<_, (usize, i32, Vec<&[u8]>, Open<'_>)>::new());
    let numbered = |total, parts: &Open<'_>| (1..=total).all(|number| parts.contains_key(&number));
    for (at, (process_id, payload)) in fragments.iter().enumerate() {
        let fields = Fields::split(EventKind::ScriptBlock, payload);
        let (Some(number), Some(total)) =
            (fields.number(Field::MessageNumber), fields.number(Field::MessageTotal))
        else {
            continue;
        };
        let Some(id) = fields.text(Field::ScriptBlockId).filter(|id| !id.is_empty()) else { continue };
        let key = (*process_id, id);
        let (_, whole, all, parts) =
            open.entry(key).or_insert((at, total as i32, Vec::new(), BTreeMap::new()));
        *whole = total.max(i64::from(*whole)) as i32;
        all.push(payload);
        parts.entry(number as i32).or_insert(payload);
        if *whole > 0 && parts.len() >= *whole as usize && numbered(*whole, parts) {
            done.extend(open.remove(&key).map(|block| (false, block)));
        }
    }
    done.extend(open.into_values().map(|block| (true, block)));
    let mut blocks: Vec<NaiveBlock> = done
        .into_iter()
        .filter(|(_, (_, _, _, parts))| parts.len() > 1)
        .map(|(is_partial, (first, total, all, parts))| {
            let text = joined(total, &parts);
            let given = |rule: &Rule| all.iter().any(|one| matches(rule, EventKind::ScriptBlock, one));
            let matched = (0u32..)
                .zip(rules)
                .filter(|(_, rule)| whole_matches(rule, total, &text, fragments[first].1) && !given(rule));
            NaiveBlock { first, is_partial, rules: matched.map(|(number, _)| number).collect(), text }
        })
        .collect();
    blocks.sort_by_key(|block| block.first);
    blocks
}

/// Joins texts in the order of their numbers, with a gap for each missing one.
fn joined(total: i32, parts: &BTreeMap<i32, &[u8]>) -> Vec<u16> {
    let mut text = Vec::new();
    let mut before = None;
    for (&number, payload) in parts {
        if before.map_or(number > 1, |before: i32| i64::from(before) + 1 != i64::from(number)) {
            text.extend(GAP);
        }
        let fields = Fields::split(EventKind::ScriptBlock, payload);
        let units = fields.text(Field::ScriptBlockText).unwrap_or_default().as_chunks().0;
        text.extend(units.iter().map(|unit| u16::from_le_bytes(*unit)));
        before = Some(number);
    }
    if before.is_some_and(|last| last < total) {
        text.extend(GAP);
    }
    text
}

/// Returns true if the rule matches the text as one event, with id and path of the first fragment received.
fn whole_matches(rule: &Rule, total: i32, text: &[u16], first: &[u8]) -> bool {
    let fields = Fields::split(EventKind::ScriptBlock, first);
    let mut payload = [1i32.to_le_bytes(), total.to_le_bytes()].concat();
    payload.extend(text.iter().flat_map(|unit| unit.to_le_bytes()));
    let mut ranges = [Some(0..text.len()), None, None];
    let mut start = text.len();
    for (field, range) in [Field::ScriptBlockId, Field::Path].into_iter().zip(&mut ranges[1..]) {
        let Some(bytes) = fields.text(field) else { continue };
        payload.extend_from_slice(bytes);
        *range = Some(start..start + bytes.len() / 2);
        start += bytes.len() / 2;
    }
    let whole = Fields::of_ranges(EventKind::ScriptBlock, &payload, ranges);
    rule.events.contains(EventKind::ScriptBlock) && holds(&rule.expr, EventKind::ScriptBlock, &whole)
}

/// Keeps compiled expressions: building one takes a thousand times as long as using it.
fn regex_matches(source: &str, text: &str) -> bool {
    thread_local! {
        static BUILT: RefCell<HashMap<String, regex::Regex>> = RefCell::default();
    }
    BUILT.with_borrow_mut(|built| {
        let regex = built.entry(source.to_owned()).or_insert_with_key(|source| {
            build_regex(source).expect("the loader accepts only expressions that compile")
        });
        regex.is_match(text)
    })
}

/// Matches a wildcard pattern by dynamic programming over characters. A lone surrogate is a character.
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

/// Returns the number of units of the character at the start of `units`, which must not be empty.
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
