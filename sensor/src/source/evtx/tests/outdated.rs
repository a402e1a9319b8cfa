//! Logs that were copied while they were in use: outdated headers, pages that were not written yet, and remainders of
//! earlier uses of a chunk. Records are read, or their loss is reported.

use super::{Log, Seen};
use crate::source::evtx::{CHUNK_HEADER_LEN, CHUNK_LEN, FILE_HEADER_LEN, replay};
use std::path::Path;

const FIRST_NUMBER: usize = 24;
const LAST_NUMBER: usize = 32;
const FREE_SPACE: usize = 48;
/// Offsets in the file header.
const NEXT_NUMBER: usize = 24;
const CHUNK_COUNT: usize = 42;
const FLAGS: usize = 120;

/// A chunk with the offsets of its records; the last offset is their end.
#[derive(Clone)]
struct Chunk {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Chunk {
    /// Returns a chunk of 4104 events with these numbers and a current header.
    fn of(numbers: impl IntoIterator<Item = u64>) -> Self {
        Self::written(2, numbers)
    }

    /// Returns a chunk like [`of`](Self::of), with records that were written about `year` years after 1601.
    fn written(year: u8, numbers: impl IntoIterator<Item = u64>) -> Self {
        let (mut log, mut starts, mut seen) = (Log(vec![0; CHUNK_HEADER_LEN]), Vec::new(), Vec::new());
        for number in numbers {
            let start = log.0.len();
            starts.push(start);
            seen.push(number);
            log.bytes(b"**\0\0")
                .bytes(&[0; 4])
                .bytes(&number.to_le_bytes())
                .bytes(&[1, 0, 0, 0, 0, 0, year, 0]);
            log.system("4104").open("EventData", &[]);
            log.data(Some("ScriptBlockText"), &format!("text {number}")).close().close();
            let size = ((log.0.len() - start + 4) as u32).to_le_bytes();
            log.bytes(&size);
            log.0[start + 4..start + 8].copy_from_slice(&size);
        }
        starts.push(log.0.len());
        let mut bytes = log.0;
        let (end, first, last) = (bytes.len(), seen[0], seen[seen.len() - 1]);
        bytes.resize(CHUNK_LEN, 0);
        bytes[..8].copy_from_slice(b"ElfChnk\0");
        Self { bytes, starts }.says(first, last, end)
    }

    /// Sets the fields of the header.
    fn says(mut self, first: u64, last: u64, free: usize) -> Self {
        self.bytes[FIRST_NUMBER..FIRST_NUMBER + 8].copy_from_slice(&first.to_le_bytes());
        self.bytes[LAST_NUMBER..LAST_NUMBER + 8].copy_from_slice(&last.to_le_bytes());
        self.bytes[FREE_SPACE..FREE_SPACE + 4].copy_from_slice(&(free as u32).to_le_bytes());
        self
    }

