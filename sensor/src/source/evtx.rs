//! Reads event log files (`.evtx`).
//!
//! | offset | part |
//! |---|---|
//! | 0 | file header, 4096 bytes, `ElfFile\0` |
//! | 4096 | chunks of 65,536 bytes each, `ElfChnk\0`, to the end of the file |
//!
//! A chunk contains a header of 512 bytes and records: `**\0\0`, u32 size, u64 number, u64 FILETIME, BinXML, and the
//! size again. The crate `evtx` decodes the headers, and [`binxml`] reads the fields of an event from its BinXML. The
//! crate could do that as well, but only renders whole events as JSON or XML, which is slower and loses lone
//! surrogates: PowerShell may split a script block within a surrogate pair.
//!
//! Guarantees: memory for one chunk, whatever the size of the file. All chunks in the file are read; the dirty flag and
//! the checksums are ignored, because they are outdated in copies of a live log. If the header of a chunk is outdated,
//! records after its stated end are read as long as their numbers continue. A damaged chunk or record is reported, and
//! reading continues at the next recognisable record. Chunks and records that a header states but that are missing are
//! reported, and so are blank chunks before others.
//!
//! Work is bounded: [`RECORD_STEPS_PER_BYTE_MAX`] for a record, [`CHUNK_STEPS_PER_BYTE_MAX`] for all records of a
//! chunk. Every byte that is read, compared or written is counted. Records that exceed the limits are reported as
//! damage.

mod binxml;
mod input;
mod record;
mod records;
#[cfg(test)]
mod tests;
mod value;

use crate::event::{self, EventHeader, EventRef, is_powershell};
use crate::payload;
use crate::source::{Cost, Damage, Sink, SourceError, WORK_LIMIT};
use binxml::Walker;
use etwsieve_budget::{Budget, Exhausted};
use evtx::EvtxChunkHeader;
use record::{Record, RecordBuilder, RecordError};
use records::{FIND_STEPS_PER_BYTE_MAX, Records};
use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::Path;

/// Length of the file header.
const FILE_HEADER_LEN: usize = 4096;
/// Length of a chunk.
const CHUNK_LEN: usize = 65_536;
/// Length of the header of a chunk, after which the first record starts.
const CHUNK_HEADER_LEN: usize = 512;
/// Length of the header of a record.
const RECORD_HEADER_LEN: usize = 24;
/// Length of the size that ends a record.
const SIZE_LEN: usize = 4;

/// Maximum steps of work per byte of a record, in addition to [`RECORD_STEPS_FREE`]. The most expensive records are
/// forwarded ones in which every entity is a token.
pub const RECORD_STEPS_PER_BYTE_MAX: u64 = 32;
/// Steps of work that every record may cost in addition, for the template that it shares with others.
pub const RECORD_STEPS_FREE: u64 = 64 << 10;
/// Maximum steps of work per byte of a chunk for all of its records. The most expensive chunk in the corpus costs 3.1.
pub const CHUNK_STEPS_PER_BYTE_MAX: u64 = 64;
/// Maximum number of bytes that reading a record may allocate, in addition to its payload.
pub const RECORD_BYTES_MAX: u64 = 2 << 20;

const FILE_MAGIC: &[u8; 8] = b"ElfFile\0";
const CHUNK_MAGIC: &[u8; 8] = b"ElfChnk\0";
const RECORD_MAGIC: &[u8; 4] = b"**\0\0";

/// Reads the file at `path` and passes its events to `sink`.
///
/// # Errors
///
/// [`SourceError`] if the file cannot be opened, is not an event log, or the system fails to read it. Damage is
/// reported to [`Sink::damaged`].
pub fn read(path: &Path, sink: &mut dyn Sink) -> Result<(), SourceError> {
    let file = File::open(path).map_err(|source| SourceError::Open { path: path.into(), source })?;
    replay(file, path, sink)
}

