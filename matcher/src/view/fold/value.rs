//! Values of folded expressions, and the operations on them.

use crate::view::chars::{hex_digit, is_newline, is_whitespace, lower};
use crate::view::transformation::Done;

/// Longest value, in units.
pub(crate) const VALUE_UNITS_MAX: usize = 1 << 20;
/// Most elements of a list.
pub(crate) const LIST_LEN_MAX: usize = 1 << 16;
/// Longest pattern of `-replace` and `-split` that is no plain text, in bytes.
const PATTERN_LEN_MAX: usize = 256;
/// Largest compiled pattern, in bytes.
const PATTERN_SIZE_MAX: usize = 64 * 1024;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(Vec<u16>),
    Char(u16),
    Number(i64),
    List(Vec<Value>),
    Bytes(Vec<u8>),
}

/// A value, and what was done to get it.
#[derive(Clone, Debug)]
pub(super) struct Folded {
    pub(super) value: Value,
    pub(super) done: Done,
}

impl Folded {
    pub(super) fn plain(value: Value) -> Self {
        Self { value, done: Done::NONE }
    }
}

impl Value {
    /// As PowerShell makes a string of it: a list with blanks between. `None`: too long, or bytes.
    pub(super) fn text(&self) -> Option<Vec<u16>> {
        let mut text = Vec::new();
        self.write(&mut text, &[u16::from(b' ')])?;
        Some(text)
    }

    fn write(&self, out: &mut Vec<u16>, between: &[u16]) -> Option<()> {
        match self {
            Self::Text(text) => out.extend_from_slice(text),
            Self::Char(unit) => out.push(*unit),
            Self::Number(number) => out.extend(number.to_string().encode_utf16()),
            Self::List(items) => {
                for (number, item) in items.iter().enumerate() {
                    if number > 0 {
                        out.extend_from_slice(between);
                    }
                    // A list in a list counts as one string.
                    item.write(out, &[u16::from(b' ')])?;
                    if out.len() > VALUE_UNITS_MAX {
                        return None;
                    }
                }
            }
            Self::Bytes(_) => return None,
        }
        (out.len() <= VALUE_UNITS_MAX).then_some(())
    }

    /// Units that it holds, about: what work on it costs.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Char(_) | Self::Number(_) => 1,
            Self::List(items) => items.iter().map(|item| item.size() + 1).sum(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// The items of a list; anything else is a list of itself.
    pub(super) fn items(self) -> Vec<Self> {
        match self {
            Self::List(items) => items,
            Self::Bytes(bytes) => bytes.into_iter().map(|byte| Self::Number(byte.into())).collect(),
            other => vec![other],
        }
    }

    /// As a number: that of a string in decimal or with `0x`.
    pub(super) fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Char(unit) => Some(i64::from(*unit)),
            Self::Text(text) => {
                let text = trim(text);
                match text.strip_prefix(&[u16::from(b'0'), u16::from(b'x')]) {
                    Some(digits) => parse(digits, 16),
                    None => match text.strip_prefix(&[u16::from(b'-')]) {
                        Some(digits) => parse(digits, 10).map(|number| -number),
                        None => parse(text, 10),
                    },
                }
            }
            Self::List(items) if items.len() == 1 => items[0].number(),
            Self::List(_) | Self::Bytes(_) => None,
        }
    }

    /// `[char]`: of a number its character, of a string its only one.
    pub(super) fn char(&self) -> Option<u16> {
        match self {
            Self::Char(unit) => Some(*unit),
            Self::Text(text) if text.len() == 1 => Some(text[0]),
            Self::List(items) if items.len() == 1 => items[0].char(),
            other => u16::try_from(other.number()?).ok(),
        }
    }
}

/// Digits of this base; `None` for anything else, or too many.
pub(super) fn parse(digits: &[u16], base: u32) -> Option<i64> {
    if digits.is_empty() || digits.len() > 32 {
        return None;
    }
    digits.iter().try_fold(0i64, |number, digit| {
        let value = match hex_digit(*digit) {
            Some(value) if value < base => value,
            _ => return None,
        };
        number.checked_mul(i64::from(base))?.checked_add(i64::from(value))
    })
}

pub(super) fn trim(text: &[u16]) -> &[u16] {
    let is_blank = |unit: &u16| is_whitespace(*unit) || is_newline(*unit);
    let start = text.iter().position(|unit| !is_blank(unit)).unwrap_or(text.len());
    let end = text.iter().rposition(|unit| !is_blank(unit)).map_or(start, |at| at + 1);
    &text[start..end]
}

