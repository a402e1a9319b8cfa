//! Operations on values: `-join`, `-f`, `.Replace()`, `.Split()` and indexing.

use super::needle::Needle;
use super::value::{LIST_LEN_MAX, List, Value, append, parse, trim};
use crate::view::chars::is_whitespace;
use crate::view::work::Work;

/// Steps to copy the text between two occurrences.
const PLACE_STEPS: usize = 8;
/// Steps per index.
const INDEX_STEPS: usize = 5;
/// Steps per placeholder of a format.
const FORMAT_STEPS: usize = 24;
/// Maximum length of a placeholder, in units.
const FORMAT_UNITS_MAX: usize = 16;

/// Evaluates `-join`.
pub(super) fn join(value: &Value, between: &[u16], work: &mut Work<'_, '_>) -> Option<Value> {
    let mut text = Vec::new();
    value.write(&mut text, between, work)?;
    Value::of_text(text, work)
}

/// Evaluates `-f` with `{0}`, `{1,5}` and `{{`; a format after a colon is ignored. Returns `None` if a placeholder has
/// no argument.
pub(super) fn format(template: &[u16], arguments: &[Value], work: &mut Work<'_, '_>) -> Option<Value> {
    const OPEN: u16 = b'{' as u16;
    const CLOSE: u16 = b'}' as u16;
    let mut text: Vec<u16> = Vec::new();
    let mut at = 0;
    while at < template.len() {
        let plain = work.find(template, at, |unit| unit == OPEN || unit == CLOSE)?;
        append(&mut text, &template[at..plain], work)?;
        at = plain;
        let Some(&unit) = template.get(at) else { break };
        work.charge(FORMAT_STEPS)?;
        if template.get(at + 1) == Some(&unit) || unit == CLOSE {
            append(&mut text, &[unit], work)?;
            at += if template.get(at + 1) == Some(&unit) { 2 } else { 1 };
            continue;
        }
        let inside = &template[at + 1..];
        let end = inside.iter().take(FORMAT_UNITS_MAX).position(|unit| *unit == CLOSE)?;
        at += end + 2;
        let inside = &inside[..end];
        let comma = inside.iter().position(|unit| *unit == u16::from(b','));
        let number = parse(trim(&inside[..comma.unwrap_or(inside.len())]), 10)?;
        let argument = arguments.get(usize::try_from(number).ok()?)?.text(work)?;
        let width = match comma {
            Some(comma) => Value::copied(&inside[comma + 1..], work)?.number(work)?,
            None => 0,
        };
        let padding = usize::try_from(width.unsigned_abs()).ok()?.saturating_sub(argument.len());
        if width <= 0 {
            append(&mut text, &argument, work)?;
        }
        pad(&mut text, padding, work)?;
        if width > 0 {
            append(&mut text, &argument, work)?;
        }
    }
    Value::of_text(text, work)
}

/// Appends blanks.
fn pad(text: &mut Vec<u16>, count: usize, work: &mut Work<'_, '_>) -> Option<()> {
    if text.len().saturating_add(count) > work.value_units_max {
        return None;
    }
    work.allocate(2 * count)?;
    text.extend(std::iter::repeat_n(u16::from(b' '), count));
    Some(())
}

/// Evaluates `.Replace()`, and `-replace` with a pattern that is plain text.
pub(super) fn replace(text: &[u16], what: &Needle, with: &[u16], work: &mut Work<'_, '_>) -> Option<Value> {
    let places = what.places(text, usize::MAX, work)?;
    let len = text.len() - places.len() * what.len() + places.len().checked_mul(with.len())?;
    if len > work.value_units_max {
        return None;
    }
    work.charge(PLACE_STEPS * places.len())?;
    work.allocate(2 * len)?;
    let mut out = Vec::with_capacity(len);
    let mut from = 0;
    for place in places {
        out.extend_from_slice(&text[from..place as usize]);
        out.extend_from_slice(with);
        from = place as usize + what.len();
    }
    out.extend_from_slice(&text[from..]);
    Value::of_text(out, work)
}

/// Evaluates `-split` with a pattern that is plain text.
pub(super) fn split(text: &[u16], at: &Needle, list: &mut List, work: &mut Work<'_, '_>) -> Option<()> {
    let mut from = 0;
    for place in at.places(text, LIST_LEN_MAX, work)? {
        list.push(Value::copied(&text[from..place as usize], work)?, work)?;
        from = place as usize + at.len();
    }
    list.push(Value::copied(&text[from..], work)?, work)
}

