//! Arbitrary bytes as a trace.

use etwsieve_etl::{
    BUFFER_HEADER_LEN, EXPANSION_MAX, Event, HeaderKind, INDEX_STEPS_PER_BYTE_MAX, ReadAt, SCRATCH_LEN_MAX,
    STEPS_FREE, Trace, WALK_STEPS_PER_BYTE_MAX,
};
use std::io;

/// Minimum size of an event with its padding, in bytes.
const EVENT_LEN_MIN: u64 = 8;
/// Maximum steps per byte of a walk over an uncompressed trace.
const PLAIN_STEPS_PER_BYTE_MAX: u64 = 8;
/// Maximum steps for opening a trace of any length.
const FIRST_STEPS: u64 = 8 << 10;

/// Reads all of `data` as a trace: twice from memory, and once like a file.
///
/// # Panics
///
/// If an event is outside of its buffer, time goes back without being counted, work or memory exceed their bounds, there are
/// more events than bytes for them, or the walks differ.
pub fn etl(data: &[u8]) {
    let read_at = Offsets(data);
    let from_file = Trace::read(&read_at, &|| false);
    let Ok(trace) = Trace::new(data) else {
        assert!(from_file.is_err(), "a file is a trace, the same bytes in memory are not");
        return;
    };
    let info = trace.info();
    let len = data.len() as u64;
    assert!(info.buffers_found <= len.div_ceil(BUFFER_HEADER_LEN as u64), "more buffers than bytes");
    assert!(info.buffers_compressed <= info.buffers_found);
    assert!(info.unused_bytes <= len);
    let (steps, bytes) = trace.index_cost();
    assert!(steps <= INDEX_STEPS_PER_BYTE_MAX * len + FIRST_STEPS, "{steps} steps to index {len} bytes");
    assert!(bytes <= 2 * Trace::index_len_max(len), "{bytes} bytes to index {len} bytes");
    let first = walk(&trace);
    assert_eq!(first, walk(&trace), "a walk depends on the one before it");
    let from_file = from_file.expect("memory is a trace, so a file is one");
    assert_eq!(info, from_file.info());
    assert_eq!(trace.damage().kept(), from_file.damage().kept());
    let (steps, _) = from_file.index_cost();
    assert!(
        steps <= INDEX_STEPS_PER_BYTE_MAX * len + FIRST_STEPS,
        "{steps} steps to index a file of {len} bytes"
    );
    assert_eq!(first, walk(&from_file), "a file gives other events than memory");
}

/// Bytes that are read like a file.
#[derive(Debug)]
struct Offsets<'a>(&'a [u8]);

impl ReadAt for Offsets<'_> {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.0.get(offset as usize..).expect("inside the file");
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

/// The result of a walk.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    events: u64,
    payload_sum: u64,
    damage: u64,
    out_of_order: u64,
}

fn walk(trace: &Trace<'_>) -> Summary {
    let mut summary = Summary { events: 0, payload_sum: 0, damage: 0, out_of_order: 0 };
    let mut events = trace.events();
    let (mut last_time, mut went_back, mut consumed) = (None, 0_u64, 0);
    while let Some(event) = events.next() {
        check(&event);
        assert!(event.buffer_offset + BUFFER_HEADER_LEN as u64 <= trace.len());
        summary.events += 1;
        summary.payload_sum += event.payload.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        if last_time > Some(event.time) {
            went_back += 1;
        }
        last_time = Some(event.time);
        assert!(events.scratch_len() <= SCRATCH_LEN_MAX, "{} bytes of scratch", events.scratch_len());
        assert!(events.bytes_consumed() >= consumed, "progress goes back");
        consumed = events.bytes_consumed();
        assert!(consumed <= trace.len(), "more than the file is consumed");
    }
    assert!(events.next().is_none(), "an event behind the end");
    assert_eq!(events.bytes_consumed(), trace.len());
    assert_eq!(events.scratch_len(), 0, "scratch memory outlives its stream");
    let is_compressed = trace.info().buffers_compressed > 0;
    let expansion = if is_compressed { EXPANSION_MAX } else { 1 };
    assert!(summary.events <= trace.len() * expansion / EVENT_LEN_MIN, "{} events", summary.events);
    // Decoding is the cheapest operation on an event, so this also bounds the operations that follow.
    let (steps, bytes) = events.cost();
    let (steps_max, bytes_max) = if is_compressed {
        (WALK_STEPS_PER_BYTE_MAX * trace.len() + STEPS_FREE, EXPANSION_MAX * trace.len())
    } else {
        (PLAIN_STEPS_PER_BYTE_MAX * trace.len() + FIRST_STEPS, 4 * trace.len())
    };
    assert!(steps <= steps_max, "{steps} steps for {} bytes", trace.len());
    assert!(bytes <= bytes_max, "{bytes} bytes allocated for {} bytes", trace.len());
    // A single wrong time stamp makes time go back at most twice: to it, or after it.
    assert!(went_back <= 2 * events.out_of_order(), "time goes back {went_back} times");
    assert!(events.damage().total() >= trace.damage().total());
    summary.damage = events.damage().total();
    summary.out_of_order = events.out_of_order();
    summary
}

fn check(event: &Event<'_>) {
    let mut items_len = 0;
    for item in event.extended() {
        items_len += 8 + item.data.len();
    }
    assert!(items_len + event.payload.len() < usize::from(event.size), "parts are larger than their event");
    if let Some(sid) = event.sid() {
        assert_eq!(sid.len(), 8 + 4 * usize::from(sid[1]));
    }
    let _ = event.related_activity_id();
    assert!(event.position as usize >= BUFFER_HEADER_LEN);
    assert_eq!(event.position % 8, 0, "an event that is not aligned");
    let is_event = matches!(event.header, HeaderKind::Event32 | HeaderKind::Event64);
    assert_eq!(is_event, event.activity_id.is_some());
}
