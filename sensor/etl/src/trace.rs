//! A trace with its header and the list of its buffers.

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

/// Length of the part of a file that contains its log file header: a buffer header and the largest event.
const LOG_FILE_HEADER_END: usize = BUFFER_HEADER_LEN + u16::MAX as usize;

/// A trace file that is open for reading.
#[derive(Debug)]
pub struct TraceFile {
    file: OpenFile,
}

impl TraceFile {
    /// Opens the file at `path`.
    ///
    /// The file may change while it is read. It is read up to its length at this time, and missing bytes are damage of
    /// kind [`Changed`](crate::DamageKind::Changed).
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

    /// Returns the length of the file in bytes when it was opened.
    pub fn len(&self) -> u64 {
        self.file.len()
    }

    /// Returns false: an empty file is not a trace.
    pub fn is_empty(&self) -> bool {
        self.file.is_empty()
    }

    /// Finds the buffers of the trace.
    ///
    /// # Errors
    ///
    /// See [`Trace::new`].
    pub fn trace(&self) -> Result<Trace<'_>, EtlError> {
        Trace::read(&self.file, &|| false)
    }

    /// Finds the buffers of the trace, unless `stop` returns true before all are found.
    ///
    /// # Errors
    ///
    /// See [`Trace::read`].
    pub fn trace_until(&self, stop: &dyn Fn() -> bool) -> Result<Trace<'_>, EtlError> {
        Trace::read(&self.file, stop)
    }
}

/// A trace with the list of its buffers.
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
    /// Reads the header of the trace `bytes` and finds its buffers. [`events`](Self::events) then reads the events in
    /// place.
    ///
    /// # Errors
    ///
    /// [`EtlError`] if `bytes` do not start like a trace. All other problems are [`damage`](Self::damage).
    ///
    /// # Complexity
    ///
    /// Reads one header per buffer; after damage in a compressed file, linear in the skipped bytes. Costs at most
    /// [`INDEX_STEPS_PER_BYTE_MAX`](crate::INDEX_STEPS_PER_BYTE_MAX) steps per byte. The list of buffers has at most
    /// [`index_len_max`](Self::index_len_max) bytes.
    pub fn new(bytes: &'a [u8]) -> Result<Self, EtlError> {
        Self::index(Bytes::Memory(bytes), index_budget(bytes.len() as u64))
    }

    /// Like [`new`](Self::new), for a trace that is read at offsets. Damaged parts are searched in a window of at most
    /// 48 MiB.
    ///
    /// # Errors
    ///
    /// See [`new`](Self::new). [`EtlError::Header`] if the header cannot be read; [`EtlError::Stopped`] soon after
    /// `stop` returns true.
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

    /// Returns the header of the trace and the counts of its buffers.
    pub fn info(&self) -> &TraceInfo {
        &self.info
    }

    /// Returns the damage of the sequence of buffers. [`Events`] finds damage within buffers.
    pub fn damage(&self) -> &DamageLog {
        &self.damage
    }

    /// Returns the length of the trace in bytes.
    pub fn len(&self) -> u64 {
        self.bytes.len()
    }

    /// Returns false: an empty file is not a trace.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the cost of finding the buffers: steps of work, and bytes allocated in total.
    pub fn index_cost(&self) -> (u64, u64) {
        (self.index_steps, self.index_bytes)
    }

    /// Returns all events in time order. Each call starts again at the first event.
    pub fn events(&self) -> Events<'_> {
        Events::new(self, walk_budget(self.len()))
    }

    /// Like [`events`](Self::events), but ends soon after `stop` returns true, even while only damage is read; see
    /// [`Events::is_stopped`].
    pub fn events_until<'t>(&'t self, stop: &'t dyn Fn() -> bool) -> Events<'t> {
        Events::new(self, walk_budget(self.len()).until(stop))
    }

    /// Returns the maximum memory in bytes for the list of buffers of a file of `len` bytes: a list that doubles as it
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

    /// Returns the range of entries of each stream.
    pub(crate) fn streams(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut start = 0;
        self.entries.chunk_by(|a, b| a.stream == b.stream).map(move |entries| {
            let range = start..start + entries.len();
            start = range.end;
            range
        })
    }
}
