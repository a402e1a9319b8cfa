//! The bound: `memchr` for a byte that no payload has reads everything once and does nothing else.

use super::Contestant;
use crate::answer::Pair;
use crate::workload::Workload;
use memchr::memchr;

pub(super) struct Absent<'a> {
    workload: &'a Workload,
    byte: u8,
}

impl<'a> Absent<'a> {
    /// `None` if every byte value occurs.
    pub(super) fn new(workload: &'a Workload) -> Option<Self> {
        Some(Self { workload, byte: absent_byte(workload.bytes())? })
    }
}

/// A byte value that does not occur.
pub(crate) fn absent_byte(bytes: &[u8]) -> Option<u8> {
    let mut occurs = [false; 256];
    for &byte in bytes {
        occurs[usize::from(byte)] = true;
    }
    (0..=u8::MAX).find(|byte| !occurs[usize::from(*byte)])
}

impl Contestant for Absent<'_> {
    fn name(&self) -> &'static str {
        "memchr-absent"
    }

    fn events(&self) -> usize {
        self.workload.len()
    }

    fn gives_verdicts(&self) -> bool {
        false
    }

    fn search(&mut self, found: &mut dyn FnMut(Pair)) {
        for (event, payload) in self.workload.payloads() {
            if memchr(self.byte, payload).is_some() {
                found((event, 0));
            }
        }
    }
}
