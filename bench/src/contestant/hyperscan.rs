//! Vectorscan and Hyperscan: all literals on raw bytes, and their best configuration, which is the gate literals on
//! narrowed text; narrowing is part of the measured work.

use super::{Contestant, Field, Question};
use crate::answer::Pair;
use crate::error::BenchError;
use crate::hs::{Database, Library, Needle};
use crate::narrow::narrow;
use crate::workload::{Part, Workload, text_of};

/// Maximum number of payload bytes in one pass over raw bytes.
const BYTES_MAX: u64 = 32 << 20;

pub(super) struct Hyperscan<'a> {
    workload: &'a Workload,
    part: Part,
    name: String,
    database: Database,
    narrows: bool,
    text: Vec<u8>,
}

impl<'a> Hyperscan<'a> {
    pub(super) fn raw(library: &'static Library, field: &Field<'a>) -> Result<Self, BenchError> {
        let list = &field.literals.list;
        let needles = list.iter().map(|literal| Needle { bytes: &literal.spelled, any_case: true });
        Ok(Self {
            workload: field.workload,
            part: Part::of(field.workload, BYTES_MAX),
            name: format!("{}-raw", library.name()),
            database: library.compile(needles)?,
            narrows: false,
            text: Vec::new(),
        })
    }

    pub(super) fn best(library: &'static Library, field: &Field<'a>) -> Result<Self, BenchError> {
        let list = &field.gate.literals.list;
        let needles = list.iter().map(|literal| Needle { bytes: &literal.narrowed, any_case: false });
        Ok(Self {
            workload: field.workload,
            part: Part::WHOLE,
            name: format!("{}-best", library.name()),
            database: library.compile(needles)?,
            narrows: true,
            text: Vec::new(),
        })
    }
}

impl Contestant for Hyperscan<'_> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn question(&self) -> Question {
        if self.narrows { Question::Gate } else { Question::Literals }
    }

    fn part(&self) -> Part {
        self.part
    }

    fn search(&mut self, found: &mut dyn FnMut(Pair)) {
        for (event, payload) in self.workload.part(self.part) {
            let mut text = text_of(payload);
            if self.narrows {
                narrow(text, &mut self.text);
                text = &self.text;
            }
            for &literal in self.database.scan(text) {
                found((event, literal));
            }
        }
    }
}
