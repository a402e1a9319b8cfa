//! Where the bytes of a trace come from: memory, which is used in place, or something that is read at offsets.
//!
//! Files are read, not mapped. A mapped file that somebody else truncates ends the process; a read of what is no
//! longer there is merely short, and becomes [`Damage`](crate::Damage).

use etwsieve_budget::{Budget, Exhausted};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Mutex, PoisonError};

/// Bytes that can be read at any offset.
///
/// They may change or become fewer while a trace is read. The reader checks whatever it reads, and reports bytes that
/// are missing as [`Changed`](crate::DamageKind::Changed).
pub trait ReadAt: fmt::Debug + Sync {
    /// Number of bytes when the trace was opened.
    fn len(&self) -> u64;

    /// Returns whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads bytes from `offset` on into `buffer`. Returns how many, as [`Read::read`](io::Read::read) does: 0 only for
    /// an empty buffer or where the bytes end.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// A file that is read at offsets.
#[derive(Debug)]
pub(crate) struct OpenFile {
    /// The file and its position, which two readers must not move at the same time; `None` if it is not known.
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
        // Most reads go on where the last one ended.
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
    /// The source has become shorter.
    Gone,
    /// The system failed to read them.
    Failed(io::Error),
}

/// Fills `buffer` with the bytes from `offset` on. Returns how many there are, and why there are no more.
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

/// Bytes read for a jump to somewhere else: what surrounds a header.
const JUMP_LEN: usize = 1 << 10;
/// Bytes read while the view moves forward.
const AHEAD_LEN: usize = 64 << 10;
/// Bytes that are read at the cost of one step: reading is a copy.
const BYTES_READ_PER_STEP: usize = 16;

/// A view of some bytes of a trace that moves over it, mostly forward.
///
/// Memory is twice the longest view, and nothing for a trace in memory.
pub(crate) struct Window<'a> {
    bytes: Bytes<'a>,
    /// Bytes of the trace, or fewer once some turned out to be missing.
    len: u64,
    buffer: Vec<u8>,
    /// Offset of the buffer in the trace.
    start: u64,
    /// Where bytes are missing first, and why.
    missing: Option<(u64, Missing)>,
}

impl<'a> Window<'a> {
    pub(crate) fn new(bytes: Bytes<'a>) -> Self {
        Self { bytes, len: bytes.len(), buffer: Vec::new(), start: 0, missing: None }
    }

    /// The bytes from `at` on: `len`, or fewer where the trace ends or cannot be read.
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

    /// Bytes that turned out to be missing since the last call.
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
        // What was read ahead in vain may never be needed.
        if let Some(missing) = missing
            && filled < len
        {
            self.len = at + filled as u64;
            self.missing = Some((self.len, missing));
        }
        Ok(())
    }
}
