//! Compares recorded traces event by event with the results of an independent reader.
//!
//! The oracle of a trace is a compressed file of JSON Lines: facts about the trace, then every event in the order of the
//! file with its header fields, its time and the SHA-256 of its payload.

use etwsieve_etl::{ClockType, Event, HeaderKind, TraceFile, TraceInfo};
use flate2::read::GzDecoder;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/recorded")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Compares an event with its line in the oracle.
fn check_event(event: &Event<'_>, want: &Value, name: &str) {
    let number = |key: &str| want[key].as_u64().unwrap_or_else(|| panic!("{name}: no {key}"));
    let text = |key: &str| want[key].as_str().unwrap_or_else(|| panic!("{name}: no {key}"));
    assert_eq!(event.header.as_str(), text("hdr"), "{name}");
    assert_eq!(u64::from(event.position), number("pos"), "{name}");
    assert_eq!(u64::from(event.processor), number("cpu"), "{name}");
    assert_eq!(u64::from(event.size), number("size"), "{name}");
    assert_eq!(event.raw_time, want["ts"].as_i64(), "{name}");
    assert_eq!(event.time.to_string(), text("time"), "{name}");
    assert_eq!(event.process_id.map(u64::from), want["pid"].as_u64(), "{name}");
    assert_eq!(event.thread_id.map(u64::from), want["tid"].as_u64(), "{name}");
    assert_eq!(event.hook_id.map(u64::from), want["hook"].as_u64(), "{name}");
    assert_eq!(event.payload.len() as u64, number("payload_len"), "{name}");
    assert_eq!(hex(&Sha256::digest(event.payload)), text("payload_sha256"), "{name}");
    match event.header {
        HeaderKind::Event32 | HeaderKind::Event64 => {
            assert_eq!(event.provider.unwrap().to_string(), text("provider"), "{name}");
            assert_eq!(event.event_id.map(u64::from), Some(number("id")), "{name}");
            assert_eq!(u64::from(event.version), number("ver"), "{name}");
            assert_eq!(u64::from(event.channel), number("channel"), "{name}");
            assert_eq!(u64::from(event.level), number("level"), "{name}");
            assert_eq!(u64::from(event.opcode), number("opcode"), "{name}");
            assert_eq!(u64::from(event.task), number("task"), "{name}");
            assert_eq!(format!("{:#x}", event.keywords), text("keywords"), "{name}");
            assert_eq!(u64::from(event.flags), number("flags"), "{name}");
            assert_eq!(u64::from(event.property), number("property"), "{name}");
            assert_eq!(event.activity_id.unwrap().to_string(), text("activity"), "{name}");
            let items: Vec<_> =
                event.extended().map(|item| (u64::from(item.kind), item.data.len() as u64)).collect();
            let want = want["ext"].as_array().unwrap().iter();
            let want = want.map(|item| (item[0].as_u64().unwrap(), item[1].as_u64().unwrap()));
            assert_eq!(items, want.collect::<Vec<_>>(), "{name}");
        }
        HeaderKind::Full32 | HeaderKind::Full64 => {
            assert_eq!(event.provider.unwrap().to_string(), text("guid"), "{name}");
            assert_eq!(u64::from(event.opcode), number("type"), "{name}");
            assert_eq!(u64::from(event.level), number("level"), "{name}");
            assert_eq!(u64::from(event.version), number("version"), "{name}");
        }
        _ => {}
    }
}

