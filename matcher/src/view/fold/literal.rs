//! Strings and variables as a script writes them.
//!
//! Source: PowerShell/PowerShell, `engine/parser/tokenizer.cs` (`ScanStringLiteral`, `ScanStringExpandable`,
//! `ScanHereStringLiteral`, `ScanHereStringExpandable`, `ScanVariable`). A doubled quotation mark of any kind is one; a
//! backtick escapes in double quotes only; a string that is not closed goes on to the end.

use super::value::VALUE_UNITS_MAX;
use super::variables::Variables;
use crate::view::chars::{
    BACKTICK, escaped, is_double_quote, is_newline, is_single_quote, is_whitespace, is_word, lower,
    unicode_escape,
};
use crate::view::transformation::{Done, Transformation};

/// Longest name of a variable, in units.
const NAME_UNITS_MAX: usize = 128;

/// A string in a script.
pub(in crate::view) struct Literal {
    /// Behind its closing mark.
    pub(in crate::view) end: usize,
    /// `None`: it holds what is not known, or is too long.
    pub(in crate::view) value: Option<Vec<u16>>,
    pub(in crate::view) done: Done,
}

/// The string that begins at `at`, if one does.
pub(in crate::view) fn read(text: &[u16], at: usize, variables: &Variables) -> Option<Literal> {
    let unit = *text.get(at)?;
    if is_single_quote(unit) {
        return Some(single(text, at + 1));
    }
    if is_double_quote(unit) {
        return Some(double(text, at + 1, variables));
    }
    if unit == u16::from(b'@') {
        let quote = *text.get(at + 1)?;
        if is_single_quote(quote) || is_double_quote(quote) {
            return here(text, at + 2, is_double_quote(quote));
        }
    }
    None
}

fn single(text: &[u16], start: usize) -> Literal {
    let mut value = Vec::new();
    let mut at = start;
    loop {
        let run = text[at..].iter().position(|unit| is_single_quote(*unit)).unwrap_or(text.len() - at);
        value.extend_from_slice(&text[at..at + run]);
        at += run;
        let doubled = text.get(at + 1).is_some_and(|next| is_single_quote(*next));
        let Some(&quote) = text.get(at) else { break };
        at += 1;
        if !doubled {
            break;
        }
        value.push(quote);
        at += 1;
    }
    let value = (value.len() <= VALUE_UNITS_MAX).then_some(value);
    Literal { end: at, value, done: Done::NONE }
}

fn double(text: &[u16], start: usize, variables: &Variables) -> Literal {
    let mut value = Some(Vec::new());
    let mut done = Done::NONE;
    let mut at = start;
    // Quotation marks inside `$( … )` belong to it.
    let mut nested = 0u32;
    let mut name = String::new();
    while let Some(&unit) = text.get(at) {
        let push = |value: &mut Option<Vec<u16>>, units: &[u16]| {
            if let Some(text) = value {
                text.extend_from_slice(units);
            }
        };
        if unit == BACKTICK {
            at += 1;
            if let Some((c, len)) = unicode_escape(&text[at..]) {
                push(&mut value, c.encode_utf16(&mut [0; 2]));
                at += len;
            } else if let Some(&next) = text.get(at) {
                push(&mut value, &[escaped(next)]);
                at += 1;
            }
            if nested == 0 {
                done = done.with(Transformation::Backtick);
            }
        } else if nested > 0 {
            nested = match u8::try_from(unit) {
                Ok(b'(') => nested + 1,
                Ok(b')') => nested - 1,
                _ => nested,
            };
            at += 1;
        } else if is_double_quote(unit) {
            at += 1;
            if !text.get(at).is_some_and(|next| is_double_quote(*next)) {
                break;
            }
            push(&mut value, &[unit]);
            at += 1;
        } else if unit == u16::from(b'$') && text.get(at + 1) == Some(&u16::from(b'(')) {
            value = None;
            nested = 1;
            at += 2;
        } else if let Some(end) = variable_into(text, at, &mut name) {
            let known = variables.get(&name).filter(|_| value.is_some());
            match known.and_then(|folded| Some((folded.value.text()?, folded.done))) {
                Some((own, own_done)) => {
                    push(&mut value, &own);
                    done = done.and(own_done).with(Transformation::Concatenation);
                }
                None => value = None,
            }
            at = end;
        } else {
            let run = 1 + text[at + 1..].iter().take_while(|unit| is_plain_in_double(**unit)).count();
            push(&mut value, &text[at..at + run]);
            at += run;
        }
        if value.as_ref().is_some_and(|value| value.len() > VALUE_UNITS_MAX) {
            value = None;
        }
    }
    Literal { end: at, value, done }
}

