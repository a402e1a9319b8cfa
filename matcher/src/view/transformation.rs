//! What a view undoes.

/// One way in which a text that matched differs from the text as recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transformation {
    /// A dash that is no hyphen taken as one.
    Dash,
    /// A quotation mark of another kind taken as a plain one.
    Quote,
    /// A backtick that changes nothing left out.
    Backtick,
    /// Whitespace in a row taken as one blank.
    Whitespace,
    /// Strings joined that `+` joins, or that stand in a string as variables.
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
    /// All, in their order.
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
