//! From rules to what runs: a gate over one necessary clause of each rule, and a program for each candidate.

pub(crate) mod clause;
pub(crate) mod literals;
pub(crate) mod plan;
pub(crate) mod program;
pub(crate) mod spelling;
pub(crate) mod window;
