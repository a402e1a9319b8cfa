//! Folding: replaces constant expressions of a script with their values, in one pass over the text. Nothing is
//! executed.
//!
//! A string that replaces an expression is quoted, so that the surrounding text remains valid. It is not quoted where
//! it names a command or a member, nor if it contains quotation marks or line ends, because then it is a script itself.
//! Another pass over the result folds the expressions inside.
//!
//! Every bound is a named constant here or beside what it bounds (`DEPTH_MAX`, `LIST_LEN_MAX`, `UNPACKED_LEN_MAX`,
//! `VARIABLES_MAX`, `VALUE_UNITS_MAX`). All work is charged to a [`Work`] before it is done; once that is exhausted,
//! every function here returns `None`, and the rest of the text stays as it is.

mod command;
mod decode;
mod inflate;
mod literal;
mod needle;
mod operation;
mod parse;
mod pattern;
mod value;
mod variables;
mod weight;

pub(super) use {literal::read as read_literal, pattern::PatternCache, variables::Variables};

use super::chars::{
    BACKTICK, is_dash, is_double_quote, is_newline, is_single_quote, is_whitespace, is_word, starts_with,
};
use super::mapped::{Builder, Mapped, PIECE_LEN};
use super::transformation::{Transformation, Transformations};
use super::work::Work;
use decode::BASE64_UNITS_MIN;
use parse::Parser;
use std::ops::Range;
use std::sync::Arc;
use value::{Folded, Value};

/// Maximum growth of a text in one pass, in units.
pub(crate) const GROWTH_UNITS_MAX: usize = 1 << 20;
/// Maximum number of decoded texts that are searched separately.
pub(crate) const DECODED_MAX: usize = 16;

/// Steps per token, without its units.
const TOKEN_STEPS: usize = 10;
/// Steps to replace a part of the text, without its units.
const PUT_STEPS: usize = 32;

/// Returns the text with its constant expressions folded; `None` if it has none. Decoded texts are appended to
/// `decoded`.
pub(super) fn fold(
    source: &Mapped,
    work: &mut Work<'_, '_>,
    patterns: &mut PatternCache,
    decoded: &mut Vec<Mapped>,
) -> Option<Mapped> {
    let text = source.units();
    work.copy(source)?;
    work.charge(text.len() / 2)?;
    let mut folder = Folder {
        source,
        text,
        at: 0,
        builder: Builder::new(source),
        variables: Variables::default(),
        unknown: Variables::default(),
        name: String::new(),
        names_base64: names_base64(text),
        work,
        patterns,
        decoded,
    };
    while folder.step().is_some() {}
    folder.builder.finish()
}

/// Part of a word: letters, digits, underscore, dash, backtick.
const IN_WORD: u8 = 1;
/// Begins nothing that is folded.
const MEANS_NOTHING: u8 = 1 << 1;

/// Classes of the ASCII characters, for the loop over tokens.
static CLASSES: [u8; 128] = {
    let mut table = [0; 128];
    let mut byte = 0u8;
    while byte < 128 {
        let in_word = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'`');
        let begins = in_word || matches!(byte, b'\'' | b'"' | b'/' | b'#' | b'<' | b'$' | b'[' | b'@' | b'(');
        table[byte as usize] = if in_word { IN_WORD } else { 0 } | if begins { 0 } else { MEANS_NOTHING };
        byte += 1;
    }
    table
};

/// Returns true if a unit is ASCII and in this class.
#[inline]
fn is_in(class: u8, unit: u16) -> bool {
    CLASSES.get(usize::from(unit)).is_some_and(|own| own & class != 0)
}

/// Returns true if the text mentions base64.
fn names_base64(text: &[u16]) -> bool {
    const WORD: &str = "base64";
    /// Position of the digit, which is rare in texts.
    const SIX: usize = 4;
    const BLOCK: usize = 64;
    let is_six = |unit: &u16| *unit == u16::from(b'6');
    (0usize..).step_by(BLOCK).zip(text.chunks(BLOCK)).any(|(from, block)| {
        // No short-circuiting, so that the compiler can vectorise this.
        block.iter().fold(false, |any, unit| any | is_six(unit))
            && (from..).zip(block).any(|(at, unit)| {
                is_six(unit) && at.checked_sub(SIX).is_some_and(|start| starts_with(&text[start..], WORD))
            })
    })
}

struct Folder<'a, 'w, 'b> {
    source: &'a Mapped,
    text: &'a [u16],
    at: usize,
    builder: Builder<'a>,
    variables: Variables,
    /// No known variables, as at the beginning.
    unknown: Variables,
    /// Memory for the name of a variable.
    name: String,
    /// True if the text mentions base64; then strings of base64 are decoded.
    names_base64: bool,
    work: &'a mut Work<'w, 'b>,
    patterns: &'a mut PatternCache,
    decoded: &'a mut Vec<Mapped>,
}

