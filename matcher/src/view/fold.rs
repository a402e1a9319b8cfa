//! Constant expressions of a script replaced by their values, once over the text. Nothing is executed.
//!
//! What a string in the place of an expression is: quoted, so that the text around reads on; as it is where it names a
//! command or a member, and where it holds quotation marks or line ends, because then it is a script itself. Another
//! pass over what was made folds what is inside.
//!
//! Every bound is a named constant here and beside what it bounds (`DEPTH_MAX`, `VALUE_UNITS_MAX`, `LIST_LEN_MAX`,
//! `UNPACKED_LEN_MAX`, `VARIABLES_MAX`); all work is counted in steps of a [`Budget`], and where
//! that ends the rest of the text stays as it is.

mod command;
mod decode;
mod literal;
mod parse;
mod value;
mod variables;

pub(super) use {literal::read as read_literal, variables::Variables};

use super::chars::{
    BACKTICK, is_dash, is_double_quote, is_newline, is_single_quote, is_whitespace, is_word, starts_with,
};
use super::mapped::{Builder, Mapped};
use super::transformation::{Done, Transformation};
use decode::BASE64_UNITS_MIN;
use parse::Parser;
use value::{Folded, Value};

/// Steps for each unit of the original text.
pub(crate) const STEPS_PER_UNIT_MAX: usize = 32;
/// Steps for a text of any length.
pub(crate) const STEPS_FREE_MAX: usize = 1 << 20;
/// Longest text that is made, in units beyond the length of the one it is made from.
pub(crate) const GROWTH_UNITS_MAX: usize = 1 << 21;
/// Most decoded texts that are looked at on their own.
pub(crate) const DECODED_MAX: usize = 16;

/// What may still be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub(super) steps: usize,
}

impl Budget {
    /// For an original text of this length.
    pub(super) fn of(units: usize) -> Self {
        Self { steps: units.saturating_mul(STEPS_PER_UNIT_MAX).saturating_add(STEPS_FREE_MAX) }
    }

    /// False, and nothing left, if there is less than that.
    pub(super) fn spend(&mut self, steps: usize) -> bool {
        let rest = self.steps.checked_sub(steps.max(1));
        self.steps = rest.unwrap_or(0);
        rest.is_some()
    }
}

/// The text with its constant expressions folded; `None` if it has none. Decoded texts are added to `decoded`.
pub(super) fn fold(source: &Mapped, budget: &mut Budget, decoded: &mut Vec<Mapped>) -> Option<Mapped> {
    let text = source.units();
    let mut folder = Folder {
        source,
        text,
        at: 0,
        builder: Builder::new(source),
        variables: Variables::default(),
        unknown: Variables::default(),
        name: String::new(),
        names_base64: names_base64(text),
        budget,
        decoded,
    };
    loop {
        let blanks = run(&text[folder.at..], MEANS_NOTHING);
        folder.at += blanks;
        let goes_on = folder.at < text.len() && folder.builder.len() <= text.len() + GROWTH_UNITS_MAX;
        if !goes_on || !folder.budget.spend(blanks + 1) {
            break;
        }
        folder.token();
    }
    folder.builder.finish()
}

/// Belongs to a word: letters, digits, underscore, dash, backtick.
const IN_WORD: u8 = 1;
/// Begins nothing that is looked at.
const MEANS_NOTHING: u8 = 1 << 1;

/// What the characters of ASCII are to the loop over tokens.
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

/// Units of ASCII in this class with which the text begins.
#[inline]
fn run(text: &[u16], class: u8) -> usize {
    let is_other = |unit: &u16| CLASSES.get(usize::from(*unit)).is_none_or(|own| own & class == 0);
    text.iter().position(is_other).unwrap_or(text.len())
}

/// Whether base64 is spoken of.
fn names_base64(text: &[u16]) -> bool {
    const WORD: &str = "base64";
    /// Where its rare digit stands.
    const SIX: usize = 4;
    const BLOCK: usize = 64;
    let is_six = |unit: &u16| *unit == u16::from(b'6');
    (0usize..).step_by(BLOCK).zip(text.chunks(BLOCK)).any(|(from, block)| {
        // No shortcut: this is to become vector code.
        block.iter().fold(false, |any, unit| any | is_six(unit))
            && (from..).zip(block).any(|(at, unit)| {
                is_six(unit) && at.checked_sub(SIX).is_some_and(|start| starts_with(&text[start..], WORD))
            })
    })
}

