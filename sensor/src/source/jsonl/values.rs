//! Values of a line: integers as numbers or text, and text that may contain lone surrogates.

use super::{clipped, expected};
use crate::payload::{PayloadError, PayloadWriter};
use crate::source::text::parse_integer;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use std::borrow::Cow;
use std::fmt;

/// An integer that is stored as a number or as text.
pub(super) struct Integer(pub(super) i128);

impl Integer {
    pub(super) fn narrow<T: TryFrom<i128>>(&self, key: &str) -> Result<T, String> {
        T::try_from(self.0).map_err(|_| expected(key, "a number in range", &self.0.to_string()))
    }
}

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Integer;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer, or text that contains one")
            }
            fn visit_u64<E>(self, value: u64) -> Result<Integer, E> {
                Ok(Integer(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Integer, E> {
                Ok(Integer(value.into()))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Integer, E> {
                let value =
                    parse_integer(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))?;
                let is_negative = text.trim_start().starts_with('-');
                Ok(Integer(if is_negative { i128::from(value as i64) } else { value.into() }))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A `level`: a number for an event, a word for a rule. Other values are skipped rather than stored, because they could
/// be large.
pub(super) enum Level {
    Number(u64),
    Word(String),
    Other(&'static str),
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Word(word) => f.write_str(word),
            Self::Other(kind) => f.write_str(kind),
        }
    }
}

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Level;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a level")
            }
            fn visit_u64<E>(self, value: u64) -> Result<Level, E> {
                Ok(Level::Number(value))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Level, E> {
                Ok(Level::Other("a negative number"))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Level, E> {
                Ok(Level::Other("a fraction"))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Level, E> {
                Ok(Level::Other("a truth value"))
            }
            fn visit_str<E>(self, text: &str) -> Result<Level, E> {
                Ok(parse_integer(text).map_or_else(|| Level::Word(clipped(text)), Level::Number))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Level, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Level::Other("a list"))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Level, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Level::Other("an object"))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Text that may contain lone surrogates, as WTF-8: UTF-8 in which each of them has three bytes.
pub(super) struct Wide<'a>(Cow<'a, [u8]>);

impl Wide<'_> {
    pub(super) fn write(&self, writer: &mut PayloadWriter<'_>) -> Result<(), PayloadError> {
        let mut rest: &[u8] = &self.0;
        loop {
            let (good, next) = match std::str::from_utf8(rest) {
                Ok(text) => (text, None),
                // `is_valid` has checked that only surrogates are not UTF-8.
                Err(error) => {
                    let (good, bad) = rest.split_at(error.valid_up_to());
                    (std::str::from_utf8(good).unwrap_or_default(), Some(bad))
                }
            };
            writer.text(good)?;
            let Some((unit, behind)) = next.and_then(surrogate) else { return Ok(()) };
            writer.units(&unit.to_le_bytes())?;
            rest = behind;
        }
    }

    /// Returns whether everything except surrogates is UTF-8.
    fn is_valid(&self) -> bool {
        let mut rest: &[u8] = &self.0;
        while let Err(error) = std::str::from_utf8(rest) {
            match surrogate(&rest[error.valid_up_to()..]) {
                Some((_, behind)) => rest = behind,
                None => return false,
            }
        }
        true
    }
}

/// Splits a surrogate of three bytes from the start.
fn surrogate(wtf8: &[u8]) -> Option<(u16, &[u8])> {
    match wtf8 {
        [0xED, second @ 0xA0..=0xBF, third @ 0x80..=0xBF, rest @ ..] => {
            let unit = 0xD000 | u16::from(second & 0x3F) << 6 | u16::from(third & 0x3F);
            Some((unit, rest))
        }
        _ => None,
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Wide<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = Cow<'de, [u8]>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }
            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(bytes))
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Cow::Owned(bytes.to_vec()))
            }
        }
        // Deserialized as bytes, because serde_json rejects lone surrogates in a `str`.
        let wide = Self(deserializer.deserialize_bytes(Bytes)?);
        if wide.is_valid() { Ok(wide) } else { Err(D::Error::custom("expected UTF-8 in a text")) }
    }
}
