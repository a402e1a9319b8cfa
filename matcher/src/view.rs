//! Other views of a text: what PowerShell would make of it, searched where the text as recorded gave nothing.
//!
//! [`Matcher::views_could_differ`] is the cheap test, [`Matcher::find_views`] the search. A view never executes
//! anything; what it makes of a text is bounded in size, depth and work.

mod call;
mod chars;
mod fold;
mod hints;
mod light;
mod mapped;
mod search;
mod transformation;
mod work;

pub(crate) use call::Names;
pub(crate) use hints::{FromRaw, Hints, Question};

pub use transformation::Transformation;
pub use work::ViewBudget;

use crate::compile::plan::Plan;
use crate::field::{EventKind, text_units};
use crate::matcher::{Matcher, Payload, Scratch, Span};
use crate::rule::{Calls, Rule};
use crate::scan::kernel::Usable;

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
    /// Whether a view of this text could give what the raw view does not. Cheap, and yes may turn out to be no. `units` is
    /// the script text or a part of it.
    ///
    /// # Complexity
    ///
    /// One pass over the text at the speed of the gate, which ends at the first reason. Allocates nothing. The answer is yes
    /// once that part of the budget is exhausted.
    pub fn views_could_differ(
        &self,
        kind: EventKind,
        units: &[[u8; 2]],
        views: Views,
        budget: &mut ViewBudget<'_>,
    ) -> bool {
        self.has_view_reason(kind, units, Question { views, first: true, raw: None }, budget)
    }

    /// As [`views_could_differ`](Self::views_could_differ) for the payload that was just searched with this scratch, more
    /// sharply: what a rule needs that is more than its literals is looked for only if it became a candidate.
    ///
    /// # Complexity
    ///
    /// As there.
    pub fn views_could_differ_from_raw(
        &self,
        payload: &Payload<'_>,
        views: Views,
        scratch: &Scratch,
        budget: &mut ViewBudget<'_>,
    ) -> bool {
        let raw = scratch.found_of(self.identity()).map(|found| FromRaw {
            plan: self.plan(payload.kind),
            found,
            memory: &scratch.memory,
            narrow: scratch.narrowed.made(),
        });
        // All text: to find the end of the script's would take as long as to look at the little that is behind it.
        let units = text_units(payload.kind, payload.bytes);
        self.has_view_reason(payload.kind, units, Question { views, first: true, raw }, budget)
    }

    fn has_view_reason(
        &self,
        kind: EventKind,
        units: &[[u8; 2]],
        question: Question<'_>,
        budget: &mut ViewBudget<'_>,
    ) -> bool {
        // What a module event records PowerShell has read already.
        if !has_views(kind) || !question.views.any() {
            return false;
        }
        let reasons = self.view_plan().hints.reasons(units, question, self.usable(), &mut budget.prefilter);
        reasons != hints::Reasons::default()
    }

    /// The rules that match a view of the payload, each once: first those of the normalised view, then those of the
    /// call-aware one, ascending. `raw`: the rules that are reported already; they are not tried again, nor are those
    /// that have one of them for their base.
    ///
    /// The payload is in the layout of an event; its text may be a joined block of megabytes, of which the first part is
    /// viewed. `budget` is that of the event, with what the prefilter took from it.
    ///
    /// # Complexity
    ///
    /// Nothing beyond [`views_could_differ`](Self::views_could_differ) for a text without a reason. Otherwise some passes
    /// over the text and over what is made of it, all of which is charged to the budget. Once that is exhausted, what was
    /// found so far is returned, and [`ViewBudget::is_cut`] says so.
    pub fn find_views(
        &self,
        payload: &Payload<'_>,
        views: Views,
        raw: &[u32],
        scratch: &mut Scratch,
        budget: &mut ViewBudget<'_>,
    ) -> Vec<ViewMatch> {
        let search = self.view_search(payload, views, raw, scratch);
        search.map(|search| search.run(views, budget)).unwrap_or_default()
    }

    /// The slow twin of [`find_views`](Self::find_views): everything is tried, whether the cheap test gives a reason or not.
    ///
    /// # Complexity
    ///
    /// As there for a text with every reason.
    pub fn find_views_slowly(
        &self,
        payload: &Payload<'_>,
        views: Views,
        raw: &[u32],
        scratch: &mut Scratch,
        budget: &mut ViewBudget<'_>,
    ) -> Vec<ViewMatch> {
        let search = self.view_search(payload, views, raw, scratch);
        search.map(|search| search.run_all(views, budget)).unwrap_or_default()
    }

    /// `None` if there is nothing to search.
    fn view_search<'a>(
        &'a self,
        payload: &'a Payload<'_>,
        views: Views,
        raw: &'a [u32],
        scratch: &'a mut Scratch,
    ) -> Option<search::Search<'a>> {
        (has_views(payload.kind) && views.any()).then(|| search::Search::new(self, payload, raw, scratch))
    }
}

/// Whether events of this kind hold scripts.
fn has_views(kind: EventKind) -> bool {
    matches!(kind, EventKind::ScriptBlock | EventKind::Amsi)
}

/// What a set of rules needs for the views.
#[derive(Debug)]
pub(crate) struct ViewPlan {
    pub(crate) hints: Hints,
    /// The rules of the call-aware view.
    pub(crate) calls: Plan,
    /// For each rule its base, if it has one in the set.
    pub(crate) bases: Vec<Option<u32>>,
}

impl ViewPlan {
    /// `plan`: that of script blocks in the raw view.
    pub(crate) fn new(rules: &[Rule], plan: &Plan, usable: Usable) -> Self {
        let calls = Plan::new(EventKind::ScriptBlock, rules, usable, |rule| rule.calls != Calls::No);
        let number = |id: &str| rules.iter().position(|rule| rule.id == id).map(|at| at as u32);
        let base = |rule: &Rule| if rule.base.is_empty() { None } else { number(&rule.base) };
        let bases = rules.iter().map(base).collect();
        let hints = Hints::new(rules, Names::of(rules), [plan, &calls]);
        Self { hints, calls, bases }
    }
}

#[cfg(test)]
mod tests;
