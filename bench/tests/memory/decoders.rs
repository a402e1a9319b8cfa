//! The memory for reading hostile files is bounded by constants, not by sizes that the files claim.

use etwsieve::event::EventRef;
use etwsieve::source::{Damage, Sink, evtx, jsonl};
use etwsieve_bench::alloc;
use etwsieve_etl::Trace;
use std::ops::ControlFlow;
use std::path::Path;
use uuid::Uuid;

#[test]
fn hostile_files_take_bounded_memory() {
    let _guard = super::alone();
    lines_take_little_more_memory_than_their_length();
    chunks_take_little_memory();
    the_list_of_buffers_is_all_that_grows();
}

/// Counts the events and the damage of a source.
#[derive(Default)]
struct Counted {
    events: usize,
    damaged: usize,
}

impl Sink for Counted {
    fn wants(&self, _: &Uuid, _: u16) -> bool {
        true
    }

    fn event(&mut self, _: &EventRef<'_>) -> ControlFlow<()> {
        self.events += 1;
        ControlFlow::Continue(())
    }

    fn unwanted(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn damaged(&mut self, _: &Damage) {
        self.damaged += 1;
    }

    fn progress(&mut self, _: u64) {}
}

/// Unneeded parts of a line are skipped without keeping them, however deeply they are nested.
fn lines_take_little_more_memory_than_their_length() {
    let fill = |open: &str, item: &str, close: &str| {
        let items = item.repeat(1_000_000 / item.len());
        format!(
            r#"{{"time":"2020-07-22T00:02:31Z","event_level":3,"script_block_text":"a",{open}{}{close}}}"#,
            &items[..items.len() - 1]
        )
    };
    let rows = [
        ("a level of many numbers", fill(r#""level":["#, "0,", "]")),
        ("a level of many keys", fill(r#""level":{"#, r#""a":0,"#, "}")),
        ("an unknown list", fill(r#""other":["#, "[],", "]")),
        ("many unknown keys", fill("", r#""x":{},"#, "")),
    ];
    for (name, line) in rows {
        let mut sink = Counted::default();
        let (held, result) = alloc::most_held(|| jsonl::replay(line.as_bytes(), Path::new("x"), &mut sink));
        assert!(result.is_ok() && sink.events + sink.damaged == 1, "{name}");
        assert!(held < 4 << 20, "{name}: {held} bytes for {}", line.len());
    }
}

/// Records consist of noise after their magic number.
fn chunks_take_little_memory() {
    let mut file = vec![0; 4096];
    file[..8].copy_from_slice(b"ElfFile\0");
    for chunk in 0..4_u32 {
        let start = file.len();
        file.extend((0..65_536_u32).map(|at| (at.wrapping_mul(0x9E37_79B1 + chunk) >> 13) as u8));
        file[start..start + 8].copy_from_slice(b"ElfChnk\0");
        for at in (512..65_000).step_by(64) {
            file[start + at..start + at + 4].copy_from_slice(b"**\0\0");
        }
    }
    let mut sink = Counted::default();
    let (held, result) = alloc::most_held(|| evtx::replay(&file[..], Path::new("x"), &mut sink));
    assert!(result.is_ok() && sink.damaged > 0);
    assert!(held < 4 << 20, "{held} bytes");
}

/// With a buffer for every 72 bytes only the list of buffers grows with the file.
fn the_list_of_buffers_is_all_that_grows() {
    let mut writer = etwsieve_tests::writer::TraceWriter::new().buffer_len(4096);
    writer.compression = Some(etwsieve_etl::Compression::Xpress);
    let mut bytes = writer.build();
    let mut header = bytes[..72].to_vec();
    header[..4].copy_from_slice(&72_u32.to_le_bytes());
    for number in 0..100_000_u32 {
        header[0x28..0x2a].copy_from_slice(&(number as u16).to_le_bytes());
        bytes.extend_from_slice(&header);
    }
    let (held, events) = alloc::most_held(|| {
        let trace = Trace::new(&bytes).expect("a trace");
        let mut events = trace.events();
        let mut count = 0;
        while events.next().is_some() {
            count += 1;
        }
        count
    });
    assert_eq!(events, 2);
    // In addition there is a stream of a few hundred bytes for each processor.
    let max = Trace::index_len_max(bytes.len() as u64) + 65_537 * 320;
    assert!((held as u64) < max, "{held} bytes of {max}");
}