/// Reads an event log from `input`; errors contain `path`. Ends soon after [`Sink::stop`] is requested.
///
/// # Errors
///
/// See [`read`].
pub fn replay(mut input: impl Read, path: &Path, sink: &mut dyn Sink) -> Result<(), SourceError> {
    let failed = |offset, source| SourceError::Read { path: path.into(), offset, source };
    let mut buffer = vec![0; CHUNK_LEN];
    let header_len = fill(&mut input, &mut buffer[..FILE_HEADER_LEN]).map_err(|error| failed(0, error))?;
    let header_is_good = buffer[..header_len].starts_with(FILE_MAGIC);
    let found = buffer[..header_len.min(FILE_MAGIC.len())].to_vec();
    if header_is_good && header_len < FILE_HEADER_LEN {
        let detail = format!("expected a file header of {FILE_HEADER_LEN} bytes, found {header_len}");
        sink.damaged(&Damage { reason: "file header", offset: 0, detail });
    }
    let mut log = Log::new(&buffer[..header_len]);
    let mut offset = header_len as u64;
    let mut payload = Vec::new();
    let mut chunks = 0u64;
    let mut blank_from = None;
    let stop = sink.stop();
    let stopped = || stop.requested();
    while !stopped() {
        let len = fill(&mut input, &mut buffer).map_err(|error| failed(offset, error))?;
        let chunk = &buffer[..len];
        if offset == FILE_HEADER_LEN as u64 && !header_is_good && chunk.starts_with(CHUNK_MAGIC) {
            let detail = format!("expected ElfFile, found {:?}", String::from_utf8_lossy(&found));
            sink.damaged(&Damage { reason: "file header", offset: 0, detail });
        } else if offset <= FILE_HEADER_LEN as u64 && !header_is_good {
            return Err(SourceError::NotThisFormat { path: path.into(), expected: "ElfFile", found });
        }
        if len == 0 {
            if let Some(detail) = log.missing(chunks) {
                sink.damaged(&Damage { reason: "chunk", offset, detail });
            }
            return Ok(());
        }
        chunks += 1;
        if chunk.iter().all(|&byte| byte == 0) {
            // Windows reserves blank chunks at the end of the file.
            blank_from.get_or_insert(offset);
        } else {
            if let Some(from) = blank_from.take() {
                let detail = format!("expected a chunk, found {} bytes of zeros", offset - from);
                sink.damaged(&Damage { reason: "chunk", offset: from, detail });
                log.is_damaged = true;
            }
            if read_chunk(chunk, offset, &mut log, &mut payload, &stopped, sink).is_break() {
                return Ok(());
            }
        }
        offset += len as u64;
        sink.progress(offset);
    }
    Ok(())
}

/// The statements of the file header, and the records that were found.
struct Log {
    /// Number of chunks; copies of a live log may have more.
    chunk_count: u16,
    /// Number of the next record to be written; copies of a live log may have higher ones.
    next_number: u64,
    /// The log was in use, or its state is unknown.
    is_dirty: bool,
    /// The highest record number so far, or 0.
    highest: u64,
    is_damaged: bool,
}

impl Log {
    fn new(header: &[u8]) -> Self {
        let header: Option<&[u8; FILE_HEADER_LEN]> =
            header.first_chunk().filter(|h| h.starts_with(FILE_MAGIC));
        let field = |at: usize, len: usize| {
            let bytes = header.and_then(|header| header.get(at..at + len)).unwrap_or_default();
            bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
        };
        Self {
            chunk_count: field(42, 2) as u16,
            next_number: field(24, 8),
            is_dirty: header.is_none() || field(120, 4) & 1 != 0,
            highest: 0,
            is_damaged: header.is_none(),
        }
    }

    /// Describes what the header states but the file does not contain, unless other damage explains it.
    fn missing(&self, chunks: u64) -> Option<String> {
        if chunks < u64::from(self.chunk_count) {
            return Some(format!(
                "expected {} chunks, found {chunks}: the file is truncated",
                self.chunk_count
            ));
        }
        let last = self.next_number.checked_sub(1)?;
        (last > self.highest && !self.is_damaged && self.next_number != u64::MAX)
            .then(|| format!("expected records up to number {last}, found none after {}", self.highest))
    }
}

