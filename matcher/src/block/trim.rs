//! Trims fragments without changing a verdict.
//!
//! When memory runs out, a fragment that contains no literal of any rule is reduced to its two ends. This does not
//! change the verdict on the block, because for every test of the script
//!
//! * a pattern of plain text matches where its literals occur, in order. None of them occurs in the removed text, and
//!   one that reaches into the fragment ends within the [end](TrimPlan::units), which is longer than any literal;
//! * a pattern with a single segment of another kind (with `?`, with characters that are not ASCII, or case-sensitive)
//!   and a regular expression of bounded length contain a literal wherever they match, so they reach into the fragment
//!   no further than their own length;
//! * for any other test, such as an expression with `.*` or one without a literal, the removed text could matter: if
//!   there is such a rule, nothing is trimmed.
//!
//! The removed text becomes a [`GAP`](super::GAP), which contains no literal.

use super::GAP;
use super::open::{Kept, StoredFragment};
use super::search::{BlockMatcher, BlockScratch};
use crate::engine::gate::Gate;
use crate::engine::plan::Plan;
use crate::engine::program::CheckOp;
use crate::field::Field;

/// Maximum reach of a test into a fragment, in units. Tests that may reach further prevent trimming.
const REACH_MAX: usize = 1024;
/// Minimum number of units to remove; below it trimming is not worthwhile.
const LEFT_OUT_MIN: usize = 256;

/// The way in which fragments without a literal may be trimmed.
#[derive(Debug)]
pub(crate) struct TrimPlan {
    /// Units kept at either end.
    pub(crate) units: usize,
    /// The literals that the gate of the plan does not search for.
    literals: Gate,
}

impl TrimPlan {
    /// Returns `None` if some rule may need more than the ends.
    pub(crate) fn new(plan: &Plan) -> Option<Self> {
        let mut units = 0;
        for check in plan.checks.iter().filter(|check| check.fields.contains(&Field::ScriptBlockText)) {
            let reach = match &check.op {
                CheckOp::Glob { glob, literals } => glob.reach(!literals.is_empty())?,
                CheckOp::Regex { regex, clauses, .. } => {
                    let hir = regex_syntax::parse(regex.as_str()).ok()?;
                    // The length is in bytes of UTF-8, and a unit takes at least one. A match may also depend on the
                    // character beside it.
                    let len = hir.properties().maximum_len().filter(|_| !clauses.is_empty())?;
                    len + 2
                }
                CheckOp::Number(..) | CheckOp::Exists(_) => 0,
            };
            units = units.max(reach);
        }
        let rest: Vec<Box<[u8]>> = plan.finders.iter().map(|finder| finder.needle().into()).collect();
        let all = || rest.iter().map(|literal| &literal[..]).chain(plan.gate.needles());
        // Such a literal would be found in a gap.
        let is_of_gap = |literal: &[u8]| literal.contains(&0) || literal == b"\n";
        if all().any(is_of_gap) {
            return None;
        }
        units = all().map(<[u8]>::len).max().unwrap_or(0).max(units);
        (units <= REACH_MAX).then(|| Self { units, literals: Gate::new(rest, plan.isa) })
    }
}

impl StoredFragment {
    /// Reduces the fragment to its ends if no rule needs the rest, and to its text otherwise. Returns true in the first
    /// case.
    pub(super) fn trim(&mut self, matcher: BlockMatcher<'_>, scratch: &mut BlockScratch) -> bool {
        let is_trimmed = self.reduce_to_ends(matcher, scratch).is_some();
        if !is_trimmed {
            self.kept = Kept::Needed;
            // The buffer may be twice as long as the event.
            if self.bytes.capacity() > self.text.len() + self.text.len() / 8 {
                self.bytes = self.text().to_vec();
                self.text = 0..self.bytes.len();
            }
        }
        is_trimmed
    }

    fn reduce_to_ends(&mut self, matcher: BlockMatcher<'_>, scratch: &mut BlockScratch) -> Option<()> {
        let trim_plan = matcher.trim_plan()?;
        let text: &[[u8; 2]] = self.text().as_chunks().0;
        let (units, end_units) = (text.len(), trim_plan.units);
        if units < 2 * end_units + GAP.len() + LEFT_OUT_MIN || !self.found.as_ref()?.is_empty() {
            return None;
        }
        if scratch.holds_any(&trim_plan.literals, text) {
            return None;
        }
        let kept = [&text[..end_units], &text[units - end_units..]].concat();
        self.bytes = kept.concat();
        self.text = 0..self.bytes.len();
        self.kept = Kept::Ends { units, end_units, is_known: true };
        Some(())
    }
}
