//! Programs: rules as a few steps over shared checks.
//!
//! The machine has one register, the verdict so far. Each check is evaluated at most once per event, however many rules
//! need it.

use super::window::Windows;
use crate::field::Field;
use crate::rule::Comparison;
use crate::scan::glob::Glob;

/// One step of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Sets the verdict to a constant.
    Set(bool),
    /// Sets the verdict to the outcome of a check.
    Check(u32),
    /// Negates the verdict.
    Not,
    /// Continues at a step if the verdict is false.
    JumpIfFalse(u32),
    /// Continues at a step if the verdict is true.
    JumpIfTrue(u32),
}

/// A compiled test.
#[derive(Debug)]
pub(crate) struct Check {
    /// The fields of which one must pass; more than one for a keyword.
    pub(crate) fields: Vec<Field>,
    pub(crate) op: CheckOp,
}

#[derive(Debug)]
pub(crate) enum CheckOp {
    /// A pattern, with the numbers of literals without which it cannot match.
    Glob {
        glob: Glob,
        literals: Vec<u32>,
    },
    /// A regular expression on the decoded text, or on its windows if it has any. One literal of each clause must occur
    /// in the text.
    Regex {
        regex: Box<regex::Regex>,
        clauses: Vec<Vec<u32>>,
        windows: Option<Windows>,
    },
    Number(Comparison, i64),
    Exists(bool),
}

/// Runs a program; `check` returns the outcome of a check.
pub(crate) fn run(steps: &[Step], mut check: impl FnMut(u32) -> bool) -> bool {
    let mut verdict = false;
    let mut at = 0;
    while let Some(step) = steps.get(at) {
        at += 1;
        match *step {
            Step::Set(value) => verdict = value,
            Step::Check(number) => verdict = check(number),
            Step::Not => verdict = !verdict,
            Step::JumpIfFalse(to) if !verdict => at = to as usize,
            Step::JumpIfTrue(to) if verdict => at = to as usize,
            Step::JumpIfFalse(_) | Step::JumpIfTrue(_) => {}
        }
    }
    verdict
}
