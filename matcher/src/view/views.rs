//! The views, and the matches in them.

use super::transformation::Transformation;
use crate::engine::spans::Span;

/// Which views are wanted beside the raw one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Views {
    /// The normalised view.
    pub normalized: bool,
    /// The call-aware view.
    pub call: bool,
}

/// A view beside the raw one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// With PowerShell's own equivalences folded.
    Normalized,
    /// By cmdlet and parameter.
    Call,
}

/// A rule that a view matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewMatch {
    /// Index of the rule in the set.
    pub rule: u32,
    /// The view.
    pub view: View,
    /// Where, in units of the original: of a folded expression all of it. Ascending, at most
    /// [`SPANS_MAX`](crate::SPANS_MAX).
    pub spans: Vec<Span>,
    /// What was undone at these places, in the order of [`Transformation`].
    pub transformations: Vec<Transformation>,
}

impl Views {
    /// Both views.
    pub const ALL: Self = Self { normalized: true, call: true };
    /// None: only the raw view.
    pub const NONE: Self = Self { normalized: false, call: false };

    /// Whether any is wanted.
    pub fn any(self) -> bool {
        self.normalized || self.call
    }
}
