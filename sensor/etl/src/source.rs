//! Sources of the bytes of a trace: memory, which is used in place, or a [`ReadAt`], which is read at offsets.
//!
//! Files are read rather than mapped. If another program truncates a mapped file, an access ends the process; a read is
//! merely short and becomes [`Damage`](crate::Damage).

use etwsieve_budget::{Budget, Exhausted};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Mutex, PoisonError};

/// Bytes that can be read at any offset.
///
/// They may change or be truncated while a trace is read. The reader checks everything that it reads, and reports
/// missing bytes as [`Changed`](crate::DamageKind::Changed).
pub trait ReadAt: fmt::Debug + Sync {
    /// Returns the number of bytes when the trace was opened.
    fn len(&self) -> u64;

    /// Returns whether the length is 0.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads bytes at `offset` into `buffer`. Returns their number like [`Read::read`](io::Read::read): 0 only for an
    /// empty buffer or at the end.
    ///
    /// # Errors
    ///
    /// The error of the system.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// A file that is read at offsets.
#[derive(Debug)]
pub(crate) struct OpenFile {
    /// The file and its position, which only one thread may change at a time; `None` if the position is unknown.
    file: Mutex<(File, Option<u64>)>,
    len: u64,
}

impl OpenFile {
    pub(crate) fn new(file: File, len: u64) -> Self {
        Self { file: Mutex::new((file, None)), len }
    }
}

impl ReadAt for OpenFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, position) = &mut *file;
        // Most reads continue where the last one ended.
        if position.take() != Some(offset) {
            file.seek(SeekFrom::Start(offset))?;
        }
        let len = file.read(buffer)?;
        *position = Some(offset + len as u64);
        Ok(len)
    }
}

/// The bytes of a trace.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bytes<'a> {
    Memory(&'a [u8]),
    Source(&'a dyn ReadAt),
}

impl Bytes<'_> {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Source(source) => source.len(),
        }
    }
}

/// Why bytes of a source are missing.
#[derive(Debug)]
pub(crate) enum Missing {
    /// The source was truncated.
    Gone,
    /// The system failed to read them.
    Failed(io::Error),
}

/// Fills `buffer` with the bytes at `offset`. Returns their number, and why there are no more.
pub(crate) fn fill(source: &dyn ReadAt, offset: u64, buffer: &mut [u8]) -> (usize, Option<Missing>) {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read_at(offset + filled as u64, &mut buffer[filled..]) {
            Ok(0) => return (filled, Some(Missing::Gone)),
            Ok(more) => filled += more.min(buffer.len() - filled),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (filled, Some(Missing::Failed(error))),
        }
    }
    (filled, None)
}

/// Number of bytes read after a jump: enough for a header.
const JUMP_LEN: usize = 1 << 10;
/// Number of bytes read while the window moves forward.
const AHEAD_LEN: usize = 64 << 10;
/// Number of bytes read per step: reading is a copy.
const BYTES_READ_PER_STEP: usize = 16;

/// A window on a part of a trace, which mostly moves forward.
///
/// Uses memory for twice the longest view, and none for a trace in memory.
pub(crate) struct Window<'a> {
    bytes: Bytes<'a>,
    /// Length of the trace, or less after bytes turned out to be missing.
    len: u64,
    buffer: Vec<u8>,
    /// Offset of the buffer in the trace.
    start: u64,
    /// Offset of the first missing byte, and why it is missing.
    missing: Option<(u64, Missing)>,
}

impl<'a> Window<'a> {
    pub(crate) fn new(bytes: Bytes<'a>) -> Self {
        Self { bytes, len: bytes.len(), buffer: Vec::new(), start: 0, missing: None }
    }

    /// Returns `len` bytes at `at`, or fewer if the trace ends or cannot be read.
    pub(crate) fn view(&mut self, at: u64, len: usize, budget: &mut Budget<'_>) -> Result<&[u8], Exhausted> {
        let source = match self.bytes {
            Bytes::Memory(bytes) => {
                let at = usize::try_from(at).unwrap_or(usize::MAX);
                let rest = bytes.get(at..).unwrap_or_default();
                return Ok(&rest[..len.min(rest.len())]);
            }
            Bytes::Source(source) => source,
        };
        let len = len.min(usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX));
        if len == 0 {
            return Ok(&[]);
        }
        let end = self.start + self.buffer.len() as u64;
        if at < self.start || at + len as u64 > end {
            self.move_to(source, at, len, budget)?;
        }
        let from = usize::try_from(at - self.start).unwrap_or(usize::MAX);
        let rest = self.buffer.get(from..).unwrap_or_default();
        Ok(&rest[..len.min(rest.len())])
    }

    /// Returns the offset of bytes that turned out to be missing since the last call.
    pub(crate) fn take_missing(&mut self) -> Option<(u64, Missing)> {
        self.missing.take()
    }

    fn move_to(
        &mut self,
        source: &dyn ReadAt,
        at: u64,
        len: usize,
        budget: &mut Budget<'_>,
    ) -> Result<(), Exhausted> {
        let end = self.start + self.buffer.len() as u64;
        let is_forward = (self.start..=end).contains(&at);
        let wanted = (2 * len).max(if is_forward { AHEAD_LEN } else { JUMP_LEN });
        let wanted = wanted.min(usize::try_from(self.len - at).unwrap_or(usize::MAX));
        let kept = if is_forward { (end - at) as usize } else { 0 };
        let kept_from = self.buffer.len() - kept;
        budget.charge(wanted / BYTES_READ_PER_STEP)?;
        if wanted > self.buffer.capacity() {
            budget.allocate(wanted)?;
        }
        self.buffer.copy_within(kept_from.., 0);
        self.buffer.resize(wanted, 0);
        self.start = at;
        let (filled, missing) = fill(source, at + kept as u64, &mut self.buffer[kept..]);
        let filled = kept + filled;
        self.buffer.truncate(filled);
        // Missing bytes beyond the requested ones do not matter yet.
        if let Some(missing) = missing
            && filled < len
        {
            self.len = at + filled as u64;
            self.missing = Some((self.len, missing));
        }
        Ok(())
    }
}
