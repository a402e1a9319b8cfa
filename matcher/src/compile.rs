//! Compiles rules to plans: a gate over one necessary clause of each rule, and a program per rule for its candidates.

pub(crate) mod clause;
pub(crate) mod literals;
pub(crate) mod plan;
pub(crate) mod program;
pub(crate) mod spelling;
pub(crate) mod window;
