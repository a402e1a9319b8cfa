//! The `.etl` reader by itself: every event of a trace in memory, in the order of time.

use crate::answer::Difference;
use crate::contestant::absent_byte;
use crate::error::BenchError;
use crate::measure::{ClockKind, Entrant};
use crate::workload::Workload;
use etwsieve_etl::Trace;
use memchr::memchr;
use std::fs;
use std::path::Path;

/// The bytes of a workload's trace, read into memory.
///
/// # Errors
///
/// [`BenchError::Io`].
pub fn trace_bytes(workload: &Workload) -> Result<Vec<u8>, BenchError> {
    let path = workload.path().unwrap_or(Path::new(""));
    fs::read(path).map_err(|source| BenchError::Io { path: path.into(), source })
}

/// Script blocks of a trace, and the bytes of their payloads.
///
/// # Errors
///
/// [`BenchError::Trace`] if it is none.
pub fn walk(bytes: &[u8]) -> Result<(u64, u64), BenchError> {
    let trace = Trace::new(bytes)?;
    let mut events = trace.events();
    let (mut count, mut len) = (0, 0);
    while let Some(event) = events.next() {
        if event.event_id == Some(4104) {
            count += 1;
            len += event.payload.len() as u64;
        }
    }
    Ok((count, len))
}

/// The reader, and a scan of the file for a byte that it does not have.
///
/// The scan is left out if the file has every byte. GB/s are those of the file. The reader looks at headers only, so it may well be faster than the scan.
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
    let mut entrants = vec![entrant(
        "etwsieve-etl",
        Box::new(move || {
            let (count, len) = walk(bytes)?;
            let same = count == events && (!is_whole || len == workload.bytes().len() as u64);
            if same { Ok(()) } else { Err(wrong(count, "etwsieve-etl")) }
        }),
    )];
    if let Some(byte) = absent_byte(bytes) {
        let pass = move || match memchr(byte, bytes) {
            None => Ok(()),
            Some(_) => Err(wrong(0, "memchr-absent")),
        };
        entrants.push(entrant("memchr-absent", Box::new(pass)));
    }
    entrants
}
