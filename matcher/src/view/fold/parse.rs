//! Constant expressions of PowerShell, read and computed in one go. Nothing is executed: what is no constant is `None`.
//!
//! Recursive descent in PowerShell's order of operators: `-join`, `-split`, `-replace` and `-bxor` bind loosest, then
//! `+`, `*`, `-f`, `..`, the comma, unary operators and casts, and what follows a value (`[…]`, `.Method(…)`).
//! Source: PowerShell/PowerShell, `engine/parser/token.cs` (`TokenFlags`, binary precedence) and `Parser.cs`.

mod operand;

use super::Budget;
use super::value::{Folded, LIST_LEN_MAX, RegexPattern, Value, add, format, join, split_at_any};
use super::variables::Variables;
use crate::view::chars::{BACKTICK, is_dash, is_newline, is_whitespace, is_word, lower};
use crate::view::transformation::Transformation;

/// Deepest nesting of an expression.
pub(crate) const DEPTH_MAX: u32 = 24;
/// What building a regular expression counts for.
const REGEX_STEPS: usize = 10_000;
/// Longest name of an operator, type or method, in units.
const NAME_UNITS_MAX: usize = 64;

pub(super) struct Parser<'a> {
    pub(super) text: &'a [u16],
    pub(super) at: usize,
    pub(super) budget: &'a mut Budget,
    pub(super) variables: &'a Variables,
    /// `$_` in the body of a `ForEach-Object`.
    item: Option<Value>,
    depth: u32,
    /// Parentheses around: a line end is a blank there.
    inside: u32,
    /// Arguments of a method: a comma ends one.
    arguments: bool,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a [u16], at: usize, budget: &'a mut Budget, variables: &'a Variables) -> Self {
        Self { text, at, budget, variables, item: None, depth: 0, inside: 0, arguments: false }
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
            self.budget.steps = self.budget.steps.saturating_sub(1);
        }
    }

    /// Letters, digits and dots from here, in small letters, backticks left out. Does not move.
    fn name(&self, from: usize, also: &[u8]) -> (String, usize) {
        let mut name = String::new();
        let mut at = from;
        while let Some(&unit) = self.text.get(at) {
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

    /// The operator that stands here behind a dash; its name is not empty.
    fn operator(&self) -> Option<(String, usize)> {
        if !self.peek().is_some_and(is_dash) {
            return None;
        }
        let (name, end) = self.name(self.at + 1, b"");
        (!name.is_empty()).then_some((name, end))
    }

    /// An expression, as far as it is constant.
    pub(super) fn expression(&mut self) -> Option<Folded> {
        if self.depth >= DEPTH_MAX || !self.budget.spend(1) {
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

    /// The value of `left`, this operator and what follows it.
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
        if !self.budget.spend(left.value.size() + right.value.size()) {
            return None;
        }
        match (name, plain) {
            ("join", _) => {
                let value = join(&left.value, &right.value.text()?)?;
                Some(Folded { value, done: done.with(Transformation::Join) })
            }
            ("bxor" | "band" | "bor", _) => {
                let (a, b) = (left.value.number()?, right.value.number()?);
                let value = match name {
                    "bxor" => a ^ b,
                    "band" => a & b,
                    _ => a | b,
                };
                Some(Folded { value: Value::Number(value), done })
            }
            (_, "replace") => {
                let mut operands = right.value.items().into_iter();
                let pattern = self.pattern(&operands.next()?.text()?, cased)?;
                let with = operands.next().map_or(Some(Vec::new()), |with| with.text())?;
                let value = self
                    .each_text(left.value.clone(), |text| pattern.replace(&text, &with).map(Value::Text))?;
                Some(Folded { value, done: done.with(Transformation::Replace) })
            }
            (_, "split") => {
                let pattern = self.pattern(&right.value.items().first()?.text()?, cased)?;
                let mut items = Vec::new();
                for item in left.value.clone().items() {
                    items.extend(pattern.split(&item.text()?)?);
                    if items.len() > LIST_LEN_MAX {
                        return None;
                    }
                }
                Some(Folded { value: Value::List(items), done: done.with(Transformation::Split) })
            }
            _ => None,
        }
    }

    fn pattern(&mut self, source: &[u16], cased: bool) -> Option<RegexPattern> {
        let pattern = RegexPattern::new(source, cased)?;
        let is_plain = matches!(pattern, RegexPattern::Plain { .. });
        self.budget.spend(if is_plain { 1 } else { REGEX_STEPS }).then_some(pattern)
    }

    fn each_text(&mut self, value: Value, change: impl Fn(Vec<u16>) -> Option<Value>) -> Option<Value> {
        match value {
            Value::List(items) => {
                let items: Option<Vec<Value>> = items.into_iter().map(|item| change(item.text()?)).collect();
                let list = Value::List(items?);
                self.budget.spend(list.size()).then_some(list)
            }
            other => {
                let made = change(other.text()?)?;
                self.budget.spend(made.size()).then_some(made)
            }
        }
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
            if !self.budget.spend(right.value.size() + 1) {
                return None;
            }
            let is_text = !matches!(left.value, Value::Number(_));
            let done = left.done.and(right.done);
            let sum = if plus {
                add(left.value, &right.value)?
            } else {
                Value::Number(left.value.number()?.checked_sub(right.value.number()?)?)
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
            let Some(right) = self.formatted().and_then(|right| right.value.number()) else {
                self.at = before;
                return Some(left);
            };
            let number = left.value.number()?;
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
                let template = left.value.text()?;
                let arguments = right.value.items();
                let size: usize = arguments.iter().map(Value::size).sum();
                let value = format(&template, &arguments)?;
                let done = left.done.and(right.done).with(Transformation::Format);
                self.budget.spend(template.len() + size + value.size()).then_some(Folded { value, done })
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
        let (first, last) = (left.value.number()?, right.value.number()?);
        let count = usize::try_from(first.abs_diff(last)).ok()?.checked_add(1)?;
        if count > LIST_LEN_MAX || !self.budget.spend(count) {
            return None;
        }
        let numbers: Vec<Value> = if first <= last {
            (first..=last).map(Value::Number).collect()
        } else {
            (last..=first).rev().map(Value::Number).collect()
        };
        Some(Folded { value: Value::List(numbers), done: left.done.and(right.done) })
    }

    fn list(&mut self) -> Option<Folded> {
        let first = self.unary()?;
        if self.arguments {
            return Some(first);
        }
        let mut done = first.done;
        let mut items = Vec::new();
        let mut first = Some(first.value);
        let mut single = true;
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
            single = false;
            items.extend(first.take());
            items.push(next.value);
            done = done.and(next.done);
            if items.len() > LIST_LEN_MAX || !self.budget.spend(1) {
                return None;
            }
        }
        let value = if single { first? } else { Value::List(items) };
        Some(Folded { value, done })
    }

    fn unary(&mut self) -> Option<Folded> {
        if self.depth >= DEPTH_MAX || !self.budget.spend(1) {
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
                return Some(Folded { value: Value::Number(-folded.value.number()?), done: folded.done });
            }
            self.at = end;
            self.blanks(true);
            let folded = self.unary()?;
            self.budget.spend(folded.value.size()).then_some(())?;
            return match name.as_str() {
                "join" => {
                    let value = join(&folded.value, &[])?;
                    Some(Folded { value, done: folded.done.with(Transformation::Join) })
                }
                "split" | "isplit" | "csplit" => {
                    let items = split_at_any(&folded.value.text()?, &[])?;
                    Some(Folded { value: Value::List(items), done: folded.done.with(Transformation::Split) })
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