fn check_facts(info: &TraceInfo, facts: &Value, name: &str) {
    let want = &facts["logfile"];
    let number = |key: &str| want[key].as_u64().unwrap_or_else(|| panic!("{name}: no {key}"));
    let version = format!(
        "{:x}",
        u32::from_le_bytes([info.os_version.0, info.os_version.1, info.file_version.0, info.file_version.1])
    );
    assert_eq!(Some(version.as_str()), want["version"].as_str(), "{name}");
    assert_eq!(u64::from(info.os_build), number("build"), "{name}");
    assert_eq!(u64::from(info.buffer_size), number("buffer_size"), "{name}");
    assert_eq!(u64::from(info.processors), number("cpus"), "{name}");
    assert_eq!(format!("{:#x}", info.log_file_mode), want["log_file_mode"].as_str().unwrap(), "{name}");
    assert_eq!(u64::from(info.buffers_written), number("buffers_written"), "{name}");
    assert_eq!(u64::from(info.pointer_size), number("pointer_size"), "{name}");
    assert_eq!(u64::from(info.events_lost), number("events_lost"), "{name}");
    assert_eq!(u64::from(info.buffers_lost), number("buffers_lost"), "{name}");
    assert_eq!(u64::from(info.cpu_mhz), number("cpu_mhz"), "{name}");
    assert_eq!(info.perf_freq, want["perf_freq"].as_i64().unwrap(), "{name}");
    assert_eq!(info.start.unwrap().0, number("start_ft"), "{name}");
    for (time, key) in [(info.start, "start_time"), (info.end, "end_time"), (info.boot, "boot_time")] {
        assert_eq!(time.unwrap().to_string(), want[key].as_str().unwrap(), "{name} {key}");
    }
    assert_eq!(info.clock.kind, ClockType::PerformanceCounter, "{name}");
    assert_eq!(number("clock_type"), 1, "{name}");
    assert_eq!(Some(info.clock.raw_start), want["header_ts"].as_i64(), "{name}");
    assert_eq!(info.logger_name, want["names"][0].as_str().unwrap(), "{name}");
    assert_eq!(info.log_file_name, want["names"][1].as_str().unwrap(), "{name}");
    assert_eq!(Some(info.buffers_found), facts["buffers"].as_u64(), "{name}");
    assert_eq!(Some(info.buffers_compressed), facts["compressed_buffers"].as_u64(), "{name}");
    assert!(!info.is_never_closed(), "{name}");
    assert_eq!(info.unused_bytes, 0, "{name}");
}

/// Compares a trace with its oracle. Returns the number of its events.
fn check_trace(path: &Path) -> u64 {
    let name = path.file_name().unwrap().to_str().unwrap();
    let file = TraceFile::open(path).unwrap();
    let trace = file.trace().unwrap();

    // The oracle is in the order of the file, so events are sorted by buffer and position.
    let mut places = Vec::new();
    let mut events = trace.events();
    let mut last = None;
    while let Some(event) = events.next() {
        assert!(last <= Some(event.time), "{name}: time goes back to {}", event.time);
        last = Some(event.time);
        places.push((event.buffer_offset, event.position));
    }
    assert_eq!(events.damage().kept(), [], "{name}");
    assert_eq!(events.out_of_order(), 0, "{name}");
    assert_eq!(events.bytes_consumed(), file.len(), "{name}");
    assert_eq!(events.scratch_len(), 0, "{name}");
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_unstable_by_key(|at| places[*at]);
    let mut line_of = vec![0; places.len()];
    for (line, at) in order.into_iter().enumerate() {
        line_of[at] = line;
    }
    let mut offsets: Vec<u64> = places.iter().map(|(offset, _)| *offset).collect();
    offsets.sort_unstable();
    offsets.dedup();

    let oracle = recorded().join("oracle").join(format!("{name}.oracle.jsonl.gz"));
    let mut lines = BufReader::new(GzDecoder::new(File::open(oracle).unwrap())).lines();
    let facts: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    check_facts(trace.info(), &facts, name);
    let lines: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(lines.len(), places.len(), "{name}: count of events");
    assert_eq!(Some(lines.len() as u64), facts["events"].as_u64(), "{name}");
    // The trace is walked twice, because events borrow their payloads.
    let mut events = trace.events();
    let mut line = line_of.iter();
    while let Some(event) = events.next() {
        let line = *line.next().unwrap();
        let want: Value = serde_json::from_str(&lines[line]).unwrap();
        let name = format!("{name}, event {line}");
        check_event(&event, &want, &name);
        let buffer = offsets.binary_search(&event.buffer_offset).unwrap() as u64;
        // The oracle has no line for buffers without events.
        assert!(buffer <= want["buf"].as_u64().unwrap(), "{name}");
    }
    lines.len() as u64
}

#[test]
fn recorded_traces_equal_their_oracle() {
    let folder = recorded().join("etl");
    let Ok(entries) = fs::read_dir(&folder) else {
        println!("no recorded traces here: skipped");
        return;
    };
    let mut events = 0;
    let mut traces = 0;
    for entry in entries {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "etl") {
            events += check_trace(&path);
            traces += 1;
        }
    }
    assert!(traces >= 10, "{traces} traces");
    println!("{traces} traces, {events} events");
}
