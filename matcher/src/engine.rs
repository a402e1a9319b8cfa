//! The search of one text: a gate finds needles, and the programs of the rules that they make candidates decide.
//!
//! Nothing here knows of blocks or views: [`block`](crate::block) and [`view`](crate::view) use the engine for the texts
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
    /// The matcher whose needles `found` holds, those of the payload searched last; 0 if that is not so.
    pub(crate) found_by: u64,
    pub(crate) memo: TextMemo,
    pub(crate) matched: Vec<u32>,
}

impl TextScratch {
    /// The needles of the payload that was searched last, if it was searched by this matcher.
    pub(crate) fn found_of(&self, matcher: u64) -> Option<&Found> {
        (self.found_by == matcher).then_some(&self.found)
    }
}
