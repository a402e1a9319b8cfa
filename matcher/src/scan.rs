//! Scanners: narrowing, the gate over many needles, wildcard patterns. One algorithm a file.

pub(crate) mod bigram;
mod buckets;
pub(crate) mod gate;
pub(crate) mod glob;
pub(crate) mod kernel;
pub(crate) mod lanes;
pub(crate) mod marks;
pub(crate) mod narrow;
pub(crate) mod pairs;
pub(crate) mod teddy;
pub(crate) mod words;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;
