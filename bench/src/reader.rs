//! The `.etl` reader alone: reads every event of a trace in the order of time, from memory and from a file.

use crate::answer::Difference;
use crate::contestant::absent_byte;
use crate::error::BenchError;
use crate::measure::{ClockKind, Entrant};
use crate::workload::Workload;
use etwsieve_etl::{Trace, TraceFile};
use memchr::memchr;
use std::fs;
use std::path::Path;

/// Reads the trace of a workload into memory.
///
/// # Errors
///
/// [`BenchError::Io`].
pub fn trace_bytes(workload: &Workload) -> Result<Vec<u8>, BenchError> {
    let path = workload.path().unwrap_or(Path::new(""));
    fs::read(path).map_err(|source| BenchError::Io { path: path.into(), source })
}

/// Reads all events of a trace. Returns the number of script blocks and the bytes of their payloads.
///
/// # Errors
///
/// [`BenchError::Trace`] if `bytes` are not a trace.
pub fn walk(bytes: &[u8]) -> Result<(u64, u64), BenchError> {
    Ok(count(&Trace::new(bytes)?))
}

/// Does the same as [`walk`] with a file that is read at offsets.
///
/// # Errors
///
/// [`BenchError::Trace`] if the file is not a trace.
pub fn walk_file(path: &Path) -> Result<(u64, u64), BenchError> {
    Ok(count(&TraceFile::open(path)?.trace()?))
}

fn count(trace: &Trace<'_>) -> (u64, u64) {
    let mut events = trace.events();
    let (mut count, mut len) = (0, 0);
    while let Some(event) = events.next() {
        if event.event_id == Some(4104) {
            count += 1;
            len += event.payload.len() as u64;
        }
    }
    (count, len)
}

/// Returns the reader on memory and on the file, and a scan of the file for a byte that it does not contain.
///
/// The scan is omitted if the file contains every byte. GB/s are those of the file. The reader only reads headers, so it
/// may be faster than the scan.
pub fn entrants<'a>(workload: &'a Workload, bytes: &'a [u8]) -> Vec<Entrant<'a>> {
    let events = workload.events_in_trace();
    let entrant = |name: &str, pass| Entrant {
        name: name.to_owned(),
        question: if name == "memchr-absent" { "bound" } else { "events" },
        events,
        bytes: bytes.len() as u64,
        clock: ClockKind::Thread,
        pass,
    };
    let wrong = move |found, name: &str| BenchError::WrongAnswer {
        contestant: name.to_owned(),
        workload: workload.name.to_owned(),
        rules: "none".to_owned(),
        difference: Difference { expected: events, found, missing: None, extra: None },
    };
    let is_whole = workload.len() as u64 == events;
    let check = move |(count, len): (u64, u64), name: &str| {
        let same = count == events && (!is_whole || len == workload.bytes().len() as u64);
        if same { Ok(()) } else { Err(wrong(count, name)) }
    };
    let path = workload.path().unwrap_or(Path::new(""));
    let mut entrants = vec![
        entrant("etwsieve-etl", Box::new(move || check(walk(bytes)?, "etwsieve-etl"))),
        entrant("etwsieve-etl-file", Box::new(move || check(walk_file(path)?, "etwsieve-etl-file"))),
    ];
    if let Some(byte) = absent_byte(bytes) {
        let pass = move || match memchr(byte, bytes) {
            None => Ok(()),
            Some(_) => Err(wrong(0, "memchr-absent")),
        };
        entrants.push(entrant("memchr-absent", Box::new(pass)));
    }
    entrants
}
