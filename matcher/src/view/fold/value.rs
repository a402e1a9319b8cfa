//! Values of folded expressions.
//!
//! Texts and lists are shared: cloning is free, and a value is copied before a change only if it is shared.

use crate::view::chars::{hex_digit, is_newline, is_whitespace};
use crate::view::transformation::Transformations;
use crate::view::work::Work;
use std::sync::Arc;

/// Maximum number of items in a list.
pub(crate) const LIST_LEN_MAX: usize = 1 << 16;
/// Maximum nesting depth of lists.
const LIST_DEPTH_MAX: u32 = 16;
/// Steps to make and drop an item of a list that owns no memory.
pub(super) const ITEM_STEPS: usize = 3;
/// Steps to make and drop a short text.
pub(super) const TEXT_STEPS: usize = 48;
/// Memory of a text without its units, in bytes.
const TEXT_BYTES: usize = 48;

/// A text.
pub(super) type Text = Arc<Vec<u16>>;

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(Text),
    Char(u16),
    Number(i64),
    List(Arc<List>),
    Bytes(Arc<Vec<u8>>),
}

/// The items of a list.
#[derive(Clone, Debug, Default)]
pub(super) struct List {
    items: Vec<Value>,
    /// Approximate number of units of the items, plus one per item.
    units: usize,
    /// Nesting depth of lists in it.
    depth: u32,
}

/// A value, with the transformations that led to it.
#[derive(Clone, Debug)]
pub(super) struct Folded {
    pub(super) value: Value,
    pub(super) done: Transformations,
}

impl Folded {
    pub(super) fn plain(value: Value) -> Self {
        Self { value, done: Transformations::NONE }
    }
}

impl List {
    pub(super) fn items(&self) -> &[Value] {
        &self.items
    }

    /// Appends an item. Returns `None` if the list becomes too long or too deep.
    pub(super) fn push(&mut self, item: Value, work: &mut Work<'_, '_>) -> Option<()> {
        work.charge(ITEM_STEPS)?;
        if self.items.len() >= LIST_LEN_MAX {
            return None;
        }
        if self.items.len() == self.items.capacity() {
            // The vector doubles, or grows to four elements.
            work.allocate(size_of::<Value>() * self.items.len().max(4))?;
        }
        self.note(&item)?;
        self.items.push(item);
        Some(())
    }

    /// Appends the items of a list, or a single item.
    pub(super) fn push_all(&mut self, value: Value, work: &mut Work<'_, '_>) -> Option<()> {
        match value {
            Value::List(list) => self.append(&list, work),
            item => self.push(item, work),
        }
    }

    /// Appends all items of another list.
    fn append(&mut self, other: &Self, work: &mut Work<'_, '_>) -> Option<()> {
        work.charge(ITEM_STEPS * other.items.len())?;
        work.allocate(size_of::<Value>() * other.items.len())?;
        if self.items.len() + other.items.len() > LIST_LEN_MAX {
            return None;
        }
        self.units = self.units.saturating_add(other.units);
        self.depth = self.depth.max(other.depth);
        self.items.extend_from_slice(&other.items);
        Some(())
    }

    fn note(&mut self, item: &Value) -> Option<()> {
        self.units = self.units.saturating_add(item.units()).saturating_add(1);
        if let Value::List(list) = item {
            self.depth = self.depth.max(list.depth + 1);
        }
        (self.depth <= LIST_DEPTH_MAX).then_some(())
    }

    /// Reverses the order of the items.
    pub(super) fn reverse(&mut self) {
        self.items.reverse();
    }

    pub(super) fn into_value(self) -> Value {
        Value::List(Arc::new(self))
    }
}

/// Returns the text for modification, copied first if it is shared.
pub(super) fn owned_text<'t>(text: &'t mut Text, work: &mut Work<'_, '_>) -> Option<&'t mut Vec<u16>> {
    if Arc::get_mut(text).is_none() {
        work.allocate(TEXT_BYTES + 2 * text.len())?;
    }
    Some(Arc::make_mut(text))
}

/// Returns the list for modification, copied first if it is shared.
pub(super) fn owned_list<'t>(list: &'t mut Arc<List>, work: &mut Work<'_, '_>) -> Option<&'t mut List> {
    if Arc::get_mut(list).is_none() {
        work.charge(ITEM_STEPS * list.items.len())?;
        work.allocate(size_of::<Value>() * list.items.len())?;
    }
    Some(Arc::make_mut(list))
}

impl Value {
    /// Makes a value of a text whose units have been charged.
    pub(super) fn of_text(text: Vec<u16>, work: &mut Work<'_, '_>) -> Option<Self> {
        work.charge(TEXT_STEPS)?;
        work.allocate(TEXT_BYTES)?;
        Some(Self::Text(Arc::new(text)))
    }