/// Whether the unit is just itself in double quotes.
fn is_plain_in_double(unit: u16) -> bool {
    match unit {
        0..0x80 => unit != BACKTICK && unit != u16::from(b'$') && unit != u16::from(b'"'),
        _ => !is_double_quote(unit),
    }
}

/// From behind `@'` or `@"`: the rest of the line is blank, the end stands at the beginning of a line.
fn here(text: &[u16], start: usize, expands: bool) -> Option<Literal> {
    let blanks = text[start..].iter().take_while(|unit| is_whitespace(**unit)).count();
    let line = start + blanks;
    if !text.get(line).is_some_and(|unit| is_newline(*unit)) {
        return None;
    }
    let begin = line + 1 + usize::from(text[line..].starts_with(&[0x0D, 0x0A]));
    let mut at = line;
    let closes = |at: usize| {
        let quote = text
            .get(at + 1)
            .is_some_and(|unit| if expands { is_double_quote(*unit) } else { is_single_quote(*unit) });
        is_newline(text[at]) && quote && text.get(at + 2) == Some(&u16::from(b'@'))
    };
    while at < text.len() && !closes(at) {
        at += 1;
    }
    let last = if at > begin && text[..at].ends_with(&[0x0D]) { at - 1 } else { at };
    let inside = text.get(begin..last.max(begin).min(text.len())).unwrap_or_default();
    let end = (at + 3).min(text.len());
    let known = inside.len() <= VALUE_UNITS_MAX && (!expands || !inside.contains(&u16::from(b'$')));
    Some(Literal { end, value: known.then(|| inside.to_vec()), done: Done::NONE })
}

/// The variable at `at`: its name in small letters without a scope, and where it ends.
pub(in crate::view) fn variable(text: &[u16], at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let end = variable_into(text, at, &mut name)?;
    Some((name, end))
}

/// As [`variable`]; the name takes the place of what `name` held.
pub(super) fn variable_into(text: &[u16], at: usize, name: &mut String) -> Option<usize> {
    name.clear();
    if text.get(at) != Some(&u16::from(b'$')) {
        return None;
    }
    let braced = text.get(at + 1) == Some(&u16::from(b'{'));
    let mut end = if braced { braced_name(text, at + 2, name)? } else { plain_name(text, at + 1, name)? };
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

/// A name as far as its units go; where it ends.
fn plain_name(text: &[u16], start: usize, name: &mut String) -> Option<usize> {
    let is_part = |unit: &&u16| is_word(**unit) || **unit == u16::from(b':');
    let len = text.get(start..)?.iter().take_while(is_part).take(NAME_UNITS_MAX + 1).count();
    let mut bytes = std::mem::take(name).into_bytes();
    // All of it is ASCII.
    bytes.extend(text[start..start + len].iter().map(|unit| lower(*unit) as u8));
    *name = String::from_utf8(bytes).unwrap_or_default();
    (len <= NAME_UNITS_MAX).then_some(start + len)
}

/// A name in braces, behind the opening one; behind the closing one it ends.
fn braced_name(text: &[u16], start: usize, name: &mut String) -> Option<usize> {
    let mut units = (start..).zip(text.get(start..)?);
    let mut end = text.len();
    for (at, &unit) in units.by_ref() {
        if unit == u16::from(b'}') {
            end = at + 1;
            break;
        }
        if unit == BACKTICK {
            continue;
        }
        if name.len() >= NAME_UNITS_MAX {
            return None;
        }
        name.push(char::from_u32(u32::from(lower(unit))).unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    Some(end)
}