/// Splits a text into single units.
pub(super) fn split_everywhere(text: &[u16], list: &mut List, work: &mut Work<'_, '_>) -> Option<()> {
    text.iter().try_for_each(|unit| list.push(Value::copied(&[*unit], work)?, work))
}

/// Evaluates `.Split()` at any of the characters, or at whitespace if there are none.
pub(super) fn split_at_any(text: &[u16], of: &[u16], work: &mut Work<'_, '_>) -> Option<Value> {
    let mut list = List::default();
    let borders = UnitSet::new(of, work)?;
    let mut from = 0;
    loop {
        let is_border = |unit: u16| if of.is_empty() { is_whitespace(unit) } else { borders.contains(unit) };
        let end = work.find(text, from, is_border)?;
        work.charge(borders.look_up_steps() * (end - from))?;
        list.push(Value::copied(&text[from..end], work)?, work)?;
        if end == text.len() {
            return Some(list.into_value());
        }
        from = end + 1;
    }
}

/// A set of units.
struct UnitSet {
    ascii: u128,
    /// Units that are not ASCII, ascending.
    others: Vec<u16>,
}

impl UnitSet {
    fn new(units: &[u16], work: &mut Work<'_, '_>) -> Option<Self> {
        let is_ascii = |unit: &u16| *unit < 0x80;
        work.charge(2 * units.len())?;
        let ascii = units.iter().copied().filter(is_ascii).fold(0, |set, unit| set | 1 << unit);
        let count = units.len() - units.iter().copied().filter(is_ascii).count();
        // For sorting: the number of comparisons per element is about the logarithm of the count.
        work.charge(count * (4 + count.max(1).ilog2() as usize))?;
        work.allocate(2 * count)?;
        let mut others: Vec<u16> = units.iter().copied().filter(|unit| !is_ascii(unit)).collect();
        others.sort_unstable();
        Some(Self { ascii, others })
    }

    fn contains(&self, unit: u16) -> bool {
        if unit < 0x80 { self.ascii >> unit & 1 != 0 } else { self.others.binary_search(&unit).is_ok() }
    }

    /// Returns the steps per look-up, beyond one comparison.
    fn look_up_steps(&self) -> usize {
        if self.others.is_empty() { 0 } else { self.others.len().ilog2() as usize }
    }
}

/// Evaluates `value[index]`, with a list for several indices. Negative indices count from the end; indices out of range
/// give nothing.
pub(super) fn index(value: &Value, index: &Value, work: &mut Work<'_, '_>) -> Option<Value> {
    let at = |number: i64, len: usize| {
        let number = if number < 0 { number + i64::try_from(len).ok()? } else { number };
        usize::try_from(number).ok().filter(|at| *at < len)
    };
    let get = |number: i64| match value {
        Value::Text(text) => Some(Value::Char(text[at(number, text.len())?])),
        Value::List(list) => Some(list.items()[at(number, list.items().len())?].clone()),
        _ => None,
    };
    let Value::List(numbers) = index else { return get(index.number(work)?) };
    let mut list = List::default();
    for number in numbers.items() {
        work.charge(INDEX_STEPS)?;
        if let Some(item) = get(number.number(work)?) {
            list.push(item, work)?;
        }
    }
    Some(list.into_value())
}

/// Evaluates `.Insert()`.
pub(super) fn insert(text: &[u16], at: usize, what: &[u16], work: &mut Work<'_, '_>) -> Option<Value> {
    let (first, rest) = text.split_at_checked(at)?;
    concat(&[first, what, rest], work)
}

/// Evaluates `.Remove()`.
pub(super) fn remove(text: &[u16], range: std::ops::Range<usize>, work: &mut Work<'_, '_>) -> Option<Value> {
    text.get(range.clone())?;
    concat(&[&text[..range.start], &text[range.end..]], work)
}

fn concat(parts: &[&[u16]], work: &mut Work<'_, '_>) -> Option<Value> {
    let mut text = Vec::new();
    parts.iter().try_for_each(|part| append(&mut text, part, work))?;
    Value::of_text(text, work)
}
