//! The cost of reading recorded event logs stays far below the bounds of the reader.

use etwsieve::event::EventRef;
use etwsieve::source::evtx::{CHUNK_STEPS_PER_BYTE_MAX, RECORD_BYTES_MAX};
use etwsieve::source::{Cost, Damage, Sink, evtx};
use etwsieve_tests::corpus;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Keeps the cost of each chunk.
#[derive(Default)]
struct Costs(Vec<Cost>);

impl Sink for Costs {
    fn wants(&self, _: &Uuid, _: u16) -> bool {
        true
    }
    fn event(&mut self, _: &EventRef<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
    fn unwanted(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
    fn damaged(&mut self, damage: &Damage) {
        panic!("{damage}");
    }
    fn worked(&mut self, cost: Cost) {
        self.0.push(cost);
    }
    fn progress(&mut self, _: u64) {}
}

fn logs(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            logs(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "evtx") {
            found.push(path);
        }
    }
}

#[test]
fn recorded_logs_are_far_from_the_bounds() {
    const CHUNK_LEN: f64 = 65_536.0;
    let Some(data) = corpus::data() else { return };
    let mut files = Vec::new();
    logs(&data.join("recorded/evtx"), &mut files);
    let mut costs = Costs::default();
    for path in &files {
        evtx::read(path, &mut costs).expect("an event log");
    }
    let steps = costs.0.iter().map(|cost| cost.steps as f64 / CHUNK_LEN).fold(0.0, f64::max);
    let bytes = costs.0.iter().map(|cost| cost.bytes).max().unwrap_or(0);
    println!("{} chunks: at most {steps:.2} steps a byte, {bytes} bytes allocated", costs.0.len());
    assert!(steps * 4.0 < CHUNK_STEPS_PER_BYTE_MAX as f64, "{steps}");
    assert!(bytes < RECORD_BYTES_MAX, "{bytes}");
}
