//! What operators stand between: strings, numbers, variables, casts, static methods, parentheses with their pipelines,
//! and what follows a value.

use super::{NAME_UNITS_MAX, Parser};
use crate::view::chars::{BACKTICK, is_word, starts_with};
use crate::view::fold::decode;
use crate::view::fold::literal::{self, Literal};
use crate::view::fold::value::{
    Folded, LIST_LEN_MAX, Value, format, index, join, parse, replace, split_at_any,
};
use crate::view::transformation::{Done, Transformation};

impl Parser<'_> {
    /// A cast, or a static method.
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
        let folded = self.unary()?;
        self.budget.spend(folded.value.size()).then_some(())?;
        let Folded { value, done } = folded;
        let chars = |text: Vec<u16>| text.into_iter().map(Value::Char).collect();
        let value = match name {
            "char" => {
                return Some(Folded {
                    value: Value::Char(value.char()?),
                    done: done.with(Transformation::CharCast),
                });
            }
            "char[]" => {
                let items = match value {
                    Value::Text(text) if text.len() <= LIST_LEN_MAX => chars(text),
                    other => {
                        let items: Option<Vec<Value>> =
                            other.items().iter().map(|item| item.char().map(Value::Char)).collect();
                        items?
                    }
                };
                return Some(Folded { value: Value::List(items), done: done.with(Transformation::CharCast) });
            }
            "string" => Value::Text(value.text()?),
            "string[]" | "object[]" | "array" | "byte[]" | "int[]" | "int32[]" => match value {
                Value::Bytes(_) => value,
                other => Value::List(other.items()),
            },
            "int" | "int32" | "int16" | "int64" | "long" | "byte" => Value::Number(value.number()?),
            "io.memorystream" | "scriptblock" | "regex" => value,
            _ => return None,
        };
        Some(Folded { value, done })
    }

    /// The name of a type up to its closing bracket, which is passed, in small letters without blanks.
    fn type_name(&mut self) -> Option<String> {
        let mut name = String::new();
        loop {
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

    /// What stands behind `::`; `owner` in small letters without `System.`.
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
            let bytes: Option<Vec<u8>> = match value {
                Value::Bytes(bytes) => Some(bytes),
                other => other.items().iter().map(|item| u8::try_from(item.number()?).ok()).collect(),
            };
            let text = decode::encoded_text(&bytes?, wide);
            return self.budget.spend(text.len()).then_some(Folded { value: Value::Text(text), done });
        }
        let arguments = self.call_arguments()?;
        let done = arguments.iter().fold(Done::NONE, |done, argument| done.and(argument.done));
        let values: Vec<Value> = arguments.into_iter().map(|argument| argument.value).collect();
        let text = |number: usize| values.get(number).and_then(Value::text);
        let (value, own) = match (owner, member.as_str()) {
            ("convert", "frombase64string") => {
                (Value::Bytes(decode::base64(&text(0)?)?), Some(Transformation::Base64))
            }
            ("convert", "toint16" | "toint32" | "tobyte" | "toint64") => {
                let base = values.get(1).map_or(Some(10), Value::number)?;
                let base = u32::try_from(base).ok().filter(|base| matches!(base, 2 | 8 | 10 | 16))?;
                let digits = text(0)?;
                let digits = digits.strip_prefix(&[u16::from(b'0'), u16::from(b'x')]).unwrap_or(&digits);
                (Value::Number(parse(digits, base)?), None)
            }
            ("convert" | "char", "tochar" | "parse" | "convertfromutf32") => {
                (Value::Char(values.first()?.char()?), Some(Transformation::CharCast))
            }
            ("string", "join") => {
                let rest =
                    if values.len() == 2 { values[1].clone() } else { Value::List(values[1..].to_vec()) };
                (join(&rest, &text(0)?)?, Some(Transformation::Join))
            }
            ("string", "concat") => {
                (join(&Value::List(values.clone()), &[])?, Some(Transformation::Concatenation))
            }
            ("string", "format") => {
                let rest = match values.get(1..)? {
                    [Value::List(items)] => items,
                    rest => rest,
                };
                (format(&text(0)?, rest)?, Some(Transformation::Format))
            }
            ("regex" | "text.regularexpressions.regex", "replace") => {
                let made = self.pattern(&text(1)?, true)?.replace(&text(0)?, &text(2)?)?;
                (Value::Text(made), Some(Transformation::Replace))
            }
            ("regex" | "text.regularexpressions.regex", "matches") => {
                let dot = text(1)? == [u16::from(b'.')];
                let leftward = text(2).is_some_and(|option| starts_with(&option, "righttoleft"));
                if !dot || !leftward {
                    return None;
                }
                let items = text(0)?.into_iter().rev().take(LIST_LEN_MAX).map(|unit| Value::Text(vec![unit]));
                (Value::List(items.collect()), Some(Transformation::Reverse))
            }
            _ => return None,
        };
        let done = own.map_or(done, |own| done.with(own));
        self.budget.spend(value.size()).then_some(Folded { value, done })
    }

    /// The name of a method, which may be written as a string.
    fn member_name(&mut self) -> Option<String> {
        if let Some(literal) = literal::read(self.text, self.at, self.variables) {
            self.at = literal.end;
            return Some(String::from_utf16_lossy(&literal.value?).to_ascii_lowercase());
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
        }
        Some(list)
    }

    pub(super) fn primary(&mut self) -> Option<Folded> {
        if let Some(literal) = literal::read(self.text, self.at, self.variables) {
            let Literal { end, value, done } = literal;
            let size = end - self.at + value.as_ref().map_or(0, Vec::len);
            self.budget.spend(size).then_some(())?;
            self.at = end;
            return Some(Folded { value: Value::Text(value?), done });
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
            let (name, end) = literal::variable(self.text, self.at)?;
            self.at = end;
            if name == "_" || name == "psitem" {
                return self.item.clone().map(Folded::plain);
            }
            let folded = self.variables.get(&name)?;
            return self.budget.spend(folded.value.size()).then(|| folded.clone());
        }
        // A backtick before a digit is nothing.
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

    /// What stands in parentheses, with the pipeline behind it.
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

    /// `| ForEach-Object { … }`: the body for each item.
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
        if from.value.size() > LIST_LEN_MAX {
            return None;
        }
        let mut done = from.done;
        let mut made = Vec::new();
        let mut end = None;
        let outer = (self.arguments, self.inside, self.item.take());
        (self.arguments, self.inside) = (false, outer.1 + 1);
        for item in from.value.items() {
            self.at = body;
            self.blanks(true);
            self.item = Some(item);
            let Some(folded) = self.expression() else { break };
            self.blanks(true);
            if !self.eat(b'}') || made.len() > LIST_LEN_MAX {
                break;
            }
            end = Some(self.at);
            done = done.and(folded.done);
            match folded.value {
                Value::List(items) => made.extend(items),
                value => made.push(value),
            }
        }
        let complete = end == Some(self.at);
        (self.arguments, self.inside, self.item) = outer;
        complete.then_some(Folded { value: Value::List(made), done })
    }

    /// Indices, methods and properties behind a value.
    pub(super) fn behind(&mut self, mut folded: Folded) -> Option<Folded> {
        loop {
            let before = self.at;
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
        if !self.eat(b']') || !self.budget.spend(number.value.size()) {
            return None;
        }
        let mut done = folded.done.and(number.done);
        if let Value::List(numbers) = &number.value
            && let [first, second, ..] = &numbers[..]
            && first.number()? > second.number()?
        {
            done = done.with(Transformation::Reverse);
        }
        let value = index(&folded.value, &number.value)?;
        self.budget.spend(value.size()).then_some(Folded { value, done })
    }

    fn method(&mut self, folded: &Folded) -> Option<Folded> {
        let name = self.member_name()?;
        let Folded { value, done } = folded;
        let done = *done;
        if !self.is(b'(') {
            let len = match value {
                Value::Text(text) => text.len(),
                Value::List(items) => items.len(),
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
        let argument = |number: usize| arguments.get(number).map(|argument| &argument.value);
        let text = |number: usize| argument(number).and_then(Value::text);
        let number =
            |number: usize| argument(number).and_then(Value::number).and_then(|n| usize::try_from(n).ok());
        let own = value.text();
        self.budget.spend(value.size()).then_some(())?;
        let (value, own) = match name.as_str() {
            "replace" => (Value::Text(replace(&own?, &text(0)?, &text(1)?)?), Some(Transformation::Replace)),
            "split" => {
                let of = join(argument(0).unwrap_or(&Value::Text(Vec::new())), &[])?.text()?;
                (Value::List(split_at_any(&own?, &of)?), Some(Transformation::Split))
            }
            "tostring" => (Value::Text(own?), None),
            "tochararray" => {
                let own = own.filter(|own| own.len() <= LIST_LEN_MAX)?;
                (Value::List(own.into_iter().map(Value::Char).collect()), None)
            }
            "tolower" | "toupper" | "trim" | "tolowerinvariant" | "toupperinvariant" => {
                (Value::Text(own?), None)
            }
            "substring" => {
                let own = own?;
                let start = number(0)?;
                let end = if arguments.len() > 1 { start.checked_add(number(1)?)? } else { own.len() };
                (Value::Text(own.get(start..end)?.to_vec()), None)
            }
            "insert" => {
                let (own, at) = (own?, number(0)?);
                let (first, rest) = own.split_at_checked(at)?;
                (Value::Text([first, &text(1)?, rest].concat()), Some(Transformation::Concatenation))
            }
            "remove" => {
                let (mut own, at) = (own?, number(0)?);
                let end = if arguments.len() > 1 { at.checked_add(number(1)?)? } else { own.len() };
                own.get(at..end)?;
                own.drain(at..end);
                (Value::Text(own), None)
            }
            _ => return None,
        };
        let done = own.map_or(done, |own| done.with(own));
        self.budget.spend(value.size()).then_some(Folded { value, done })
    }
}
