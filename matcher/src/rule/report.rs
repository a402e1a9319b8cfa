//! Problems of a rule file, collected while it is read, with the budget for reading it.

use crate::error::{Located, PROBLEMS_MAX, Position, Problem};
use crate::rule::suggest;
use etwsieve_budget::{Budget, Exhausted};

/// Maximum number of misspelled words per file for which a suggestion is searched.
const SUGGESTIONS_MAX: usize = 200;

/// Returns the maximum work for a rule file of this many bytes, in steps.
pub const fn file_steps_max(len: usize) -> u64 {
    FILE_STEPS_BASE + FILE_STEPS_PER_BYTE * len as u64
}

/// Returns the maximum memory of the rules in a file of this many bytes, in bytes.
pub const fn file_bytes_max(len: usize) -> u64 {
    FILE_BYTES_BASE + FILE_BYTES_PER_BYTE * len as u64
}

/// Steps that any rule file may cost: one value with `windash` and `base64offset` expands to 1,875 values.
const FILE_STEPS_BASE: u64 = 64 << 20;
/// Additional steps per byte of the file.
const FILE_STEPS_PER_BYTE: u64 = 256;
/// Memory that the rules of any file may take. A compiled regular expression takes up to 1 MiB of it.
const FILE_BYTES_BASE: u64 = 32 << 20;
/// Additional memory per byte of the file.
const FILE_BYTES_PER_BYTE: u64 = 64;

/// The problems of one file, and its budget.
#[derive(Debug)]
pub(crate) struct Report<'b> {
    pub(crate) errors: Vec<Located>,
    pub(crate) warnings: Vec<Located>,
    pub(crate) budget: Budget<'b>,
    /// Number of problems that are not listed.
    pub(crate) more: usize,
    suggestions: usize,
}

impl<'b> Report<'b> {
    pub(crate) fn new(budget: Budget<'b>) -> Self {
        Self { errors: Vec::new(), warnings: Vec::new(), budget, more: 0, suggestions: 0 }
    }

    /// Returns the number of errors, including those that are not listed, for [`Report::failed_since`].
    pub(crate) fn mark(&self) -> usize {
        self.errors.len() + self.more
    }

    /// Returns true if there have been errors since [`mark`](Self::mark) returned this.
    pub(crate) fn failed_since(&self, mark: usize) -> bool {
        self.mark() > mark
    }

    pub(crate) fn error(&mut self, at: Position, problem: Problem) {
        if self.errors.len() < PROBLEMS_MAX {
            self.errors.push((at, problem));
        } else {
            self.more += 1;
        }
    }

    pub(crate) fn warn(&mut self, at: Position, problem: Problem) {
        if self.warnings.len() < PROBLEMS_MAX {
            self.warnings.push((at, problem));
        }
    }

    /// Reports an error, or returns the value.
    pub(crate) fn take<T>(&mut self, result: Result<T, Located>) -> Option<T> {
        result.map_err(|(at, problem)| self.error(at, problem)).ok()
    }

    /// Returns the known word that is most similar to `word`, if it is similar enough.
    pub(crate) fn nearest<'k>(
        &mut self,
        word: &str,
        known: impl IntoIterator<Item = &'k str>,
    ) -> Option<&'k str> {
        if self.suggestions == SUGGESTIONS_MAX {
            return None;
        }
        self.suggestions += 1;
        suggest::nearest(word, known)
    }

    /// Charges work before it is done.
    pub(crate) fn charge(&mut self, at: Position, steps: usize) -> Result<(), Located> {
        self.budget.charge(steps).map_err(|error| (at, exhausted(error)))
    }

    /// Charges memory before it is allocated.
    pub(crate) fn allocate(&mut self, at: Position, bytes: usize) -> Result<(), Located> {
        self.budget.allocate(bytes).map_err(|error| (at, exhausted(error)))
    }
}

fn exhausted(error: Exhausted) -> Problem {
    match error {
        Exhausted::Memory => {
            Problem::TooLarge { what: "memory of the file's rules, in bytes", max: FILE_BYTES_BASE as usize }
        }
        Exhausted::Steps | Exhausted::Stopped => {
            Problem::TooLarge { what: "work for the file, in steps", max: FILE_STEPS_BASE as usize }
        }
    }
}
