//! A trace: its bytes, its facts, and where its buffers are.

use crate::buffer::BUFFER_HEADER_LEN;
use crate::damage::DamageLog;
use crate::error::EtlError;
use crate::index::{self, Entry};
use crate::logfile::TraceInfo;
use crate::merge::Events;
use crate::source::{Bytes, Missing, OpenFile, ReadAt, Window};
use crate::work::{index_budget, walk_budget};
use etwsieve_budget::Budget;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

/// The part of a file in which its log file header is: a buffer's header and the largest event.
const LOG_FILE_HEADER_END: usize = BUFFER_HEADER_LEN + u16::MAX as usize;

/// A trace file that is open for reading.
#[derive(Debug)]
pub struct TraceFile {
    file: OpenFile,
}

impl TraceFile {
    /// Opens the file at `path`.
    ///
    /// The file may change while it is read: it is read as long as it was when it was opened, and what is missing by
    /// then is [`Changed`](crate::DamageKind::Changed) damage.
    ///
    /// # Errors
    ///
    /// [`EtlError::Open`], [`EtlError::Empty`], [`EtlError::NotAFile`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, EtlError> {
        let file = File::open(path.as_ref())?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(EtlError::NotAFile);
        }
        if metadata.len() == 0 {
            return Err(EtlError::Empty);
        }
        Ok(Self { file: OpenFile::new(file, metadata.len()) })
    }

    /// Number of bytes of the file when it was opened.
    pub fn len(&self) -> u64 {
        self.file.len()
    }

    /// Always false: an empty file is not a trace.
    pub fn is_empty(&self) -> bool {
        self.file.is_empty()
    }

    /// Finds the buffers of the trace.
    ///
    /// # Errors
    ///
    /// As [`Trace::new`].
    pub fn trace(&self) -> Result<Trace<'_>, EtlError> {
        Trace::read(&self.file, &|| false)
    }

    /// Finds the buffers of the trace, unless `stop` returns true before all are found.
    ///
    /// # Errors
    ///
    /// As [`Trace::read`].
    pub fn trace_until(&self, stop: &dyn Fn() -> bool) -> Result<Trace<'_>, EtlError> {
        Trace::read(&self.file, stop)
    }
}

/// A trace whose buffers have been found.
#[derive(Debug)]
pub struct Trace<'a> {
    bytes: Bytes<'a>,
    info: TraceInfo,
    damage: DamageLog,
    entries: Vec<Entry>,
    index_steps: u64,
    index_bytes: u64,
}

impl<'a> Trace<'a> {
    /// Reads the header of the trace `bytes` and finds its buffers. Events are read by [`events`](Self::events), which
    /// uses the bytes in place.
    ///
    /// # Errors
    ///
    /// [`EtlError`] if `bytes` do not start like a trace. All else that is wrong is [`damage`](Self::damage).
    ///
    /// # Complexity
    ///
    /// Reads one header per buffer; after damage in a compressed file, linear in the bytes that are skipped. The work is
    /// at most [`INDEX_STEPS_PER_BYTE_MAX`](crate::INDEX_STEPS_PER_BYTE_MAX) steps per byte, the list of buffers at most
    /// [`index_len_max`](Self::index_len_max) bytes long.
    pub fn new(bytes: &'a [u8]) -> Result<Self, EtlError> {
        Self::index(Bytes::Memory(bytes), index_budget(bytes.len() as u64))
    }

    /// As [`new`](Self::new), for a trace that is read at offsets. A view of at most 48 MiB moves over damaged parts.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new); [`EtlError::Header`] if the header cannot be read; [`EtlError::Stopped`] soon after `stop`
    /// returns true.
    pub fn read(source: &'a dyn ReadAt, stop: &dyn Fn() -> bool) -> Result<Self, EtlError> {
        Self::index(Bytes::Source(source), index_budget(source.len()).until(stop))
    }

    fn index(bytes: Bytes<'a>, mut budget: Budget<'_>) -> Result<Self, EtlError> {
        if bytes.len() == 0 {
            return Err(EtlError::Empty);
        }
        let mut start = Window::new(bytes);
        let mut info = match start.view(0, LOG_FILE_HEADER_END, &mut budget) {
            Ok(header) => TraceInfo::read(header),
            Err(_) => return Err(EtlError::Stopped),
        };
        if let (Some((_, Missing::Failed(error))), Err(_)) = (start.take_missing(), &info) {
            info = Err(EtlError::Header(error));
        }
        let (mut info, mut damage) = (info?, DamageLog::default());
        let entries = index::index(bytes, &mut info, &mut damage, &mut budget)?;
        let (index_steps, index_bytes) = (budget.steps_spent(), budget.bytes_spent());
        Ok(Self { bytes, info, damage, entries, index_steps, index_bytes })
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
        self.bytes.len()
    }

    /// Always false: an empty file is not a trace.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What finding the buffers has cost: steps of work, and bytes allocated in all.
    pub fn index_cost(&self) -> (u64, u64) {
        (self.index_steps, self.index_bytes)
    }

    /// A walk over all events, in the order of time. Each walk starts again at the first one.
    pub fn events(&self) -> Events<'_> {
        Events::new(self, walk_budget(self.len()))
    }

    /// As [`events`](Self::events). The walk ends soon after `stop` returns true, also where it meets nothing but
    /// damage; see [`Events::is_stopped`].
    pub fn events_until<'t>(&'t self, stop: &'t dyn Fn() -> bool) -> Events<'t> {
        Events::new(self, walk_budget(self.len()).until(stop))
    }

    /// The most memory in bytes that the list of buffers of a file of `len` bytes takes: a list that doubles as it
    /// grows, with an entry for each smallest possible buffer.
    pub const fn index_len_max(len: u64) -> u64 {
        2 * (len / BUFFER_HEADER_LEN as u64 + 4) * size_of::<Entry>() as u64
    }

    pub(crate) fn bytes(&self) -> Bytes<'a> {
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
