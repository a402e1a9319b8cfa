//! Strings and variables in the syntax of PowerShell.
//!
//! Source: PowerShell/PowerShell, `engine/parser/tokenizer.cs` (`ScanStringLiteral`, `ScanStringExpandable`,
//! `ScanHereStringLiteral`, `ScanHereStringExpandable`, `ScanVariable`). A doubled quotation mark of any kind stands
//! for one; backticks escape in double quotes only; an unterminated string extends to the end.

use super::value::{Folded, Value};
use super::variables::Variables;
use crate::view::chars::{
    BACKTICK, escaped, is_double_quote, is_newline, is_single_quote, is_whitespace, is_word, lower,
    unicode_escape,
};
use crate::view::transformation::{Transformation, Transformations};
use crate::view::work::Work;

/// Maximum length of the name of a variable, in units.
const NAME_UNITS_MAX: usize = 128;
/// Steps per unit of a double-quoted string that is examined separately.
const UNIT_STEPS: usize = 2;
/// Steps to append units to a value.
const PUSH_STEPS: usize = 2;
/// Steps to read and look up the name of a variable.
const VARIABLE_STEPS: usize = 32;

/// A string literal.
pub(in crate::view) struct Literal {
    /// Position after the closing quotation mark.
    pub(in crate::view) end: usize,
    /// `None` if it contains something unknown, or is too long.
    pub(in crate::view) value: Option<Vec<u16>>,
    pub(in crate::view) done: Transformations,
}

/// Reads the string that begins at `at`. Returns `None` if there is none, or if the work is exhausted.
pub(in crate::view) fn read(
    text: &[u16],
    at: usize,
    variables: &Variables,
    work: &mut Work<'_, '_>,
) -> Option<Literal> {
    let unit = *text.get(at)?;
    if is_single_quote(unit) {
        return single(text, at + 1, work);
    }
    if is_double_quote(unit) {
        return Double { text, at: at + 1, value: Some(Vec::new()), done: Transformations::NONE }
            .read(variables, work);
    }
    if unit == u16::from(b'@') {
        let quote = *text.get(at + 1)?;
        if is_single_quote(quote) || is_double_quote(quote) {
            return here(text, at + 2, is_double_quote(quote), work);
        }
    }
    None
}

/// Appends units to a value that is known and not too long.
fn push(value: &mut Option<Vec<u16>>, units: &[u16], work: &mut Work<'_, '_>) -> Option<()> {
    let Some(text) = value else { return Some(()) };
    if text.len() + units.len() > work.value_units_max {
        *value = None;
        return Some(());
    }
    work.charge(PUSH_STEPS)?;
    work.allocate(2 * units.len())?;
    text.extend_from_slice(units);
    Some(())
}

fn single(text: &[u16], start: usize, work: &mut Work<'_, '_>) -> Option<Literal> {
    let mut value = Some(Vec::new());
    let mut at = start;
    loop {
        let end = work.find(text, at, is_single_quote)?;
        push(&mut value, &text[at..end], work)?;
        at = end;
        let Some(&quote) = text.get(at) else { break };
        let is_doubled = text.get(at + 1).is_some_and(|next| is_single_quote(*next));
        at += 1;
        if !is_doubled {
            break;
        }
        push(&mut value, &[quote], work)?;
        at += 1;
    }
    Some(Literal { end: at, value, done: Transformations::NONE })
}

/// A double-quoted string that is being read.
struct Double<'a> {
    text: &'a [u16],
    at: usize,
    value: Option<Vec<u16>>,
    done: Transformations,
}

impl Double<'_> {
    fn read(mut self, variables: &Variables, work: &mut Work<'_, '_>) -> Option<Literal> {
        let text = self.text;
        // Quotation marks inside `$( … )` do not end the string.
        let mut nested = 0u32;
        let mut name = String::new();
        while let Some(&unit) = text.get(self.at) {
            work.charge(UNIT_STEPS)?;
            if unit == BACKTICK {
                self.escape(nested > 0, work)?;
            } else if nested > 0 {
                nested = match u8::try_from(unit) {
                    Ok(b'(') => nested + 1,
                    Ok(b')') => nested - 1,
                    _ => nested,
                };
                self.at += 1;
            } else if is_double_quote(unit) {
                self.at += 1;
                if !text.get(self.at).is_some_and(|next| is_double_quote(*next)) {
                    break;
                }
                push(&mut self.value, &[unit], work)?;
                self.at += 1;
            } else if unit == u16::from(b'$') && text.get(self.at + 1) == Some(&u16::from(b'(')) {
                self.value = None;
                nested = 1;
                self.at += 2;
            } else if let Some(end) = variable_into(text, self.at, &mut name, work) {
                self.variable(variables.get(&name), work)?;
                self.at = end;
            } else {
                let end = work.find(text, self.at + 1, |unit| !is_plain_in_double(unit))?;
                push(&mut self.value, &text[self.at..end], work)?;
                self.at = end;
            }
        }
        Some(Literal { end: self.at, value: self.value, done: self.done })
    }

    fn escape(&mut self, is_nested: bool, work: &mut Work<'_, '_>) -> Option<()> {
        self.at += 1;
        if let Some((c, len)) = unicode_escape(&self.text[self.at..]) {
            push(&mut self.value, c.encode_utf16(&mut [0; 2]), work)?;
            self.at += len;
        } else if let Some(&next) = self.text.get(self.at) {
            push(&mut self.value, &[escaped(next)], work)?;
            self.at += 1;
        }
        if !is_nested {
            self.done = self.done.with(Transformation::Backtick);
        }
        Some(())
    }

    fn variable(&mut self, known: Option<&Folded>, work: &mut Work<'_, '_>) -> Option<()> {
        if self.value.is_none() {
            return Some(());
        }
        let Some(folded) = known.filter(|folded| !matches!(folded.value, Value::Bytes(_))) else {
            self.value = None;
            return Some(());
        };
        if folded.value.units() > work.value_units_max {
            self.value = None;
            return Some(());
        }
        let own = folded.value.text(work)?;
        push(&mut self.value, &own, work)?;
        self.done = self.done.and(folded.done).with(Transformation::Concatenation);
        Some(())
    }
}

