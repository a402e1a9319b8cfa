//! Scanners: narrowing, multi-needle search and wildcard patterns, one algorithm per file.

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

/// Sizes of test inputs. Miri runs thousands of times slower and gets a sample.
#[cfg(test)]
pub(crate) mod sample {
    use proptest::prelude::ProptestConfig;
    use std::iter::StepBy;

    /// Number of random inputs of a test under Miri.
    const MIRI_CASES: u32 = 3;

    /// Returns a configuration with this many random inputs and no files for failures.
    pub(crate) fn cases(cases: u32) -> ProptestConfig {
        let cases = if cfg!(miri) { MIRI_CASES } else { cases };
        ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
    }

    /// Returns all items, or every `step`th under Miri.
    pub(crate) fn every<I: Iterator>(items: I, step: usize) -> StepBy<I> {
        items.step_by(if cfg!(miri) { step } else { 1 })
    }
}
