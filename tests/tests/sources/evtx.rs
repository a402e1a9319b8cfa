//! Event log files and JSON Lines of the recorded corpus: every field of every event, the counts of every file, and the
//! remains of truncated, damaged and unclosed files.

use etwsieve::event::{EventHeader, EventRef, PAYLOAD_LEN_MAX, POWERSHELL, Sid};
use etwsieve::source::{Damage, Sink, SourceError, evtx, jsonl};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Maximum window of the zstd frames in the corpus, as a power of two.
const WINDOW_LOG: u32 = 27;
const CHUNK_LEN: usize = 65_536;

#[derive(Clone, Debug, PartialEq)]
struct Event {
    header: EventHeader,
    user_sid: Option<Sid>,
    computer: Option<String>,
    payload: Vec<u8>,
}

/// Keeps all events and damage.
#[derive(Default)]
struct Collected {
    events: Vec<Event>,
    unwanted: usize,
    damages: Vec<Damage>,
    progress: Vec<u64>,
    stop_after: Option<usize>,
}

impl Sink for Collected {
    fn wants(&self, _: &Uuid, event_id: u16) -> bool {
        matches!(event_id, 4103 | 4104)
    }

    fn event(&mut self, event: &EventRef<'_>) -> ControlFlow<()> {
        assert!(event.payload.len() <= PAYLOAD_LEN_MAX);
        self.events.push(Event {
            header: event.header,
            user_sid: event.user_sid,
            computer: event.computer.map(str::to_owned),
            payload: event.payload.to_vec(),
        });
        if self.stop_after == Some(self.events.len()) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn unwanted(&mut self) -> ControlFlow<()> {
        self.unwanted += 1;
        ControlFlow::Continue(())
    }

    fn damaged(&mut self, damage: &Damage) {
        self.damages.push(damage.clone());
    }

    fn progress(&mut self, bytes: u64) {
        self.progress.push(bytes);
    }
}

fn recorded() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/recorded");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: {} is absent", folder.display());
    None
}

fn replay(bytes: &[u8]) -> Collected {
    let mut sink = Collected::default();
    evtx::replay(bytes, Path::new("test.evtx"), &mut sink).expect("an event log");
    sink
}

/// Finds all .evtx files below `folder`, by their path relative to `root`.
fn evtx_files(root: &Path, folder: &Path, files: &mut BTreeMap<String, PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            evtx_files(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "evtx") {
            let name = path.strip_prefix(root).expect("below the root").to_str().expect("UTF-8");
            files.insert(name.to_owned(), path);
        }
    }
}

