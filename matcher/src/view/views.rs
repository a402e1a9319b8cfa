//! The views, and matches in them.

use super::transformation::Transformation;
use crate::engine::spans::Span;

/// The views to search in addition to the raw one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Views {
    /// Search the normalised view.
    pub normalized: bool,
    /// Search the call-aware view.
    pub call: bool,
}

/// A view other than the raw one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// Equivalent notations of PowerShell are unified, and constant expressions folded.
    Normalized,
    /// Calls of known cmdlets are written in full.
    Call,
}

/// A rule that matches a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewMatch {
    /// Index of the rule in the set.
    pub rule: u32,
    /// The view.
    pub view: View,
    /// The matching parts of the original, in units; a folded expression counts as a whole. Ascending, at most
    /// [`SPANS_MAX`](crate::SPANS_MAX).
    pub spans: Vec<Span>,
    /// The transformations of these parts, in the order of [`Transformation`].
    pub transformations: Vec<Transformation>,
}

impl Views {
    /// Both views.
    pub const ALL: Self = Self { normalized: true, call: true };
    /// No view, only the raw one.
    pub const NONE: Self = Self { normalized: false, call: false };

    /// Returns true if any view is requested.
    pub fn any(self) -> bool {
        self.normalized || self.call
    }
}
