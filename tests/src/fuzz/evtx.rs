//! Event log files of any bytes.

use etwsieve::event::{EventRef, PAYLOAD_LEN_MAX};
use etwsieve::payload::fields;
use etwsieve::source::{Damage, Sink, evtx};
use std::ops::ControlFlow;
use std::path::Path;
use uuid::Uuid;

const FILE_HEADER_LEN: usize = 4096;
const CHUNK_LEN: usize = 65_536;
/// Bytes of the smallest record.
const RECORD_LEN_MIN: usize = 28;

/// Reads `data` as the chunks of a file, and as a whole file if it begins as one.
///
/// # Panics
///
/// If an event or a damage report breaks a promise of the source.
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
    // Each record is an event, unwanted or damaged once, and may be told as damaged and still be read.
    assert!(checked.told <= 2 * (file.len() / RECORD_LEN_MIN) + 4 * chunks, "{} of {chunks}", checked.told);
}

/// Holds events and reports against what the source promises.
#[derive(Default)]
struct Checked {
    len: u64,
    told: usize,
    progress: u64,
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

    fn progress(&mut self, bytes: u64) {
        assert!(bytes > self.progress && bytes <= self.len);
        self.progress = bytes;
    }
}
