//! The bounds: a contestant that reads every byte, and one that copies it, do less work than any search.

use super::{Contestant, Question};
use crate::answer::Pair;
use crate::workload::Workload;
use memchr::memchr;
use std::hint::black_box;

/// `memchr` for a byte that occurs in no payload.
pub(super) struct Absent<'a> {
    workload: &'a Workload,
    byte: u8,
}

impl<'a> Absent<'a> {
    /// Returns `None` if every byte value occurs.
    pub(super) fn new(workload: &'a Workload) -> Option<Self> {
        Some(Self { workload, byte: absent_byte(workload.bytes())? })
    }
}

/// Returns a byte value that does not occur.
pub(crate) fn absent_byte(bytes: &[u8]) -> Option<u8> {
    let mut occurs = [false; 256];
    for &byte in bytes {
        occurs[usize::from(byte)] = true;
    }
    (0..=u8::MAX).find(|byte| !occurs[usize::from(*byte)])
}

impl Contestant for Absent<'_> {
    fn name(&self) -> String {
        "memchr-absent".into()
    }

    fn question(&self) -> Question {
        Question::Bound
    }

    fn search(&mut self, found: &mut dyn FnMut(Pair)) {
        for (event, payload) in self.workload.payloads() {
            if memchr(self.byte, payload).is_some() {
                found((event, 0));
            }
        }
    }
}

/// Copies each payload into one buffer.
pub(super) struct Copy<'a> {
    workload: &'a Workload,
    buffer: Vec<u8>,
}

impl<'a> Copy<'a> {
    pub(super) fn new(workload: &'a Workload) -> Self {
        let longest = workload.payloads().map(|(_, payload)| payload.len()).max();
        Self { workload, buffer: vec![0; longest.unwrap_or(0)] }
    }
}

impl Contestant for Copy<'_> {
    fn name(&self) -> String {
        "memcpy".into()
    }

    fn question(&self) -> Question {
        Question::Bound
    }

    fn search(&mut self, _found: &mut dyn FnMut(Pair)) {
        for (_, payload) in self.workload.payloads() {
            self.buffer[..payload.len()].copy_from_slice(payload);
            black_box(self.buffer.as_slice());
        }
    }
}
