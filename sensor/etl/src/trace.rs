//! A trace: its bytes, its facts, and where its buffers are.

use crate::buffer::BUFFER_HEADER_LEN;
use crate::damage::DamageLog;
use crate::error::EtlError;
use crate::index::{self, Entry};
use crate::logfile::TraceInfo;
use crate::map;
use crate::merge::Events;
use memmap2::Mmap;
use std::ops::Range;
use std::path::Path;

/// A trace file, mapped into memory.
#[derive(Debug)]
pub struct TraceFile {
    map: Mmap,
}

impl TraceFile {
    /// Maps the file at `path`.
    ///
    /// The file must not be cut while it is mapped: reading where its end has moved away ends the process (`SIGBUS`;
    /// Windows refuses to cut a mapped file). Copy a trace that is still being written.
    ///
    /// # Errors
    ///
    /// [`EtlError::Open`], [`EtlError::Empty`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, EtlError> {
        Ok(Self { map: map::map(path.as_ref())? })
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Finds the buffers of the trace.
    ///
    /// # Errors
    ///
    /// As [`Trace::new`].
    pub fn trace(&self) -> Result<Trace<'_>, EtlError> {
        Trace::new(self.bytes())
    }
}

/// A trace in memory.
#[derive(Debug)]
pub struct Trace<'a> {
    bytes: &'a [u8],
    info: TraceInfo,
    damage: DamageLog,
    entries: Vec<Entry>,
}

impl<'a> Trace<'a> {
    /// Reads the header of the trace `bytes` and finds its buffers. Events are read by [`events`](Self::events).
    ///
    /// # Errors
    ///
    /// [`EtlError`] if `bytes` do not start like a trace. All else that is wrong is [`damage`](Self::damage).
    ///
    /// # Complexity
    ///
    /// Touches one header per buffer; after damage in a compressed file, linear in the bytes passed over. Allocates
    /// at most [`index_len_max`](Self::index_len_max) bytes.
    pub fn new(bytes: &'a [u8]) -> Result<Self, EtlError> {
        if bytes.is_empty() {
            return Err(EtlError::Empty);
        }
        let mut info = TraceInfo::read(bytes)?;
        let mut damage = DamageLog::default();
        let entries = index::index(bytes, &mut info, &mut damage)?;
        Ok(Self { bytes, info, damage, entries })
    }

    /// The facts of the trace.
    pub fn info(&self) -> &TraceInfo {
        &self.info
    }

    /// What is wrong with the row of buffers. Damage inside buffers is found by [`Events`].
    pub fn damage(&self) -> &DamageLog {
        &self.damage
    }

    /// Bytes of the trace.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Always false: an empty file is no trace.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A walk over all events, in the order of time. Each walk starts anew.
    pub fn events(&self) -> Events<'_> {
        Events::new(self)
    }

    /// The most memory in bytes that the list of buffers of a file of `len` bytes takes: a list that doubles as it
    /// grows, with an entry for each smallest possible buffer.
    pub const fn index_len_max(len: u64) -> u64 {
        2 * (len / BUFFER_HEADER_LEN as u64 + 4) * size_of::<Entry>() as u64
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries of each stream.
    pub(crate) fn streams(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut start = 0;
        self.entries.chunk_by(|a, b| a.stream == b.stream).map(move |entries| {
            let range = start..start + entries.len();
            start = range.end;
            range
        })
    }
}
