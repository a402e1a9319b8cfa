//! Searches views: makes texts from a script, and evaluates the rules on each of them.

use super::call;
use super::fold::{self, PatternCache};
use super::light;
use super::mapped::{Mapped, VIEW_UNITS_MAX};
use super::prefilter::Query;
use super::prefilter::Reasons;
use super::transformation::Transformations;
use super::views::{View, ViewMatch, Views};
use super::work::{ViewBudget, Work};
use super::{ViewMatcher, ViewScratch};
use crate::engine::TextScratch;
use crate::engine::cost::NoMeter;
use crate::engine::plan::Plan;
use crate::engine::run::Evaluation;
use crate::engine::spans::{Span, SpanFinder};
use crate::field::{EventKind, Field, Fields, text_units};
use crate::payload::Payload;
use etwsieve_budget::{Budget, Exhausted};

/// Maximum number of folding passes, and so the depth of nested obfuscation.
pub(crate) const PASSES_MAX: usize = 6;
/// Maximum number of calls of one text that are rewritten.
pub(crate) const CALLS_MAX: usize = 256;

/// Maximum capacity that is kept from payload to payload, in bytes.
const MADE_LEN_KEPT_MAX: usize = 1 << 20;
/// Divisor for the share of the remaining steps that a text may use to be written, narrowed and searched for the gate's
/// needles, which takes one step per unit.
const LEFT_PER_TEXT: usize = 4;
/// Steps to start the search of a text.
const SEARCH_STEPS: usize = 64;

/// One search.
pub(crate) struct Search<'a> {
    matcher: ViewMatcher<'a>,
    payload: &'a Payload<'a>,
    fields: Fields<'a>,
    raw: &'a [u32],
    text: &'a mut TextScratch,
    scratch: &'a mut ViewScratch,
    found: Vec<ViewMatch>,
    /// The payload with another text.
    made: Vec<u8>,
    /// True if only a part of some text was searched.
    is_cut: bool,
}

impl<'a> Search<'a> {
    pub(crate) fn new(
        matcher: ViewMatcher<'a>,
        payload: &'a Payload<'a>,
        raw: &'a [u32],
        text: &'a mut TextScratch,
        scratch: &'a mut ViewScratch,
    ) -> Self {
        let fields = Fields::split(payload.kind, payload.bytes);
        let made = std::mem::take(&mut scratch.made);
        Self { matcher, payload, fields, raw, text, scratch, found: Vec::new(), made, is_cut: false }
    }

    /// Searches the views for which the text gives reason.
    pub(crate) fn run(self, views: Views, budget: &mut ViewBudget<'_>) -> Vec<ViewMatch> {
        let Some(text) = self.fields.text(Field::ScriptBlockText) else { return Vec::new() };
        let units: &[[u8; 2]] = text.as_chunks().0;
        let units = &units[..units.len().min(VIEW_UNITS_MAX)];
        let prefilter = &self.matcher.views.prefilter;
        let query = Query { views, first: false, raw: None };
        let reasons = prefilter.reasons(units, query, self.matcher.plan.isa, &mut budget.prefilter);
        self.run_for(reasons, views, budget)
    }

    /// Searches all views.
    pub(crate) fn run_unfiltered(self, views: Views, budget: &mut ViewBudget<'_>) -> Vec<ViewMatch> {
        self.run_for(Reasons::ALL, views, budget)
    }

    fn run_for(mut self, reasons: Reasons, views: Views, budget: &mut ViewBudget<'_>) -> Vec<ViewMatch> {
        let Some(text) = self.fields.text(Field::ScriptBlockText) else { return Vec::new() };
        let units = text.as_chunks().0;
        // The search is about to find needles of other texts.
        self.text.found_by = 0;
        if reasons == Reasons::default() {
            return Vec::new();
        }
        if units.len() > VIEW_UNITS_MAX {
            budget.cut();
        }
        let (mut work, search) = budget.parts();
        // Matches found before either budget is exhausted count.
        let _ = self.search_all(units, reasons, views, &mut work, search);
        if self.is_cut {
            budget.cut();
        }
        self.without_bases();
        if self.made.capacity() <= MADE_LEN_KEPT_MAX {
            self.scratch.made = self.made;
        }
        self.found.sort_by_key(|found| (found.view, found.rule));
        self.found
    }

    fn search_all(
        &mut self,
        units: &[[u8; 2]],
        reasons: Reasons,
        views: Views,
        work: &mut Work<'_, '_>,
        budget: &mut Budget<'_>,
    ) -> Option<()> {
        work.allocate(2 * units.len().min(VIEW_UNITS_MAX))?;
        let mut text = Mapped::original(units);
        let mut decoded = Vec::new();
        let mut patterns = PatternCache::default();
        // Normalises only if one of the two needs it.
        let calls = views.call && self.matcher.views.has_calls();
        let light = if calls || reasons.light { light::normalize(&text, work) } else { None };
        if views.normalized && reasons.light {
            self.made_text(&text, light.as_ref(), budget);
        }
        self.calls(&text, light.as_ref(), views, work, budget);
        // A backtick may split the trigger of an expression.
        let folds = reasons.fold || reasons.light;
        for _ in 0..if folds { PASSES_MAX } else { 0 } {
            let before = decoded.len();
            text = fold::fold(&text, work, &mut patterns, &mut decoded)?;
            let light = light::normalize(&text, work);
            if views.normalized {
                self.made_text(&text, light.as_ref(), budget);
                for text in &decoded[before..] {
                    let light = light::normalize(text, work);
                    self.made_text(text, light.as_ref(), budget);
                }
            }
            self.calls(&text, light.as_ref(), views, work, budget);
        }
        Some(())
    }

