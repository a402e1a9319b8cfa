//! Event text as it was recorded.

use super::TEXT_UNITS_MAX;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::char::{REPLACEMENT_CHARACTER, decode_utf16};
use std::fmt::{self, Write};

/// UTF-16 units, kept exactly: lone surrogates and NULs survive every round trip.
///
/// `Display` shows a lone surrogate as U+FFFD. On the wire the text is a byte string of UTF-16LE: its length in bytes
/// (always even), then the units.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Utf16Text(pub Vec<u16>);

impl Utf16Text {
    /// Creates a text from UTF-16LE bytes. Returns `None` if their number is odd.
    pub fn from_le_bytes(bytes: &[u8]) -> Option<Self> {
        let (units, rest) = bytes.as_chunks::<2>();
        rest.is_empty().then(|| Self(units.iter().map(|unit| u16::from_le_bytes(*unit)).collect()))
    }

    /// Returns the text as UTF-16LE bytes.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|unit| unit.to_le_bytes()).collect()
    }

    /// Returns the text as UTF-8, with U+FFFD for each lone surrogate.
    pub fn to_string_lossy(&self) -> String {
        let mut text = String::with_capacity(self.0.len());
        // Writing to a string cannot fail.
        let _ = self.write_to(&mut text);
        text
    }

    /// Nearly all scripts are ASCII, which is converted in blocks.
    fn write_to(&self, out: &mut impl Write) -> fmt::Result {
        const BLOCK: usize = 64;
        let mut rest = &self.0[..];
        while !rest.is_empty() {
            if let Some(block) = rest.first_chunk::<BLOCK>()
                && block.iter().fold(0, |all, unit| all | unit) < 0x80
            {
                let bytes = block.map(|unit| unit as u8);
                out.write_str(std::str::from_utf8(&bytes).unwrap_or_default())?;
                rest = &rest[BLOCK..];
                continue;
            }
            // Decode up to the next ASCII unit, so that no surrogate pair is split.
            let behind = rest.iter().skip(BLOCK).position(|unit| *unit < 0x80);
            let (part, others) = rest.split_at(behind.map_or(rest.len(), |at| BLOCK + at));
            decode_utf16(part.iter().copied())
                .try_for_each(|unit| out.write_char(unit.unwrap_or(REPLACEMENT_CHARACTER)))?;
            rest = others;
        }
        Ok(())
    }

    /// Returns true if the text has no units.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Utf16Text {
    fn from(text: &str) -> Self {
        Self(text.encode_utf16().collect())
    }
}

impl fmt::Display for Utf16Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_to(f)
    }
}

/// Shows the text in quotes with unprintable characters escaped.
impl fmt::Debug for Utf16Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for unit in decode_utf16(self.0.iter().copied()) {
            match unit {
                Ok(char) => write!(f, "{}", char.escape_debug())?,
                Err(lone) => write!(f, "\\u{{{:x}}}", lone.unpaired_surrogate())?,
            }
        }
        f.write_char('"')
    }
}

impl Serialize for Utf16Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.to_le_bytes())
    }
}

impl<'de> Deserialize<'de> for Utf16Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(TextVisitor)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Utf16Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UTF-16LE text of at most {TEXT_UNITS_MAX} units")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Utf16Text, E> {
        if bytes.len() / 2 > TEXT_UNITS_MAX {
            return Err(E::invalid_length(bytes.len() / 2, &self));
        }
        Utf16Text::from_le_bytes(bytes).ok_or_else(|| E::custom("UTF-16LE text with an odd number of bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The standard library decodes the same text unit by unit.
        #[test]
        fn decoding_in_blocks_equals_decoding_by_units(units in proptest::collection::vec(
            prop_oneof![60 => 0x20u16..0x7F, 1 => any::<u16>(), 1 => 0xD800u16..0xE000], 0..400)) {
            let text = Utf16Text(units);
            let expected = String::from_utf16_lossy(&text.0);
            prop_assert_eq!(text.to_string_lossy(), expected.clone());
            prop_assert_eq!(text.to_string(), expected);
        }
    }

    #[test]
    fn display_and_debug_of_unusual_units() {
        for (name, units, shown, debug) in [
            ("empty", vec![], "", r#""""#),
            ("plain", vec![0x41, 0x42], "AB", r#""AB""#),
            ("pair", vec![0xD83D, 0xDE00], "\u{1F600}", "\"\u{1F600}\""),
            ("lone high", vec![0x41, 0xD800, 0x42], "A\u{FFFD}B", r#""A\u{d800}B""#),
            ("lone low at the end", vec![0xDC00], "\u{FFFD}", r#""\u{dc00}""#),
            ("swapped pair", vec![0xDE00, 0xD83D], "\u{FFFD}\u{FFFD}", r#""\u{de00}\u{d83d}""#),
            ("nul", vec![0x41, 0, 0x42], "A\0B", r#""A\0B""#),
        ] {
            let text = Utf16Text(units);
            assert_eq!(text.to_string_lossy(), shown, "{name}");
            assert_eq!(text.to_string(), shown, "{name}");
            assert_eq!(format!("{text:?}"), debug, "{name}");
            assert_eq!(Utf16Text::from_le_bytes(&text.to_le_bytes()), Some(text), "{name}");
        }
        assert_eq!(Utf16Text::from_le_bytes(&[0x41, 0, 0x42]), None, "odd");
    }
}