/// Returns true if the unit has no special meaning in double quotes.
fn is_plain_in_double(unit: u16) -> bool {
    match unit {
        0..0x80 => unit != BACKTICK && unit != u16::from(b'$') && unit != u16::from(b'"'),
        _ => !is_double_quote(unit),
    }
}

/// Reads a here-string after `@'` or `@"`: the rest of the line must be blank, and the end is at the beginning of a
/// line.
fn here(text: &[u16], start: usize, expands: bool, work: &mut Work<'_, '_>) -> Option<Literal> {
    let line = work.find(text, start, |unit| !is_whitespace(unit))?;
    if !text.get(line).is_some_and(|unit| is_newline(*unit)) {
        return None;
    }
    let begin = line + 1 + usize::from(text[line..].starts_with(&[0x0D, 0x0A]));
    let closes = |at: usize| {
        let quote = text
            .get(at + 1)
            .is_some_and(|unit| if expands { is_double_quote(*unit) } else { is_single_quote(*unit) });
        quote && text.get(at + 2) == Some(&u16::from(b'@'))
    };
    let mut at = work.find(text, line, is_newline)?;
    while at < text.len() && !closes(at) {
        at = work.find(text, at + 1, is_newline)?;
    }
    let last = if at > begin && text[..at].ends_with(&[0x0D]) { at - 1 } else { at };
    let inside = text.get(begin..last.max(begin).min(text.len())).unwrap_or_default();
    let end = (at + 3).min(text.len());
    let dollar = if expands { work.find(inside, 0, |unit| unit == u16::from(b'$'))? } else { inside.len() };
    let mut value = (dollar == inside.len()).then(Vec::new);
    push(&mut value, inside, work)?;
    Some(Literal { end, value, done: Transformations::NONE })
}

/// Reads the variable at `at`. Returns its name in lower case without its scope, and its end.
pub(in crate::view) fn variable(text: &[u16], at: usize, work: &mut Work<'_, '_>) -> Option<(String, usize)> {
    let mut name = String::new();
    let end = variable_into(text, at, &mut name, work)?;
    Some((name, end))
}

/// Like [`variable`], but writes the name to `name`.
pub(super) fn variable_into(
    text: &[u16],
    at: usize,
    name: &mut String,
    work: &mut Work<'_, '_>,
) -> Option<usize> {
    name.clear();
    if text.get(at) != Some(&u16::from(b'$')) {
        return None;
    }
    work.charge(VARIABLE_STEPS)?;
    let braced = text.get(at + 1) == Some(&u16::from(b'{'));
    let mut end =
        if braced { braced_name(text, at + 2, name, work)? } else { plain_name(text, at + 1, name, work)? };
    if name.ends_with(':') {
        let colons = name.bytes().rev().take_while(|byte| *byte == b':').count();
        name.truncate(name.len() - colons);
        end -= colons;
    }
    // Most names have no scope.
    if name.contains(':')
        && let Some(scope) = ["script:", "global:", "local:", "private:", "variable:"]
            .into_iter()
            .find(|scope| name.starts_with(scope))
    {
        name.drain(..scope.len());
    }
    (!name.is_empty()).then_some(end)
}

/// Reads a plain name and returns its end.
fn plain_name(text: &[u16], start: usize, name: &mut String, work: &mut Work<'_, '_>) -> Option<usize> {
    let near = &text[..text.len().min(start + NAME_UNITS_MAX + 1)];
    let end = work.find(near, start, |unit| !is_word(unit) && unit != u16::from(b':'))?;
    let mut bytes = std::mem::take(name).into_bytes();
    // All of it is ASCII.
    bytes.extend(text[start..end].iter().map(|unit| lower(*unit) as u8));
    *name = String::from_utf8(bytes).unwrap_or_default();
    (end - start <= NAME_UNITS_MAX).then_some(end)
}

/// Reads a name in braces, after the opening one, and returns the position after the closing one.
fn braced_name(text: &[u16], start: usize, name: &mut String, work: &mut Work<'_, '_>) -> Option<usize> {
    for (at, &unit) in (start..).zip(text.get(start..)?) {
        work.charge(UNIT_STEPS)?;
        if unit == u16::from(b'}') {
            return Some(at + 1);
        }
        if unit == BACKTICK {
            continue;
        }
        if name.len() >= NAME_UNITS_MAX {
            return None;
        }
        name.push(char::from_u32(u32::from(lower(unit))).unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    Some(text.len())
}