    /// Searches a text in light normalisation, unless that is the original.
    fn made_text(&mut self, text: &Mapped, light: Option<&Mapped>, budget: &mut Budget<'_>) {
        let plain = light.unwrap_or(text);
        if plain.is_made() {
            let _ = self.search(plain, View::Normalized, budget);
        }
    }

    /// Searches the calls of a text; `light` is its light normalisation, in which names have no backticks.
    fn calls(
        &mut self,
        text: &Mapped,
        light: Option<&Mapped>,
        views: Views,
        work: &mut Work<'_, '_>,
        budget: &mut Budget<'_>,
    ) {
        if !views.call || !self.matcher.views.has_calls() {
            return;
        }
        let plain = light.unwrap_or(text);
        let names = self.matcher.views.prefilter.names();
        if names.stand_in(plain.units(), &mut self.scratch.names, work) == Some(true) {
            let _ = call::rewritten(text, CALLS_MAX, work, |call| {
                let _ = self.search(call, View::Call, budget);
            });
        }
    }

    /// Removes the matches of the call-aware view whose base rule matched otherwise.
    fn without_bases(&mut self) {
        let matcher = self.matcher;
        let raw = self.raw;
        let normalized: Vec<u32> = self
            .found
            .iter()
            .filter(|found| found.view == View::Normalized)
            .map(|found| found.rule)
            .collect();
        self.found.retain(|found| {
            let base = matcher.views.base(found.rule);
            found.view == View::Normalized
                || base.is_none_or(|base| !raw.contains(&base) && !normalized.contains(&base))
        });
    }

    fn is_known(&self, rule: u32) -> bool {
        self.raw.contains(&rule) || self.found.iter().any(|found| found.rule == rule)
    }

    /// Evaluates the rules on a text.
    fn search(&mut self, text: &Mapped, view: View, budget: &mut Budget<'_>) -> Result<(), Exhausted> {
        let matcher = self.matcher;
        let kind = self.payload.kind;
        let plan = match view {
            View::Normalized => matcher.plan,
            View::Call => &matcher.views.calls,
        };
        if plan.programs.is_empty() {
            return Ok(());
        }
        budget.charge(SEARCH_STEPS + self.other_units())?;
        // Searches only the first part of a text that would exhaust the budget, so that its candidates can be evaluated
        // and other texts searched.
        let most = budget.steps_left() as usize / LEFT_PER_TEXT;
        let script = &text.units()[..text.units().len().min(most)];
        self.is_cut |= script.len() < text.units().len();
        budget.charge(script.len())?;
        let mut bytes = std::mem::take(&mut self.made);
        self.write_with(script, &mut bytes);
        let fields = self.fields.with_script(&bytes, script.len());
        let units = text_units(kind, &bytes);
        let TextScratch { narrowed, found, memo, .. } = &mut *self.text;
        narrowed.begin();
        plan.gate.scan(units, narrowed, found);
        let mut rules_found = Vec::new();
        if !plan.ungated.is_empty() || !found.list().is_empty() {
            memo.begin(plan);
            let narrow = narrowed.of(units, plan.isa);
            let run = Evaluation { plan, units, fields: fields.clone(), narrow, found, memo, budget };
            run.candidates(&[], &mut rules_found, &mut NoMeter);
        }
        rules_found.retain(|rule| !self.is_known(*rule));
        if !rules_found.is_empty() {
            self.add(plan, text, &fields, &rules_found, view, budget);
        }
        self.made = bytes;
        Ok(())
    }

    /// Returns the number of units of the payload without the script.
    fn other_units(&self) -> usize {
        let own = self.fields.range(Field::ScriptBlockText).map_or(0, |own| own.len());
        (self.payload.bytes.len() / 2).saturating_sub(own)
    }

    /// Writes the payload with another script to `bytes`.
    fn write_with(&self, script: &[u16], bytes: &mut Vec<u8>) {
        let original = self.payload.bytes;
        let offset = self.payload.kind.text_offset();
        let own = self.fields.range(Field::ScriptBlockText).unwrap_or(0..0);
        bytes.clear();
        bytes.extend_from_slice(&original[..offset]);
        if self.payload.kind == EventKind::Amsi {
            crate::amsi::set_content_len(bytes, script.len());
        }
        let start = bytes.len();
        bytes.resize(start + 2 * script.len(), 0);
        for (to, unit) in bytes[start..].as_chunks_mut().0.iter_mut().zip(script) {
            *to = unit.to_le_bytes();
        }
        bytes.extend_from_slice(&original[offset + 2 * own.end..]);
    }

    /// Adds the rules that match, if something that was undone is part of the match.
    fn add(
        &mut self,
        plan: &Plan,
        text: &Mapped,
        fields: &Fields<'_>,
        rules: &[u32],
        view: View,
        budget: &mut Budget<'_>,
    ) {
        let Ok(mut finder) = SpanFinder::new(plan, fields, budget) else { return };
        let spans = finder.of_rules(self.matcher.rules, rules);
        if finder.is_exhausted() {
            return;
        }
        for (&rule, spans) in rules.iter().zip(spans) {
            let mut done = Transformations::NONE;
            let mut origins = Vec::with_capacity(spans.len());
            for Span { field, units } in spans {
                if field != Field::ScriptBlockText {
                    origins.push(Span { field, units });
                    continue;
                }
                if budget.charge(text.pieces_in(&units)).is_err() {
                    return;
                }
                let (units, own) = text.origin(&units);
                done = done.and(own);
                origins.push(Span { field, units });
            }
            if done.is_none() {
                continue;
            }
            origins.sort_by_key(|span| (span.field, span.units.start, span.units.end));
            origins.dedup();
            self.found.push(ViewMatch { rule, view, spans: origins, transformations: done.list() });
        }
    }
}
