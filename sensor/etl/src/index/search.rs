//! Searches for the next plausible header that is followed by another one.

use crate::buffer::{BUFFER_HEADER_LEN, BUFFER_LEN_MAX, BufferHeader};
use crate::bytes::all_zero;
use crate::source::{Bytes, Window};
use etwsieve_budget::{Budget, Exhausted};

/// Steps of checking a plausible header and the next one.
const CANDIDATE_STEPS: usize = 96;
/// Number of bytes that are searched and charged at a time. Small, because a search often ends soon.
const BLOCK_LEN: usize = 256;

/// A search that continues where the previous one ended.
///
/// Its result does not depend on the reader's position, so it remains valid, and no byte has to be searched twice.
pub(super) struct Search<'a> {
    pub(super) window: Window<'a>,
    pub(super) pattern: HeaderPattern,
    /// No matching header starts in `clean_from..at`.
    clean_from: u64,
    at: u64,
    /// A matching header starts at `at`.
    is_found: bool,
}

/// The values that all headers of a file have in common.
#[derive(Clone, Copy)]
pub(super) struct HeaderPattern {
    pub(super) logger_id: u16,
    pub(super) filled_max: u32,
}

impl HeaderPattern {
    pub(super) fn is_plausible(self, header: &BufferHeader) -> bool {
        header.is_plausible(self.logger_id, self.filled_max)
    }

    /// Returns whether `bytes`, which end after a header or with the file, are a header, the end of the file or unused
    /// space.
    pub(super) fn is_boundary(self, bytes: &[u8], is_inside: bool) -> bool {
        match BufferHeader::read(bytes) {
            Some(header) => self.is_plausible(&header) || all_zero(bytes),
            None => is_inside && all_zero(bytes),
        }
    }
}

impl<'a> Search<'a> {
    pub(super) fn new(bytes: Bytes<'a>, pattern: HeaderPattern) -> Self {
        Self { window: Window::new(bytes), pattern, clean_from: 0, at: 0, is_found: false }
    }

    /// Finds the first plausible header at or after `from` that starts before `end` and is followed by another one. The
    /// caller knows that there is none in `clean_from..from`.
    ///
    /// # Complexity
    ///
    /// Constant for bytes that an earlier call has searched, linear in the others.
    pub(super) fn find(
        &mut self,
        clean_from: u64,
        from: u64,
        end: u64,
        budget: &mut Budget<'_>,
    ) -> Result<Option<u64>, Exhausted> {
        if from < self.clean_from || self.at < from {
            (self.clean_from, self.at, self.is_found) = (clean_from, from, false);
        }
        while !self.is_found && self.at < end {
            let len = usize::try_from(end - self.at).unwrap_or(usize::MAX).min(BLOCK_LEN);
            self.block(len, budget)?;
        }
        Ok(Some(self.at).filter(|at| self.is_found && *at < end))
    }

    /// Searches the next `len` bytes.
    fn block(&mut self, len: usize, budget: &mut Budget<'_>) -> Result<(), Exhausted> {
        budget.charge(len)?;
        let pattern = self.pattern;
        // The view includes every possible next header, so that checking one needs no further read.
        let bytes = self.window.view(self.at, len + BUFFER_LEN_MAX as usize + BUFFER_HEADER_LEN, budget)?;
        for at in 0..len {
            let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= BUFFER_HEADER_LEN) else { break };
            if rest[0x2a..0x2c] != pattern.logger_id.to_le_bytes() {
                continue;
            }
            let Some(header) = BufferHeader::read(rest) else { break };
            if !pattern.is_plausible(&header) {
                continue;
            }
            budget.charge(CANDIDATE_STEPS)?;
            let next = rest.get(header.size as usize..);
            let next_bytes = next.map(|next| &next[..next.len().min(BUFFER_HEADER_LEN)]);
            if pattern.is_boundary(next_bytes.unwrap_or_default(), next.is_some()) {
                self.at += at as u64;
                self.is_found = true;
                return Ok(());
            }
        }
        self.at += len as u64;
        Ok(())
    }
}
