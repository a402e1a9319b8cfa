//! The search of a joined block, based on the searches of its fragments.

use super::GAP;
use super::joined::{Joined, follows};
use super::open::{Closed, Kept, StoredFragment};
use super::trim::TrimPlan;
use crate::engine::TextScratch;
use crate::engine::cost::NoMeter;
use crate::engine::gate::{Found, Gate, NOWHERE};
use crate::engine::plan::Plan;
use crate::engine::run::Evaluation;
use crate::field::EventKind;
use crate::scan::narrow::Narrowed;
use etwsieve_budget::Budget;
use std::sync::OnceLock;

/// Memory that joined blocks need in addition.
#[derive(Debug, Default)]
pub(crate) struct BlockScratch {
    /// The needles in the joined text.
    found: Found,
    /// The units around a border.
    border: Vec<[u8; 2]>,
    narrowed: Narrowed,
    /// The needles found around a border.
    near: Found,
}

impl BlockScratch {
    /// Returns true if the text contains a literal.
    pub(super) fn holds_any(&mut self, literals: &Gate, text: &[[u8; 2]]) -> bool {
        self.narrowed.begin();
        literals.scan(text, &mut self.narrowed, &mut self.near);
        !self.near.list().is_empty()
    }
}

/// The rules and plans that blocks need of a matcher.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockMatcher<'a> {
    /// The rules for script blocks.
    pub(crate) plan: &'a Plan,
    /// Identifies the matcher among all others of the process.
    pub(crate) identity: u64,
    /// The way in which fragments may be trimmed; made when memory first runs out.
    pub(crate) trim_plan: &'a OnceLock<Option<TrimPlan>>,
}

impl<'a> BlockMatcher<'a> {
    /// Returns how fragments may be trimmed; `None` if they may not be.
    pub(crate) fn trim_plan(self) -> Option<&'a TrimPlan> {
        self.trim_plan.get_or_init(|| TrimPlan::new(self.plan)).as_ref()
    }

    /// Returns the rules that match the joined block and were not reported for one of its fragments, ascending. If
    /// there are any, `joined` contains the block afterwards.
    pub(crate) fn find_joined<'s, T>(
        self,
        closed: &Closed<T>,
        text: &'s mut TextScratch,
        scratch: &mut BlockScratch,
        joined: &mut Joined,
    ) -> &'s [u32] {
        let block = &closed.block;
        let (parts, reported) = (&block.parts[..], &block.reported[..]);
        text.matched.clear();
        let plan = self.plan;
        // A single fragment shows nothing that its own event has not shown.
        if plan.programs.is_empty() || parts.len() < 2 {
            return &[];
        }
        let others = std::iter::once(&*block.id).chain(block.path.as_deref());
        self.gather(parts, others, scratch);
        let gated = scratch.found.list().iter().flat_map(|&needle| &plan.by_needle[needle as usize]);
        let mut candidates = plan.ungated.iter().chain(gated);
        if candidates.all(|&program| reported.binary_search(&plan.programs[program as usize].rule).is_ok()) {
            return &[];
        }
        closed.join(joined);
        let units = joined.bytes()[EventKind::ScriptBlock.text_offset()..].as_chunks().0;
        text.narrowed.begin();
        text.memo.begin(plan);
        let run = Evaluation {
            plan,
            units,
            fields: joined.fields(),
            narrow: text.narrowed.of(units, plan.isa),
            found: &scratch.found,
            memo: &mut text.memo,
            budget: &mut Budget::new(u64::MAX, u64::MAX),
        };
        run.candidates(reported, &mut text.matched, &mut NoMeter);
        text.matched.sort_unstable();
        if units.len() > BIG_UNITS {
            text.narrowed.shrink_to(BIG_UNITS);
            text.memo.shrink_to(BIG_UNITS);
        }
        &text.matched
    }

    /// Collects the needles of the gate in the joined text: those found in each fragment, and those around the borders.
    fn gather<'b>(
        self,
        parts: &[StoredFragment],
        others: impl IntoIterator<Item = &'b [u8]>,
        scratch: &mut BlockScratch,
    ) {
        let gate = &self.plan.gate;
        let BlockScratch { found, border, narrowed, near } = scratch;
        found.clear(gate.len());
        // A needle that crosses a border has at least one unit on either side.
        let reach = gate.longest().saturating_sub(1);
        border.clear();
        let (mut offset, mut before, mut is_anew) = (0, None, false);
        for part in parts {
            if !follows(before, part.number) {
                offset += GAP.len();
                border.clear();
            }
            before = Some(part.number);
            let text: &[[u8; 2]] = part.text().as_chunks().0;
            let tail = border.len();
            if tail > 0 && reach > 0 {
                border.extend_from_slice(&text[..text.len().min(reach)]);
                narrowed.begin();
                gate.scan(border, narrowed, near);
                near.each(|needle, place| found.insert(needle, offset - tail + place));
                border.truncate(tail);
            }
            if let Some(list) = &part.found {
                for &(needle, place) in list {
                    let end = place as usize + gate.needle_len(needle);
                    // The position is outside the text, but the needle may occur in the text as well.
                    let place = if end <= text.len() { offset + place as usize } else { NOWHERE };
                    found.insert(needle, place);
                }
            } else {
                is_anew = true;
                narrowed.begin();
                gate.scan(text, narrowed, near);
                let has_gap = matches!(part.kept, Kept::Ends { .. });
                near.each(|needle, place| {
                    found.insert(needle, if has_gap { NOWHERE } else { offset + place });
                });
            }
            match part.kept {
                Kept::Whole | Kept::Needed => {
                    offset += text.len();
                    keep_last(border, text, reach);
                }
                Kept::Ends { end_units, .. } => {
                    offset += text.len() + GAP.len();
                    border.clear();
                    keep_last(border, &text[end_units..], reach);
                }
            }
        }
        // Id and path were searched for the needles of the old rules only.
        for text in others.into_iter().filter(|_| is_anew) {
            narrowed.begin();
            gate.scan(text.as_chunks().0, narrowed, near);
            near.each(|needle, _| found.insert(needle, NOWHERE));
        }
    }
}

/// The memory of longer texts, in units, is released after the search.
const BIG_UNITS: usize = 1 << 19;

fn keep_last(border: &mut Vec<[u8; 2]>, text: &[[u8; 2]], reach: usize) {
    if text.len() >= reach {
        border.clear();
        border.extend_from_slice(&text[text.len() - reach..]);
    } else {
        border.extend_from_slice(text);
        border.drain(..border.len() - reach.min(border.len()));
    }
}