struct Folder<'a> {
    source: &'a Mapped,
    text: &'a [u16],
    at: usize,
    builder: Builder<'a>,
    variables: Variables,
    /// As at the beginning.
    unknown: Variables,
    /// Memory for the name of a variable.
    name: String,
    /// Base64 is spoken of somewhere, so strings of it are decoded.
    names_base64: bool,
    budget: &'a mut Budget,
    decoded: &'a mut Vec<Mapped>,
}

impl Folder<'_> {
    /// Deals with what stands here, and goes on behind it.
    fn token(&mut self) {
        let (text, at) = (self.text, self.at);
        let unit = text[at];
        let next = text.get(at + 1).copied().unwrap_or(0);
        if is_word(unit) || unit == BACKTICK {
            self.word();
        } else if is_single_quote(unit) || is_double_quote(unit) {
            self.expression();
        } else if is_dash(unit) || unit == u16::from(b'/') {
            self.dash();
        } else {
            match u8::try_from(unit) {
                Ok(b'#') => self.skip_until(|rest| is_newline(rest[0]), 0),
                Ok(b'<') if next == u16::from(b'#') => {
                    self.at += 2;
                    self.skip_until(|rest| rest.starts_with(&[u16::from(b'#'), u16::from(b'>')]), 2);
                }
                Ok(b'$') => self.variable(),
                Ok(b'[') => self.bracket(),
                Ok(b'@') => self.expression(),
                Ok(b'(') if !self.is_call() => self.expression(),
                _ => self.at += 1,
            }
        }
    }

    fn skip_until(&mut self, found: impl Fn(&[u16]) -> bool, behind: usize) {
        let start = self.at;
        while self.at < self.text.len() && !found(&self.text[self.at..]) {
            self.at += 1;
        }
        self.budget.spend(self.at - start);
        self.at = (self.at + behind).min(self.text.len());
    }

    fn word(&mut self) {
        let start = self.at;
        loop {
            self.at += run(&self.text[self.at..], IN_WORD);
            // A dash of another kind.
            if !self.text.get(self.at).is_some_and(|unit| is_dash(*unit)) {
                break;
            }
            self.at += 1;
        }
        self.budget.spend(self.at - start);
        self.at = self.at.max(start + 1);
    }

    /// Whether a parenthesis here holds the arguments of a call.
    fn is_call(&self) -> bool {
        const ENDS: &[u8] = b")]}'\"";
        self.at.checked_sub(1).is_some_and(|before| {
            let unit = self.text[before];
            is_word(unit) || u8::try_from(unit).is_ok_and(|byte| ENDS.contains(&byte))
        })
    }

    /// Tries an expression; what is none is passed by.
    fn expression(&mut self) {
        let start = self.at;
        let made = self.builder.len();
        if let Some((folded, end)) = self.parse() {
            self.put(start..end, folded);
        } else {
            self.pass(start);
        }
        if self.builder.len() == made {
            self.commands_in(start..self.at);
        }
    }

    fn pass(&mut self, start: usize) {
        let end = read_literal(self.text, start, &self.unknown).map_or(start + 1, |literal| literal.end);
        self.budget.spend(end - start);
        self.at = end;
    }

    /// The expression here, and where it ends. Does not move.
    fn parse(&mut self) -> Option<(Folded, usize)> {
        let mut parser = Parser::new(self.text, self.at, self.budget, &self.variables);
        let mut folded = parser.expression()?;
        loop {
            let end = parser.at;
            let mut at = end;
            while self.text.get(at).is_some_and(|unit| is_whitespace(*unit)) {
                at += 1;
            }
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

    fn bracket(&mut self) {
        let rest = &self.text[self.at..];
        for name in ["[array]::reverse(", "[system.array]::reverse("] {
            if starts_with(rest, name) {
                let mut at = self.at + name.len();
                while self.text.get(at).is_some_and(|unit| is_whitespace(*unit)) {
                    at += 1;
                }
                if let Some((name, end)) = literal::variable(self.text, at) {
                    self.variables.reverse(&name);
                    self.at = end;
                    return;
                }
            }
        }
        self.expression();
    }

    /// A variable: assigned to, or the beginning of an expression.
    fn variable(&mut self) {
        let start = self.at;
        let mut name = std::mem::take(&mut self.name);
        let end = literal::variable_into(self.text, start, &mut name);
        match end {
            Some(end) => self.named(start, end, &name),
            // `$(`
            None => self.expression(),
        }
        self.name = name;
    }

    fn named(&mut self, start: usize, end: usize, name: &str) {
        let mut at = end;
        while self.text.get(at).is_some_and(|unit| is_whitespace(*unit)) {
            at += 1;
        }
        let sign = |at: usize, sign: u8| self.text.get(at) == Some(&u16::from(sign));
        let appends = sign(at, b'+') && sign(at + 1, b'=');
        let assigns = sign(at, b'=') && !sign(at + 1, b'=');
        if !appends && !assigns {
            if self.variables.get(name).is_none() {
                // No expression that begins with it is constant.
                self.at = end;
                return;
            }
            self.expression();
            // What is not known ends where its name does.
            if self.at == start + 1 {
                self.at = end;
            }
            return;
        }
        at += if appends { 2 } else { 1 };
        while self.text.get(at).is_some_and(|unit| is_whitespace(*unit) || is_newline(*unit)) {
            at += 1;
        }
        self.at = at;
        let parsed = self.parse();
        let complete = parsed.as_ref().filter(|(_, end)| self.ends_statement(*end));
        let value = complete.map(|(folded, _)| folded.clone());
        if appends {
            self.variables.append(name, value);
        } else {
            self.variables.assign(name, value);
        }
        if let Some((folded, end)) = parsed {
            self.put(at..end, folded);
        }
    }

    fn ends_statement(&self, at: usize) -> bool {
        const ENDS: &[u8] = b";})|#";
        let behind = self.text[at..].iter().find(|unit| !is_whitespace(**unit));
        behind.is_none_or(|unit| {
            is_newline(*unit) || u8::try_from(*unit).is_ok_and(|byte| ENDS.contains(&byte))
        })
    }

    /// Puts a value in the place of its expression, if anything was done to get it.
    fn put(&mut self, part: std::ops::Range<usize>, folded: Folded) {
        let Folded { value, done } = folded;
        self.at = part.end.max(part.start + 1);
        let text = match value {
            Value::Bytes(bytes) => {
                if let Some((units, own)) = decode::text(&bytes)
                    && self.budget.spend(bytes.len() + units.len())
                {
                    self.put_decoded(part, units, done.and(own));
                }
                return;
            }
            Value::Text(text) => text,
            Value::Char(unit) => vec![unit],
            Value::Number(_) | Value::List(_) => return,
        };
        if self.names_base64
            && text.len() >= BASE64_UNITS_MIN
            && self.budget.spend(text.len())
            && let Some(bytes) = decode::base64(&text)
            && let Some((units, own)) = decode::text(&bytes)
            && self.budget.spend(bytes.len() + units.len())
        {
            return self.put_decoded(part, units, done.and(own).with(Transformation::Base64));
        }
        if done.is_none() || done == Done::only(Transformation::Backtick) {
            return;
        }
        let is_script =
            text.iter().any(|unit| is_newline(*unit) || is_single_quote(*unit) || is_double_quote(*unit));
        self.builder.copy_to(part.start);
        if is_script || self.names(part.start) {
            self.builder.put(part.end, text, done);
        } else {
            let quote = u16::from(b'\'');
            self.builder.put(part.end, std::iter::once(quote).chain(text).chain([quote]), done);
        }
    }

    fn put_decoded(&mut self, part: std::ops::Range<usize>, units: Vec<u16>, done: Done) {
        if self.decoded.len() < DECODED_MAX {
            self.decoded.push(Mapped::made(self.source, part.clone(), units.clone(), done));
        }
        self.builder.copy_to(part.start);
        self.builder.put(part.end, units, done);
        self.at = part.end;
    }

    /// Whether what stands here names a command or a member: behind `&`, `.` or `::`.
    fn names(&self, at: usize) -> bool {
        let before = self.text[..at].iter().rev().find(|unit| !is_whitespace(**unit));
        before.is_some_and(|unit| u8::try_from(*unit).is_ok_and(|byte| matches!(byte, b'&' | b'.' | b':')))
    }
}

#[cfg(test)]
mod tests;