    /// Overwrites bytes in a record.
    fn put(mut self, record: usize, at: usize, bytes: &[u8]) -> Self {
        let at = self.starts[record] + at;
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Keeps the first `count` records, and takes the rest of the bytes from `other`.
    fn over(mut self, count: usize, other: &Self) -> Self {
        let end = self.starts[count];
        self.bytes[end..].copy_from_slice(&other.bytes[end..]);
        self
    }
}

/// Returns a log that was closed.
fn closed(chunks: &[&Chunk]) -> Vec<u8> {
    let mut file = vec![0; FILE_HEADER_LEN];
    file[..8].copy_from_slice(b"ElfFile\0");
    for chunk in chunks {
        file.extend_from_slice(&chunk.bytes);
    }
    file
}

/// Returns a log that was in use.
fn file(chunks: &[&Chunk]) -> Vec<u8> {
    let mut file = closed(chunks);
    file[FLAGS] = 1;
    file
}

/// Returns the numbers of the records that were read, and the reported damage.
fn read(file: &[u8]) -> (Vec<u64>, Vec<(&'static str, u64)>) {
    let mut sink = Seen::default();
    replay(file, Path::new("made"), &mut sink).expect("a log");
    let number = |payload: &[u8]| {
        let units: Vec<u16> =
            payload[8..].as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
        let text = String::from_utf16_lossy(&units);
        text.trim_matches('\0').strip_prefix("text ").and_then(|text| text.parse().ok()).expect("a number")
    };
    let numbers = sink.events.iter().map(|event| number(&event.3)).collect();
    (numbers, sink.damages.iter().map(|damage| (damage.reason, damage.offset)).collect())
}

fn place(chunk: &Chunk, record: usize) -> u64 {
    (FILE_HEADER_LEN + chunk.starts[record]) as u64
}

#[test]
fn records_after_an_outdated_end_are_read() {
    let whole = Chunk::of(1..=10);
    let middle = Chunk::of(41..=50);
    let rows: [(&str, Chunk); 6] = [
        ("current", whole.clone()),
        ("still empty", whole.clone().says(1, u64::MAX, CHUNK_HEADER_LEN)),
        ("still empty, in a log that was cleared", middle.clone().says(u64::MAX, u64::MAX, CHUNK_HEADER_LEN)),
        ("no end of the records", whole.clone().says(1, u64::MAX, 0)),
        ("after the first record", whole.clone().says(1, 1, whole.starts[1])),
        ("of an earlier use", middle.clone().says(11, 18, middle.starts[8])),
    ];
    for (name, chunk) in rows {
        let (numbers, damages) = read(&file(&[&chunk, &Chunk::of(51..=53)]));
        assert_eq!(numbers.len(), 13, "{name}: {numbers:?}");
        assert_eq!(damages, [], "{name}");
    }
}

#[test]
fn damage_after_an_outdated_end_is_reported_and_skipped() {
    let whole = Chunk::of(1..=10);
    let outdated = whole.clone().says(1, 1, whole.starts[1]);
    let empty = whole.clone().says(1, u64::MAX, CHUNK_HEADER_LEN);
    let page = whole.starts[2]..whole.starts[5];
    let zeros = vec![0; page.len()];
    // The header states higher numbers, so they are searched for although the log was closed.
    let inconsistent = whole.clone().says(1, 10, whole.starts[1]).put(1, 0, b"x");
    let (numbers, damages) = read(&closed(&[&inconsistent]));
    assert_eq!((numbers.len(), damages), (9, vec![("record", place(&whole, 1))]));
    let rows: [(&str, Chunk, &[u64], usize); 7] = [
        ("magic of the second", outdated.clone().put(1, 0, b"x"), &[1, 3, 4, 5, 6, 7, 8, 9, 10], 1),
        ("size of the second", outdated.clone().put(1, 4, &[0xFF; 4]), &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 1),
        ("content of the second", outdated.clone().put(1, 24, &[0x7F]), &[1, 3, 4, 5, 6, 7, 8, 9, 10], 1),
        ("a page of zeros", outdated.clone().put(2, 0, &zeros), &[1, 2, 6, 7, 8, 9, 10], 2),
        ("size of the last", outdated.clone().put(9, 4, &[0xFF; 4]), &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 9),
        ("magic of the first, empty", empty.clone().put(0, 0, b"x"), &[2, 3, 4, 5, 6, 7, 8, 9, 10], 0),
        (
            "size of the first, empty",
            empty.clone().put(0, 4, &[0xFF; 4]),
            &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
            0,
        ),
    ];
    for (name, chunk, expected, record) in rows {
        let (numbers, damages) = read(&file(&[&chunk]));
        assert_eq!(damages, [("record", place(&whole, record))], "{name}");
        assert_eq!(numbers, expected, "{name}");
    }
}

#[test]
fn records_of_an_earlier_use_are_ignored() {
    let now = Chunk::of(101..=104);
    let rows = [
        // All records have the same length, so the old ones start exactly after the new ones.
        ("older, at the end of the new ones", Chunk::of(11..=19)),
        ("older, from the middle of one", Chunk::of((1..=9).map(|number| number * 1_000_000))),
        ("much newer", Chunk::of(100_001..=100_009)),
    ];
    for (name, before) in rows {
        let reused = now.clone().over(4, &before);
        for file in [file(&[&reused]), closed(&[&reused])] {
            let (numbers, damages) = read(&file);
            assert_eq!((&numbers[..], damages), (&[101, 102, 103, 104][..], vec![]), "{name}");
        }
    }
    // Exported logs start numbering again, in chunks that were used before.
    let exported = Chunk::of(1..=4).over(4, &Chunk::of((9..=15).map(|number| number * 10)));
    let (numbers, damages) = read(&closed(&[&exported]));
    assert_eq!((&numbers[..], damages), (&[1, 2, 3, 4][..], vec![]));
    // If the numbers fit, the time decides: the old records were written earlier.
    for header in [4, u64::MAX] {
        let before = Chunk::written(1, 3..=9);
        let reused = Chunk::of(1..=4).over(4, &before).put(4, 0, b"x");
        let end = if header == 4 { reused.starts[4] } else { CHUNK_HEADER_LEN };
        let (numbers, damages) = read(&file(&[&reused.says(1, header, end)]));
        assert_eq!((&numbers[..], damages), (&[1, 2, 3, 4][..], vec![]), "{header}");
    }
}

#[test]
fn missing_records_and_chunks_are_reported() {
    let whole = Chunk::of(1..=5);
    let rows: [(&str, Chunk, usize); 2] = [
        ("number ahead of the end", whole.clone().says(1, 10, whole.starts[5]), 5),
        ("number and end ahead", whole.clone().says(1, 10, whole.starts[5] + 900), 5),
    ];
    for (name, chunk, record) in rows {
        let (numbers, damages) = read(&file(&[&chunk]));
        assert_eq!(numbers, [1, 2, 3, 4, 5], "{name}");
        assert_eq!(damages, [("record", place(&whole, record))], "{name}");
    }
    // The file header states more records: the others were truncated at the end of a chunk.
    for (next, expected) in [(0, 0), (3, 0), (6, 0), (7, 1), (100, 1), (u64::MAX, 0)] {
        let mut log = file(&[&whole]);
        log[NEXT_NUMBER..NEXT_NUMBER + 8].copy_from_slice(&u64::to_le_bytes(next));
        assert_eq!(read(&log).1.len(), expected, "{next}");
    }
    // Missing chunks: truncated, or not written yet.
    let mut cut = file(&[&whole]);
    cut[CHUNK_COUNT..CHUNK_COUNT + 2].copy_from_slice(&3u16.to_le_bytes());
    let (numbers, damages) = read(&cut);
    assert_eq!((numbers.len(), damages), (5, vec![("chunk", (FILE_HEADER_LEN + CHUNK_LEN) as u64)]));
    let blank = Chunk { bytes: vec![0; CHUNK_LEN], starts: Vec::new() };
    let (numbers, damages) = read(&file(&[&whole, &blank, &blank, &Chunk::of(6..=8), &blank]));
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(
        damages,
        [("chunk", (FILE_HEADER_LEN + CHUNK_LEN) as u64)],
        "zeros at the end are reserved space, others are damage"
    );
}
