//! The search of the views: the texts that are made of a script, and the rules on each of them.

use super::call;
use super::fold::{self, Budget};
use super::hints::Reasons;
use super::light;
use super::mapped::Mapped;
use super::transformation::Done;
use super::{Question, View, ViewMatch, Views};
use crate::compile::plan::Plan;
use crate::field::{EventKind, Field, Fields, text_units};
use crate::matcher::cost::NoMeter;
use crate::matcher::run::Run;
use crate::matcher::spans::SpanFinder;
use crate::matcher::{Matcher, Payload, Scratch, Span};

/// Most passes of folding: how deep a disguise may lie in another.
pub(crate) const PASSES_MAX: usize = 6;
/// Most calls of one text that are rewritten.
pub(crate) const CALLS_MAX: usize = 256;

/// Longest payload whose memory is kept for the next one.
const MADE_LEN_KEPT_MAX: usize = 1 << 20;

/// One search.
pub(super) struct Search<'a> {
    matcher: &'a Matcher,
    payload: &'a Payload<'a>,
    fields: Fields<'a>,
    raw: &'a [u32],
    scratch: &'a mut Scratch,
    found: Vec<ViewMatch>,
    /// The payload with another text.
    made: Vec<u8>,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        matcher: &'a Matcher,
        payload: &'a Payload<'a>,
        raw: &'a [u32],
        scratch: &'a mut Scratch,
    ) -> Self {
        let fields = Fields::split(payload.kind, payload.bytes);
        let made = std::mem::take(&mut scratch.made);
        Self { matcher, payload, fields, raw, scratch, found: Vec::new(), made }
    }

    /// What the views give that the text has reason for.
    pub(super) fn run(self, views: Views) -> Vec<ViewMatch> {
        let Some(text) = self.fields.text(Field::ScriptBlockText) else { return Vec::new() };
        let hints = &self.matcher.view_plan().hints;
        let question = Question { views, first: false, raw: None };
        let reasons = hints.reasons(text.as_chunks().0, question, self.matcher.usable());
        self.run_for(reasons, views)
    }

    /// What the views give.
    pub(super) fn run_all(self, views: Views) -> Vec<ViewMatch> {
        self.run_for(Reasons { light: true, fold: true, call: true }, views)
    }

    fn run_for(mut self, reasons: Reasons, views: Views) -> Vec<ViewMatch> {
        let Some(text) = self.fields.text(Field::ScriptBlockText) else { return Vec::new() };
        let units = text.as_chunks().0;
        // The search is about to find needles of other texts.
        self.scratch.found_by = 0;
        if reasons == Reasons::default() {
            return Vec::new();
        }
        let mut text = Mapped::original(units);
        let mut decoded = Vec::new();
        let mut budget = Budget::of(units.len());
        // Where neither asks for it, nothing is normalised.
        let calls = views.call && self.matcher.has_calls();
        let light = if calls || reasons.light { light::normalize(&text) } else { None };
        if views.normalized && reasons.light {
            self.made_text(&text, light.as_ref());
        }
        self.calls(&text, light.as_ref(), views, &mut budget);
        // A mark that a backtick cuts in two is no reason yet.
        let folds = reasons.fold || reasons.light;
        for _ in 0..if folds { PASSES_MAX } else { 0 } {
            let before = decoded.len();
            let Some(next) = fold::fold(&text, &mut budget, &mut decoded) else { break };
            text = next;
            let light = light::normalize(&text);
            if views.normalized {
                self.made_text(&text, light.as_ref());
                decoded[before..]
                    .iter()
                    .for_each(|text| self.made_text(text, light::normalize(text).as_ref()));
            }
            self.calls(&text, light.as_ref(), views, &mut budget);
        }
        self.without_bases();
        if self.made.capacity() <= MADE_LEN_KEPT_MAX {
            self.scratch.made = self.made;
        }
        self.found.sort_by_key(|found| (found.view, found.rule));
        self.found
    }

    /// Searches a text in light normalisation, unless that is the original.
    fn made_text(&mut self, text: &Mapped, light: Option<&Mapped>) {
        let plain = light.unwrap_or(text);
        if plain.is_made() {
            self.search(plain, View::Normalized);
        }
    }

    /// Searches the calls of a text. `light`: its light normalisation, in which a name has no backticks.
    fn calls(&mut self, text: &Mapped, light: Option<&Mapped>, views: Views, budget: &mut Budget) {
        if !views.call || !self.matcher.has_calls() {
            return;
        }
        let plain = light.unwrap_or(text);
        if self.matcher.view_plan().hints.names().stand_in(plain.units(), &mut self.scratch.names) {
            for call in call::rewritten(text, budget, CALLS_MAX) {
                self.search(&call, View::Call);
            }
        }
    }

    /// Takes out the rules of the call-aware view whose base matched otherwise.
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
            let base = matcher.base(found.rule);
            found.view == View::Normalized
                || base.is_none_or(|base| !raw.contains(&base) && !normalized.contains(&base))
        });
    }

    fn is_known(&self, rule: u32) -> bool {
        self.raw.contains(&rule) || self.found.iter().any(|found| found.rule == rule)
    }

    /// Runs the rules on a text that was made.
    fn search(&mut self, text: &Mapped, view: View) {
        let matcher = self.matcher;
        let kind = self.payload.kind;
        let plan = match view {
            View::Normalized => matcher.plan(kind),
            View::Call => &matcher.view_plan().calls,
        };
        if plan.programs.is_empty() {
            return;
        }
        let mut bytes = std::mem::take(&mut self.made);
        self.write_with(text, &mut bytes);
        let fields = self.fields.with_script(&bytes, text.units().len());
        let units = text_units(kind, &bytes);
        let Scratch { narrowed, found, memory, .. } = &mut *self.scratch;
        narrowed.begin();
        plan.gate.scan(units, narrowed, found);
        let mut rules_found = Vec::new();
        if !plan.ungated.is_empty() || !found.list().is_empty() {
            memory.begin(plan);
            let usable = matcher.usable();
            let narrow = narrowed.of(units, usable);
            let run = Run { plan, units, fields: fields.clone(), narrow, found, memory, usable };
            run.candidates(&[], &mut rules_found, &mut NoMeter);
        }
        rules_found.retain(|rule| !self.is_known(*rule));
        if !rules_found.is_empty() {
            self.add(plan, text, &fields, &rules_found, view);
        }
        self.made = bytes;
    }

    /// The payload with `text` in the place of the script, in `bytes`.
    fn write_with(&self, text: &Mapped, bytes: &mut Vec<u8>) {
        let original = self.payload.bytes;
        let offset = self.payload.kind.text_offset();
        let own = self.fields.range(Field::ScriptBlockText).unwrap_or(0..0);
        bytes.clear();
        bytes.extend_from_slice(&original[..offset]);
        if self.payload.kind == EventKind::Amsi {
            crate::amsi::set_content_len(bytes, text.units().len());
        }
        let start = bytes.len();
        bytes.resize(start + 2 * text.units().len(), 0);
        for (to, unit) in bytes[start..].as_chunks_mut().0.iter_mut().zip(text.units()) {
            *to = unit.to_le_bytes();
        }
        bytes.extend_from_slice(&original[offset + 2 * own.end..]);
    }

    /// Adds what matched, if what was made has a part in it.
    fn add(&mut self, plan: &Plan, text: &Mapped, fields: &Fields<'_>, rules: &[u32], view: View) {
        let spans =
            SpanFinder::new(plan, fields, self.matcher.usable()).of_rules(self.matcher.rules(), rules);
        for (&rule, spans) in rules.iter().zip(spans) {
            let mut done = Done::NONE;
            let origin = |span: Span| {
                if span.field != Field::ScriptBlockText {
                    return span;
                }
                let (units, own) = text.origin(&span.units);
                done = done.and(own);
                Span { field: span.field, units }
            };
            let mut spans: Vec<Span> = spans.into_iter().map(origin).collect();
            if done.is_none() {
                continue;
            }
            spans.sort_by_key(|span| (span.field, span.units.start, span.units.end));
            spans.dedup();
            self.found.push(ViewMatch { rule, view, spans, transformations: done.list() });
        }
    }
}
