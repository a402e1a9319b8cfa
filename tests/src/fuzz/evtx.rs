//! Arbitrary bytes as an event log file.

use etwsieve::event::{EventRef, PAYLOAD_LEN_MAX};
use etwsieve::payload::fields;
use etwsieve::source::evtx::{CHUNK_STEPS_PER_BYTE_MAX, RECORD_BYTES_MAX, RECORD_STEPS_FREE};
use etwsieve::source::{Cost, Damage, Sink, evtx};
use std::ops::ControlFlow;
use std::path::Path;
use uuid::Uuid;

const FILE_HEADER_LEN: usize = 4096;
const CHUNK_LEN: usize = 65_536;
/// Maximum length of a computer's name in characters.
const COMPUTER_LEN_MAX: usize = 256;
/// Minimum size of a record in bytes.
const RECORD_LEN_MIN: usize = 28;

/// Reads `data` as the chunks of a file, and as a whole file if it starts like one.
///
/// # Panics
///
/// If an event or a damage report violates a guarantee of the source.
pub fn evtx(data: &[u8]) {
    if data.starts_with(b"ElfFile\0") {
        read(data);
        return;
    }
    let mut file = vec![0; FILE_HEADER_LEN];
    file[..8].copy_from_slice(b"ElfFile\0");
    file.extend_from_slice(data);
    if !data.starts_with(b"ElfChnk\0") && data.len() >= 8 {
        file[FILE_HEADER_LEN..FILE_HEADER_LEN + 8].copy_from_slice(b"ElfChnk\0");
    }
    read(&file);
}

fn read(file: &[u8]) {
    let mut checked = Checked { len: file.len() as u64, ..Checked::default() };
    let result = evtx::replay(file, Path::new("fuzz"), &mut checked);
    assert!(result.is_ok(), "a file with its magic is an event log");
    let chunks = file.len() / CHUNK_LEN + 2;
    // The bounds for reading records and for finding them.
    let (len, cost) = (file.len() as u64, checked.cost);
    let steps_max = (CHUNK_STEPS_PER_BYTE_MAX + 16) * len + 2 * RECORD_STEPS_FREE * chunks as u64;
    assert!(cost.steps <= steps_max, "{} steps for {len} bytes", cost.steps);
    assert!(checked.bytes_most <= RECORD_BYTES_MAX * (CHUNK_LEN / RECORD_LEN_MIN) as u64);
    // Each allocated byte costs an eighth of a step.
    assert!(cost.bytes <= 8 * steps_max, "{} bytes allocated for {len} bytes", cost.bytes);
    // Each record is an event, unwanted or damaged; a damaged one may be reported and still be read.
    assert!(checked.told <= 2 * (file.len() / RECORD_LEN_MIN) + 4 * chunks, "{} of {chunks}", checked.told);
}

/// Checks events and reports against the guarantees of the source.
#[derive(Default)]
struct Checked {
    len: u64,
    told: usize,
    progress: u64,
    cost: Cost,
    bytes_most: u64,
}

impl Sink for Checked {
    fn wants(&self, _: &Uuid, event_id: u16) -> bool {
        assert!(fields(event_id).is_some(), "asked for an event that cannot be rebuilt");
        true
    }

    fn event(&mut self, event: &EventRef<'_>) -> ControlFlow<()> {
        self.told += 1;
        let payload = event.payload;
        let fields = fields(event.header.event_id).expect("a known event");
        assert!(payload.len() <= PAYLOAD_LEN_MAX);
        assert!(event.computer.is_none_or(|name| name.chars().count() <= COMPUTER_LEN_MAX));
        let text = if fields.len() == 5 { &payload[8..] } else { payload };
        let units = text.as_chunks::<2>();
        assert!(units.1.is_empty(), "whole units");
        let strings = units.0.iter().filter(|unit| **unit == [0, 0]).count();
        let expected = if fields.len() == 5 { 2..=3 } else { 3..=3 };
        assert!(expected.contains(&strings), "{strings} strings");
        assert_eq!(units.0.last(), Some(&[0, 0]), "the last one ends");
        ControlFlow::Continue(())
    }

    fn unwanted(&mut self) -> ControlFlow<()> {
        self.told += 1;
        ControlFlow::Continue(())
    }

    fn damaged(&mut self, damage: &Damage) {
        self.told += 1;
        assert!(damage.offset <= self.len && damage.detail.len() < 1024, "{damage}");
    }

    fn worked(&mut self, cost: Cost) {
        self.cost.steps += cost.steps;
        self.cost.bytes += cost.bytes;
        self.bytes_most = self.bytes_most.max(cost.bytes);
    }

    fn progress(&mut self, bytes: u64) {
        assert!(bytes > self.progress && bytes <= self.len);
        self.progress = bytes;
    }
}
