//! Finds the events within a buffer.
//!
//! The first `u32` of an event is its marker; byte 3 contains flags, byte 2 the type of the header:
//!
//! | flags, type | header | bytes | size at | time at | process and thread |
//! |---|---|---|---|---|---|
//! | C0, 01/02 | system (32/64 bit) | 20 | 04 | 10 | thread 08, process 0C |
//! | C0, 03/04 | compact system | 18 | 04 | 10 | same |
//! | C0, 10/11 | perfinfo | 10, 8 more per counter | 04 | 08 | none |
//! | C0, 0A/14 | full (`EVENT_TRACE_HEADER`) | 30 | 00 | 10 | same; GUID 18 |
//! | C0, 0B/15 | instance | 48 | 00 | 10 | same; GUID 18 |
//! | C0, 12/13 | event (`EVENT_HEADER`) | 50 | 00 | 10 | same; provider 18 |
//! | C0, 0C/0D/0E | timed, error, wnode | 4 | 00 | none | none |
//! | 90, any | message (WPP) | 8 and more | 00 | optional | optional |
//!
//! Sizes are `u16` and include header and data. Events start at multiples of 8 from the start of the buffer; the gaps
//! contain old data. The marker 0xFFFFFFFF ends a buffer.
//!
//! Source: Geoff Chappell, "Trace headers"; `evntcons.h`, `evntrace.h`; recorded traces.

use crate::bytes::{i64_at, u16_at, u32_at};
use crate::damage::DamageKind;
use crate::event::HeaderKind;
use crate::extended::items_len;

pub(crate) const MESSAGE_HEADER_LEN: usize = 8;
const MARKER_END: u32 = u32::MAX;
/// Alignment of events.
const ALIGNMENT: usize = 8;

/// Options of a `MESSAGE`: the fields after its header.
pub(crate) mod message {
    pub(crate) const SEQUENCE: u16 = 0x01;
    pub(crate) const GUID: u16 = 0x02;
    pub(crate) const COMPONENT_ID: u16 = 0x04;
    /// Bit 0x08 means a time stamp, 0x10 one of the performance counter; both have the same length.
    pub(crate) const TIME: u16 = 0x18;
    pub(crate) const SYSTEM_INFO: u16 = 0x20;
}

/// Why an event is unreadable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: DamageKind,
    pub(crate) expected: u64,
    pub(crate) found: u64,
}

/// The position and size of an event that is completely within its buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) kind: HeaderKind,
    /// Offset of the event from the end of the buffer header.
    pub(crate) at: u32,
    /// Length of header and data.
    pub(crate) size: u16,
    /// Offset of the extended items in the event, if it has any.
    pub(crate) items_at: u16,
    /// Offset of the payload in the event.
    pub(crate) payload_at: u16,
    pub(crate) raw_time: Option<i64>,
}

impl Head {
    /// Returns the offset of the next event.
    pub(crate) fn next_at(&self) -> usize {
        next_at(self.at as usize, self.size)
    }
}

fn next_at(at: usize, size: u16) -> usize {
    at + usize::from(size).next_multiple_of(ALIGNMENT)
}

/// The contents of a buffer at an offset.
pub(crate) enum Step {
    /// An event.
    Event(Head),
    /// The end of the buffer.
    End,
    /// An unreadable event with a valid size; the next one is at `next_at`.
    Skip { fault: Fault, next_at: usize },
    /// An event that extends beyond the available data. The rest is unreadable.
    Beyond(Fault),
    /// Not an event. The rest is unreadable.
    Bad(Fault),
}

/// Decodes `data`, the events of a buffer, at offset `at`.
pub(crate) fn step(data: &[u8], at: usize) -> Step {
    let rest = match data.get(at..) {
        Some(rest) if !rest.is_empty() => rest,
        _ => return Step::End,
    };
    let too_long = |size: usize| {
        Step::Beyond(Fault { kind: DamageKind::EventSize, expected: rest.len() as u64, found: size as u64 })
    };
    let Some(marker) = u32_at(rest, 0) else {
        return too_long(ALIGNMENT);
    };
    if marker == MARKER_END {
        return Step::End;
    }
    let Some(kind) = HeaderKind::from_marker(marker) else {
        return Step::Bad(Fault { kind: DamageKind::Marker, expected: 0, found: u64::from(marker) });
    };
    let Some(size) = u16_at(rest, kind.size_at()) else {
        return too_long(ALIGNMENT);
    };
    let header_len = kind.header_len(marker);
    if usize::from(size) < header_len {
        return Step::Bad(Fault {
            kind: DamageKind::EventSize,
            expected: header_len as u64,
            found: u64::from(size),
        });
    }
    let Some(event) = rest.get(..usize::from(size)) else {
        return too_long(usize::from(size));
    };
    let raw_time = kind.time_at(event).and_then(|time_at| i64_at(event, time_at));
    let payload_at = match kind {
        HeaderKind::Event32 | HeaderKind::Event64 if event[4] & 1 != 0 => {
            items_len(&event[header_len..]).map(|len| header_len + len)
        }
        HeaderKind::Message => message_len(event),
        _ => Ok(header_len),
    };
    match payload_at {
        Ok(payload_at) => Step::Event(Head {
            kind,
            at: at as u32,
            size,
            items_at: header_len as u16,
            payload_at: payload_at as u16,
            raw_time,
        }),
        Err(fault) => Step::Skip { fault, next_at: next_at(at, size) },
    }
}

/// Returns whether `data` starts with an event or with the end marker of a buffer.
pub(crate) fn starts_event(data: &[u8]) -> bool {
    u32_at(data, 0).is_some_and(|marker| marker == MARKER_END || HeaderKind::from_marker(marker).is_some())
}

/// Returns the length of the header of a `MESSAGE`: the fixed part and the fields of its options.
fn message_len(event: &[u8]) -> Result<usize, Fault> {
    let options = message_options(event);
    let mut len = message_time_at(options);
    if options & message::TIME != 0 {
        len += 8;
    }
    if options & message::SYSTEM_INFO != 0 {
        len += 8;
    }
    if len > event.len() {
        return Err(Fault { kind: DamageKind::EventSize, expected: len as u64, found: event.len() as u64 });
    }
    Ok(len)
}

/// Returns the options of a `MESSAGE`.
pub(crate) fn message_options(event: &[u8]) -> u16 {
    u16_at(event, 6).unwrap_or(0)
}

/// Returns the offset of the component id or GUID in a `MESSAGE`.
pub(crate) fn message_guid_at(options: u16) -> usize {
    MESSAGE_HEADER_LEN + if options & message::SEQUENCE == 0 { 0 } else { 4 }
}

/// Returns the offset of the time stamp in a `MESSAGE`, whether or not it has one.
pub(crate) fn message_time_at(options: u16) -> usize {
    let guid_len = if options & message::COMPONENT_ID != 0 {
        4
    } else if options & message::GUID != 0 {
        16
    } else {
        0
    };
    message_guid_at(options) + guid_len
}