impl Folder<'_, '_, '_> {
    /// Processes the next token. Returns `None` at the end, or if the work is exhausted.
    fn step(&mut self) -> Option<()> {
        self.at = self.work.find(self.text, self.at, |unit| !is_in(MEANS_NOTHING, unit))?;
        self.work.charge(TOKEN_STEPS)?;
        if self.at >= self.text.len() || self.builder.len() > self.text.len() + GROWTH_UNITS_MAX {
            return None;
        }
        self.token()
    }

    /// Processes the token at this position and moves to its end.
    fn token(&mut self) -> Option<()> {
        let (text, at) = (self.text, self.at);
        let unit = text[at];
        let next = text.get(at + 1).copied().unwrap_or(0);
        if is_word(unit) || unit == BACKTICK {
            return self.word();
        }
        if is_single_quote(unit) || is_double_quote(unit) {
            return self.expression();
        }
        if is_dash(unit) || unit == u16::from(b'/') {
            return self.dash();
        }
        match u8::try_from(unit) {
            Ok(b'#') => self.at = self.work.find(text, at, is_newline)?,
            Ok(b'<') if next == u16::from(b'#') => self.at = end_of_comment(text, at + 2, self.work)?,
            Ok(b'$') => self.variable()?,
            Ok(b'[') => self.bracket()?,
            Ok(b'@') => self.expression()?,
            Ok(b'(') if !self.is_call() => self.expression()?,
            _ => self.at += 1,
        }
        Some(())
    }

    fn word(&mut self) -> Option<()> {
        let start = self.at;
        self.at = self.work.find(self.text, self.at, |unit| !is_in(IN_WORD, unit) && !is_dash(unit))?;
        self.at = self.at.max(start + 1);
        Some(())
    }

    /// Returns true if a parenthesis at this position contains the arguments of a call.
    fn is_call(&self) -> bool {
        const ENDS: &[u8] = b")]}'\"";
        self.at.checked_sub(1).is_some_and(|before| {
            let unit = self.text[before];
            is_word(unit) || u8::try_from(unit).is_ok_and(|byte| ENDS.contains(&byte))
        })
    }

    /// Folds an expression, or skips it if it is not constant.
    fn expression(&mut self) -> Option<()> {
        let start = self.at;
        let made = self.builder.len();
        if let Some((folded, end)) = self.parse() {
            self.put(start..end, folded)?;
        } else {
            self.pass(start)?;
        }
        if self.builder.len() == made {
            self.commands_in(start..self.at);
        }
        Some(())
    }

    fn pass(&mut self, start: usize) -> Option<()> {
        let literal = read_literal(self.text, start, &self.unknown, self.work);
        self.at = literal.map_or(start + 1, |literal| literal.end);
        (!self.work.is_exhausted()).then_some(())
    }

    /// Returns the value and the end of the expression at this position, without moving.
    fn parse(&mut self) -> Option<(Folded, usize)> {
        let mut parser = Parser::new(self.text, self.at, self.work, self.patterns, &self.variables);
        let mut folded = parser.expression()?;
        loop {
            let end = parser.at;
            let at = parser.work.find(self.text, end, |unit| !is_whitespace(unit))?;
            if self.text.get(at) != Some(&u16::from(b'|')) {
                return Some((folded, end));
            }
            parser.at = at;
            match parser.piped(folded.clone()) {
                Some(next) => folded = next,
                None => return Some((folded, end)),
            }
        }
    }

    fn bracket(&mut self) -> Option<()> {
        self.work.charge(TOKEN_STEPS)?;
        let rest = &self.text[self.at..];
        for name in ["[array]::reverse(", "[system.array]::reverse("] {
            if starts_with(rest, name) {
                let at = self.at + name.len();
                let at = self.work.find(self.text, at, |unit| !is_whitespace(unit))?;
                if let Some((name, end)) = literal::variable(self.text, at, self.work) {
                    self.variables.reverse(&name, self.work);
                    self.at = end;
                    return Some(());
                }
            }
        }
        self.expression()
    }

    /// Processes a variable: an assignment, or the beginning of an expression.
    fn variable(&mut self) -> Option<()> {
        let start = self.at;
        let mut name = std::mem::take(&mut self.name);
        let end = literal::variable_into(self.text, start, &mut name, self.work);
        let done = match end {
            Some(end) => self.named(start, end, &name),
            // `$(`
            None => self.expression(),
        };
        self.name = name;
        done
    }

    fn named(&mut self, start: usize, end: usize, name: &str) -> Option<()> {
        let text = self.text;
        let at = self.work.find(text, end, |unit| !is_whitespace(unit))?;
        let sign = |at: usize, sign: u8| text.get(at) == Some(&u16::from(sign));
        let appends = sign(at, b'+') && sign(at + 1, b'=');
        let assigns = sign(at, b'=') && !sign(at + 1, b'=');
        if !appends && !assigns {
            if self.variables.get(name).is_none() {
                // An expression that begins with an unknown variable is not constant.
                self.at = end;
                return Some(());
            }
            self.expression()?;
            // An unknown expression ends with the name of its variable.
            if self.at == start + 1 {
                self.at = end;
            }
            return Some(());
        }
        let at = at + if appends { 2 } else { 1 };
        let at = self.work.find(text, at, |unit| !is_whitespace(unit) && !is_newline(unit))?;
        self.at = at;
        let parsed = self.parse();
        let complete = match &parsed {
            Some((folded, end)) if self.ends_statement(*end)? => Some(folded.clone()),
            _ => None,
        };
        if appends {
            self.variables.append(name, complete, self.work);
        } else {
            self.variables.assign(name, complete);
        }
        if let Some((folded, end)) = parsed {
            self.put(at..end, folded)?;
        }
        Some(())
    }

    fn ends_statement(&mut self, at: usize) -> Option<bool> {
        const ENDS: &[u8] = b";})|#";
        let behind = self.work.find(self.text, at, |unit| !is_whitespace(unit))?;
        Some(self.text.get(behind).is_none_or(|unit| {
            is_newline(*unit) || u8::try_from(*unit).is_ok_and(|byte| ENDS.contains(&byte))
        }))
    }

    /// Replaces an expression with its value, if there was anything to fold.
    fn put(&mut self, part: Range<usize>, folded: Folded) -> Option<()> {
        let Folded { value, done } = folded;
        self.at = part.end.max(part.start + 1);
        let text = match value {
            Value::Bytes(bytes) => {
                let Some((units, own)) = decode::text(&bytes, self.work) else { return Some(()) };
                return self.put_decoded(part, units, done.and(own));
            }
            Value::Text(text) => text,
            Value::Char(unit) => Arc::new(vec![unit]),
            Value::Number(_) | Value::List(_) => return Some(()),
        };
        if self.names_base64
            && text.len() >= BASE64_UNITS_MIN
            && let Some(bytes) = decode::base64(&text, self.work)
            && let Some((units, own)) = decode::text(&bytes, self.work)
        {
            return self.put_decoded(part, units, done.and(own).with(Transformation::Base64));
        }
        if done.is_none() || done == Transformations::only(Transformation::Backtick) {
            return Some(());
        }
        let is_mark = |unit: u16| is_newline(unit) || is_single_quote(unit) || is_double_quote(unit);
        let is_script = self.work.find(&text, 0, is_mark)? < text.len();
        let is_plain = is_script || self.names(part.start);
        self.pay_for(&part, text.len() + 2)?;
        self.builder.copy_to(part.start);
        if is_plain {
            self.builder.put(part.end, text.iter().copied(), done);
        } else {
            let quote = u16::from(b'\'');
            self.builder.put(
                part.end,
                std::iter::once(quote).chain(text.iter().copied()).chain([quote]),
                done,
            );
        }
        Some(())
    }

    /// Charges the units that replace a part.
    fn pay_for(&mut self, part: &Range<usize>, units: usize) -> Option<()> {
        self.work.charge(PUT_STEPS + units / 2)?;
        self.work.allocate(PIECE_LEN * (2 + self.source.pieces_in(part)) + 2 * units)
    }

    fn put_decoded(&mut self, part: Range<usize>, units: Vec<u16>, done: Transformations) -> Option<()> {
        self.pay_for(&part, units.len())?;
        if self.decoded.len() < DECODED_MAX {
            self.pay_for(&part, units.len())?;
            self.decoded.push(Mapped::made(self.source, part.clone(), units.clone(), done));
        }
        self.builder.copy_to(part.start);
        self.builder.put(part.end, units, done);
        self.at = part.end;
        Some(())
    }

    /// Returns true if the text at this position names a command or a member: after `&`, `.` or `::`.
    fn names(&mut self, at: usize) -> bool {
        let before = self.work.find_before(self.text, at, |unit| !is_whitespace(unit));
        before.is_some_and(|unit| u8::try_from(unit).is_ok_and(|byte| matches!(byte, b'&' | b'.' | b':')))
    }
}

/// Returns the end of the comment that contains `from`.
pub(super) fn end_of_comment(text: &[u16], from: usize, work: &mut Work<'_, '_>) -> Option<usize> {
    let mut at = from;
    loop {
        at = work.find(text, at, |unit| unit == u16::from(b'#'))?;
        if at >= text.len() {
            return Some(text.len());
        }
        at += 1;
        if text.get(at) == Some(&u16::from(b'>')) {
            return Some(at + 1);
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
