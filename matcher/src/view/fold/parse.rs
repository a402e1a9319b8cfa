//! Constant expressions of PowerShell, parsed and evaluated in one pass. Nothing is executed: an expression that is not
//! constant gives `None`.
//!
//! Recursive descent with PowerShell's precedence: `-join`, `-split`, `-replace` and `-bxor` bind loosest, then `+`,
//! `*`, `-f`, `..`, the comma, unary operators and casts, and finally what follows a value (`[…]`, `.Method(…)`).
//! Source: PowerShell/PowerShell, `engine/parser/token.cs` (`TokenFlags`, binary precedence) and `Parser.cs`.

mod operand;

use super::operation::{format, join, split_at_any};
use super::pattern::{OperatorPattern, PatternCache};
use super::value::{Folded, LIST_LEN_MAX, List, Value};
use super::variables::Variables;
use crate::view::chars::{BACKTICK, is_dash, is_newline, is_whitespace, is_word, lower};
use crate::view::transformation::Transformation;
use crate::view::work::Work;
use std::sync::Arc;

/// Maximum nesting depth of an expression.
pub(crate) const DEPTH_MAX: u32 = 24;
/// Steps to test for all operators before and after an operand.
const OPERAND_STEPS: usize = 48;
/// Steps to test for the operators that bind loosest.
const EXPRESSION_STEPS: usize = 8;
/// Steps to read a name, beyond its units.
const NAME_STEPS: usize = 12;
/// Maximum length of the name of an operator, type or method, in units.
const NAME_UNITS_MAX: usize = 64;

pub(super) struct Parser<'a, 'w, 'b> {
    pub(super) text: &'a [u16],
    pub(super) at: usize,
    pub(super) work: &'a mut Work<'w, 'b>,
    patterns: &'a mut PatternCache,
    pub(super) variables: &'a Variables,
    /// The value of `$_` in the body of a `ForEach-Object`.
    item: Option<Value>,
    depth: u32,
    /// Number of enclosing parentheses; inside them, line ends are blanks.
    inside: u32,
    /// True among the arguments of a method, which commas separate.
    arguments: bool,
}

impl<'a, 'w, 'b> Parser<'a, 'w, 'b> {
    pub(super) fn new(
        text: &'a [u16],
        at: usize,
        work: &'a mut Work<'w, 'b>,
        patterns: &'a mut PatternCache,
        variables: &'a Variables,
    ) -> Self {
        Self { text, at, work, patterns, variables, item: None, depth: 0, inside: 0, arguments: false }
    }

    fn peek(&self) -> Option<u16> {
        self.text.get(self.at).copied()
    }

    fn is(&self, sign: u8) -> bool {
        self.peek() == Some(u16::from(sign))
    }

    fn eat(&mut self, sign: u8) -> bool {
        let is = self.is(sign);
        self.at += usize::from(is);
        is
    }

    fn blanks(&mut self, lines: bool) {
        let lines = lines || self.inside > 0;
        while let Some(unit) = self.peek() {
            let next = self.text.get(self.at + 1).copied().unwrap_or(0);
            if is_whitespace(unit) || (lines && is_newline(unit)) || (unit == BACKTICK && is_newline(next)) {
                self.at += if unit == BACKTICK { 2 } else { 1 };
            } else {
                break;
            }
            if self.work.charge(2).is_none() {
                break;
            }
        }
    }

    /// Reads word characters and those of `also` from this position, in lower case without backticks. Does not move.
    fn name(&mut self, from: usize, also: &[u8]) -> (String, usize) {
        if self.work.charge(NAME_STEPS).is_none() {
            return (String::new(), from);
        }
        let mut name = String::new();
        let mut at = from;
        while let Some(&unit) = self.text.get(at) {
            if self.work.charge(2).is_none() {
                break;
            }
            let is_part = is_word(unit) || u8::try_from(unit).is_ok_and(|byte| also.contains(&byte));
            if is_part {
                name.push(char::from(lower(unit) as u8));
            } else if unit != BACKTICK {
                break;
            }
            at += 1;
            if at - from > NAME_UNITS_MAX {
                break;
            }
        }
        (name, at)
    }

    /// Returns the name of the operator at this position, after its dash, and its end. The name is not empty.
    fn operator(&mut self) -> Option<(String, usize)> {
        if !self.peek().is_some_and(is_dash) {
            return None;
        }
        let (name, end) = self.name(self.at + 1, b"");
        (!name.is_empty()).then_some((name, end))
    }

