//! What may be given up of a fragment without changing a verdict.
//!
//! Where room runs out, a fragment in which no literal of any rule stands is reduced to its two ends. The verdicts on
//! the whole stay the same, since for every test of the script
//!
//! * a pattern of plain text holds where its literals stand, in their order: none stands in what is left out, and one
//!   that crosses into the fragment ends within the [end](TrimPlan::units), which is longer than any literal;
//! * a pattern with one other segment (`?`, signs that are not ASCII, upper and lower case apart) and a regular
//!   expression of bounded length contain a literal wherever they match, so that they reach into the fragment no
//!   further than their own length;
//! * for any other test (an expression that goes on as far as it likes, `.*`, or one without a literal) the text
//!   between could matter: with such a rule nothing is left out.
//!
//! What is left out becomes a [`GAP`](super::GAP), in which no literal stands.

use super::GAP;
use super::open::{Kept, StoredFragment};
use super::search::{BlockMatcher, BlockScratch};
use crate::engine::gate::Gate;
use crate::engine::plan::Plan;
use crate::engine::program::CheckOp;
use crate::field::Field;

/// A test that may reach further than so many units into a fragment keeps it whole.
const REACH_MAX: usize = 1024;
/// Units that must be left out at least, so that it is worth it.
const LEFT_OUT_MIN: usize = 256;

/// How fragments without a literal may be reduced.
#[derive(Debug)]
pub(crate) struct TrimPlan {
    /// Units that are kept at either end.
    pub(crate) units: usize,
    /// The literals that the gate of the plan does not look for.
    literals: Gate,
}

impl TrimPlan {
    /// `None` if some rule may need more than the ends.
    pub(crate) fn new(plan: &Plan) -> Option<Self> {
        let mut units = 0;
        for check in plan.checks.iter().filter(|check| check.fields.contains(&Field::ScriptBlockText)) {
            let reach = match &check.op {
                CheckOp::Glob { glob, literals } => glob.reach(!literals.is_empty())?,
                CheckOp::Regex { regex, clauses, .. } => {
                    let hir = regex_syntax::parse(regex.as_str()).ok()?;
                    // Bytes of UTF-8, of which a unit is at least one; and a neighbour that it may look at.
                    let len = hir.properties().maximum_len().filter(|_| !clauses.is_empty())?;
                    len + 2
                }
                CheckOp::Number(..) | CheckOp::Exists(_) => 0,
            };
            units = units.max(reach);
        }
        let rest: Vec<Box<[u8]>> = plan.finders.iter().map(|finder| finder.needle().into()).collect();
        let all = || rest.iter().map(|literal| &literal[..]).chain(plan.gate.needles());
        // A literal that stands in a gap would be found there.
        let is_of_gap = |literal: &[u8]| literal.contains(&0) || literal == b"\n";
        if all().any(is_of_gap) {
            return None;
        }
        units = all().map(<[u8]>::len).max().unwrap_or(0).max(units);
        (units <= REACH_MAX).then(|| Self { units, literals: Gate::new(rest, plan.isa) })
    }
}

impl StoredFragment {
    /// Reduces the part to its ends if no rule needs the rest, and to its text otherwise; says whether it did.
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
