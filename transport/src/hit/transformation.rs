//! Transformations that the sensor undid to see through obfuscation.

use serde::{Deserialize, Serialize};

/// A difference between the text that matched and the text as recorded.
///
/// The order of the variants is their numbering on the wire, starting at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transformation {
    /// Another dash was replaced by a hyphen.
    Dash,
    /// A typographic quotation mark was replaced by a plain one.
    Quote,
    /// A backtick without effect was removed.
    Backtick,
    /// A run of whitespace was replaced by one space.
    Whitespace,
    /// Strings concatenated with `+` were joined.
    Concatenation,
    /// `-f` was evaluated.
    Format,
    /// `-join` was evaluated.
    Join,
    /// `-split` was evaluated.
    Split,
    /// `-replace` or `.Replace()` was evaluated.
    Replace,
    /// `[char]` casts were evaluated.
    CharCast,
    /// A string was reversed.
    Reverse,
    /// Base64 was decoded.
    Base64,
    /// A deflate stream was decompressed.
    Deflate,
    /// A gzip stream was decompressed.
    Gzip,
    /// An alias was replaced by its cmdlet.
    Alias,
    /// An abbreviated parameter name was completed.
    ParameterPrefix,
    /// The alias of a parameter was replaced by its name.
    ParameterAlias,
    /// A positional argument was assigned to its parameter.
    Positional,
    /// The module name before a cmdlet was removed.
    ModuleQualified,
}

impl Transformation {
    /// Returns the lower-case word that outputs and stores use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dash => "dash",
            Self::Quote => "quote",
            Self::Backtick => "backtick",
            Self::Whitespace => "whitespace",
            Self::Concatenation => "concatenation",
            Self::Format => "format",
            Self::Join => "join",
            Self::Split => "split",
            Self::Replace => "replace",
            Self::CharCast => "char_cast",
            Self::Reverse => "reverse",
            Self::Base64 => "base64",
            Self::Deflate => "deflate",
            Self::Gzip => "gzip",
            Self::Alias => "alias",
            Self::ParameterPrefix => "parameter_prefix",
            Self::ParameterAlias => "parameter_alias",
            Self::Positional => "positional",
            Self::ModuleQualified => "module_qualified",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Transformation;

    /// Stores read the words that outputs write. Starting from the last variant, the test notices a variant that it
    /// misses.
    #[test]
    fn outputs_and_stores_use_the_same_words() {
        let mut known = 0u32;
        for number in 0..=Transformation::ModuleQualified as u32 {
            let transformation: Transformation = bincode::deserialize(&number.to_le_bytes()).unwrap();
            let word = serde_json::to_value(transformation).unwrap();
            assert_eq!(word, transformation.as_str());
            known += 1;
        }
        assert!(known > 18 && bincode::deserialize::<Transformation>(&known.to_le_bytes()).is_err());
    }
}
