//! Event log files (`.evtx`).
//!
//! | offset | part |
//! |---|---|
//! | 0 | file header, 4096 bytes, `ElfFile\0` |
//! | 4096 | chunks of 65,536 bytes each, `ElfChnk\0`, to the end of the file |
//!
//! A chunk holds a header of 512 bytes and records of `**\0\0`, u32 size, u64 number, u64 FILETIME, BinXML, and
//! the size again. Crate `evtx` decodes the headers; the fields of an event are read from its BinXML by
//! [`binxml`], because the crate shows whole events as JSON or XML only: half of a surrogate pair (fragments of a
//! script block are cut inside pairs) does not survive that, and each event costs its rendering.
//!
//! Promises: memory for one chunk, whatever the file's size. All chunks that are present are read: the file
//! header's count and dirty flag are not asked, nor are checksums, which copies of a live log carry stale. In a
//! chunk whose header lags behind, records go on past its end as long as their numbers do. A damaged chunk or
//! record is reported, and reading goes on at the next record that can be recognised.

mod binxml;
mod input;
mod record;
#[cfg(test)]
mod tests;
mod value;

use crate::event::{self, EventHeader, EventRef, is_powershell};
use crate::payload;
use crate::source::{Damage, Sink, SourceError};
use binxml::Walker;
use etwsieve_etl::FileTime;
use evtx::{EvtxChunkHeader, EvtxRecordHeader};
use record::{Collector, Record};
use std::fs::File;
use std::io::{self, Read};
use std::ops::{ControlFlow, Range};
use std::path::Path;

/// Length of the file header.
const FILE_HEADER_LEN: usize = 4096;
/// Length of a chunk.
const CHUNK_LEN: usize = 65_536;
/// Length of a chunk's header: where its first record stands.
const CHUNK_HEADER_LEN: usize = 512;
/// Length of a record's header.
const RECORD_HEADER_LEN: usize = 24;
/// Length of the size that ends a record.
const SIZE_LEN: usize = 4;

const FILE_MAGIC: &[u8; 8] = b"ElfFile\0";
const CHUNK_MAGIC: &[u8; 8] = b"ElfChnk\0";
const RECORD_MAGIC: &[u8; 4] = b"**\0\0";

/// Reads the file at `path` and offers its events to `sink`.
///
/// # Errors
///
/// [`SourceError`] if it cannot be opened, is no event log, or the system fails to read it. What is merely
/// damaged goes to [`Sink::damaged`].
pub fn read(path: &Path, sink: &mut dyn Sink) -> Result<(), SourceError> {
    let file = File::open(path).map_err(|source| SourceError::Open { path: path.into(), source })?;
    replay(file, path, sink)
}

/// Reads an event log from `input`; `path` is what errors call it.
///
/// # Errors
///
/// As [`read`].
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
    let mut offset = header_len as u64;
    let mut payload = Vec::new();
    loop {
        let len = fill(&mut input, &mut buffer).map_err(|error| failed(offset, error))?;
        let chunk = &buffer[..len];
        if offset == FILE_HEADER_LEN as u64 && !header_is_good && chunk.starts_with(CHUNK_MAGIC) {
            let detail = format!("expected ElfFile, found {:?}", String::from_utf8_lossy(&found));
            sink.damaged(&Damage { reason: "file header", offset: 0, detail });
        } else if offset <= FILE_HEADER_LEN as u64 && !header_is_good {
            return Err(SourceError::NotThisFormat { path: path.into(), expected: "ElfFile", found });
        }
        if len == 0 {
            return Ok(());
        }
        if read_chunk(chunk, offset, &mut payload, sink).is_break() {
            return Ok(());
        }
        offset += len as u64;
        sink.progress(offset);
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

/// Reads the records of one chunk, which starts at `offset` of the file.
fn read_chunk(chunk: &[u8], offset: u64, payload: &mut Vec<u8>, sink: &mut dyn Sink) -> ControlFlow<()> {
    if chunk.iter().all(|&byte| byte == 0) {
        return ControlFlow::Continue(()); // Windows reserves chunks ahead.
    }
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
            None // Its records may still be whole.
        }
    };
    let mut records = Records::new(chunk, header.as_ref());
    let mut walker = Walker::new(chunk);
    let mut record = Record::new();
    while let Some(found) = records.next() {
        let offset = offset + found.at as u64;
        let damaged =
            |sink: &mut dyn Sink, detail| sink.damaged(&Damage { reason: "record", offset, detail });
        let is_damaged = found.damage.is_some();
        if let Some(detail) = found.damage {
            damaged(sink, detail);
        }
        let Some(body) = found.body else { continue };
        record.reset(found.written);
        let wants = |header: &EventHeader| is_wanted(sink, header);
        let done = match walker.walk(body, &mut Collector::new(&mut record, wants)) {
            Ok(()) => offer(&record, payload, sink),
            Err(error) => Err(error.to_string()),
        };
        match done {
            Ok(flow) => flow?,
            Err(_) if is_damaged => {}
            Err(detail) => damaged(sink, detail),
        }
    }
    ControlFlow::Continue(())
}

