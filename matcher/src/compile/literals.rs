//! Literals of a plan, numbered so that each is searched at most once per event.
//!
//! The needles of the gate come first: the gate finds out which of them occur in a text. The others are searched when a
//! candidate first needs them.

use memchr::memmem;
use std::collections::HashMap;

/// Assigns numbers to literals while rules are compiled.
#[derive(Debug, Default)]
pub(crate) struct LiteralTable {
    numbers: HashMap<Box<[u8]>, u32>,
    list: Vec<Box<[u8]>>,
    gate: u32,
}

impl LiteralTable {
    /// Returns the number of a literal, given in narrowed form.
    pub(crate) fn number(&mut self, literal: Box<[u8]>) -> u32 {
        let next = self.list.len() as u32;
        let list = &mut self.list;
        *self.numbers.entry(literal).or_insert_with_key(|literal| {
            list.push(literal.clone());
            next
        })
    }

    /// Makes the literals numbered so far the needles of the gate.
    pub(crate) fn close_gate(&mut self) {
        self.gate = self.list.len() as u32;
    }

    /// Returns true if the gate searches for this literal.
    pub(crate) fn is_gate(&self, literal: &[u8]) -> bool {
        self.numbers.get(literal).is_some_and(|&number| number < self.gate)
    }

    /// Returns the needles of the gate, and searchers for the other literals.
    pub(crate) fn finish(self) -> (Vec<Box<[u8]>>, Vec<memmem::Finder<'static>>) {
        let mut gate = self.list;
        let rest = gate.split_off(self.gate as usize);
        (gate, rest.iter().map(|literal| memmem::Finder::new(literal).into_owned()).collect())
    }
}