/// Returns the lines of the three collections that were made from .evtx files.
fn recorded_lines(folder: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for name in ["attack-4104", "benign-4104", "ps-4103"] {
        let file = fs::File::open(folder.join(format!("{name}.jsonl.zst"))).expect("a collection");
        let mut decoder = zstd::Decoder::new(file).expect("zstd");
        decoder.window_log_max(WINDOW_LOG).expect("a window");
        let all = BufReader::new(decoder).lines().map(|line| line.expect("a line"));
        lines.extend(
            all.filter(|line| line.contains(r#""format": "evtx""#) || line.contains(r#""format":"evtx""#)),
        );
    }
    lines
}

/// Returns whether `source` of a line is the file `name`: the same path, or a file of an unpacked archive.
fn is_source(source: &str, name: &str) -> bool {
    let (repository, path) = source.split_once(':').expect("repository:path");
    let Some(rest) = name.strip_prefix(&format!("{}/", repository.replace('/', "+"))) else { return false };
    let in_archive = rest.split_once('/').is_some_and(|(folder, file)| {
        path.contains(&format!("/{folder}!")) && path.ends_with(&format!("/{file}"))
    });
    path == rest || in_archive
}

/// Returns the strings of a payload from `at` on, as the matcher reads them.
fn strings(payload: &[u8], at: usize) -> Vec<String> {
    let units: Vec<u16> =
        payload[at..].chunks(2).map(|unit| u16::from_le_bytes(unit.try_into().expect("even"))).collect();
    assert_eq!(units.last(), Some(&0), "the last string is terminated");
    let mut parts: Vec<_> = units.split(|&unit| unit == 0).collect();
    parts.pop();
    parts.into_iter().map(|part| String::from_utf16(part).expect("real texts are UTF-16")).collect()
}

/// Compares an event with its line, key by key, without code of the sources.
fn assert_is_line(event: &Event, line: &Value, name: &str) {
    let text = |key: &str| line[key].as_str().map(str::to_owned);
    let number = |key: &str| line[key].as_u64();
    let header = &event.header;
    let time = text("time_created").expect("a time");
    let digits: String = time.trim_end_matches('Z').chars().take(27).collect();
    assert_eq!(header.time.to_string(), format!("{digits:0<27}Z"), "{name} time");
    assert_eq!(Some(header.provider.to_string()), text("provider_guid"), "{name} provider");
    assert_eq!(Some(u64::from(header.event_id)), number("event_id"), "{name} event_id");
    assert_eq!(Some(u64::from(header.version)), number("version"), "{name} version");
    assert_eq!(Some(u64::from(header.level)), number("level"), "{name} level");
    assert_eq!(Some(u64::from(header.task)), number("task"), "{name} task");
    assert_eq!(Some(u64::from(header.opcode)), number("opcode"), "{name} opcode");
    assert_eq!(Some(format!("{:#x}", header.keywords)), text("keywords"), "{name} keywords");
    assert_eq!(header.process_id.map(u64::from), number("process_id"), "{name} process_id");
    assert_eq!(header.thread_id.map(u64::from), number("thread_id"), "{name} thread_id");
    assert_eq!(header.activity_id.map(|id| id.to_string()), text("activity_id"), "{name} activity_id");
    assert_eq!(header.event_record_id, number("record_id"), "{name} record_id");
    assert_eq!(header.channel, 16, "{name} channel");
    assert_eq!(event.user_sid.map(|sid| sid.to_string()), text("user_sid"), "{name} user_sid");
    assert_eq!(event.computer, text("computer"), "{name} computer");
    if header.event_id == 4103 {
        let expected: Vec<_> =
            ["context_info", "user_data", "payload"].into_iter().filter_map(text).collect();
        assert_eq!(strings(&event.payload, 0), expected, "{name} strings");
        return;
    }
    let numbers = event.payload[..8].as_chunks::<4>().0;
    assert_eq!(Some(u64::from(u32::from_le_bytes(numbers[0]))), number("message_number"), "{name}");
    assert_eq!(Some(u64::from(u32::from_le_bytes(numbers[1]))), number("message_total"), "{name}");
    // If the path is null, the record lacks the field and there are two strings.
    let expected: Vec<_> =
        ["script_block_text", "script_block_id", "path"].into_iter().filter_map(text).collect();
    assert_eq!(strings(&event.payload, 8), expected, "{name} strings");
}

#[test]
fn every_recorded_event_in_every_field() {
    let Some(folder) = recorded() else { return };
    let mut files = BTreeMap::new();
    evtx_files(&folder.join("evtx"), &folder.join("evtx"), &mut files);
    let lines = recorded_lines(&folder);
    let mut compared = 0;
    for (name, path) in &files {
        let mut sink = Collected::default();
        evtx::read(path, &mut sink).expect(name);
        assert_eq!(sink.damages, [], "{name}");
        assert_eq!(sink.progress.last(), Some(&fs::metadata(path).expect(name).len()), "{name}");

        let of_file: Vec<_> = lines
            .iter()
            .filter(|line| {
                let line: Value = serde_json::from_str(line).expect("JSON");
                is_source(line["source"].as_str().expect("a source"), name)
            })
            .cloned()
            .collect();
        let mut from_lines = Collected::default();
        if !of_file.is_empty() {
            let text = of_file.join("\n");
            jsonl::replay(text.as_bytes(), Path::new("lines"), &mut from_lines).expect(name);
        }
        assert_eq!(from_lines.damages, [], "{name}");
        assert_eq!(from_lines.events.len(), sink.events.len(), "{name}");

        let mut by_id: BTreeMap<_, _> =
            sink.events.iter().map(|event| (event.header.event_record_id, event)).collect();
        assert_eq!(by_id.len(), sink.events.len(), "{name}: EventRecordID is unique");
        for (line, same) in of_file.iter().zip(&from_lines.events) {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let event = by_id.remove(&line["record_id"].as_u64()).expect("an event of that number");
            assert_is_line(event, &line, name);
            assert_eq!(event, same, "{name}: as .evtx and as JSON Lines");
            compared += 1;
        }
        assert_eq!(by_id.len(), 0, "{name}: events without a line");
    }
    assert_eq!(compared, lines.len());
    assert!(compared > 350, "{compared}");
}

#[test]
fn counts_equal_the_manifest() {
    let Some(folder) = recorded() else { return };
    let manifest = fs::read_to_string(folder.join("MANIFEST.md")).expect("a manifest");
    let mut rows = 0;
    for row in manifest.lines().filter(|row| row.starts_with("| evtx/") && row.contains(".evtx |")) {
        let cells: Vec<_> = row.split(" | ").collect();
        let name = cells[0].trim_start_matches("| ");
        let mut sink = Collected::default();
        evtx::read(&folder.join(name), &mut sink).expect(name);
        let records: usize = cells[3].parse().expect("a count");
        assert_eq!(sink.events.len() + sink.unwanted, records, "{name}");
        for id in [4103, 4104] {
            let key = format!(" {id}=");
            let expected: usize = cells[4]
                .split(&key)
                .skip(1)
                .map(|rest| rest.split([',', ' ']).next().expect("a word").parse::<usize>().expect("a count"))
                .sum();
            let found = sink.events.iter().filter(|event| event.header.event_id == id).count();
            assert_eq!(found, expected, "{name} {id}");
        }
        rows += 1;
    }
    assert_eq!(rows, 17);
}

/// Returns the bytes of a small file with records of both kinds.
fn small_file() -> Option<Vec<u8>> {
    let mut files = BTreeMap::new();
    let folder = recorded()?.join("evtx");
    evtx_files(&folder, &folder, &mut files);
    let (_, path) = files.iter().find(|(name, _)| name.contains("WMI registration via PowerLurk"))?;
    Some(fs::read(path).expect("a file"))
}

#[test]
fn a_truncated_file_gives_its_remaining_events() {
    let Some(bytes) = small_file() else { return };
    let whole = replay(&bytes);
    let mut last = 0;
    for len in (0..bytes.len()).step_by(512) {
        let mut sink = Collected::default();
        match evtx::replay(&bytes[..len], Path::new("cut"), &mut sink) {
            Ok(()) => assert!(len >= 512),
            Err(SourceError::NotThisFormat { .. }) => assert_eq!(len, 0),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(sink.events[..], whole.events[..sink.events.len()], "cut at {len}");
        assert!(sink.events.len() >= last, "cut at {len}");
        assert!(
            len <= 4096 && sink.events.is_empty() || !sink.damages.is_empty() || len == 4096,
            "cut at {len}"
        );
        last = sink.events.len();
    }
    assert_eq!(last, whole.events.len(), "the end of the chunk is empty");
}

#[test]
fn outdated_headers_hide_no_events() {
    let Some(bytes) = small_file() else { return };
    let whole = replay(&bytes);
    let rows: [(&str, usize, &[u8]); 6] = [
        ("no chunks", 42, &[0, 0]),
        ("an old next number", 24, &[1, 0]),
        ("dirty", 120, &[1, 0, 0, 0]),
        ("wrong checksum", 124, &[1, 2, 3, 4]),
        ("free space at the first record's end", 4096 + 48, &bytes[4096 + 516..4096 + 520]),
        ("last record is the first", 4096 + 32, &bytes[4096 + 24..4096 + 32]),
    ];
    for (name, at, patch) in rows {
        let mut patched = bytes.clone();
        patched[at..at + patch.len()].copy_from_slice(patch);
        if name.starts_with("free") {
            let size = u32::from_le_bytes(patch.try_into().expect("a size"));
            patched[at..at + 4].copy_from_slice(&(512 + size).to_le_bytes());
        }
        let sink = replay(&patched);
        assert_eq!((sink.events.len(), sink.unwanted), (whole.events.len(), whole.unwanted), "{name}");
        assert_eq!(sink.events, whole.events, "{name}");
        assert_eq!(sink.damages, [], "{name}");
    }
}

/// A file that is truncated at the end of a chunk looks complete, but its header counts more chunks or higher numbers.
#[test]
fn a_file_that_is_truncated_between_chunks_is_reported() {
    let Some(bytes) = small_file() else { return };
    let whole = replay(&bytes);
    for (name, at, patch) in [("chunks", 42, [9, 0]), ("numbers", 24, [0xFF, 0xFF])] {
        let mut patched = bytes.clone();
        patched[at..at + patch.len()].copy_from_slice(&patch);
        let sink = replay(&patched);
        assert_eq!(sink.events, whole.events, "{name}");
        let [damage] = &sink.damages[..] else { panic!("{name}: {:?}", sink.damages) };
        assert_eq!(
            (damage.reason, damage.offset),
            ("chunk", bytes.len() as u64),
            "{name}: {}",
            damage.detail
        );
    }
}

/// A way to damage a file: name, offset, patch, expected damage as (reason, offset), number of records that may be lost.
type Row<'a> = (&'a str, usize, &'a [u8], (&'a str, usize), usize);

#[test]
fn damage_is_reported_and_skipped() {
    let Some(bytes) = small_file() else { return };
    let whole = replay(&bytes);
    let size_at = |at: usize| u32::from_le_bytes(bytes[at + 4..at + 8].try_into().expect("a size")) as usize;
    let second = 4096 + 512 + size_at(4096 + 512);
    let third = second + size_at(second);
    let rows: [Row<'_>; 6] = [
        ("file magic", 0, b"x", ("file header", 0), 0),
        ("chunk magic", 4096, b"x", ("chunk", 4096), 0),
        ("record magic", second, b"x", ("record", second), 1),
        ("record size", second + 4, &[0xFF, 0xFF], ("record", second), 0),
        ("size at the end", third - 4, &[1], ("record", second), 0),
        ("BinXML token", second + 24, &[0x7F], ("record", second), 1),
    ];
    for (name, at, patch, (reason, offset), lost) in rows {
        let mut patched = bytes.clone();
        patched[at..at + patch.len()].copy_from_slice(patch);
        let sink = replay(&patched);
        let [damage] = &sink.damages[..] else { panic!("{name}: {:?}", sink.damages) };
        assert_eq!((damage.reason, damage.offset), (reason, offset as u64), "{name}: {}", damage.detail);
        let found = sink.events.len() + sink.unwanted;
        assert_eq!(found + lost, whole.events.len() + whole.unwanted, "{name}");
        assert!(sink.events.iter().all(|event| whole.events.contains(event)), "{name}");
    }
    // A chunk of noise between two intact ones costs only itself.
    let noise: Vec<u8> = (0..CHUNK_LEN).map(|at| (at * 7 + at / 256) as u8 | 1).collect();
    let sink = replay(&[&bytes[..], &noise, &bytes[4096..]].concat());
    assert_eq!(sink.events.len(), 2 * whole.events.len());
    assert!(sink.damages.iter().all(|damage| damage.offset >= bytes.len() as u64), "{:?}", sink.damages);
    assert_eq!(sink.damages[0].reason, "chunk");
}

#[test]
fn one_wrong_byte_costs_little_and_never_panics() {
    let Some(bytes) = small_file() else { return };
    let whole = replay(&bytes);
    let used = 4096 + u32::from_le_bytes(bytes[4096 + 48..4096 + 52].try_into().expect("an offset")) as usize;
    let mut patched = bytes.clone();
    let (mut runs, mut kept) = (0, 0);
    for at in (0..128).chain(4096..4096 + 512).chain((4096 + 512..used).step_by(13)) {
        for flip in [0x01, 0x80, 0xFF] {
            patched[at] ^= flip;
            let mut sink = Collected::default();
            evtx::replay(&patched[..], Path::new("flip"), &mut sink).expect("still an event log");
            patched[at] ^= flip;
            runs += 1;
            kept += sink.events.iter().filter(|event| whole.events.contains(event)).count();
        }
    }
    assert!(kept * 100 >= runs * whole.events.len() * 70, "{kept} of {}", runs * whole.events.len());
}

#[test]
fn a_sink_can_end_the_reading() {
    let Some(bytes) = small_file() else { return };
    let mut sink = Collected { stop_after: Some(2), ..Collected::default() };
    evtx::replay(&bytes[..], Path::new("stop"), &mut sink).expect("an event log");
    assert_eq!(sink.events.len(), 2);
}

#[test]
fn other_files_are_rejected() {
    let zeros = vec![0; 70_000];
    let rows: [(&str, &[u8]); 4] =
        [("empty", b""), ("text", b"ElfFilament"), ("zeros", &zeros), ("short", b"Elf")];
    for (name, bytes) in rows {
        let mut sink = Collected::default();
        let result = evtx::replay(bytes, Path::new("x.evtx"), &mut sink);
        assert!(matches!(result, Err(SourceError::NotThisFormat { .. })), "{name}");
        assert_eq!(sink.damages, [], "{name}");
    }
    let mut sink = Collected::default();
    let result = evtx::read(Path::new("no such file.evtx"), &mut sink);
    assert!(matches!(result, Err(SourceError::Open { .. })));
    let result = jsonl::replay(&b"\n[1]\n"[..], Path::new("x.jsonl"), &mut sink);
    assert!(matches!(result, Err(SourceError::NotThisFormat { .. })));
}

#[test]
fn all_recorded_lines_are_events() {
    let Some(folder) = recorded() else { return };
    for (name, count) in [("attack-4104", 263), ("benign-4104", 1442), ("ps-4103", 1609)] {
        let file = fs::File::open(folder.join(format!("{name}.jsonl.zst"))).expect("a collection");
        let mut decoder = zstd::Decoder::new(file).expect("zstd");
        decoder.window_log_max(WINDOW_LOG).expect("a window");
        let mut sink = Collected::default();
        jsonl::replay(decoder, Path::new(name), &mut sink).expect(name);
        assert_eq!((sink.events.len(), sink.unwanted, sink.damages.len()), (count, 0, 0), "{name}");
        assert!(sink.events.iter().all(|event| event.header.provider == POWERSHELL), "{name}");
    }
}
