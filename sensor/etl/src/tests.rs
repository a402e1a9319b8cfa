//! Small synthetic traces, from memory and from a source that is read at offsets. Small enough for Miri.

use crate::source::{Bytes, Missing, Window};
use crate::work::index_budget;
use crate::{BUFFER_HEADER_LEN, Compression, DamageKind, ReadAt, Trace, TraceFile};
use etwsieve_budget::Budget;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, process};

const BUFFER_LEN: usize = 512;
const LOGGER_ID: u16 = 7;
const MODE_COMPRESSED: u32 = 0x0400_0000;

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Returns a buffer with these events, or with their compressed form.
fn buffer(sequence: u64, processor: u8, data: &[u8], stored: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = vec![0; BUFFER_HEADER_LEN];
    bytes.extend_from_slice(stored.unwrap_or(data));
    if stored.is_none() {
        bytes.resize(BUFFER_LEN, 0xff);
    }
    let (len, filled) = (bytes.len() as u32, (BUFFER_HEADER_LEN + data.len()) as u32);
    put(&mut bytes, 0x00, &len.to_le_bytes());
    put(&mut bytes, 0x18, &sequence.to_le_bytes());
    put(&mut bytes, 0x28, &[processor]);
    put(&mut bytes, 0x2a, &LOGGER_ID.to_le_bytes());
    put(&mut bytes, 0x30, &filled.to_le_bytes());
    put(&mut bytes, 0x34, &[if stored.is_some() { 0x40 } else { 0 }, 0]);
    bytes
}

/// Returns the first buffer.
fn start(mode: u32) -> Vec<u8> {
    const EVENT_LEN: usize = 0x20 + 0x118 + 8;
    let mut event = vec![0; EVENT_LEN];
    put(&mut event, 0x00, &0xC002_0002_u32.to_le_bytes());
    put(&mut event, 0x04, &(EVENT_LEN as u16).to_le_bytes());
    put(&mut event, 0x20, &(BUFFER_LEN as u32).to_le_bytes());
    put(&mut event, 0x20 + 0x10, &[1]);
    put(&mut event, 0x20 + 0x20, &mode.to_le_bytes());
    put(&mut event, 0x20 + 0x24, &[3]);
    put(&mut event, 0x20 + 0x110, &[2]);
    buffer(0, 0, &event, None)
}

/// Returns compact kernel events with these times.
fn events(times: &[u64]) -> Vec<u8> {
    let mut data = Vec::new();
    for time in times {
        let mut event = [0xAB; 0x20];
        put(&mut event, 0x00, &0xC003_0002_u32.to_le_bytes());
        put(&mut event, 0x04, &0x20_u16.to_le_bytes());
        put(&mut event, 0x10, &time.to_le_bytes());
        data.extend_from_slice(&event);
    }
    data
}

/// Encodes `data` in each format as literals only.
fn literals(format: Compression, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match format {
        Compression::Xpress => {
            for items in data.chunks(32) {
                out.extend([0; 4]);
                out.extend(items);
            }
            if data.len().is_multiple_of(32) {
                out.extend([0; 4]);
            }
        }
        Compression::Lznt1 => {
            out.extend((0x3000 | (data.len() as u16 - 1)).to_le_bytes());
            out.extend(data);
        }
        Compression::XpressHuffman => {
            // Every byte has an eight-bit code.
            out.extend([0x88; 128]);
            out.extend([0; 128]);
            for pair in data.chunks(2) {
                out.extend([pair.get(1).copied().unwrap_or(0), pair[0]]);
            }
            out.extend([0; 2]);
        }
    }
    out
}

/// A source that is truncated after some reads.
#[derive(Debug)]
struct Source {
    bytes: Vec<u8>,
    reads_left: AtomicUsize,
    cut_to: usize,
}

impl Source {
    fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), reads_left: AtomicUsize::new(usize::MAX), cut_to: 0 }
    }
}