/// `+`: numbers add up, to a list is appended, all else makes a string.
pub(super) fn add(left: Value, right: &Value) -> Option<Value> {
    match (left, right) {
        (Value::Number(left), right) => left.checked_add(right.number()?).map(Value::Number),
        (Value::List(mut items), right) => {
            items.extend(right.clone().items());
            (items.len() <= LIST_LEN_MAX).then_some(Value::List(items))
        }
        (Value::Text(mut text), right) => {
            right.write(&mut text, &[u16::from(b' ')])?;
            Some(Value::Text(text))
        }
        (Value::Char(unit), right) => add(Value::Text(vec![unit]), right),
        (Value::Bytes(_), _) => None,
    }
}

/// `-join`.
pub(super) fn join(value: &Value, between: &[u16]) -> Option<Value> {
    let mut text = Vec::new();
    value.write(&mut text, between)?;
    Some(Value::Text(text))
}

/// `-f`: `{0}`, `{1,5}` and `{{`; a format behind a colon is not carried out. `None`: a place has no argument.
pub(super) fn format(template: &[u16], arguments: &[Value]) -> Option<Value> {
    const OPEN: u16 = b'{' as u16;
    const CLOSE: u16 = b'}' as u16;
    let mut text: Vec<u16> = Vec::new();
    let mut at = 0;
    while let Some(&unit) = template.get(at) {
        let next = template.get(at + 1).copied();
        match unit {
            OPEN if next != Some(OPEN) => {
                let end = at + 1 + template[at + 1..].iter().take(16).position(|unit| *unit == CLOSE)?;
                let inside = &template[at + 1..end];
                let comma = inside.iter().position(|unit| *unit == u16::from(b','));
                let number = parse(trim(&inside[..comma.unwrap_or(inside.len())]), 10)?;
                let argument = arguments.get(usize::try_from(number).ok()?)?.text()?;
                let width = match comma {
                    Some(comma) => Value::Text(inside[comma + 1..].to_vec()).number()?,
                    None => 0,
                };
                let padding = usize::try_from(width.unsigned_abs()).ok()?.saturating_sub(argument.len());
                if padding > VALUE_UNITS_MAX {
                    return None;
                }
                let blanks = std::iter::repeat_n(u16::from(b' '), padding);
                if width > 0 {
                    text.extend(blanks);
                    text.extend_from_slice(&argument);
                } else {
                    text.extend_from_slice(&argument);
                    text.extend(blanks);
                }
                at = end + 1;
            }
            OPEN | CLOSE => {
                text.push(unit);
                at += if next == Some(unit) { 2 } else { 1 };
            }
            _ => {
                text.push(unit);
                at += 1;
            }
        }
        if text.len() > VALUE_UNITS_MAX {
            return None;
        }
    }
    Some(Value::Text(text))
}

/// `.Replace()`: plain text, case-sensitive.
pub(super) fn replace(text: &[u16], what: &[u16], with: &[u16]) -> Option<Vec<u16>> {
    replace_by(text, what, with, |a, b| a == b)
}

fn replace_by(
    text: &[u16],
    what: &[u16],
    with: &[u16],
    equal: impl Fn(&[u16], &[u16]) -> bool,
) -> Option<Vec<u16>> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    if what.is_empty() {
        return None;
    }
    while at < text.len() {
        match text.get(at..at + what.len()) {
            Some(part) if equal(part, what) => {
                out.extend_from_slice(with);
                at += what.len();
            }
            _ => {
                out.push(text[at]);
                at += 1;
            }
        }
        if out.len() > VALUE_UNITS_MAX {
            return None;
        }
    }
    Some(out)
}

/// A pattern of `-replace` and `-split`.
pub(super) enum RegexPattern {
    /// No sign of it has a meaning.
    Plain {
        text: Vec<u16>,
        cased: bool,
    },
    Regex(regex::Regex),
}

