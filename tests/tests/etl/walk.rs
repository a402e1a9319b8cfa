//! A small trace, and a walk over its events, for suites that damage it.

use etwsieve_etl::{BUFFER_HEADER_LEN, Compression, DamageKind, DamageLog, FileTime, Trace};
use etwsieve_tests::fuzz;
use etwsieve_tests::writer::{EventSpec, TraceWriter, script_block, xpress};
use std::collections::BTreeSet;

pub(crate) const FORMATS: [Option<Compression>; 4] =
    [None, Some(Compression::Xpress), Some(Compression::Lznt1), Some(Compression::XpressHuffman)];
pub(crate) const BUFFER_LEN: usize = 1024;
pub(crate) const SID: [u8; 12] = [1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0];

/// Offsets in the header of a buffer.
pub(crate) const BUFFER_SIZE: usize = 0x00;
pub(crate) const SAVED_OFFSET: usize = 0x04;
pub(crate) const SEQUENCE_NUMBER: usize = 0x18;
pub(crate) const FILLED_BYTES: usize = 0x30;
/// File offset of the log file header in a 64-bit trace.
pub(crate) const LOG_FILE_HEADER: usize = 0x68;

/// Returns a trace of three processors with at least three buffers each, and events with and without extended items.
pub(crate) fn small(format: Option<Compression>) -> TraceWriter {
    with_events(45, format)
}

pub(crate) fn with_events(count: u64, format: Option<Compression>) -> TraceWriter {
    let mut writer = TraceWriter::new().buffer_len(BUFFER_LEN as u32).processors(3);
    writer.compression = format;
    for number in 0..count {
        let text = format!("Write-Output {number}");
        let event = EventSpec::powershell(4104, script_block(1, 1, &text, "7c5f", None));
        let event = event.at(10 + number * 3).on((number % 3) as u16).by(100 + number as u32, 7);
        writer.push(if number % 4 == 0 { event.sid(&SID) } else { event });
    }
    writer
}

/// An event of a walk: its number, which is its process id, and its place in the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) number: u32,
    pub(crate) offset: usize,
    pub(crate) size: usize,
    pub(crate) time: FileTime,
}

pub(crate) struct Walk {
    pub(crate) seen: Vec<Seen>,
    pub(crate) damage: DamageLog,
    pub(crate) out_of_order: u64,
    pub(crate) unused_bytes: u64,
}

impl Walk {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        fuzz::etl::etl(bytes);
        let trace = Trace::new(bytes).expect("the header is whole");
        let mut events = trace.events();
        let mut seen = Vec::new();
        while let Some(event) = events.next() {
            if event.event_id.is_some() {
                seen.push(Seen {
                    number: event.process_id.expect("the writer sets it") - 100,
                    offset: event.buffer_offset as usize + event.position as usize,
                    size: usize::from(event.size),
                    time: event.time,
                });
            }
        }
        Self {
            seen,
            damage: events.damage().clone(),
            out_of_order: events.out_of_order(),
            unused_bytes: trace.info().unused_bytes,
        }
    }

    pub(crate) fn numbers(&self) -> BTreeSet<u32> {
        self.seen.iter().map(|event| event.number).collect()
    }

    /// Returns the kinds of damage with their counts.
    pub(crate) fn kinds(&self) -> Vec<(DamageKind, u64)> {
        self.damage.counts().collect()
    }
}

pub(crate) fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Returns the offsets of the buffers of an undamaged trace.
pub(crate) fn buffers(bytes: &[u8]) -> Vec<usize> {
    let mut offsets = vec![];
    let mut at = 0;
    while at < bytes.len() {
        offsets.push(at);
        at += u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
    }
    offsets
}

/// Returns the numbers of the events in the buffer at `offset` of an uncompressed trace.
pub(crate) fn numbers_within(whole: &Walk, offset: usize) -> BTreeSet<u32> {
    let inside = |event: &&Seen| (offset..offset + BUFFER_LEN).contains(&event.offset);
    whole.seen.iter().filter(inside).map(|event| event.number).collect()
}

/// Returns the first buffer of a compressed trace, and a buffer that decompresses to `len` bytes. It has enough noise to make
/// that plausible.
pub(crate) fn inflating(len: usize) -> (Vec<u8>, Vec<u8>) {
    let mut writer = TraceWriter::new().buffer_len(len as u32).compressed(Compression::Xpress);
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let noise = (0..6_000).map(|_| noise()).collect();
    writer.push(EventSpec::powershell(4104, noise).by(100, 0).at(5));
    let mut bytes = writer.build();
    let second = buffers(&bytes)[1];
    let mut buffer = bytes[second..second + BUFFER_HEADER_LEN].to_vec();
    bytes.truncate(second);
    let mut data = writer.events()[0].encode(writer.raw_time(5));
    data.resize(len - BUFFER_HEADER_LEN, 0xff);
    fill(&mut buffer, &data);
    (bytes, buffer)
}

/// Appends the compressed `data` to the header of a buffer, and updates the sizes in the header.
pub(crate) fn fill(header: &mut Vec<u8>, data: &[u8]) {
    header.extend_from_slice(&xpress(data));
    let len = header.len() as u32;
    put(header, BUFFER_SIZE, len);
    put(header, FILLED_BYTES, (BUFFER_HEADER_LEN + data.len()) as u32);
}
