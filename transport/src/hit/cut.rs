//! Truncation of scripts too long for a hit.

use super::bounded;
use super::{EventContent, HitV1, PIECES_MAX, SpanV1, TEXT_UNITS_MAX, Utf16Text};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ops::Range;

/// Number of units kept from the beginning of a truncated text.
const HEAD_UNITS: usize = 4096;
/// Maximum number of units kept on each side of a span.
const CONTEXT_UNITS: usize = 512;
/// Maximum number of units kept in one hit, so that a store can merge the pieces of several hits of one event.
const KEPT_UNITS_MAX: usize = TEXT_UNITS_MAX / 4;

/// Describes how a text was truncated. The text of the hit is its pieces, concatenated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutV1 {
    /// Index of the text in wire order, starting at 0.
    pub text: u8,
    /// Length of the complete text, in UTF-16 units.
    pub units: u32,
    /// SHA-256 of the complete text as UTF-16LE; `None` if the complete text was never in memory.
    pub sha256: Option<[u8; 32]>,
    /// The pieces that were kept, in ascending order and disjoint, at most [`PIECES_MAX`].
    #[serde(deserialize_with = "bounded::vec::<PIECES_MAX, _, _>")]
    pub pieces: Vec<PieceV1>,
}

/// A range of the original text, in UTF-16 units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PieceV1 {
    /// First unit of the range.
    pub start: u32,
    /// Length of the range in units.
    pub len: u32,
}

impl PieceV1 {
    fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}

impl From<Range<usize>> for PieceV1 {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start as u32, len: range.len() as u32 }
    }
}

impl HitV1 {
    /// Returns the range of a span in the texts of this hit, which may be truncated. `None` if the span is outside the
    /// pieces or beyond the end of its text.
    pub fn shown(&self, span: SpanV1) -> Option<Range<usize>> {
        let (_, text) = self.content.texts().into_iter().nth(usize::from(span.text))??;
        let (start, len) = (span.start as usize, span.len as usize);
        let start = match &self.cut {
            Some(cut) if cut.text == span.text => {
                let mut before = 0;
                let mut place = None;
                for piece in &cut.pieces {
                    let range = piece.range();
                    if range.start <= start && start + len <= range.end {
                        place = Some(before + start - range.start);
                        break;
                    }
                    before += range.len();
                }
                place?
            }
            _ => start,
        };
        (start + len <= text.0.len()).then(|| start..start + len)
    }

    /// Clears the pieces of a truncated text. Its length and hash are kept.
    pub(crate) fn forget_pieces(&mut self) {
        if let Some(cut) = &mut self.cut {
            cut.pieces = Vec::new();
            if let Some(Some(text)) = self.content.texts_mut().into_iter().nth(usize::from(cut.text)) {
                text.0 = Vec::new();
            }
        }
    }

    /// Adds the pieces that `other`, a hit of the same event, has and this hit lacks. Returns true if any were added.
    /// Adds nothing if the union is too long for a hit.
    pub fn add_pieces(&mut self, other: &Self) -> bool {
        let (Some(own), Some(others)) = (&self.cut, &other.cut) else { return false };
        if (own.text, own.units, own.sha256) != (others.text, others.units, others.sha256) {
            return false;
        }
        let index = own.text;
        let (Some(text), Some(other_text)) =
            (text(&self.content, own.text), text(&other.content, others.text))
        else {
            return false;
        };
        let union =
            joined(own.pieces.iter().chain(&others.pieces).map(|piece| piece.range()).collect::<Vec<_>>());
        let units: usize = union.iter().map(Range::len).sum();
        let is_new = union.iter().map(|range| PieceV1::from(range.clone())).ne(own.pieces.iter().copied());
        if !is_new || units > TEXT_UNITS_MAX || union.len() > PIECES_MAX {
            return false;
        }
        let mut shown = vec![0; units];
        for (pieces, text) in [(&own.pieces, text), (&others.pieces, other_text)] {
            let mut rest = &text.0[..];
            for piece in pieces {
                // Hits of other programs may claim pieces that their text does not contain.
                let Some((units, behind)) = rest.split_at_checked(piece.len as usize) else { return false };
                rest = behind;
                let Some(to) = place(&union, piece.start as usize) else { return false };
                shown[to..to + units.len()].copy_from_slice(units);
            }
        }
        let pieces = union.into_iter().map(PieceV1::from).collect();
        if let Some(cut) = &mut self.cut {
            cut.pieces = pieces;
        }
        if let Some(Some(text)) = self.content.texts_mut().into_iter().nth(usize::from(index)) {
            text.0 = shown;
        }
        true
    }
}