    /// Makes a value of a copy of units.
    pub(super) fn copied(units: &[u16], work: &mut Work<'_, '_>) -> Option<Self> {
        work.allocate(2 * units.len())?;
        Self::of_text(units.to_vec(), work)
    }

    /// Makes a list of the characters of a text.
    pub(super) fn chars(text: &[u16], work: &mut Work<'_, '_>) -> Option<Self> {
        let mut list = List::default();
        text.iter().try_for_each(|unit| list.push(Self::Char(*unit), work))?;
        Some(list.into_value())
    }

    /// Converts to a string as PowerShell does: the items of a list are separated by blanks. Returns `None` if it is
    /// too long, or for bytes.
    pub(super) fn text(&self, work: &mut Work<'_, '_>) -> Option<Text> {
        if let Self::Text(text) = self {
            return Some(Arc::clone(text));
        }
        work.charge(TEXT_STEPS)?;
        let mut text = Vec::new();
        self.write(&mut text, &[u16::from(b' ')], work)?;
        Some(Arc::new(text))
    }

    /// Appends the value as a string; `between` separates the items of a list.
    pub(super) fn write(&self, out: &mut Vec<u16>, between: &[u16], work: &mut Work<'_, '_>) -> Option<()> {
        match self {
            Self::Text(text) => append(out, text, work),
            Self::Char(unit) => append(out, &[*unit], work),
            Self::Number(number) => {
                work.charge(TEXT_STEPS)?;
                out.extend(number.to_string().encode_utf16());
                Some(())
            }
            Self::List(list) => {
                for (number, item) in list.items.iter().enumerate() {
                    if number > 0 {
                        append(out, between, work)?;
                    }
                    // A nested list counts as one string.
                    item.write(out, &[u16::from(b' ')], work)?;
                }
                Some(())
            }
            Self::Bytes(_) => None,
        }
    }

    /// Returns the approximate number of units, counting shared ones each time.
    pub(super) fn units(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Char(_) | Self::Number(_) => 1,
            Self::List(list) => list.units,
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// Converts to a list; any other value becomes a list of itself.
    pub(super) fn list(self, work: &mut Work<'_, '_>) -> Option<Arc<List>> {
        let mut list = List::default();
        match self {
            Self::List(list) => return Some(list),
            Self::Bytes(bytes) => {
                bytes.iter().try_for_each(|byte| list.push(Self::Number((*byte).into()), work))?;
            }
            other => list.push(other, work)?,
        }
        Some(Arc::new(list))
    }

    /// Converts to a number; strings may be decimal or begin with `0x`.
    pub(super) fn number(&self, work: &mut Work<'_, '_>) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Char(unit) => Some(i64::from(*unit)),
            Self::Text(text) => {
                work.charge(text.len())?;
                let text = trim(text);
                match text.strip_prefix(&[u16::from(b'0'), u16::from(b'x')]) {
                    Some(digits) => parse(digits, 16),
                    None => match text.strip_prefix(&[u16::from(b'-')]) {
                        Some(digits) => parse(digits, 10).map(|number| -number),
                        None => parse(text, 10),
                    },
                }
            }
            Self::List(list) => match list.items() {
                [item] => item.number(work),
                _ => None,
            },
            Self::Bytes(_) => None,
        }
    }

    /// Converts to a character: the character with this number, or the only one of a string.
    pub(super) fn char(&self, work: &mut Work<'_, '_>) -> Option<u16> {
        match self {
            Self::Char(unit) => Some(*unit),
            Self::Text(text) if text.len() == 1 => Some(text[0]),
            Self::List(list) => match list.items() {
                [item] => item.char(work),
                _ => None,
            },
            other => u16::try_from(other.number(work)?).ok(),
        }
    }

    /// Evaluates `+`: numbers are added, lists are extended, everything else is concatenated as strings.
    pub(super) fn plus(self, right: &Self, work: &mut Work<'_, '_>) -> Option<Self> {
        match self {
            Self::Number(left) => left.checked_add(right.number(work)?).map(Value::Number),
            Self::List(mut list) => {
                let right = right.clone().list(work)?;
                owned_list(&mut list, work)?.append(&right, work)?;
                Some(Self::List(list))
            }
            Self::Text(mut text) => {
                right.write(owned_text(&mut text, work)?, &[u16::from(b' ')], work)?;
                Some(Self::Text(text))
            }
            Self::Char(unit) => Self::copied(&[unit], work)?.plus(right, work),
            Self::Bytes(_) => None,
        }
    }
}

/// Appends units to a text, unless it becomes longer than a value may be.
pub(super) fn append(out: &mut Vec<u16>, units: &[u16], work: &mut Work<'_, '_>) -> Option<()> {
    work.charge(2)?;
    work.allocate(2 * units.len())?;
    if out.len() + units.len() > work.value_units_max {
        return None;
    }
    out.extend_from_slice(units);
    Some(())
}

/// Parses digits in this base; `None` for anything else, or for too many digits.
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