impl ReadAt for Source {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.reads_left.load(Ordering::Relaxed);
        self.reads_left.store(left.saturating_sub(1), Ordering::Relaxed);
        let bytes = if left == 0 { &self.bytes[..self.cut_to] } else { &self.bytes[..] };
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

/// Returns the times of the events, and the counts of damage by kind.
fn walk(trace: &Trace<'_>) -> (Vec<u64>, Vec<(DamageKind, u64)>) {
    let mut events = trace.events();
    let mut times = Vec::new();
    while let Some(event) = events.next() {
        assert!(event.payload.len() < BUFFER_LEN);
        times.extend(Some(event.time.0).filter(|time| *time > 0));
    }
    (times, events.damage().counts().collect())
}

fn small(format: Option<Compression>) -> Vec<u8> {
    let mut bytes = start(if format.is_some() { MODE_COMPRESSED } else { 1 });
    for (sequence, processor, times) in [(1, 0, [10, 30]), (2, 1, [20, 40]), (3, 0, [50, 60])] {
        let data = events(&times);
        let stored = format.map(|format| literals(format, &data));
        bytes.extend(buffer(sequence, processor, &data, stored.as_deref()));
    }
    bytes
}

const FORMATS: [Option<Compression>; 4] =
    [None, Some(Compression::Xpress), Some(Compression::Lznt1), Some(Compression::XpressHuffman)];

#[test]
fn memory_and_source_return_the_same_events() {
    for format in FORMATS {
        let bytes = small(format);
        let source = Source::of(&bytes);
        for trace in [Trace::new(&bytes).unwrap(), Trace::read(&source, &|| false).unwrap()] {
            assert_eq!(walk(&trace), (vec![10, 20, 30, 40, 50, 60], vec![]), "{format:?}");
            assert_eq!(trace.info().buffers_found, 4, "{format:?}");
        }
    }
}

#[test]
fn truncation_during_a_read_is_reported() {
    for format in FORMATS {
        let bytes = small(format);
        for reads in if cfg!(miri) { 0..6 } else { 0..20 } {
            for cut_to in [0, 300, bytes.len() / 2, bytes.len() - 4] {
                let source = Source { reads_left: AtomicUsize::new(reads), cut_to, ..Source::of(&bytes) };
                let Ok(trace) = Trace::read(&source, &|| false) else {
                    assert_eq!(reads, 0, "{format:?}");
                    continue;
                };
                let (times, damage) = walk(&trace);
                assert!(times.len() == 6 || !damage.is_empty(), "{format:?}, {reads} reads, cut to {cut_to}");
            }
        }
    }
}

#[test]
fn a_file_may_be_truncated_while_it_is_open() {
    let path = env::temp_dir().join(format!("etwsieve-etl-{}.etl", process::id()));
    fs::write(&path, small(None)).unwrap();
    let file = TraceFile::open(&path).unwrap();
    let trace = file.trace().unwrap();
    assert_eq!(walk(&trace), (vec![10, 20, 30, 40, 50, 60], vec![]));
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(2 * BUFFER_LEN as u64).unwrap();
    let (times, damage) = walk(&trace);
    assert_eq!((times, damage), (vec![10, 30], vec![(DamageKind::Changed, 2)]));
    fs::remove_file(&path).unwrap();
}

#[test]
fn buffers_after_an_invalid_header_are_found() {
    let mut bytes = small(Some(Compression::Xpress));
    let second = BUFFER_LEN;
    bytes[second..second + 4].fill(0xEE);
    let source = Source::of(&bytes);
    for trace in [Trace::new(&bytes).unwrap(), Trace::read(&source, &|| false).unwrap()] {
        let (times, damage) = walk(&trace);
        assert_eq!(times, [20, 40, 50, 60]);
        assert_eq!(damage, [(DamageKind::BufferSize, 1)]);
    }
}

#[test]
fn a_window_moves_and_remembers_missing_bytes() {
    let bytes: Vec<u8> = (0..20_000_u32).map(|at| (at % 251) as u8).collect();
    let source = Source::of(&bytes);
    let mut budget = index_budget(bytes.len() as u64);
    let mut window = Window::new(Bytes::Source(&source));
    for (at, len) in
        [(0, 10), (5, 10), (4_090, 20), (19_000, 100), (3, 5), (19_990, 50), (20_000, 1), (40_000, 1)]
    {
        let want = bytes.get(at..).unwrap_or_default();
        let want = &want[..len.min(want.len())];
        assert_eq!(window.view(at as u64, len, &mut budget), Ok(want), "{at}");
    }
    assert!(window.take_missing().is_none());
    let cut = Source { reads_left: AtomicUsize::new(0), cut_to: 100, ..Source::of(&bytes) };
    let mut window = Window::new(Bytes::Source(&cut));
    assert_eq!(window.view(90, 20, &mut budget), Ok(&bytes[90..100]));
    assert!(matches!(window.take_missing(), Some((100, Missing::Gone))));
    assert_eq!(window.view(95, 20, &mut budget), Ok(&bytes[95..100]), "without another read");
    assert!(window.take_missing().is_none());
}

#[test]
fn the_rest_after_the_budget_is_reported_as_damage() {
    let bytes = small(None);
    let trace = Trace::new(&bytes).unwrap();
    // Enough for the first buffers.
    for steps in [0, 300, 700, 900] {
        let mut events = crate::Events::new(&trace, Budget::new(steps, u64::MAX));
        let mut seen = 0;
        while events.next().is_some() {
            seen += 1;
        }
        let unread = events.damage().count(DamageKind::WorkLimit);
        assert!(seen < 7 && unread > 0, "{steps} steps: {seen} events, {unread} buffers unread");
        assert_eq!(events.cost().0, steps, "all work is charged");
    }
}
