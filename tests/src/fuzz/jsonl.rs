//! Arbitrary bytes as JSON Lines.

use etwsieve::event::{EventRef, PAYLOAD_LEN_MAX};
use etwsieve::payload::fields;
use etwsieve::source::{Damage, Sink, SourceError, jsonl};
use std::ops::ControlFlow;
use std::path::Path;
use uuid::Uuid;

/// Reads `data` as JSON Lines.
///
/// # Panics
///
/// If an event or a damage report violates a guarantee of the source, or if a line counts more than once.
pub fn jsonl(data: &[u8]) {
    let mut checked = Checked { len: data.len() as u64, ..Checked::default() };
    let result = jsonl::replay(data, Path::new("fuzz"), &mut checked);
    let lines = data.split(|&byte| byte == b'\n').count();
    assert!(checked.told <= lines, "{} of {lines} lines", checked.told);
    // Each unit of a payload takes at least one byte in the line; numbers and terminators are few.
    assert!(
        checked.payload_bytes <= 2 * data.len() + 128 * lines,
        "{} bytes of payloads",
        checked.payload_bytes
    );
    match result {
        Ok(()) => assert_eq!(checked.progress, checked.len, "all of it was read"),
        Err(SourceError::NotThisFormat { .. }) => assert_eq!(checked.told, 0),
        Err(error) => panic!("{error}"),
    }
}

/// Checks events and reports against the guarantees of the source.
#[derive(Default)]
struct Checked {
    len: u64,
    told: usize,
    payload_bytes: usize,
    progress: u64,
}

impl Sink for Checked {
    fn wants(&self, _: &Uuid, _: u16) -> bool {
        true
    }

    fn event(&mut self, event: &EventRef<'_>) -> ControlFlow<()> {
        self.told += 1;
        self.payload_bytes += event.payload.len();
        assert!(event.payload.len() <= PAYLOAD_LEN_MAX);
        if fields(event.header.event_id).is_some() {
            assert!(event.payload.len().is_multiple_of(2) && event.payload.ends_with(&[0, 0]));
        }
        ControlFlow::Continue(())
    }

    fn unwanted(&mut self) -> ControlFlow<()> {
        self.told += 1;
        ControlFlow::Continue(())
    }

    fn damaged(&mut self, damage: &Damage) {
        self.told += 1;
        assert!(damage.offset <= self.len && damage.detail.len() < 2048, "{damage}");
    }

    fn progress(&mut self, bytes: u64) {
        assert!(bytes >= self.progress && bytes <= self.len);
        self.progress = bytes;
    }
}
