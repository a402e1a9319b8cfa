//! Transformations, which views undo.

/// One way in which a matching text differs from the text as recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transformation {
    /// Another kind of dash, read as a hyphen.
    Dash,
    /// Another kind of quotation mark, read as a plain one.
    Quote,
    /// A backtick without effect, removed.
    Backtick,
    /// A run of whitespace, read as one blank.
    Whitespace,
    /// Strings joined by `+`, or by variables in a string.
    Concatenation,
    /// `-f`, evaluated.
    Format,
    /// `-join`, evaluated.
    Join,
    /// `-split`, evaluated.
    Split,
    /// `-replace` or `.Replace()`, evaluated.
    Replace,
    /// `[char]` casts, evaluated.
    CharCast,
    /// A reversed string.
    Reverse,
    /// Base64, decoded.
    Base64,
    /// A deflate stream, unpacked.
    Deflate,
    /// A gzip stream, unpacked.
    Gzip,
    /// An alias, read as its cmdlet.
    Alias,
    /// An abbreviated parameter, read as its full name.
    ParameterPrefix,
    /// An alias of a parameter, read as the parameter.
    ParameterAlias,
    /// A positional argument, read as that of its parameter.
    Positional,
    /// A module name before a cmdlet, removed.
    ModuleQualified,
}

impl Transformation {
    /// All transformations, in order.
    pub const ALL: [Self; 19] = [
        Self::Dash,
        Self::Quote,
        Self::Backtick,
        Self::Whitespace,
        Self::Concatenation,
        Self::Format,
        Self::Join,
        Self::Split,
        Self::Replace,
        Self::CharCast,
        Self::Reverse,
        Self::Base64,
        Self::Deflate,
        Self::Gzip,
        Self::Alias,
        Self::ParameterPrefix,
        Self::ParameterAlias,
        Self::Positional,
        Self::ModuleQualified,
    ];
}

/// A set of transformations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Transformations(u32);

impl Transformations {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) const fn only(transformation: Transformation) -> Self {
        Self(1 << transformation as u32)
    }

    #[must_use]
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub(crate) const fn with(self, transformation: Transformation) -> Self {
        self.and(Self::only(transformation))
    }

    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn list(self) -> Vec<Transformation> {
        let holds = |transformation: &Transformation| self.0 >> *transformation as u32 & 1 != 0;
        Transformation::ALL.into_iter().filter(holds).collect()
    }
}
