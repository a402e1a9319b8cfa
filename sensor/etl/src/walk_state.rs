//! The state that all streams of a trace share while its events are read.

use crate::buffer::BufferHeader;
use crate::damage::{Damage, DamageKind, DamageLog};
use crate::index::{Entry, os_code};
use crate::merge::SCRATCH_LEN_MAX;
use crate::source::{self, Bytes, Missing};
use crate::trace::Trace;
use etwsieve_budget::{Budget, Exhausted};

/// Minimum number of bytes of a buffer that are read at a time: twice the maximum size of an event, so that at most
/// half of them are read again.
const VIEW_LEN_MIN: usize = 128 << 10;
/// Maximum number of bytes of a buffer that are read at a time. Most buffers are shorter.
const VIEW_LEN_MAX: usize = 1 << 20;

/// The state that all streams share.
pub(crate) struct WalkState<'t> {
    pub(crate) trace: &'t Trace<'t>,
    pub(crate) budget: Budget<'t>,
    pub(crate) damage: DamageLog,
    /// Bytes of scratch memory that may still be allocated.
    pub(crate) scratch_left: usize,
    /// Number of bytes of a buffer that a stream reads at a time.
    pub(crate) view_len: usize,
    /// Length of the buffers that were opened.
    pub(crate) bytes_consumed: u64,
    /// Number of events whose time stamp is before that of their predecessor or damaged.
    pub(crate) out_of_order: u64,
    /// Memory for a compressed buffer as stored in the file.
    stored: Vec<u8>,
}

impl<'t> WalkState<'t> {
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

    /// Reads the header at the start of `bytes`, the buffer of `entry`. `None` if it is missing or of another type. A
    /// buffer that was overwritten by another one is reported and read.
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

    /// Returns the bytes of a compressed buffer, or fewer if the file has been truncated. Pass them to
    /// [`give_back`](Self::give_back) afterwards.
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

    /// Keeps the memory of a buffer for the next one.
    pub(crate) fn give_back(&mut self, stored: Stored<'_>) {
        if let Stored::Read(stored, _) = stored {
            self.stored = stored;
        }
    }

    /// Reads from the file. Returns the number of bytes read, and reports missing ones.
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

/// A compressed buffer as stored, in memory or read from a file.
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
