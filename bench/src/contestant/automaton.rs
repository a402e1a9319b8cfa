//! `aho-corasick`: all literals in one automaton, on the bytes as they are or on narrowed text.

use super::{Contestant, Field, Question};
use crate::answer::Pair;
use crate::narrow::narrow;
use crate::workload::{Part, Workload, text_of};
use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, Match};
use memchr::memmem;

/// Maximum number of payload bytes in one pass.
const BYTES_MAX: u64 = 32 << 20;
/// Maximum size of all literals in bytes for the fast and large kind of automaton; beyond, the crate chooses the kind.
const FAST_KIND_LEN_MAX: usize = 100_000;
/// Number of literals from which on some are assumed to be nested.
const NESTED_MIN: usize = 100;

pub(super) struct Automaton<'a> {
    workload: &'a Workload,
    part: Part,
    searcher: AhoCorasick,
    narrows: bool,
    /// True if a literal is contained in another one, so that both can end at the same position.
    is_nested: bool,
    text: Vec<u8>,
    /// The last event in which each literal was found.
    seen: Vec<u32>,
}

impl<'a> Automaton<'a> {
    /// Searches UTF-16LE bytes and ignores case.
    pub(super) fn raw(field: &Field<'a>) -> Self {
        Self::new(field, false)
    }

    /// Searches narrowed text; narrowing is part of the measured work.
    pub(super) fn narrowed(field: &Field<'a>) -> Self {
        Self::new(field, true)
    }

    fn new(field: &Field<'a>, narrows: bool) -> Self {
        let list = &field.literals.list;
        let needles: Vec<&[u8]> = list
            .iter()
            .map(|literal| if narrows { &literal.narrowed[..] } else { &literal.spelled[..] })
            .collect();
        let is_small = needles.iter().map(|needle| needle.len()).sum::<usize>() <= FAST_KIND_LEN_MAX;
        let within = |needle: &&[u8]| {
            let stands = |other: &&[u8]| other.len() > needle.len() && memmem::find(other, needle).is_some();
            needles.iter().any(stands)
        };
        // Among many literals some are nested.
        let is_nested = needles.len() > NESTED_MIN || needles.iter().any(within);
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(!narrows)
            // With the prefilter only where it is faster: if letters have two cases, the bytes that it searches for are frequent.
            .prefilter(narrows)
            .kind(is_small.then_some(AhoCorasickKind::DFA))
            .build(needles)
            .expect("literals of rules fit into an automaton");
        Self {
            workload: field.workload,
            part: Part::of(field.workload, BYTES_MAX),
            seen: vec![u32::MAX; automaton.patterns_len()],
            searcher: automaton,
            narrows,
            is_nested,
            text: Vec::new(),
        }
    }
}

impl Contestant for Automaton<'_> {
    fn name(&self) -> String {
        if self.narrows { "aho-corasick-narrowed" } else { "aho-corasick" }.into()
    }

    fn question(&self) -> Question {
        Question::Literals
    }

    fn part(&self) -> Part {
        self.part
    }

    fn search(&mut self, found: &mut dyn FnMut(Pair)) {
        self.seen.fill(u32::MAX);
        let unit_len = if self.narrows { 1 } else { 2 };
        for (event, payload) in self.workload.part(self.part) {
            let mut text = text_of(payload);
            if self.narrows {
                narrow(text, &mut self.text);
                text = &self.text;
            }
            let mut take = |stands: Match| {
                let seen = &mut self.seen[stands.pattern().as_usize()];
                if *seen != event && stands.start().is_multiple_of(unit_len) {
                    *seen = event;
                    found((event, stands.pattern().as_u32()));
                }
            };
            if self.is_nested {
                self.searcher.find_overlapping_iter(text).for_each(take);
                continue;
            }
            // This is faster, and sufficient if no two literals begin at the same position.
            let mut from = 0;
            while let Some(stands) = self.searcher.find(Input::new(text).range(from..)) {
                from = stands.start() + 1;
                take(stands);
            }
        }
    }
}
