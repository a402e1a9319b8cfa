//! Sigma rules in, verdicts on raw PowerShell event payloads out.
//!
//! Bytes and rules, nothing else: no files, no clock, no event source. [`load`] understands rules or says why
//! not, [`Matcher`] compiles them and searches payloads, [`naive`] is the slow twin that the tests hold against
//! it.
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
//! The scanners come in several kernels, chosen by processor when rules are compiled; the environment variable
//! `ETWSIEVE_KERNEL` (portable, sse2, avx2, avx512) forces one. See [`Kernel`].
#![deny(unsafe_code)]
// The kernels hold the only unsafe code: `scan/x86`.

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

    /// Compiles rules for the kernel that the environment names, so that one run of the tests can be had for each.
    pub(crate) fn compile(rules: Vec<Rule>) -> Matcher {
        let name = std::env::var_os(KERNEL_VARIABLE).unwrap_or_default();
        Matcher::with_kernel(rules, Kernel::select(&name).expect("the environment names a kernel"))
    }
}
