//! The search of one text: a gate finds needles, and the programs of candidate rules decide.
//!
//! The engine knows neither blocks nor views: [`block`](crate::block) and [`view`](crate::view) use it for the texts
//! that they make.

pub(crate) mod cost;
pub(crate) mod gate;
pub(crate) mod plan;
pub(crate) mod program;
pub(crate) mod run;
pub(crate) mod spans;
pub(crate) mod window;

use crate::scan::narrow::Narrowed;
use gate::Found;
use run::TextMemo;

/// Memory that one thread reuses from text to text.
#[derive(Debug, Default)]
pub(crate) struct TextScratch {
    pub(crate) narrowed: Narrowed,
    pub(crate) found: Found,
    /// Identity of the matcher to which `found` belongs; 0 if it does not belong to the payload searched last.
    pub(crate) found_by: u64,
    pub(crate) memo: TextMemo,
    pub(crate) matched: Vec<u32>,
}

impl TextScratch {
    /// Returns the needles of the payload searched last, if this matcher searched it.
    pub(crate) fn found_of(&self, matcher: u64) -> Option<&Found> {
        (self.found_by == matcher).then_some(&self.found)
    }
}
