//! The compiled rules of one kind of event.

use super::gate::Gate;
use super::program::{Check, CheckOp, Step};
use super::window::Windows;
use crate::field::Field;
use crate::scan::kernel::Isa;
use memchr::memmem;

/// Estimated memory of a compiled regular expression in bytes; the crate does not report it.
const REGEX_BYTES: usize = 16 * 1024;

/// The compiled rules of one kind of event.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) gate: Gate,
    /// Searchers for the literals whose numbers follow those of the gate.
    pub(crate) finders: Vec<memmem::Finder<'static>>,
    pub(crate) checks: Vec<Check>,
    pub(crate) programs: Vec<Program>,
    /// Programs that are candidates for every event.
    pub(crate) ungated: Vec<u32>,
    /// For each needle of the gate, the programs that become candidates by it.
    pub(crate) by_needle: Vec<Vec<u32>>,
    /// The fields on which verdicts depend.
    pub(crate) reads: Vec<Field>,
    pub(crate) isa: Isa,
}

/// A rule's program.
#[derive(Debug)]
pub(crate) struct Program {
    /// Index of the rule in the set.
    pub(crate) rule: u32,
    pub(crate) steps: Vec<Step>,
}

impl Plan {
    /// Returns the approximate memory in bytes; each regular expression counts as [`REGEX_BYTES`].
    pub(crate) fn memory(&self) -> usize {
        let of_check = |check: &Check| {
            let op = match &check.op {
                CheckOp::Glob { glob, literals } => glob.memory() + size_of_val(&literals[..]),
                CheckOp::Regex { clauses, windows, .. } => {
                    REGEX_BYTES
                        + clauses.iter().map(|clause| size_of_val(&clause[..])).sum::<usize>()
                        + windows.as_ref().map_or(0, Windows::memory)
                }
                CheckOp::Number(..) | CheckOp::Exists(_) => 0,
            };
            size_of::<Check>() + size_of_val(&check.fields[..]) + op
        };
        let of_program = |program: &Program| size_of::<Program>() + size_of_val(&program.steps[..]);
        let of_finder = |finder: &memmem::Finder<'_>| size_of_val(finder) + finder.needle().len();
        self.gate.memory()
            + self.finders.iter().map(of_finder).sum::<usize>()
            + self.checks.iter().map(of_check).sum::<usize>()
            + self.programs.iter().map(of_program).sum::<usize>()
            + self.by_needle.iter().map(|list| size_of::<Vec<u32>>() + size_of_val(&list[..])).sum::<usize>()
            + size_of_val(&self.ungated[..])
    }
}
