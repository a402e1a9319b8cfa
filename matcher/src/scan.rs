//! Scanners: narrowing, the gate over many needles, wildcard patterns. One algorithm a file.

pub(crate) mod bigram;
mod buckets;
pub(crate) mod glob;
pub(crate) mod gram_filter;
pub(crate) mod kernel;
pub(crate) mod lanes;
pub(crate) mod narrow;
pub(crate) mod pairs;
pub(crate) mod teddy;
pub(crate) mod triggers;
#[cfg(target_arch = "x86_64")]
mod x86;

/// Sizes of the tests. Miri runs thousands of times slower and gets a sample of what the others get.
#[cfg(test)]
pub(crate) mod sample {
    use proptest::prelude::ProptestConfig;
    use std::iter::StepBy;

    /// Random inputs of a test under Miri.
    const MIRI_CASES: u32 = 3;

    /// A configuration with this many random inputs, and no files for failures.
    pub(crate) fn cases(cases: u32) -> ProptestConfig {
        let cases = if cfg!(miri) { MIRI_CASES } else { cases };
        ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
    }

    /// All items, or every `step`th under Miri.
    pub(crate) fn every<I: Iterator>(items: I, step: usize) -> StepBy<I> {
        items.step_by(if cfg!(miri) { step } else { 1 })
    }
}
