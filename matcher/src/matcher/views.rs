//! Searches views of a text: see [`view`](crate::view).

use super::{Matcher, Scratch};
use crate::field::{EventKind, text_units};
use crate::payload::Payload;
use crate::view::prefilter::{Query, RawSearch, Reasons};
use crate::view::search::Search;
use crate::view::{ViewBudget, ViewMatch, ViewMatcher, Views, has_views};

impl Matcher {
    /// Returns true if a view of this text could match where the raw view does not. This prefilter is fast and may have
    /// false positives. `units` is the script text or a part of it.
    ///
    /// # Complexity
    ///
    /// One pass over the text at the speed of the gate, which ends at the first reason. Allocates nothing. Returns true
    /// once the prefilter's part of the budget is exhausted.
    pub fn views_could_differ(
        &self,
        kind: EventKind,
        units: &[[u8; 2]],
        views: Views,
        budget: &mut ViewBudget<'_>,
    ) -> bool {
        self.has_view_reason(kind, units, Query { views, first: true, raw: None }, budget)
    }

    /// Does the same as [`views_could_differ`](Self::views_could_differ) for the payload that was just searched with
    /// this scratch, with fewer false positives: regular expressions of a rule are considered only if the rule became a
    /// candidate.
    ///
    /// # Complexity
    ///
    /// That of [`views_could_differ`](Self::views_could_differ).
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
        // Includes the other fields: locating the end of the script would take as long as scanning the little text
        // after it.
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
        // PowerShell has already interpreted what a module event records.
        if !has_views(kind) || !query.views.any() {
            return false;
        }
        let reasons = self.views.prefilter.reasons(units, query, self.isa, &mut budget.prefilter);
        reasons != Reasons::default()
    }

    /// Returns the rules that match a view of the payload, each once: first those of the normalised view, then those of
    /// the call-aware one, each ascending. `raw` are the rules that have been reported already; neither they nor rules
    /// based on them are tried again.
    ///
    /// The payload has the layout of an event. Its text may be a joined block of megabytes, of which only the first
    /// part is viewed. `budget` is that of the event, from which the prefilter has been paid.
    ///
    /// # Complexity
    ///
    /// For a text that passes no prefilter, that of [`views_could_differ`](Self::views_could_differ). Otherwise several
    /// passes over the text and over the texts made from it, all charged to the budget. Once it is exhausted, the
    /// matches found so far are returned and [`ViewBudget::is_cut`] is true.
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

    /// Does the same as [`find_views`](Self::find_views) without the prefilter: the slow reference implementation.
    ///
    /// # Complexity
    ///
    /// That of [`find_views`](Self::find_views) for a text that passes every prefilter.
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

    /// Returns `None` if there is nothing to search.
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
