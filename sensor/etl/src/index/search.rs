//! The search for the next header that leads to another one.

use crate::buffer::{BUFFER_HEADER_LEN, BUFFER_LEN_MAX, BufferHeader};
use crate::bytes::all_zero;
use crate::source::{Bytes, Window};
use etwsieve_budget::{Budget, Exhausted};

/// Steps of a header that looks right, and of the one that it leads to.
const CANDIDATE_STEPS: usize = 96;
/// Bytes that are searched, and charged, at a time. Short, because a search often ends soon.
const BLOCK_LEN: usize = 256;

/// A search that goes on where it ended.
///
/// Whether a header leads on does not depend on the walk. What was found therefore stays found, and bytes in which
/// nothing was found need no second look.
pub(super) struct Search<'a> {
    pub(super) window: Window<'a>,
    pub(super) shape: Shape,
    /// No header that leads on starts in `clean_from..at`.
    clean_from: u64,
    at: u64,
    /// One starts at `at`.
    is_found: bool,
}

/// What the headers of a file have in common.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) logger_id: u16,
    pub(super) filled_max: u32,
}

impl Shape {
    pub(super) fn is_plausible(self, header: &BufferHeader) -> bool {
        header.is_plausible(self.logger_id, self.filled_max)
    }

    /// True when `bytes`, a header's length or up to the end of the file, are a buffer, the end or unused space.
    pub(super) fn leads_on(self, bytes: &[u8], is_inside: bool) -> bool {
        match BufferHeader::read(bytes) {
            Some(header) => self.is_plausible(&header) || all_zero(bytes),
            None => is_inside && all_zero(bytes),
        }
    }
}

impl<'a> Search<'a> {
    pub(super) fn new(bytes: Bytes<'a>, shape: Shape) -> Self {
        Self { window: Window::new(bytes), shape, clean_from: 0, at: 0, is_found: false }
    }

    /// The first plausible header from `from` on that starts before `end` and leads to another one. The caller knows
    /// that there is none in `clean_from..from`.
    ///
    /// # Complexity
    ///
    /// Constant for bytes that an earlier call has searched, linear in all others.
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
        let shape = self.shape;
        // All that a header in this block can lead to is in view, so that jumps cost no reading.
        let bytes = self.window.view(self.at, len + BUFFER_LEN_MAX as usize + BUFFER_HEADER_LEN, budget)?;
        for at in 0..len {
            let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= BUFFER_HEADER_LEN) else { break };
            if rest[0x2a..0x2c] != shape.logger_id.to_le_bytes() {
                continue;
            }
            let Some(header) = BufferHeader::read(rest) else { break };
            if !shape.is_plausible(&header) {
                continue;
            }
            budget.charge(CANDIDATE_STEPS)?;
            let next = rest.get(header.size as usize..);
            let next_bytes = next.map(|next| &next[..next.len().min(BUFFER_HEADER_LEN)]);
            if shape.leads_on(next_bytes.unwrap_or_default(), next.is_some()) {
                self.at += at as u64;
                self.is_found = true;
                return Ok(());
            }
        }
        self.at += len as u64;
        Ok(())
    }
}
