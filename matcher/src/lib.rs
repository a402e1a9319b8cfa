//! Matches Sigma rules against raw PowerShell event payloads.
//!
//! The crate deals with bytes and rules only: it reads no files, no clock, no environment and no event source. [`load`]
//! parses rules and explains what is wrong with those that it rejects, [`Matcher`] compiles rules and searches
//! payloads, and [`naive`] is the slow reference implementation that tests compare it with.
//!
//! ```
//! use etwsieve_matcher::{EventKind, Matcher, Payload, Scratch, builtin};
//!
//! let matcher = Matcher::new(builtin::rules());
//! let text = "Enter-PSSession -ComputerName srv01\0dfb3f1a8-2a9d-4d0e-8f0e-6f3c6f2f5a11\0\0";
//! let mut bytes = vec![1, 0, 0, 0, 1, 0, 0, 0];
//! bytes.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
//!
//! let mut scratch = Scratch::default();
//! let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes: &bytes };
//! assert_eq!(matcher.find(&payload, &mut scratch), [0]);
//! ```
//!
//! There are scanners for several instruction sets, selected when rules are compiled: the best one that the processor
//! supports, or the one that the caller asks for. See [`Kernel`].
#![deny(unsafe_code)]
// The only unsafe code is in the vector code of the scanners, `scan/x86.rs` and `scan/*/x86.rs`.

pub mod amsi;
pub mod block;
pub mod builtin;
mod cmdlet;
mod compile;
mod engine;
mod error;
mod field;
mod frequency;
mod hash;
mod matcher;
pub mod naive;
pub mod pattern;
mod payload;
pub mod rule;
mod scan;
mod view;
mod yaml;

pub use engine::cost::{Clock, CostMeter, RuleCost};
pub use engine::spans::{SPANS_MAX, Span};
pub use error::{Problem, RuleError};
pub use field::{EventKind, EventKinds, Field, Fields};
pub use matcher::repeats::Repeats;
pub use matcher::{Counts, Matcher, Scratch};
pub use payload::{Payload, Place};
pub use rule::identity::DERIVED_ID_PREFIX;
pub use rule::load::load;
pub use rule::loaded::Loaded;
pub use rule::report::{file_bytes_max, file_steps_max};
pub use rule::{Calls, Origin, Rule};
pub use scan::kernel::{KERNEL_VARIABLE, Kernel, KernelError};
pub use view::{Transformation, View, ViewBudget, ViewMatch, Views};
pub use yaml::RULE_FILE_LEN_MAX;

#[cfg(test)]
pub(crate) mod testing {
    use crate::{KERNEL_VARIABLE, Kernel, Matcher, Rule};

    /// Compiles rules for the kernel that the environment names, so that the tests can be run once per kernel.
    pub(crate) fn compile(rules: Vec<Rule>) -> Matcher {
        let name = std::env::var_os(KERNEL_VARIABLE).unwrap_or_default();
        Matcher::with_kernel(rules, Kernel::select(&name).expect("the environment names a kernel"))
    }
}