    /// Evaluates an expression as far as it is constant.
    pub(super) fn expression(&mut self) -> Option<Folded> {
        self.work.charge(EXPRESSION_STEPS)?;
        if self.depth >= DEPTH_MAX {
            return None;
        }
        self.depth += 1;
        let folded = self.loosest();
        self.depth -= 1;
        folded
    }

    fn loosest(&mut self) -> Option<Folded> {
        let mut left = self.sum()?;
        loop {
            let before = self.at;
            self.blanks(false);
            let Some(combined) = self.operator().and_then(|(name, end)| {
                self.at = end;
                self.combine(&name, &left)
            }) else {
                self.at = before;
                return Some(left);
            };
            left = combined;
        }
    }

    /// Evaluates this operator with `left` and the operand that follows.
    fn combine(&mut self, name: &str, left: &Folded) -> Option<Folded> {
        let (cased, plain) = match name.strip_prefix('c') {
            Some(plain) => (true, plain),
            None => (false, name.strip_prefix('i').unwrap_or(name)),
        };
        let known = matches!(name, "join" | "bxor" | "band" | "bor") || matches!(plain, "replace" | "split");
        if !known {
            return None;
        }
        self.blanks(true);
        let right = self.sum()?;
        let done = left.done.and(right.done);
        match (name, plain) {
            ("join", _) => {
                let between = right.value.text(self.work)?;
                let value = join(&left.value, &between, self.work)?;
                Some(Folded { value, done: done.with(Transformation::Join) })
            }
            ("bxor" | "band" | "bor", _) => {
                let (a, b) = (left.value.number(self.work)?, right.value.number(self.work)?);
                let value = match name {
                    "bxor" => a ^ b,
                    "band" => a & b,
                    _ => a | b,
                };
                Some(Folded { value: Value::Number(value), done })
            }
            (_, "replace") => {
                let operands = right.value.list(self.work)?;
                let source = operands.items().first()?.text(self.work)?;
                let pattern = OperatorPattern::new(&source, cased, self.patterns, self.work)?;
                let with = match operands.items().get(1) {
                    Some(with) => with.text(self.work)?,
                    None => Arc::default(),
                };
                let value = self.replace_each(&left.value, &pattern, &with)?;
                Some(Folded { value, done: done.with(Transformation::Replace) })
            }
            (_, "split") => {
                let source = right.value.list(self.work)?.items().first()?.text(self.work)?;
                let pattern = OperatorPattern::new(&source, cased, self.patterns, self.work)?;
                let mut parts = List::default();
                for item in left.value.clone().list(self.work)?.items() {
                    let text = item.text(self.work)?;
                    pattern.split(&text, &mut parts, self.work)?;
                }
                Some(Folded { value: parts.into_value(), done: done.with(Transformation::Split) })
            }
            _ => None,
        }
    }

    /// Evaluates `-replace` on a text, or on each text of a list.
    fn replace_each(&mut self, value: &Value, pattern: &OperatorPattern, with: &[u16]) -> Option<Value> {
        let Value::List(items) = value else {
            let text = value.text(self.work)?;
            return pattern.replace(&text, with, self.work);
        };
        let mut made = List::default();
        for item in items.items() {
            let text = item.text(self.work)?;
            made.push(pattern.replace(&text, with, self.work)?, self.work)?;
        }
        Some(made.into_value())
    }

    fn sum(&mut self) -> Option<Folded> {
        let mut left = self.product()?;
        loop {
            let before = self.at;
            self.blanks(false);
            let next = self.text.get(self.at + 1).copied().unwrap_or(0);
            let plus = self.is(b'+') && next != u16::from(b'+') && next != u16::from(b'=');
            let minus = matches!(left.value, Value::Number(_))
                && self.peek().is_some_and(is_dash)
                && !is_dash(next)
                && (!is_word(next) || (u16::from(b'0')..=u16::from(b'9')).contains(&next));
            if !plus && !minus {
                self.at = before;
                return Some(left);
            }
            self.at += 1;
            self.blanks(true);
            let Some(right) = self.product() else {
                self.at = before;
                return Some(left);
            };
            let is_text = !matches!(left.value, Value::Number(_));
            let done = left.done.and(right.done);
            let sum = if plus {
                left.value.plus(&right.value, self.work)?
            } else {
                let (left, right) = (left.value.number(self.work)?, right.value.number(self.work)?);
                Value::Number(left.checked_sub(right)?)
            };
            left = Folded {
                value: sum,
                done: if is_text { done.with(Transformation::Concatenation) } else { done },
            };
        }
    }

