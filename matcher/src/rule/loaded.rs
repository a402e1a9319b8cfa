//! The result of loading rule files.

use crate::error::RuleError;
use crate::rule::Rule;

/// The result of loading a set of rule files.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The rules, in the order of the files, with the filters applied.
    pub rules: Vec<Rule>,
    /// All reasons why rules and filters were rejected. A rejected filter changes no rule.
    pub errors: Vec<RuleError>,
    /// Warnings about rules that are loaded and filters that are applied.
    pub warnings: Vec<RuleError>,
    /// Number of rules and filters that were rejected. One may have several errors.
    pub refused: usize,
    /// Number of rules, correlation rules and filters for events that this sensor does not read. They are skipped.
    pub other_log_sources: usize,
    /// Number of filters applied.
    pub filters: usize,
    /// Work done, in steps of a [`Budget`](etwsieve_budget::Budget).
    pub steps: u64,
    /// Memory charged, in bytes.
    pub bytes: u64,
}
