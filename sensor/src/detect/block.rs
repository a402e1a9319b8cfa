//! Creates the hits of joined blocks.

use super::{EventFacts, FirstNuls, content, limited_hit, rule_ref, view, view_rule_ref};
use crate::event::EventHeader;
use etwsieve_event::Sid;
use etwsieve_matcher::block::{Closed, Facts, Joined};
use etwsieve_matcher::{Matcher, ViewMatch};
use etwsieve_transport::hit::{
    CutV1, EventContent, HitV1, PieceV1, RuleRefV1, Scope, SpanV1, Utf16Text, View,
};

/// The facts of the first fragment of a block, which its hits contain.
#[derive(Clone, Debug)]
pub struct FirstFragment {
    /// Header of the event.
    pub header: EventHeader,
    /// The user on whose behalf the event was written.
    pub user_sid: Option<Sid>,
    /// The computer that recorded the event; empty if unknown.
    pub computer: Box<str>,
    /// Number of the event within its source.
    pub sequence: u64,
}

impl Facts for FirstFragment {
    fn heap_bytes(&self) -> usize {
        self.computer.len()
    }
}

/// The parts from which the hits of a block are created.
#[derive(Clone, Copy, Debug)]
pub struct BlockHit<'a> {
    /// The closed block.
    pub closed: &'a Closed<FirstFragment>,
    /// The joined text of the block.
    pub joined: &'a Joined,
    /// Name of the source.
    pub source: &'a str,
    /// The matcher with the rules.
    pub matcher: &'a Matcher,
}

impl BlockHit<'_> {
    /// Creates the hit of rules that match the raw joined text.
    pub fn raw(self, rules: &[u32]) -> HitV1 {
        let fields = self.joined.fields();
        let spans = self.matcher.spans(&fields, rules);
        let rules = rules.iter().filter_map(|&rule| self.matcher.rules().get(rule as usize));
        let nuls = FirstNuls::of(&fields);
        self.hit(View::Raw, rules.zip(spans).map(|(rule, spans)| rule_ref(rule, &spans, &nuls)).collect())
    }

    /// Creates the hit of matches in another view of the joined text. All of `matches` must belong to the same view.
    pub fn view(self, matches: &[ViewMatch]) -> HitV1 {
        let nuls = FirstNuls::of(&self.joined.fields());
        let of = matches.first().map_or(View::Raw, |found| view(found.view));
        let rules = matches.iter().filter_map(|found| view_rule_ref(found, self.matcher, &nuls));
        self.hit(of, rules.collect())
    }

    fn hit(self, view: View, mut rules: Vec<RuleRefV1>) -> HitV1 {
        let first = self.closed.facts();
        let mut content = content(&self.joined.fields(), self.joined.bytes());
        if let EventContent::ScriptBlock { message_number, .. } = &mut content {
            *message_number = None;
        }
        let cut = if self.joined.is_whole() { None } else { Some(self.cut(&mut content, &mut rules)) };
        let facts = EventFacts {
            header: &first.header,
            user_sid: first.user_sid,
            computer: &first.computer,
            sequence: first.sequence,
        };
        limited_hit(&facts, self.source, view, content, rules, |hit| {
            (hit.scope, hit.partial) = (Scope::Block, self.closed.is_partial());
            hit.cut = cut;
        })
    }

    /// Removes the gaps from the text, and converts spans to positions in the original script. Spans across a gap are
    /// removed.
    fn cut(self, content: &mut EventContent, rules: &mut [RuleRefV1]) -> CutV1 {
        for rule in rules {
            let place = |mut span: SpanV1| {
                if span.text == 0 {
                    let end = (span.start + span.len) as usize;
                    span.start = self.joined.original(span.start as usize..end)?.start as u32;
                }
                Some(span)
            };
            // Gaps are filled with zeros that are not part of the script.
            let is_beyond_nul = |span: &SpanV1| {
                span.text == 0 && self.joined.has_nul_before((span.start + span.len) as usize)
            };
            rule.beyond_nul &=
                rule.spans.iter().any(|span| span.text != 0) || rule.spans.iter().any(is_beyond_nul);
            rule.spans = rule.spans.iter().copied().filter_map(place).collect();
        }
        if let EventContent::ScriptBlock { text, .. } = content {
            let pieces = self.joined.pieces().iter().filter_map(|piece| text.0.get(piece.joined()));
            *text = Utf16Text(pieces.flatten().copied().collect());
        }
        CutV1 {
            text: 0,
            units: u32::try_from(self.joined.units()).unwrap_or(u32::MAX),
            sha256: None,
            pieces: self.joined.pieces().iter().map(|piece| PieceV1::from(piece.original.clone())).collect(),
        }
    }
}
