//! Views: texts that PowerShell would make of a script, searched where the script as recorded did not match.
//!
//! [`Matcher::views_could_differ`](crate::Matcher::views_could_differ) is the prefilter, and
//! [`Matcher::find_views`](crate::Matcher::find_views) the search. A view never executes anything; the texts that it
//! makes are bounded in size, depth and work.

mod call;
mod chars;
mod fold;
mod light;
mod mapped;
pub(crate) mod prefilter;
pub(crate) mod search;
mod transformation;
mod views;
mod work;

pub use transformation::Transformation;
pub use views::{View, ViewMatch, Views};
pub use work::ViewBudget;

use crate::compile::plan::compile;
use crate::engine::plan::Plan;
use crate::field::EventKind;
use crate::rule::{Calls, Rule};
use crate::scan::kernel::Isa;
use call::Names;
use prefilter::Prefilter;

/// Returns true if events of this kind contain scripts.
pub(crate) fn has_views(kind: EventKind) -> bool {
    matches!(kind, EventKind::ScriptBlock | EventKind::Amsi)
}

/// Memory that views need in addition to that for searching a text.
#[derive(Debug, Default)]
pub(crate) struct ViewScratch {
    /// The payload of a view.
    made: Vec<u8>,
    /// The narrowed text of a view.
    names: Vec<u8>,
}

/// The rules and plans that views need of a matcher.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ViewMatcher<'a> {
    pub(crate) rules: &'a [Rule],
    /// The rules for the kind of the event.
    pub(crate) plan: &'a Plan,
    pub(crate) views: &'a ViewPlan,
}

/// The compiled rules for views.
#[derive(Debug)]
pub(crate) struct ViewPlan {
    pub(crate) prefilter: Prefilter,
    /// The rules of the call-aware view.
    pub(crate) calls: Plan,
    /// The base of each rule, if the set contains it.
    pub(crate) bases: Vec<Option<u32>>,
}

impl ViewPlan {
    /// Compiles rules; `plan` is that of script blocks in the raw view.
    pub(crate) fn new(rules: &[Rule], plan: &Plan, isa: Isa) -> Self {
        let calls = compile(EventKind::ScriptBlock, rules, isa, |rule| rule.calls != Calls::No);
        let number = |id: &str| rules.iter().position(|rule| rule.id == id).map(|at| at as u32);
        let base = |rule: &Rule| if rule.base.is_empty() { None } else { number(&rule.base) };
        let bases = rules.iter().map(base).collect();
        let prefilter = Prefilter::new(rules, Names::of(rules), [plan, &calls]);
        Self { prefilter, calls, bases }
    }

    /// Returns true if any rule is searched in the call-aware view.
    pub(crate) fn has_calls(&self) -> bool {
        !self.calls.programs.is_empty()
    }

    /// Returns the rule whose match makes a call-aware match of this one redundant.
    fn base(&self, rule: u32) -> Option<u32> {
        self.bases.get(rule as usize).copied().flatten()
    }
}
