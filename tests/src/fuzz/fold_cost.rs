//! The cost of a script in the views: the target looks for scripts that cost much, and for work that is charged too little.
//!
//! The body returns the script's cost, which the target tells the fuzzing engine as if it were coverage, so that inputs
//! are kept that cost more than any before. Scripts that were found so are kinds of `etwsieve-bench worst`.

use super::{views, work};
use etwsieve_matcher::{EventKind, Matcher, Payload, Scratch, ViewBudget, Views, builtin};
use std::cell::RefCell;

/// What no prefilter passes by.
const REASON: &[u8] = b"('a' -f 'b');[char]69;";

/// What a script costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Steps of the views.
    pub steps: u64,
    /// Bytes that they allocated, freed ones included.
    pub bytes: u64,
    /// UTF-16 units of the script.
    pub units: u64,
}

thread_local! {
    static MATCHER: RefCell<(Matcher, Scratch)> =
        RefCell::new((Matcher::new(builtin::rules()), Scratch::default()));
}

/// The body of the target.
///
/// # Panics
///
/// If the views cost more than the length of the script allows.
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