impl RegexPattern {
    /// `None`: one that the crate `regex` does not take, or too large.
    pub(super) fn new(source: &[u16], cased: bool) -> Option<Self> {
        const SIGNS: &[u8] = b"\\.^$|?*+()[]{}";
        let is_sign = |unit: &u16| u8::try_from(*unit).is_ok_and(|byte| SIGNS.contains(&byte));
        if !source.iter().any(is_sign) {
            return Some(Self::Plain { text: source.to_vec(), cased });
        }
        // A backslash before a sign alone.
        let mut text = Vec::new();
        let mut units = source.iter();
        while let Some(unit) = units.next() {
            match units.as_slice().first() {
                Some(next) if *unit == u16::from(b'\\') && is_sign(next) => {
                    text.push(*next);
                    units.next();
                }
                _ if is_sign(unit) => return Self::regex(source, cased),
                _ => text.push(*unit),
            }
        }
        Some(Self::Plain { text, cased })
    }

    fn regex(source: &[u16], cased: bool) -> Option<Self> {
        let source = String::from_utf16(source).ok().filter(|source| source.len() <= PATTERN_LEN_MAX)?;
        let builder = regex::RegexBuilder::new(&source)
            .case_insensitive(!cased)
            .size_limit(PATTERN_SIZE_MAX)
            .dfa_size_limit(PATTERN_SIZE_MAX)
            .build();
        builder.ok().map(Self::Regex)
    }

    pub(super) fn replace(&self, text: &[u16], with: &[u16]) -> Option<Vec<u16>> {
        match self {
            Self::Plain { text: what, cased } => replace_by(text, what, with, |a, b| same(a, b, *cased)),
            Self::Regex(regex) => {
                let text = String::from_utf16_lossy(text);
                let made = regex.replace_all(&text, String::from_utf16_lossy(with));
                let made: Vec<u16> = made.encode_utf16().collect();
                (made.len() <= VALUE_UNITS_MAX).then_some(made)
            }
        }
    }

    pub(super) fn split(&self, text: &[u16]) -> Option<Vec<Value>> {
        let mut items = Vec::new();
        match self {
            Self::Plain { text: what, .. } if what.is_empty() => {
                items.extend(text.iter().take(LIST_LEN_MAX + 1).map(|unit| Value::Text(vec![*unit])));
            }
            Self::Plain { text: what, cased } => {
                let (mut start, mut at) = (0, 0);
                while at < text.len() && items.len() <= LIST_LEN_MAX {
                    if text.get(at..at + what.len()).is_some_and(|part| same(part, what, *cased)) {
                        items.push(Value::Text(text[start..at].to_vec()));
                        at += what.len();
                        start = at;
                    } else {
                        at += 1;
                    }
                }
                items.push(Value::Text(text[start..].to_vec()));
            }
            Self::Regex(regex) => {
                let text = String::from_utf16_lossy(text);
                let parts = regex.split(&text).take(LIST_LEN_MAX + 1);
                items.extend(parts.map(|part| Value::Text(part.encode_utf16().collect())));
            }
        }
        (items.len() <= LIST_LEN_MAX).then_some(items)
    }
}

fn same(a: &[u16], b: &[u16], cased: bool) -> bool {
    if cased { a == b } else { a.iter().zip(b).all(|(a, b)| lower(*a) == lower(*b)) }
}

/// `.Split()`: at any of the characters.
pub(super) fn split_at_any(text: &[u16], of: &[u16]) -> Option<Vec<Value>> {
    let is_border = |unit: &u16| if of.is_empty() { is_whitespace(*unit) } else { of.contains(unit) };
    let items: Vec<Value> =
        text.split(is_border).take(LIST_LEN_MAX + 1).map(|part| Value::Text(part.to_vec())).collect();
    (items.len() <= LIST_LEN_MAX).then_some(items)
}

/// `value[index]`: a list for several. Negative ones count from the end; those outside give nothing.
pub(super) fn index(value: &Value, index: &Value) -> Option<Value> {
    let at = |number: i64, len: usize| {
        let number = if number < 0 { number + i64::try_from(len).ok()? } else { number };
        usize::try_from(number).ok().filter(|at| *at < len)
    };
    let get = |number: i64| match value {
        Value::Text(text) => Some(Value::Char(text[at(number, text.len())?])),
        Value::List(items) => Some(items[at(number, items.len())?].clone()),
        _ => None,
    };
    match index {
        Value::List(numbers) => {
            let mut items = Vec::new();
            let mut size = 0;
            for number in numbers {
                if let Some(item) = get(number.number()?) {
                    size += item.size();
                    items.push(item);
                }
                if size > VALUE_UNITS_MAX {
                    return None;
                }
            }
            Some(Value::List(items))
        }
        number => get(number.number()?),
    }
}