/// Reads until `buffer` is full or the input ends.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match input.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// Reads the records of the chunk at `offset` of the file.
fn read_chunk(
    chunk: &[u8],
    offset: u64,
    log: &mut Log,
    payload: &mut Vec<u8>,
    stopped: &dyn Fn() -> bool,
    sink: &mut dyn Sink,
) -> ControlFlow<()> {
    if chunk.len() < CHUNK_LEN {
        let detail = format!("expected a chunk of {CHUNK_LEN} bytes, found {}", chunk.len());
        sink.damaged(&Damage { reason: "chunk", offset, detail });
    }
    let header = match EvtxChunkHeader::from_bytes(chunk) {
        Ok(header) => Some(header),
        Err(error) => {
            if chunk.len() == CHUNK_LEN {
                sink.damaged(&Damage { reason: "chunk", offset, detail: error.to_string() });
            }
            None // The records may still be intact.
        }
    };
    let len = chunk.len() as u64;
    let mut finding = Budget::new(len * FIND_STEPS_PER_BYTE_MAX + RECORD_STEPS_FREE, 0).until(stopped);
    let mut steps_left = len * CHUNK_STEPS_PER_BYTE_MAX + RECORD_STEPS_FREE;
    let mut cost = Cost::default();
    let mut records = Records::new(chunk, header.as_ref(), log.is_dirty);
    let mut walker = Walker::new(chunk);
    let mut record = Record::new();
    let flow = loop {
        let found = match records.next(&mut finding) {
            Ok(Some(found)) => found,
            Ok(None) => break ControlFlow::Continue(()),
            Err(Exhausted::Stopped) => break ControlFlow::Break(()),
            Err(reason) => {
                sink.damaged(&Damage { reason: WORK_LIMIT, offset, detail: reason.to_string() });
                break ControlFlow::Continue(());
            }
        };
        let offset = offset + found.at as u64;
        let is_damaged = found.damage.is_some();
        if let Some(damage) = found.damage {
            sink.damaged(&Damage { reason: "record", offset, detail: damage.to_string() });
        }
        let Some(body) = found.body else { continue };
        let steps = (RECORD_STEPS_FREE + RECORD_STEPS_PER_BYTE_MAX * body.len() as u64).min(steps_left);
        let mut budget = Budget::new(steps, RECORD_BYTES_MAX).until(stopped);
        record.reset(found.written);
        let wants = |header: &EventHeader| is_wanted(sink, header);
        let mut builder = RecordBuilder::new(&mut record, wants);
        let done = match walker.walk(body, &mut builder, &mut budget) {
            Ok(()) => offer(&record, payload, &mut budget, sink),
            Err(error) => Err(error),
        };
        cost.steps += budget.steps_spent();
        cost.bytes += budget.bytes_spent();
        steps_left -= budget.steps_spent();
        match done {
            Ok(flow) if flow.is_break() => break flow,
            Err(RecordError::Exhausted(Exhausted::Stopped)) => break ControlFlow::Break(()),
            Err(_) if is_damaged => {}
            Err(error) => {
                let reason = if matches!(error, RecordError::Exhausted(_)) { WORK_LIMIT } else { "record" };
                sink.damaged(&Damage { reason, offset, detail: error.to_string() });
            }
            Ok(_) => {}
        }
    };
    log.highest = log.highest.max(records.number().unwrap_or(0));
    log.is_damaged |= records.is_damaged();
    cost.steps += finding.steps_spent();
    sink.worked(cost);
    flow
}

/// Returns whether the event can be rebuilt and the sink needs it.
fn is_wanted(sink: &dyn Sink, header: &EventHeader) -> bool {
    (is_scan(header) || is_powershell(&header.provider) && payload::fields(header.event_id).is_some())
        && sink.wants(&header.provider, header.event_id)
}

fn is_scan(header: &EventHeader) -> bool {
    (header.provider, header.event_id) == (event::AMSI, event::AMSI_SCAN)
}

/// Passes the event of a record to the sink.
fn offer(
    record: &Record<'_>,
    payload: &mut Vec<u8>,
    budget: &mut Budget<'_>,
    sink: &mut dyn Sink,
) -> Result<ControlFlow<()>, RecordError> {
    if record.wanted.is_none() || !record.has_event_id {
        return Err(RecordError::NoEventId);
    }
    let header = record.header;
    if record.wanted != Some(true) {
        return Ok(sink.unwanted());
    }
    match payload::fields(header.event_id) {
        _ if is_scan(&header) => record.write_scan(payload, budget)?,
        Some(fields) => record.write_payload(fields, payload, budget)?,
        None => return Ok(sink.unwanted()),
    }
    let computer = Some(record.computer.as_str()).filter(|name| !name.is_empty());
    Ok(sink.event(&EventRef { header, user_sid: record.user_sid, computer, payload }))
}
