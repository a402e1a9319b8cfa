//! Operands: strings, numbers, variables, casts, static methods, parentheses with pipelines, and what follows a value.

use super::{NAME_STEPS, NAME_UNITS_MAX, Parser};
use crate::view::chars::{BACKTICK, is_word, starts_with};
use crate::view::fold::decode;
use crate::view::fold::literal::{self, Literal};
use crate::view::fold::needle::Needle;
use crate::view::fold::operation::{format, index, insert, join, remove, replace, split_at_any};
use crate::view::fold::pattern::OperatorPattern;
use crate::view::fold::value::{Folded, LIST_LEN_MAX, List, Text, Value, parse};
use crate::view::transformation::{Transformation, Transformations};
use crate::view::work::Work;
use std::ops::Range;
use std::sync::Arc;

/// Steps to test for an index or a method after a value.
const BEHIND_STEPS: usize = 8;

impl Parser<'_, '_, '_> {
    /// Evaluates a cast or a static method.
    pub(super) fn typed(&mut self) -> Option<Folded> {
        self.at += 1;
        self.blanks(false);
        let name = self.type_name()?;
        let name = name.strip_prefix("system.").unwrap_or(&name);
        self.blanks(false);
        if self.is(b':') && self.text.get(self.at + 1) == Some(&u16::from(b':')) {
            self.at += 2;
            let value = self.static_member(name)?;
            return self.behind(value);
        }
        let Folded { value, done } = self.unary()?;
        let value = match name {
            "char" => {
                return Some(Folded {
                    value: Value::Char(value.char(self.work)?),
                    done: done.with(Transformation::CharCast),
                });
            }
            "char[]" => {
                let value = match value {
                    Value::Text(text) => Value::chars(&text, self.work)?,
                    other => {
                        let mut chars = List::default();
                        for item in other.list(self.work)?.items() {
                            chars.push(Value::Char(item.char(self.work)?), self.work)?;
                        }
                        chars.into_value()
                    }
                };
                return Some(Folded { value, done: done.with(Transformation::CharCast) });
            }
            "string" => Value::Text(value.text(self.work)?),
            "string[]" | "object[]" | "array" | "byte[]" | "int[]" | "int32[]" => match value {
                Value::Bytes(_) => value,
                other => Value::List(other.list(self.work)?),
            },
            "int" | "int32" | "int16" | "int64" | "long" | "byte" => Value::Number(value.number(self.work)?),
            "io.memorystream" | "scriptblock" | "regex" => value,
            _ => return None,
        };
        Some(Folded { value, done })
    }

    /// Reads the name of a type up to and including its closing bracket, in lower case without blanks.
    fn type_name(&mut self) -> Option<String> {
        self.work.charge(NAME_STEPS)?;
        let mut name = String::new();
        loop {
            self.work.charge(2)?;
            let unit = self.peek()?;
            self.at += 1;
            match u8::try_from(unit).ok()? {
                b']' if !name.ends_with('[') => return Some(name),
                b'`' | b' ' => {}
                byte if is_word(unit) || matches!(byte, b'.' | b'[' | b']') => {
                    name.push(char::from(byte.to_ascii_lowercase()));
                }
                _ => return None,
            }
            if name.len() > NAME_UNITS_MAX {
                return None;
            }
        }
    }

    /// Evaluates the member after `::`; `owner` is in lower case without `System.`.
    fn static_member(&mut self, owner: &str) -> Option<Folded> {
        let member = self.member_name()?;
        if owner == "text.encoding" || owner == "encoding" {
            let wide = match member.as_str() {
                "unicode" => true,
                "utf8" | "ascii" | "default" | "utf7" => false,
                _ => return None,
            };
            if !self.eat(b'.') || self.member_name()? != "getstring" {
                return None;
            }
            let mut arguments = self.call_arguments()?;
            let Folded { value, done } = arguments.pop()?;
            let bytes = match value {
                Value::Bytes(bytes) => bytes,
                other => {
                    let numbers = other.list(self.work)?;
                    self.work.charge(2 * numbers.items().len())?;
                    let byte = |item: &Value| u8::try_from(item.number(self.work)?).ok();
                    Arc::new(numbers.items().iter().map(byte).collect::<Option<Vec<u8>>>()?)
                }
            };
            let text = decode::encoded_text(&bytes, wide, self.work)?;
            return Some(Folded { value: Value::of_text(text, self.work)?, done });
        }
        let arguments = self.call_arguments()?;
        let done = arguments.iter().fold(Transformations::NONE, |done, argument| done.and(argument.done));
        let arguments = Arguments(arguments);
        let (value, own) = self.static_call(owner, &member, &arguments)?;
        Some(Folded { value, done: own.map_or(done, |own| done.with(own)) })
    }

    fn static_call(
        &mut self,
        owner: &str,
        member: &str,
        arguments: &Arguments,
    ) -> Option<(Value, Option<Transformation>)> {
        let work = &mut *self.work;
        Some(match (owner, member) {
            ("convert", "frombase64string") => {
                let bytes = decode::base64(&arguments.text(0, work)?, work)?;
                (Value::Bytes(Arc::new(bytes)), Some(Transformation::Base64))
            }
            ("convert", "toint16" | "toint32" | "tobyte" | "toint64") => {
                let base = if arguments.0.len() > 1 { arguments.get(1)?.number(work)? } else { 10 };
                let base = u32::try_from(base).ok().filter(|base| matches!(base, 2 | 8 | 10 | 16))?;
                let digits = arguments.text(0, work)?;
                let digits = digits.strip_prefix(&[u16::from(b'0'), u16::from(b'x')]).unwrap_or(&digits[..]);
                (Value::Number(parse(digits, base)?), None)
            }
            ("convert" | "char", "tochar" | "parse" | "convertfromutf32") => {
                (Value::Char(arguments.get(0)?.char(work)?), Some(Transformation::CharCast))
            }
            ("string", "join") => {
                let rest = match &arguments.0[..] {
                    [_, rest] => rest.value.clone(),
                    _ => arguments.list(1, work)?,
                };
                (join(&rest, &arguments.text(0, work)?, work)?, Some(Transformation::Join))
            }
            ("string", "concat") => {
                (join(&arguments.list(0, work)?, &[], work)?, Some(Transformation::Concatenation))
            }
            ("string", "format") => {
                let rest = match &arguments.0[..] {
                    [_, rest] => rest.value.clone().list(work)?,
                    _ => arguments.list(1, work)?.list(work)?,
                };
                (format(&arguments.text(0, work)?, rest.items(), work)?, Some(Transformation::Format))
            }
            ("regex" | "text.regularexpressions.regex", "replace") => {
                let pattern = OperatorPattern::new(&arguments.text(1, work)?, true, self.patterns, work)?;
                let (text, with) = (arguments.text(0, work)?, arguments.text(2, work)?);
                (pattern.replace(&text, &with, work)?, Some(Transformation::Replace))
            }
            ("regex" | "text.regularexpressions.regex", "matches") => {
                let dot = **arguments.text(1, work)? == [u16::from(b'.')];
                let leftward =
                    arguments.text(2, work).is_some_and(|option| starts_with(&option, "righttoleft"));
                if !dot || !leftward {
                    return None;
                }
                let mut units = List::default();
                for unit in arguments.text(0, work)?.iter().rev().take(LIST_LEN_MAX) {
                    units.push(Value::copied(&[*unit], work)?, work)?;
                }
                (units.into_value(), Some(Transformation::Reverse))
            }
            _ => return None,
        })
    }

    /// Reads the name of a method, which may be a string.
    fn member_name(&mut self) -> Option<String> {
        if let Some(literal) = literal::read(self.text, self.at, self.variables, self.work) {
            self.at = literal.end;
            let value = literal.value.filter(|value| value.len() <= NAME_UNITS_MAX)?;
            self.work.charge(NAME_STEPS + 4 * value.len())?;
            return Some(String::from_utf16_lossy(&value).to_ascii_lowercase());
        }
        let (name, end) = self.name(self.at, b"");
        self.at = end;
        (!name.is_empty()).then_some(name)
    }

    fn call_arguments(&mut self) -> Option<Vec<Folded>> {
        if !self.eat(b'(') {
            return None;
        }
        let outer = (self.arguments, self.inside);
        (self.arguments, self.inside) = (true, self.inside + 1);
        let list = self.argument_list();
        (self.arguments, self.inside) = outer;
        list
    }

    fn argument_list(&mut self) -> Option<Vec<Folded>> {
        let mut list = Vec::new();
        self.blanks(true);
        while !self.eat(b')') {
            list.push(self.expression()?);
            self.blanks(true);
            if !self.eat(b',') && !self.is(b')') {
                return None;
            }
            self.blanks(true);
            if list.len() > LIST_LEN_MAX {
                return None;
            }
            self.work.allocate(2 * size_of::<Folded>())?;
        }
        Some(list)
    }

    pub(super) fn primary(&mut self) -> Option<Folded> {
        if let Some(literal) = literal::read(self.text, self.at, self.variables, self.work) {
            let Literal { end, value, done } = literal;
            self.at = end;
            return Some(Folded { value: Value::of_text(value?, self.work)?, done });
        }
        let unit = self.peek()?;
        if unit == u16::from(b'(') {
            self.at += 1;
            return self.group();
        }
        if (unit == u16::from(b'$') || unit == u16::from(b'@'))
            && self.text.get(self.at + 1) == Some(&u16::from(b'('))
        {
            self.at += 2;
            return self.group();
        }
        if unit == u16::from(b'$') {
            let (name, end) = literal::variable(self.text, self.at, self.work)?;
            self.at = end;
            if name == "_" || name == "psitem" {
                return self.item.clone().map(Folded::plain);
            }
            return self.variables.get(&name).cloned();
        }
        // A backtick before a digit has no meaning.
        if !(unit == BACKTICK || (u16::from(b'0')..=u16::from(b'9')).contains(&unit)) {
            return None;
        }
        let (name, end) = self.name(self.at, b"");
        let number = match name.strip_prefix("0x") {
            Some(digits) => i64::from_str_radix(digits, 16).ok()?,
            None => name.parse().ok()?,
        };
        self.at = end;
        Some(Folded::plain(Value::Number(number)))
    }

    /// Evaluates the contents of parentheses, including a pipeline.
    fn group(&mut self) -> Option<Folded> {
        let outer = (self.arguments, self.inside);
        (self.arguments, self.inside) = (false, self.inside + 1);
        self.blanks(true);
        let mut folded = self.expression();
        self.blanks(true);
        while folded.is_some() && self.is(b'|') {
            folded = folded.and_then(|folded| self.piped(folded));
            self.blanks(true);
        }
        (self.arguments, self.inside) = outer;
        if self.eat(b')') { folded } else { None }
    }

    /// Evaluates `| ForEach-Object { … }`: the body for each item.
    pub(in crate::view::fold) fn piped(&mut self, from: Folded) -> Option<Folded> {
        self.at += 1;
        self.blanks(true);
        if !self.eat(b'%') {
            let (name, end) = self.name(self.at, b"-");
            if !matches!(name.as_str(), "foreach" | "foreach-object") {
                return None;
            }
            self.at = end;
        }
        self.blanks(true);
        if !self.eat(b'{') {
            return None;
        }
        let body = self.at;
        let mut done = from.done;
        let mut made = List::default();
        let mut end = None;
        let outer = (self.arguments, self.inside, self.item.take());
        (self.arguments, self.inside) = (false, outer.1 + 1);
        let items = from.value.list(self.work);
        for item in items.iter().flat_map(|items| items.items()) {
            self.at = body;
            self.blanks(true);
            self.item = Some(item.clone());
            let Some(folded) = self.expression() else { break };
            self.blanks(true);
            if !self.eat(b'}') || made.push_all(folded.value, self.work).is_none() {
                break;
            }
            end = Some(self.at);
            done = done.and(folded.done);
        }
        let complete = end == Some(self.at);
        (self.arguments, self.inside, self.item) = outer;
        complete.then(|| Folded { value: made.into_value(), done })
    }

    /// Evaluates indices, methods and properties after a value.
    pub(super) fn behind(&mut self, mut folded: Folded) -> Option<Folded> {
        loop {
            let before = self.at;
            self.work.charge(BEHIND_STEPS)?;
            let next = if self.eat(b'[') {
                self.indexed(&folded)
            } else if self.is(b'.') && self.text.get(self.at + 1) != Some(&u16::from(b'.')) {
                self.at += 1;
                self.method(&folded)
            } else {
                return Some(folded);
            };
            let Some(next) = next else {
                self.at = before;
                return Some(folded);
            };
            folded = next;
        }
    }

    fn indexed(&mut self, folded: &Folded) -> Option<Folded> {
        let outer = (self.arguments, self.inside);
        (self.arguments, self.inside) = (false, self.inside + 1);
        self.blanks(true);
        let number = self.expression();
        self.blanks(true);
        (self.arguments, self.inside) = outer;
        let number = number?;
        if !self.eat(b']') {
            return None;
        }
        let mut done = folded.done.and(number.done);
        if let Value::List(numbers) = &number.value
            && let [first, second, ..] = numbers.items()
            && first.number(self.work)? > second.number(self.work)?
        {
            done = done.with(Transformation::Reverse);
        }
        let value = index(&folded.value, &number.value, self.work)?;
        Some(Folded { value, done })
    }

    fn method(&mut self, folded: &Folded) -> Option<Folded> {
        let name = self.member_name()?;
        let Folded { value, done } = folded;
        let done = *done;
        if !self.is(b'(') {
            let len = match value {
                Value::Text(text) => text.len(),
                Value::List(list) => list.items().len(),
                _ => 1,
            };
            return match name.as_str() {
                "length" | "count" => Some(Folded { value: Value::Number(len as i64), done }),
                "value" => Some(folded.clone()),
                _ => None,
            };
        }
        let arguments = self.call_arguments()?;
        let done = arguments.iter().fold(done, |done, argument| done.and(argument.done));
        let (value, own) = self.call(value, &name, &Arguments(arguments))?;
        Some(Folded { value, done: own.map_or(done, |own| done.with(own)) })
    }

    fn call(
        &mut self,
        value: &Value,
        name: &str,
        arguments: &Arguments,
    ) -> Option<(Value, Option<Transformation>)> {
        let work = &mut *self.work;
        let own = value.text(work)?;
        Some(match name {
            "replace" => {
                let what = Needle::new(&arguments.text(0, work)?, true, work)?;
                let with = arguments.text(1, work)?;
                (replace(&own, &what, &with, work)?, Some(Transformation::Replace))
            }
            "split" => {
                let of = match arguments.get(0) {
                    Some(of) => join(of, &[], work)?.text(work)?,
                    None => Arc::default(),
                };
                (split_at_any(&own, &of, work)?, Some(Transformation::Split))
            }
            "tostring" | "tolower" | "toupper" | "trim" | "tolowerinvariant" | "toupperinvariant" => {
                (Value::Text(own), None)
            }
            "tochararray" => (Value::chars(&own, work)?, None),
            "substring" => {
                let range = arguments.range(own.len(), work)?;
                (Value::copied(own.get(range)?, work)?, None)
            }
            "insert" => {
                let (at, what) = (arguments.place(0, work)?, arguments.text(1, work)?);
                (insert(&own, at, &what, work)?, Some(Transformation::Concatenation))
            }
            "remove" => (remove(&own, arguments.range(own.len(), work)?, work)?, None),
            _ => return None,
        })
    }
}

/// The arguments of a method.
struct Arguments(Vec<Folded>);

impl Arguments {
    fn get(&self, number: usize) -> Option<&Value> {
        self.0.get(number).map(|argument| &argument.value)
    }

    fn text(&self, number: usize, work: &mut Work<'_, '_>) -> Option<Text> {
        self.get(number)?.text(work)
    }

    fn place(&self, number: usize, work: &mut Work<'_, '_>) -> Option<usize> {
        usize::try_from(self.get(number)?.number(work)?).ok()
    }

    /// Returns the range for a start and a length, or to the end if there is no length.
    fn range(&self, len: usize, work: &mut Work<'_, '_>) -> Option<Range<usize>> {
        let start = self.place(0, work)?;
        let end = if self.0.len() > 1 { start.checked_add(self.place(1, work)?)? } else { len };
        Some(start..end)
    }

    /// Returns the arguments from `from` on as a list.
    fn list(&self, from: usize, work: &mut Work<'_, '_>) -> Option<Value> {
        let mut list = List::default();
        for argument in self.0.get(from..)? {
            list.push(argument.value.clone(), work)?;
        }
        Some(list.into_value())
    }
}
