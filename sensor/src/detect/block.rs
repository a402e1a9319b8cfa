//! The hit of a joined block.

use super::{Nuls, Recorded, bounded, content, rule_ref, view, view_rule_ref};
use crate::event::EventHeader;
use etwsieve_event::Sid;
use etwsieve_matcher::block::{Closed, Facts, Joined};
use etwsieve_matcher::{Matcher, ViewMatch};
use etwsieve_transport::hit::{
    CutV1, EventContent, HitV1, PieceV1, RuleRefV1, Scope, SpanV1, Utf16Text, View,
};

/// What is kept of the first fragment of a block for its hits.
#[derive(Clone, Debug)]
pub struct FirstFragment {
    /// Header facts.
    pub header: EventHeader,
    /// The user on whose behalf it was written.
    pub user_sid: Option<Sid>,
    /// The recording computer; empty when unknown.
    pub computer: Box<str>,
    /// Running number within its source.
    pub sequence: u64,
}

impl Facts for FirstFragment {
    fn heap_bytes(&self) -> usize {
        self.computer.len()
    }
}

/// What hits of one block are made of.
#[derive(Clone, Copy, Debug)]
pub struct BlockHit<'a> {
    /// The block.
    pub closed: &'a Closed<FirstFragment>,
    /// The same, joined.
    pub joined: &'a Joined,
    /// Name of its source.
    pub source: &'a str,
    /// The rules.
    pub matcher: &'a Matcher,
}

impl BlockHit<'_> {
    /// The hit of rules that match the joined text as recorded.
    pub fn raw(self, rules: &[u32]) -> HitV1 {
        let fields = self.joined.fields();
        let spans = self.matcher.spans(&fields, rules);
        let rules = rules.iter().filter_map(|&rule| self.matcher.rules().get(rule as usize));
        let nuls = Nuls::of(&fields);
        self.hit(View::Raw, rules.zip(spans).map(|(rule, spans)| rule_ref(rule, &spans, &nuls)).collect())
    }

    /// The hit of what a view of the joined text gave. All of `matches` are of one view.
    pub fn view(self, matches: &[ViewMatch]) -> HitV1 {
        let nuls = Nuls::of(&self.joined.fields());
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
        let recorded = Recorded {
            header: &first.header,
            user_sid: first.user_sid,
            computer: &first.computer,
            sequence: first.sequence,
        };
        bounded(&recorded, self.source, view, content, rules, |hit| {
            (hit.scope, hit.partial) = (Scope::Block, self.closed.is_partial());
            hit.cut = cut;
        })
    }

    /// Leaves the gaps out of the text, and puts the spans where they stand in the script; those across a gap go.
    fn cut(self, content: &mut EventContent, rules: &mut [RuleRefV1]) -> CutV1 {
        for rule in rules {
            let place = |mut span: SpanV1| {
                if span.text == 0 {
                    let end = (span.start + span.len) as usize;
                    span.start = self.joined.original(span.start as usize..end)?.start as u32;
                }
                Some(span)
            };
            // The zeros of gaps are none of the script.
            let is_beyond = |span: &SpanV1| {
                span.text == 0 && self.joined.has_nul_before((span.start + span.len) as usize)
            };
            rule.beyond_nul &=
                rule.spans.iter().any(|span| span.text != 0) || rule.spans.iter().any(is_beyond);
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
