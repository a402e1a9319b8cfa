//! Searching bytes: narrowing, the gate over all needles, and single patterns.

pub(crate) mod gate;
pub(crate) mod glob;
pub(crate) mod grams;
pub(crate) mod narrow;