/// Whether the event can be rebuilt and the sink wants it.
fn is_wanted(sink: &dyn Sink, header: &EventHeader) -> bool {
    (is_scan(header) || is_powershell(&header.provider) && payload::fields(header.event_id).is_some())
        && sink.wants(&header.provider, header.event_id)
}

fn is_scan(header: &EventHeader) -> bool {
    (header.provider, header.event_id) == (event::AMSI, event::AMSI_SCAN)
}

/// Hands a record that was read to the sink.
fn offer(record: &Record<'_>, payload: &mut Vec<u8>, sink: &mut dyn Sink) -> Result<ControlFlow<()>, String> {
    if record.wanted.is_none() || !record.has_event_id {
        return Err("expected System with an EventID, found none".into());
    }
    let header = record.header;
    if record.wanted != Some(true) {
        return Ok(sink.unwanted());
    }
    let written = match payload::fields(header.event_id) {
        _ if is_scan(&header) => record.write_scan(payload),
        Some(fields) => record.write_payload(fields, payload),
        None => return Ok(sink.unwanted()),
    };
    written.map_err(|error| error.to_string())?;
    let computer = Some(record.computer.as_str()).filter(|name| !name.is_empty());
    Ok(sink.event(&EventRef { header, user_sid: record.user_sid, computer, payload }))
}

/// A record, whole or not.
struct Found {
    /// Where it stands in the chunk.
    at: usize,
    /// Where its BinXML may be read.
    body: Option<Range<usize>>,
    /// When the event log wrote it.
    written: FileTime,
    /// What is wrong with it.
    damage: Option<String>,
}

/// Finds the records of a chunk, one behind the other.
struct Records<'c> {
    chunk: &'c [u8],
    /// Where the next record should stand.
    at: usize,
    /// End of the records, as the chunk's header has it.
    free: usize,
    /// Number of the last record, as the chunk's header has it; `None` without a header.
    last: Option<u64>,
    /// Number of the record before.
    number: Option<u64>,
}

impl<'c> Records<'c> {
    fn new(chunk: &'c [u8], header: Option<&EvtxChunkHeader>) -> Self {
        let free = header.map_or(chunk.len(), |header| header.free_space_offset as usize);
        let last = header.map(|header| header.last_event_record_id);
        Self { chunk, at: CHUNK_HEADER_LEN, free: free.min(chunk.len()), last, number: None }
    }

    fn next(&mut self) -> Option<Found> {
        let at = self.at;
        match self.whole(at) {
            Ok((number, end)) => {
                // In the free space stand records of an earlier use, unless the header lags behind.
                let follows = self.number.is_some_and(|before| before.checked_add(1) == Some(number));
                if (at >= self.free && !follows) || (self.last.is_none() && !self.is_later(number)) {
                    return None;
                }
                self.number = Some(number);
                self.at = end;
                let body = Some(at + RECORD_HEADER_LEN..end - SIZE_LEN);
                Some(Found { at, body, written: self.written(at), damage: None })
            }
            Err(_) if at >= self.free => None,
            Err(error) => {
                let next = self.find(at + 1);
                let end = next.unwrap_or(self.chunk.len());
                self.at = end;
                let rest = &self.chunk[at..];
                let is_blank = rest.iter().take(RECORD_HEADER_LEN).all(|&byte| byte == 0);
                if next.is_none() && self.last.is_none_or(|last| is_blank && self.number >= Some(last)) {
                    return None; // All records were there, only the free space is not known.
                }
                // If only its sizes are wrong, the event itself can be read.
                let body = rest.starts_with(RECORD_MAGIC).then(|| end.min(at + RECORD_HEADER_LEN)..end);
                Some(Found { at, body, written: self.written(at), damage: Some(error) })
            }
        }
    }

    /// Number and end of the record at `at`, which begins and ends with its size.
    fn whole(&self, at: usize) -> Result<(u64, usize), String> {
        let header = EvtxRecordHeader::from_bytes_at(self.chunk, at).map_err(|error| error.to_string())?;
        let (size, left) = (header.data_size as usize, self.chunk.len() - at);
        if size < RECORD_HEADER_LEN + SIZE_LEN || size > left {
            return Err(format!("expected a record of 28 to {left} bytes, found {size}"));
        }
        let copy = &self.chunk[at + size - SIZE_LEN..at + size];
        if copy != header.data_size.to_le_bytes() {
            return Err(format!("expected a record that ends with its size, {size}, found {copy:02x?}"));
        }
        Ok((header.event_record_id, at + size))
    }

    /// The next whole record at or behind `from`, in front of the free space.
    fn find(&self, from: usize) -> Option<usize> {
        (from..self.free).find(|&at| {
            self.chunk[at..].starts_with(RECORD_MAGIC)
                && self.whole(at).is_ok_and(|(number, _)| self.is_later(number))
        })
    }

    fn is_later(&self, number: u64) -> bool {
        self.number.is_none_or(|before| number > before)
    }

    fn written(&self, at: usize) -> FileTime {
        let bytes = self.chunk[at..].get(16..).and_then(|bytes| bytes.first_chunk());
        FileTime(bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes)))
    }
}
