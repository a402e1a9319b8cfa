//! Views of a text: see [`view`](crate::view).

use super::{Matcher, Scratch};
use crate::field::{EventKind, text_units};
use crate::payload::Payload;
use crate::view::prefilter::{Query, RawSearch, Reasons};
use crate::view::search::Search;
use crate::view::{ViewBudget, ViewMatch, ViewMatcher, Views, has_views};

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
        self.has_view_reason(kind, units, Query { views, first: true, raw: None }, budget)
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
        let raw = scratch.text.found_of(self.identity).map(|found| RawSearch {
            plan: self.plan(payload.kind),
            found,
            memo: &scratch.text.memo,
            narrow: scratch.text.narrowed.made(),
        });
        // All text: to find the end of the script's would take as long as to look at the little that is behind it.
        let units = text_units(payload.kind, payload.bytes);
        self.has_view_reason(payload.kind, units, Query { views, first: true, raw }, budget)
    }

    fn has_view_reason(
        &self,
        kind: EventKind,
        units: &[[u8; 2]],
        query: Query<'_>,
        budget: &mut ViewBudget<'_>,
    ) -> bool {
        // What a module event records PowerShell has read already.
        if !has_views(kind) || !query.views.any() {
            return false;
        }
        let reasons = self.views.prefilter.reasons(units, query, self.isa, &mut budget.prefilter);
        reasons != Reasons::default()
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
    pub fn find_views_unfiltered(
        &self,
        payload: &Payload<'_>,
        views: Views,
        raw: &[u32],
        scratch: &mut Scratch,
        budget: &mut ViewBudget<'_>,
    ) -> Vec<ViewMatch> {
        let search = self.view_search(payload, views, raw, scratch);
        search.map(|search| search.run_unfiltered(views, budget)).unwrap_or_default()
    }

    /// `None` if there is nothing to search.
    fn view_search<'a>(
        &'a self,
        payload: &'a Payload<'_>,
        views: Views,
        raw: &'a [u32],
        scratch: &'a mut Scratch,
    ) -> Option<Search<'a>> {
        (has_views(payload.kind) && views.any()).then(|| {
            let matcher =
                ViewMatcher { rules: &self.rules, plan: self.plan(payload.kind), views: &self.views };
            Search::new(matcher, payload, raw, &mut scratch.text, &mut scratch.view)
        })
    }
}

#[cfg(test)]
mod tests;
