//! What the streams of a walk share: the trace, the budget, and what has been found so far.

use crate::buffer::BufferHeader;
use crate::damage::{Damage, DamageKind, DamageLog};
use crate::index::{Entry, os_code};
use crate::merge::SCRATCH_LEN_MAX;
use crate::source::{self, Bytes, Missing};
use crate::trace::Trace;
use etwsieve_budget::{Budget, Exhausted};

/// Bytes of a buffer that are read at a time, at least: one whole event, whatever its size, and half of it events that
/// are not read again.
const VIEW_LEN_MIN: usize = 128 << 10;
/// Bytes of a buffer that are read at a time, at most. Most buffers are shorter.
const VIEW_LEN_MAX: usize = 1 << 20;

/// What the streams of a walk share.
pub(crate) struct Shared<'t> {
    pub(crate) trace: &'t Trace<'t>,
    pub(crate) budget: Budget<'t>,
    pub(crate) damage: DamageLog,
    /// Bytes of scratch memory that may still be allocated.
    pub(crate) scratch_left: usize,
    /// Bytes of a buffer that a stream reads at a time.
    pub(crate) view_len: usize,
    /// Bytes of the buffers that were opened.
    pub(crate) bytes_consumed: u64,
    /// Events whose own time is before that of their predecessor, or is damaged.
    pub(crate) out_of_order: u64,
    /// A compressed buffer as it is stored in the file.
    stored: Vec<u8>,
}

impl<'t> Shared<'t> {
    pub(crate) fn new(trace: &'t Trace<'t>, budget: Budget<'t>, streams: usize) -> Self {
        Self {
            trace,
            budget,
            damage: trace.damage().clone(),
            scratch_left: SCRATCH_LEN_MAX,
            view_len: (SCRATCH_LEN_MAX / streams.max(1)).clamp(VIEW_LEN_MIN, VIEW_LEN_MAX),
            bytes_consumed: 0,
            out_of_order: 0,
            stored: Vec::new(),
        }
    }

    /// The header at the start of `bytes`, those of the buffer of `entry`. `None` if it is no longer there or the buffer
    /// is now another one; a buffer that was merely overwritten is reported and read.
    pub(crate) fn header(&mut self, entry: &Entry, bytes: &[u8]) -> Option<BufferHeader> {
        let header = BufferHeader::read(bytes)?;
        let is_compressed = header.is_compressed();
        if header.sequence != entry.sequence || is_compressed != entry.is_compressed() {
            self.damage.report(Damage {
                kind: DamageKind::Changed,
                offset: entry.offset,
                position: 0,
                expected: entry.sequence.cast_unsigned(),
                found: header.sequence.cast_unsigned(),
            });
        }
        Some(header).filter(|_| is_compressed == entry.is_compressed())
    }

    /// The bytes of a compressed buffer, or fewer if they are no longer there. To be given back.
    pub(crate) fn stored(&mut self, entry: &Entry) -> Result<Stored<'t>, Exhausted> {
        let len = entry.len() as usize;
        if let Bytes::Memory(bytes) = self.trace.bytes() {
            let start = usize::try_from(entry.offset).unwrap_or(usize::MAX);
            return Ok(Stored::Memory(bytes.get(start..start.saturating_add(len)).unwrap_or_default()));
        }
        let mut stored = std::mem::take(&mut self.stored);
        if len > stored.len() {
            let len = len.max(2 * stored.len());
            self.budget.allocate(len)?;
            stored.resize(len, 0);
        }
        let filled = self.fill(entry.offset, &mut stored[..len]);
        Ok(Stored::Read(stored, filled))
    }

    /// Keeps the memory for the next buffer.
    pub(crate) fn give_back(&mut self, stored: Stored<'_>) {
        if let Stored::Read(stored, _) = stored {
            self.stored = stored;
        }
    }

    /// Reads from the file. Returns the bytes that are there; what is missing is reported.
    pub(crate) fn fill(&mut self, offset: u64, buffer: &mut [u8]) -> usize {
        let Bytes::Source(source) = self.trace.bytes() else { return 0 };
        let (filled, missing) = source::fill(source, offset, buffer);
        let Some(missing) = missing else { return filled };
        let (offset, left) = (offset + filled as u64, (buffer.len() - filled) as u64);
        let (kind, found) = match missing {
            Missing::Gone => (DamageKind::Changed, 0),
            Missing::Failed(error) => (DamageKind::ReadError, os_code(&error)),
        };
        self.damage.report(Damage { kind, offset, position: 0, expected: left, found });
        filled
    }
}

/// A compressed buffer as it is stored: in memory, or read.
pub(crate) enum Stored<'t> {
    Memory(&'t [u8]),
    Read(Vec<u8>, usize),
}

impl Stored<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::Read(bytes, filled) => &bytes[..*filled],
        }
    }
}