    fn product(&mut self) -> Option<Folded> {
        let mut left = self.formatted()?;
        loop {
            let before = self.at;
            self.blanks(false);
            let is_number = matches!(left.value, Value::Number(_));
            if !is_number || !(self.is(b'*') || self.is(b'/')) {
                self.at = before;
                return Some(left);
            }
            let times = self.is(b'*');
            self.at += 1;
            self.blanks(true);
            let right = self.formatted();
            let Some(right) = right.and_then(|right| right.value.number(self.work)) else {
                self.at = before;
                return Some(left);
            };
            let number = left.value.number(self.work)?;
            let number = if times { number.checked_mul(right)? } else { number.checked_div(right)? };
            left.value = Value::Number(number);
        }
    }

    fn formatted(&mut self) -> Option<Folded> {
        let mut left = self.range()?;
        loop {
            let before = self.at;
            self.blanks(false);
            let Some((_, end)) = self.operator().filter(|(name, _)| name == "f") else {
                self.at = before;
                return Some(left);
            };
            self.at = end;
            self.blanks(true);
            let made = self.range().and_then(|right| {
                let template = left.value.text(self.work)?;
                let arguments = right.value.list(self.work)?;
                let value = format(&template, arguments.items(), self.work)?;
                Some(Folded { value, done: left.done.and(right.done).with(Transformation::Format) })
            });
            let Some(made) = made else {
                self.at = before;
                return Some(left);
            };
            left = made;
        }
    }

    fn range(&mut self) -> Option<Folded> {
        let left = self.list()?;
        let before = self.at;
        self.blanks(false);
        if !(self.is(b'.') && self.text.get(self.at + 1) == Some(&u16::from(b'.'))) {
            self.at = before;
            return Some(left);
        }
        self.at += 2;
        self.blanks(true);
        let right = self.list()?;
        let (first, last) = (left.value.number(self.work)?, right.value.number(self.work)?);
        if first.abs_diff(last) >= LIST_LEN_MAX as u64 {
            return None;
        }
        let mut numbers = List::default();
        let mut number = first;
        loop {
            numbers.push(Value::Number(number), self.work)?;
            if number == last {
                return Some(Folded { value: numbers.into_value(), done: left.done.and(right.done) });
            }
            number += (last - number).signum();
        }
    }

    fn list(&mut self) -> Option<Folded> {
        let first = self.unary()?;
        if self.arguments {
            return Some(first);
        }
        let mut done = first.done;
        let mut items = List::default();
        let mut first = Some(first.value);
        loop {
            let before = self.at;
            self.blanks(false);
            if !self.eat(b',') {
                self.at = before;
                break;
            }
            self.blanks(true);
            let Some(next) = self.unary() else {
                self.at = before;
                break;
            };
            if let Some(first) = first.take() {
                items.push(first, self.work)?;
            }
            items.push(next.value, self.work)?;
            done = done.and(next.done);
        }
        Some(Folded { value: first.unwrap_or_else(|| items.into_value()), done })
    }

    fn unary(&mut self) -> Option<Folded> {
        self.work.charge(OPERAND_STEPS)?;
        if self.depth >= DEPTH_MAX {
            return None;
        }
        self.depth += 1;
        let folded = self.unary_inside();
        self.depth -= 1;
        folded
    }

    fn unary_inside(&mut self) -> Option<Folded> {
        if let Some((name, end)) = self.operator() {
            let digit = name.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
            if digit {
                self.at += 1;
                let folded = self.unary()?;
                let number = folded.value.number(self.work)?.checked_neg()?;
                return Some(Folded { value: Value::Number(number), done: folded.done });
            }
            self.at = end;
            self.blanks(true);
            let folded = self.unary()?;
            return match name.as_str() {
                "join" => {
                    let value = join(&folded.value, &[], self.work)?;
                    Some(Folded { value, done: folded.done.with(Transformation::Join) })
                }
                "split" | "isplit" | "csplit" => {
                    let text = folded.value.text(self.work)?;
                    let value = split_at_any(&text, &[], self.work)?;
                    Some(Folded { value, done: folded.done.with(Transformation::Split) })
                }
                _ => None,
            };
        }
        if self.is(b',') {
            self.at += 1;
            self.blanks(true);
            return self.unary();
        }
        if self.is(b'[') {
            return self.typed();
        }
        let value = self.primary()?;
        self.behind(value)
    }
}