fn text(content: &EventContent, index: u8) -> Option<&Utf16Text> {
    content.texts().into_iter().nth(usize::from(index))?.map(|(_, text)| text)
}

/// Returns the offset of a unit of the original text within the concatenated pieces.
fn place(pieces: &[Range<usize>], unit: usize) -> Option<usize> {
    let mut before = 0;
    for piece in pieces {
        if piece.contains(&unit) {
            return Some(before + unit - piece.start);
        }
        before += piece.len();
    }
    None
}

/// Sorts the ranges, merges those that touch or overlap, and removes empty ones.
fn joined(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// Truncates the script of a hit if it is too long, also if parts of it are missing already, and removes the spans for
/// which there is no room.
pub(super) fn cut_script(hit: &mut HitV1) {
    let EventContent::ScriptBlock { text, .. } = &mut hit.content else { return };
    if text.0.len() <= TEXT_UNITS_MAX {
        return;
    }
    // The available ranges: everything, or the pieces of a text that was never complete.
    let whole = hit.cut.take();
    let held: Vec<Range<usize>> = match &whole {
        Some(cut) => cut.pieces.iter().map(|piece| piece.range()).collect(),
        None => std::iter::once(0..text.0.len()).collect(),
    };
    let units = whole.as_ref().map_or(text.0.len(), |cut| cut.units as usize);
    let sha256 = match whole {
        Some(cut) => cut.sha256,
        None => Some(Sha256::digest(text.to_le_bytes()).into()),
    };
    // The first span of every rule comes before the second span of any rule.
    let numbered = hit.rules.iter().flat_map(|rule| rule.spans.iter().enumerate());
    let mut spans: Vec<(usize, &SpanV1)> = numbered.filter(|(_, span)| span.text == 0).collect();
    spans.sort_by_key(|(number, span)| (*number, **span));
    let spans: Vec<Range<usize>> = spans
        .into_iter()
        .map(|(_, span)| span.start as usize..span.start as usize + span.len as usize)
        .collect();
    let kept = keep(&held, &spans);
    let mut shown = Vec::new();
    for range in &kept {
        // Every kept range is part of an available one, and those make up the text.
        let start = place(&held, range.start).unwrap_or_default();
        shown.extend_from_slice(text.0.get(start..start + range.len()).unwrap_or_default());
    }
    text.0 = shown;
    hit.cut = Some(CutV1 {
        text: 0,
        units: units as u32,
        sha256,
        pieces: kept.into_iter().map(PieceV1::from).collect(),
    });
    let mut rules = std::mem::take(&mut hit.rules);
    for rule in &mut rules {
        rule.spans.retain(|span| span.text != 0 || hit.shown(*span).is_some());
    }
    hit.rules = rules;
}

/// Chooses the ranges to keep: the beginning, and the spans with as much context as there is room for.
fn keep(held: &[Range<usize>], spans: &[Range<usize>]) -> Vec<Range<usize>> {
    let with = |spans: &[Range<usize>], context: usize| {
        let around = spans.iter().map(|span| span.start.saturating_sub(context)..span.end + context);
        let wanted = joined(std::iter::once(0..HEAD_UNITS).chain(around).collect());
        common(held, &wanted)
    };
    let fits = |kept: &[Range<usize>]| {
        kept.len() <= PIECES_MAX && kept.iter().map(Range::len).sum::<usize>() <= KEPT_UNITS_MAX
    };
    let contexts =
        std::iter::successors(Some(CONTEXT_UNITS), |context| (*context > 0).then_some(context / 4));
    if let Some(kept) = contexts.map(|context| with(spans, context)).find(|kept| fits(kept)) {
        return kept;
    }
    // Keep as many spans as there is room for. Each further span needs at least as much room, so a binary search works.
    let (mut room, mut beyond) = (0, spans.len());
    while room + 1 < beyond {
        let middle = usize::midpoint(room, beyond);
        if fits(&with(&spans[..middle], 0)) { room = middle } else { beyond = middle }
    }
    with(&spans[..room], 0)
}

/// Returns the intersection of two lists of ascending, disjoint ranges.
fn common(left: &[Range<usize>], right: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut common = Vec::new();
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let both = a.start.max(b.start)..a.end.min(b.end);
        if !both.is_empty() {
            common.push(both);
        }
        if a.end <= b.end {
            left.next();
        } else {
            right.next();
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::super::{RuleRefV1, Scope};
    use super::*;

    fn hit(units: usize, spans: &[(u32, u32)]) -> HitV1 {
        let span = |&(start, len)| SpanV1 { text: 0, start, len };
        HitV1 {
            time: 1,
            source: "s".into(),
            scope: Scope::Block,
            content: EventContent::ScriptBlock {
                message_number: None,
                message_total: Some(9),
                text: Utf16Text((0..units).map(unit).collect()),
                script_block_id: None,
                path: None,
            },
            rules: vec![RuleRefV1 { spans: spans.iter().map(span).collect(), ..RuleRefV1::default() }],
            ..HitV1::default()
        }
    }

    /// The unit at an offset of the long test text. It differs from its neighbours and from distant units.
    fn unit(at: usize) -> u16 {
        (at ^ at >> 7) as u16
    }

    fn assert_inside(hit: &HitV1, name: &str) {
        let EventContent::ScriptBlock { text, .. } = &hit.content else { panic!("{name}: a script") };
        for span in &hit.rules[0].spans {
            let shown = hit.shown(*span).unwrap_or_else(|| panic!("{name}: {span:?} is shown"));
            let expected: Vec<u16> =
                (span.start..span.start + span.len).map(|at| unit(at as usize)).collect();
            assert_eq!(text.0[shown], expected, "{name}");
        }
    }

    #[test]
    fn spans_stay_within_the_text_after_truncation() {
        type Row<'a> = (&'a str, usize, &'a [(u32, u32)], usize);
        let long = 3 * TEXT_UNITS_MAX;
        let many: Vec<(u32, u32)> = (0..16).map(|n| (20_000 * n, 600)).collect();
        let huge: Vec<(u32, u32)> = (0..16).map(|n| (20_000 * n, 9_000)).collect();
        let rows: [Row<'_>; 6] = [
            ("short", TEXT_UNITS_MAX, &[(5, 5)], 1),
            ("no span", long, &[], 0),
            ("at the end", long, &[(long as u32 - 5, 5)], 1),
            ("two that touch", long, &[(70_000, 10), (70_010, 10)], 2),
            ("many", long, &many, 16),
            ("too long for all", long, &huge, 3),
        ];
        for (name, units, spans, left) in rows {
            let mut hit = hit(units, spans);
            hit.cut_to_limits();
            assert_eq!(hit.check(), Ok(()), "{name}");
            assert_eq!(hit.rules[0].spans.len(), left, "{name}");
            assert_eq!(hit.cut.is_some(), units > TEXT_UNITS_MAX, "{name}");
            assert_inside(&hit, name);
            if let Some(cut) = &hit.cut {
                let whole = Utf16Text((0..units).map(unit).collect());
                assert_eq!(cut.units as usize, units, "{name}");
                assert_eq!(cut.sha256, Some(Sha256::digest(whole.to_le_bytes()).into()), "{name}");
            }
        }
    }

    #[test]
    fn pieces_of_two_hits_are_merged() {
        let long = 2 * TEXT_UNITS_MAX;
        let mut first = hit(long, &[(100_000, 10), (200_000, 10)]);
        let mut second = hit(long, &[(100_300, 10), (150_000, 10)]);
        first.cut_to_limits();
        second.cut_to_limits();
        assert!(first.add_pieces(&second));
        assert!(!first.add_pieces(&second), "nothing new");
        first.rules.extend(second.rules);
        assert_inside(&first, "own");
        first.rules.remove(0);
        assert_inside(&first, "added");
        let other = hit(long + 1, &[]);
        assert!(!first.add_pieces(&other), "another text");
    }

    /// A text that was never complete can be truncated too: only available pieces are kept.
    #[test]
    fn a_text_with_gaps_is_truncated_further() {
        let long = 3 * TEXT_UNITS_MAX;
        let mut hit = hit(long, &[(1_000, 4), (300_000, 10)]);
        let held = [100..150_000, 250_000..long];
        let EventContent::ScriptBlock { text, .. } = &mut hit.content else { panic!("a script") };
        text.0 = held.iter().cloned().flatten().map(unit).collect();
        let pieces = held.iter().cloned().map(PieceV1::from).collect();
        hit.cut = Some(CutV1 { text: 0, units: long as u32, sha256: None, pieces });
        hit.cut_to_limits();
        assert_inside(&hit, "gaps");
        let cut = hit.cut.as_ref().map(|cut| (cut.units as usize, cut.sha256, cut.pieces[0].start));
        assert_eq!(cut, Some((long, None, 100)));
        assert_eq!(hit.rules[0].spans.len(), 2);
    }
}
