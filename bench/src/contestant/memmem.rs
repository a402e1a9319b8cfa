//! `memchr::memmem` on raw bytes, once for each literal. It does not ignore case, so its question is easier.

use super::{Contestant, Field, Question};
use crate::answer::Pair;
use crate::workload::{Part, Workload, text_of};
use memchr::memmem::Finder;

/// Maximum work of one pass, in payload bytes times literals.
const WORK_MAX: u64 = 2 << 30;

pub(super) struct Memmem<'a> {
    workload: &'a Workload,
    part: Part,
    finders: Vec<Finder<'static>>,
}

impl<'a> Memmem<'a> {
    pub(super) fn new(field: &Field<'a>) -> Self {
        let literals = &field.literals.list;
        Self {
            workload: field.workload,
            part: Part::of(field.workload, WORK_MAX / literals.len().max(1) as u64),
            finders: literals.iter().map(|literal| Finder::new(&literal.spelled).into_owned()).collect(),
        }
    }
}

impl Contestant for Memmem<'_> {
    fn name(&self) -> String {
        "memmem".into()
    }

    fn question(&self) -> Question {
        Question::Spelled
    }

    fn part(&self) -> Part {
        self.part
    }

    fn search(&mut self, found: &mut dyn FnMut(Pair)) {
        for (event, payload) in self.workload.part(self.part) {
            let text = text_of(payload);
            for (literal, finder) in (0..).zip(&self.finders) {
                // A match at an odd offset does not count, but a real one may follow it.
                let stands = match finder.find(text) {
                    None => false,
                    Some(at) if at % 2 == 0 => true,
                    Some(_) => finder.find_iter(text).any(|at| at % 2 == 0),
                };
                if stands {
                    found((event, literal));
                }
            }
        }
    }
}
