//! What was undone to see through a disguise.

use serde::{Deserialize, Serialize};

/// One way in which a text that matched differs from the text as recorded.
///
/// The order is the numbering on the wire, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transformation {
    /// A dash that is no hyphen taken as one.
    Dash,
    /// A quotation mark of another kind taken as a plain one.
    Quote,
    /// A backtick that changes nothing left out.
    Backtick,
    /// Whitespace in a row taken as one blank.
    Whitespace,
    /// Strings joined that `+` joins.
    Concatenation,
    /// `-f` carried out.
    Format,
    /// `-join` carried out.
    Join,
    /// `-split` carried out.
    Split,
    /// `-replace` or `.Replace()` carried out.
    Replace,
    /// `[char]` casts carried out.
    CharCast,
    /// A string reversed.
    Reverse,
    /// Base64 decoded.
    Base64,
    /// A deflate stream unpacked.
    Deflate,
    /// A gzip stream unpacked.
    Gzip,
    /// An alias taken as its cmdlet.
    Alias,
    /// The beginning of a parameter's name taken as the name.
    ParameterPrefix,
    /// A parameter's alias taken as the parameter.
    ParameterAlias,
    /// An argument without a name taken as that of the parameter at its position.
    Positional,
    /// A module's name before a cmdlet left out.
    ModuleQualified,
}

impl Transformation {
    /// The lower-case word that outputs and stores use.
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

    /// Stores read the words that outputs write; the last variant tells that none is missing here.
    #[test]
    fn words_are_those_of_the_store() {
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
