//! `.etl` traces, read with our own portable reader.

use crate::event::{EventHeader, EventRef};
use crate::sid::Sid;
use crate::source::{Damage, Sink, SourceError};
use etwsieve_etl::{DAMAGE_KEPT_MAX, DamageLog, EtlError, Event, TraceFile};
use std::ops::ControlFlow;
use std::path::Path;

/// How many events pass between two reports of progress.
const PROGRESS_EVENTS: u64 = 256;

/// Reads the trace at `path` and offers its events to `sink` in time order.
///
/// # Errors
///
/// [`SourceError`] if it cannot be opened or is no event trace. What is merely damaged goes to
/// [`Sink::damaged`].
pub fn read(path: &Path, sink: &mut dyn Sink) -> Result<(), SourceError> {
    let failed = |error| SourceError::Trace { path: path.into(), source: error };
    let file = TraceFile::open(path).map_err(|error| match error {
        EtlError::Open(source) => SourceError::Open { path: path.into(), source },
        error => failed(error),
    })?;
    let trace = file.trace().map_err(failed)?;
    let mut events = trace.events();
    let mut count = 0u64;
    while let Some(event) = events.next() {
        if offer(&event, sink).is_break() {
            break;
        }
        count += 1;
        if count.is_multiple_of(PROGRESS_EVENTS) {
            sink.progress(events.bytes_consumed());
        }
    }
    // The log of the events begins with what the index of the buffers found.
    report(events.damage(), sink);
    sink.progress(events.bytes_consumed());
    Ok(())
}

fn offer(event: &Event<'_>, sink: &mut dyn Sink) -> ControlFlow<()> {
    let (Some(provider), Some(event_id)) = (event.provider, event.event_id) else {
        return sink.unwanted();
    };
    if !sink.wants(&provider, event_id) {
        return sink.unwanted();
    }
    // All bits set: the kernel did not know.
    let known = |id: Option<u32>| id.filter(|id| *id != u32::MAX);
    let header = EventHeader {
        time: event.time,
        provider,
        event_id,
        version: event.version as u8,
        channel: event.channel,
        level: event.level,
        opcode: event.opcode,
        task: event.task,
        keywords: event.keywords,
        process_id: known(event.process_id),
        thread_id: known(event.thread_id),
        activity_id: event.activity_id.filter(|id| !id.is_nil()),
        event_record_id: None,
    };
    let user_sid = event.sid().and_then(Sid::from_bytes);
    sink.event(&EventRef { header, user_sid, computer: None, payload: event.payload })
}

/// Hands over all damage: what the reader kept in full, and what it only counted by its kind.
fn report(log: &DamageLog, sink: &mut dyn Sink) {
    for damage in log.kept() {
        sink.damaged(&Damage {
            reason: damage.kind.as_str(),
            offset: damage.offset,
            detail: damage.to_string(),
        });
    }
    if log.total() <= DAMAGE_KEPT_MAX as u64 {
        return;
    }
    for (kind, count) in log.counts() {
        let kept = log.kept().iter().filter(|damage| damage.kind == kind).count() as u64;
        for _ in kept..count {
            sink.damaged(&Damage { reason: kind.as_str(), offset: 0, detail: "not kept in detail".into() });
        }
    }
}
