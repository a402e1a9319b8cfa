//! Reads `.etl` traces with `etwsieve-etl`.

use crate::event::{EventHeader, EventRef};
use crate::ledger::LossLedger;
use crate::source::{Cost, Damage, Sink, SourceError};
use etwsieve_etl::{DAMAGE_KEPT_MAX, DamageLog, EtlError, Event, TraceFile, TraceInfo};
use etwsieve_event::Sid;
use etwsieve_event::provider::LOST_EVENT;
use std::ops::{ControlFlow, RangeInclusive};
use std::path::Path;

/// Number of events between two reports of progress.
const PROGRESS_EVENTS: u64 = 256;

/// `EVENT_TRACE_TYPE_LOST_EVENT` and the two types of lost buffers, in memory and in a file.
const LOST_EVENT_TYPES: RangeInclusive<u8> = 32..=34;

/// Reads the trace at `path` and passes its events to `sink` in time order. Ends soon after [`Sink::stop`] is
/// requested.
///
/// # Errors
///
/// [`SourceError`] if the file cannot be opened or is not an event trace. Damage is reported to [`Sink::damaged`].
pub fn read(path: &Path, sink: &mut dyn Sink) -> Result<(), SourceError> {
    let failed = |error| SourceError::Trace { path: path.into(), source: error };
    let file = TraceFile::open(path).map_err(|error| match error {
        EtlError::Open(source) => SourceError::Open { path: path.into(), source },
        error => failed(error),
    })?;
    let stop = sink.stop();
    let stopped = || stop.requested();
    let trace = match file.trace_until(&stopped) {
        Ok(trace) => trace,
        Err(EtlError::Stopped) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let mut losses = losses(trace.info());
    let mut events = trace.events_until(&stopped);
    let mut count = 0u64;
    while let Some(event) = events.next() {
        if event.provider == Some(LOST_EVENT) && LOST_EVENT_TYPES.contains(&event.opcode) {
            losses.lost_event_records += 1;
        }
        if offer(&event, sink).is_break() {
            break;
        }
        count += 1;
        if count.is_multiple_of(PROGRESS_EVENTS) {
            sink.progress(events.bytes_consumed());
        }
    }
    // This log includes the damage that was found while the buffers were indexed.
    report(events.damage(), sink);
    if losses.is_any() {
        tracing::warn!("{}: {losses}", path.display());
    }
    sink.lost(losses);
    let ((index_steps, index_bytes), (steps, bytes)) = (trace.index_cost(), events.cost());
    sink.worked(Cost { steps: index_steps + steps, bytes: index_bytes + bytes });
    sink.progress(events.bytes_consumed());
    Ok(())
}

/// Returns the losses that the header of the trace and those of its buffers report.
fn losses(info: &TraceInfo) -> LossLedger {
    LossLedger {
        events_lost: info.events_lost.into(),
        buffers_lost: info.buffers_lost.into(),
        buffers_marking_loss: info.buffers_marking_loss,
        lost_event_records: 0,
    }
}

fn offer(event: &Event<'_>, sink: &mut dyn Sink) -> ControlFlow<()> {
    let (Some(provider), Some(event_id)) = (event.provider, event.event_id) else {
        return sink.unwanted();
    };
    if !sink.wants(&provider, event_id) {
        return sink.unwanted();
    }
    // All bits are set if the kernel does not know the id.
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

/// Reports all damage: with details as far as the reader kept them, and otherwise the counts.
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
        sink.damaged_also(kind.as_str(), count - kept);
    }
}
