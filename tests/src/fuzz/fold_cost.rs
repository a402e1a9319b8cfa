//! The cost of a script in the views: the target searches for expensive scripts, and for work that is charged too little.
//!
//! The body returns the cost of the script. The target reports it to the fuzzing engine like coverage, so that the engine
//! keeps inputs that cost more than all before. Scripts found in this way are kinds of `etwsieve-bench worst`.

use super::{views, work};
use etwsieve_matcher::{EventKind, Matcher, Payload, Scratch, ViewBudget, Views, builtin};
use std::cell::RefCell;

/// Passes every prefilter.
const REASON: &[u8] = b"('a' -f 'b');[char]69;";

/// The cost of a script.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Steps of the views.
    pub steps: u64,
    /// Bytes that the views allocated, including freed ones.
    pub bytes: u64,
    /// UTF-16 units of the script.
    pub units: u64,
}

thread_local! {
    static MATCHER: RefCell<(Matcher, Scratch)> =
        RefCell::new((Matcher::new(builtin::rules()), Scratch::default()));
}

/// Runs the target.
///
/// # Panics
///
/// If the views cost more than permitted for the length of the script.
pub fn fold_cost(data: &[u8]) -> Cost {
    let bytes = views::script(&[REASON, data].concat());
    MATCHER.with_borrow_mut(|(matcher, scratch)| {
        let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes: &bytes };
        let mut budget = ViewBudget::new(bytes.len());
        let _ = matcher.find_views(&payload, Views::ALL, &[], scratch, &mut budget);
        work::assert_bounded(&budget, bytes.len());
        Cost { steps: budget.steps(), bytes: budget.bytes(), units: (bytes.len() / 2) as u64 }
    })
}
