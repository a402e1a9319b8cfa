//! Damaged and hostile traces: what is whole is read, what is not is reported, and nothing panics or hangs.

#![expect(clippy::unwrap_used, reason = "a panic of a test is its verdict")]

use etwsieve_etl::{
    BUFFER_HEADER_LEN, ClockType, Compression, DAMAGE_KEPT_MAX, DamageKind, DamageLog, EtlError, FileTime,
    SCRATCH_LEN_MAX, Trace, TraceFile,
};
use etwsieve_tests::fuzz;
use etwsieve_tests::writer::{EventSpec, TraceWriter, script_block, xpress};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const FORMATS: [Option<Compression>; 4] =
    [None, Some(Compression::Xpress), Some(Compression::Lznt1), Some(Compression::XpressHuffman)];
const BUFFER_LEN: usize = 1024;
const SID: [u8; 12] = [1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0];

/// Offsets in a buffer's header.
const BUFFER_SIZE: usize = 0x00;
const SAVED_OFFSET: usize = 0x04;
const SEQUENCE_NUMBER: usize = 0x18;
const FILLED_BYTES: usize = 0x30;
/// File offset of the log file header in a 64-bit trace.
const LOG_FILE_HEADER: usize = 0x68;

/// Three processors, three or more buffers each, events with and without extended items.
fn small(format: Option<Compression>) -> TraceWriter {
    with_events(45, format)
}

fn with_events(count: u64, format: Option<Compression>) -> TraceWriter {
    let mut writer = TraceWriter::new().buffer_len(BUFFER_LEN as u32).processors(3);
    writer.compression = format;
    for number in 0..count {
        let text = format!("Write-Output {number}");
        let event = EventSpec::powershell(4104, script_block(1, 1, &text, "7c5f", None));
        let event = event.at(10 + number * 3).on((number % 3) as u16).by(100 + number as u32, 7);
        writer.push(if number % 4 == 0 { event.sid(&SID) } else { event });
    }
    writer
}

/// An event of a walk: its number (the process id says it), where it is, and how far it reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    number: u32,
    offset: usize,
    size: usize,
    time: FileTime,
}

struct Walk {
    seen: Vec<Seen>,
    damage: DamageLog,
    out_of_order: u64,
    unused_bytes: u64,
}

impl Walk {
    fn of(bytes: &[u8]) -> Self {
        fuzz::etl::etl(bytes);
        let trace = Trace::new(bytes).unwrap();
        let mut events = trace.events();
        let mut seen = Vec::new();
        while let Some(event) = events.next() {
            if event.event_id.is_some() {
                seen.push(Seen {
                    number: event.process_id.unwrap() - 100,
                    offset: event.buffer_offset as usize + event.position as usize,
                    size: usize::from(event.size),
                    time: event.time,
                });
            }
        }
        Self {
            seen,
            damage: events.damage().clone(),
            out_of_order: events.out_of_order(),
            unused_bytes: trace.info().unused_bytes,
        }
    }

    fn numbers(&self) -> BTreeSet<u32> {
        self.seen.iter().map(|event| event.number).collect()
    }

    /// The kinds of damage, with their counts.
    fn kinds(&self) -> Vec<(DamageKind, u64)> {
        self.damage.counts().collect()
    }
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Offsets of the buffers of an undamaged trace.
fn buffers(bytes: &[u8]) -> Vec<usize> {
    let mut offsets = vec![];
    let mut at = 0;
    while at < bytes.len() {
        offsets.push(at);
        at += u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    }
    offsets
}

/// Numbers of the events in the buffer at `offset` of a trace that is not compressed.
fn numbers_within(whole: &Walk, offset: usize) -> BTreeSet<u32> {
    let inside = |event: &&Seen| (offset..offset + BUFFER_LEN).contains(&event.offset);
    whole.seen.iter().filter(inside).map(|event| event.number).collect()
}

#[test]
fn every_truncation_of_a_plain_trace() {
    let bytes = small(None).build();
    let whole = Walk::of(&bytes);
    assert_eq!(whole.seen.len(), 45);
    assert!(whole.damage.is_empty());
    let mut readable = 0;
    for len in 0..bytes.len() {
        let part = &bytes[..len];
        match Trace::new(part) {
            Err(EtlError::Empty) => assert_eq!(len, 0),
            Err(EtlError::HeaderCut { found, .. }) => assert_eq!(found, len as u64),
            Err(error) => panic!("{len}: {error}"),
            Ok(_) => {
                readable += 1;
                let walk = Walk::of(part);
                // Exactly the events that end before the cut.
                let want: Vec<_> =
                    whole.seen.iter().copied().filter(|event| event.offset + event.size <= len).collect();
                assert_eq!(walk.seen, want, "{len}");
                let cuts = u64::from(len % BUFFER_LEN != 0);
                assert_eq!(
                    walk.kinds(),
                    if cuts == 0 { vec![] } else { vec![(DamageKind::Cut, 1)] },
                    "{len}"
                );
                if let Some(cut) = walk.damage.kept().first() {
                    assert_eq!(cut.offset, (len / BUFFER_LEN * BUFFER_LEN) as u64);
                    assert_eq!(cut.found, (len % BUFFER_LEN) as u64);
                }
            }
        }
    }
    assert!(readable > bytes.len() - BUFFER_LEN, "the header alone makes a trace");
}

#[test]
fn every_truncation_of_a_compressed_trace() {
    for format in FORMATS.into_iter().flatten() {
        let bytes = small(Some(format)).build();
        let (whole, borders) = (Walk::of(&bytes), buffers(&bytes));
        assert_eq!(whole.seen.len(), 45, "{format:?}");
        assert!(whole.damage.is_empty(), "{format:?}");
        let mut events = 0;
        for len in 0x200..bytes.len() {
            let walk = Walk::of(&bytes[..len]);
            assert!(walk.seen.iter().all(|event| whole.seen.contains(event)), "{format:?} {len}");
            assert!(walk.seen.len() >= events, "{format:?} {len}: more bytes, fewer events");
            events = walk.seen.len();
            let is_cut = !borders.contains(&len);
            assert_eq!(
                walk.kinds(),
                if is_cut { vec![(DamageKind::Cut, 1)] } else { vec![] },
                "{format:?} {len}"
            );
        }
        assert!(events >= 43, "{format:?}: a cut at the very end costs {} events", 45 - events);
    }
}

#[test]
fn every_byte_corrupted() {
    for format in FORMATS {
        let mut writer = with_events(21, format);
        writer.rotation = 2;
        let mut bytes = writer.build();
        for at in 0..bytes.len() {
            let byte = bytes[at];
            for value in [0, byte ^ 1, byte ^ 0x80] {
                bytes[at] = value;
                fuzz::etl::etl(&bytes);
            }
            bytes[at] = byte;
        }
        assert_eq!(Walk::of(&bytes).seen.len(), 21, "{format:?}");
    }
}

#[test]
fn a_lying_buffer_size_costs_its_buffer() {
    let bytes = small(None).build();
    let whole = Walk::of(&bytes);
    let offsets = buffers(&bytes);
    for victim in [1, 4, offsets.len() - 1] {
        let offset = offsets[victim];
        for size in [1, 0x47, 0x48, BUFFER_LEN as u32 - 8, 2 * BUFFER_LEN as u32, u32::MAX] {
            let mut bytes = bytes.clone();
            put(&mut bytes, offset + BUFFER_SIZE, size);
            let walk = Walk::of(&bytes);
            let want: BTreeSet<_> =
                whole.numbers().difference(&numbers_within(&whole, offset)).copied().collect();
            assert_eq!(walk.numbers(), want, "buffer {victim}, size {size}");
            assert_eq!(walk.kinds(), [(DamageKind::BufferSize, 1)], "buffer {victim}, size {size}");
            let damage = walk.damage.kept()[0];
            assert_eq!((damage.offset, damage.found), (offset as u64, u64::from(size)));
            assert_eq!(damage.expected, BUFFER_LEN as u64);
        }
    }
}

#[test]
fn lying_sizes_of_the_header_cost_nothing() {
    let bytes = small(None).build();
    for size in [0, 0x47, 0x100, BUFFER_LEN as u32 * 2, 0x2000, u32::MAX] {
        let mut lying = bytes.clone();
        put(&mut lying, BUFFER_SIZE, size);
        let walk = Walk::of(&lying);
        assert_eq!(walk.seen.len(), 45, "first buffer, {size}");
        assert_eq!(walk.kinds(), [(DamageKind::BufferSize, 1)], "first buffer, {size}");
        let mut lying = bytes.clone();
        put(&mut lying, LOG_FILE_HEADER, size);
        let walk = Walk::of(&lying);
        assert_eq!(walk.seen.len(), 45, "log file header, {size}");
        assert!(walk.damage.is_empty(), "log file header, {size}");
    }
    let mut lying = bytes;
    put(&mut lying, BUFFER_SIZE, 0);
    put(&mut lying, LOG_FILE_HEADER, 0);
    assert!(matches!(Trace::new(&lying), Err(EtlError::BufferSize { found: 0, .. })));
}

#[test]
fn a_lying_buffer_size_in_a_compressed_trace() {
    let bytes = small(Some(Compression::Xpress)).build();
    let offsets = buffers(&bytes);
    let own_size = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    for victim in 0..offsets.len() {
        let offset = offsets[victim];
        let next = offsets.get(victim + 1).copied().unwrap_or(bytes.len());
        for size in [0, 0x47, own_size(offset) - 1, own_size(offset) + 1, own_size(offset) + 500, u32::MAX] {
            let mut lying = bytes.clone();
            put(&mut lying, offset + BUFFER_SIZE, size);
            let walk = Walk::of(&lying);
            // Buffers hold about five events; the others are found again.
            assert!(walk.seen.len() >= 39, "buffer {victim}, size {size}: {} events", walk.seen.len());
            assert!(!walk.damage.is_empty(), "buffer {victim}, size {size}");
            assert!(walk.damage.kept().iter().all(|damage| damage.offset <= next as u64));
        }
    }
}

#[test]
fn zeros_in_the_middle() {
    for format in FORMATS {
        let mut bytes = small(format).build();
        let offsets = buffers(&bytes);
        let (from, to) = (offsets[3], offsets[5]);
        let whole = Walk::of(&bytes);
        bytes[from..to].fill(0);
        let walk = Walk::of(&bytes);
        assert_eq!(walk.kinds(), [(DamageKind::Zeroed, 1)], "{format:?}");
        let damage = walk.damage.kept()[0];
        assert_eq!((damage.offset, damage.found), (from as u64, (to - from) as u64), "{format:?}");
        let lost: Vec<_> = whole.numbers().difference(&walk.numbers()).copied().collect();
        assert!((2..=14).contains(&lost.len()), "{format:?}: {lost:?}");
    }
}

#[test]
fn never_closed() {
    for format in FORMATS {
        let writer = small(format).never_closed(3);
        let bytes = writer.build();
        let walk = Walk::of(&bytes);
        assert_eq!((walk.seen.len(), walk.kinds()), (45, vec![]), "{format:?}");
        assert_eq!(walk.unused_bytes, 3 * BUFFER_LEN as u64, "{format:?}");
        let trace = Trace::new(&bytes).unwrap();
        assert!(trace.info().is_never_closed());
        assert_eq!((trace.info().end, trace.info().buffers_written), (None, 0));

        // The same zeros at the end of a file that was closed were buffers once.
        let mut closed = small(format);
        closed.empty_buffers = 3;
        let walk = Walk::of(&closed.build());
        assert_eq!(walk.seen.len(), 45, "{format:?}");
        assert_eq!(walk.kinds(), [(DamageKind::Zeroed, 1)], "{format:?}");
        assert_eq!(walk.damage.kept()[0].found, 3 * BUFFER_LEN as u64, "{format:?}");
    }
}

#[test]
fn lying_filled_bytes() {
    let plain = small(None).build();
    let whole = Walk::of(&plain);
    let offset = buffers(&plain)[2];
    let inside = numbers_within(&whole, offset).len();
    let rows: [(&str, u32, u32, usize, &[DamageKind]); 5] = [
        ("beyond the buffer", BUFFER_LEN as u32 + 1, 0, 45, &[DamageKind::FilledBytes]),
        ("4 GiB", u32::MAX, 0, 45, &[DamageKind::FilledBytes]),
        ("nothing, and nothing saved", 0, 0, 45 - inside, &[DamageKind::FilledBytes]),
        ("nothing, but saved", 0, 0x48, 45 - inside, &[]),
        ("in the middle of the first event", 0x60, 0, 45 - inside, &[DamageKind::EventSize]),
    ];
    for (name, filled, saved, events, kinds) in rows {
        let mut bytes = plain.clone();
        put(&mut bytes, offset + FILLED_BYTES, filled);
        put(&mut bytes, offset + SAVED_OFFSET, saved);
        let walk = Walk::of(&bytes);
        assert_eq!(walk.seen.len(), events, "{name}");
        assert!(walk.damage.counts().map(|(kind, _)| kind).eq(kinds.iter().copied()), "{name}");
    }
    for format in FORMATS.into_iter().flatten() {
        let compressed = small(Some(format)).build();
        let offset = buffers(&compressed)[2];
        for (filled, kind) in [
            (u32::MAX, DamageKind::FilledBytes),
            (BUFFER_LEN as u32 + 8, DamageKind::FilledBytes),
            (BUFFER_LEN as u32, DamageKind::Compressed),
            (0x50, DamageKind::Compressed),
        ] {
            let mut bytes = compressed.clone();
            put(&mut bytes, offset + FILLED_BYTES, filled);
            let walk = Walk::of(&bytes);
            assert!((38..45).contains(&walk.seen.len()), "{format:?} {filled}: {}", walk.seen.len());
            assert_eq!(walk.kinds(), [(kind, 1)], "{format:?} {filled}");
        }
    }
}

#[test]
fn lying_extended_items_cost_their_event() {
    let bytes = small(None).build();
    let whole = Walk::of(&bytes);
    // Number 8 has a SID: an item of 24 bytes, 12 of them data, right behind the header of 0x50 bytes.
    let event = whole.seen.iter().find(|event| event.number == 8).unwrap();
    let item = event.offset + 0x50;
    assert_eq!(bytes[item..item + 8], [24, 0, 2, 0, 0, 0, 12, 0]);
    let rows: [(&str, [u8; 8]); 6] = [
        ("no size", [0, 0, 2, 0, 0, 0, 12, 0]),
        ("smaller than its data", [16, 0, 2, 0, 0, 0, 12, 0]),
        ("larger than the event", [0xff, 0xff, 2, 0, 0, 0, 12, 0]),
        ("data larger than the event", [24, 0, 2, 0, 0, 0, 0xff, 0xff]),
        ("another one that is none", [24, 0, 2, 0, 1, 0, 12, 0]),
        ("itself again and again", [8, 0, 2, 0, 1, 0, 0, 0]),
    ];
    for (name, lie) in rows {
        let mut bytes = bytes.clone();
        bytes[item..item + 8].copy_from_slice(&lie);
        let walk = Walk::of(&bytes);
        let lost: Vec<_> = whole.numbers().difference(&walk.numbers()).copied().collect();
        assert_eq!(lost, [8], "{name}");
        assert_eq!(walk.kinds(), [(DamageKind::ExtendedItem, 1)], "{name}");
        assert_eq!(walk.damage.kept()[0].offset, event.offset as u64, "{name}");
    }
}

#[test]
fn a_bad_event_costs_the_rest_of_its_buffer() {
    let bytes = small(None).build();
    let whole = Walk::of(&bytes);
    let event = *whole.seen.iter().find(|event| event.number == 6).unwrap();
    let buffer = event.offset / BUFFER_LEN * BUFFER_LEN;
    let behind: BTreeSet<_> = (whole.seen.iter())
        .filter(|other| (event.offset..buffer + BUFFER_LEN).contains(&other.offset))
        .map(|event| event.number)
        .collect();
    for (name, at, value, kind) in [
        ("marker", 3, 0x00, DamageKind::Marker),
        ("type", 2, 0x77, DamageKind::Marker),
        ("size below the header", 0, 0x4f, DamageKind::EventSize),
        ("size beyond the buffer", 1, 0xff, DamageKind::EventSize),
    ] {
        let mut bytes = bytes.clone();
        bytes[event.offset + at] = value;
        let walk = Walk::of(&bytes);
        let lost: BTreeSet<_> = whole.numbers().difference(&walk.numbers()).copied().collect();
        assert_eq!(lost, behind, "{name}");
        assert_eq!(walk.kinds(), [(kind, 1)], "{name}");
        let damage = walk.damage.kept()[0];
        assert_eq!(
            (damage.offset, damage.position),
            (event.offset as u64, (event.offset - buffer) as u32),
            "{name}"
        );
    }
}

#[test]
fn a_damaged_time_stamp_moves_no_other_event() {
    let bytes = small(None).build();
    let whole = Walk::of(&bytes);
    for number in [0, 9, 20, 44] {
        let victim = *whole.seen.iter().find(|event| event.number == number).unwrap();
        for (raw_time, damages) in [(i64::MAX, 1), (i64::MIN, 0), (1, 0)] {
            let mut bytes = bytes.clone();
            bytes[victim.offset + 0x10..victim.offset + 0x18].copy_from_slice(&raw_time.to_le_bytes());
            let walk = Walk::of(&bytes);
            assert_eq!(walk.numbers(), whole.numbers());
            assert_eq!(walk.damage.count(DamageKind::TimeStamp), damages, "{number} {raw_time}");
            let others = |walk: &Walk| -> Vec<Seen> {
                walk.seen.iter().copied().filter(|event| event.number != number).collect()
            };
            let moved = others(&walk).iter().zip(others(&whole)).filter(|(a, b)| **a != *b).count();
            // At most the buffer of the event waits for it.
            assert!(moved <= 15, "{number} {raw_time}: {moved} events moved");
            assert!(walk.out_of_order <= 15, "{number} {raw_time}: {}", walk.out_of_order);
        }
    }
}

#[test]
fn equal_sequence_numbers_and_huge_processors() {
    let mut bytes = small(None).build();
    for offset in buffers(&bytes) {
        bytes[offset + SEQUENCE_NUMBER..offset + SEQUENCE_NUMBER + 8].fill(0x7f);
    }
    let walk = Walk::of(&bytes);
    assert_eq!(
        (walk.seen.len(), walk.out_of_order, walk.kinds()),
        (45, 0, vec![]),
        "the file's order decides"
    );

    let mut writer = TraceWriter::new().buffer_len(BUFFER_LEN as u32);
    for number in 0..400_u16 {
        let event = EventSpec::powershell(4104, vec![1; 8]).on(number.wrapping_mul(40_503));
        writer.push(event.at(u64::from(number)).by(100 + u32::from(number), 0));
    }
    let walk = Walk::of(&writer.build());
    assert!(walk.seen.iter().map(|event| event.number).eq(0..400), "one buffer for each of 400 processors");
    assert!(walk.damage.is_empty());
}

#[test]
fn a_clock_without_frequency_does_not_divide() {
    for clock in [ClockType::PerformanceCounter, ClockType::CpuCycles, ClockType::Other(77)] {
        let mut writer = TraceWriter::new();
        for number in 0..5 {
            let mut event = EventSpec::powershell(4104, vec![2]).by(100 + number, 0);
            event.raw_time = Some(writer.raw_start + i64::from(number));
            writer.push(event);
        }
        let writer = writer.clock(clock, 0);
        let walk = Walk::of(&writer.build());
        assert!(walk.seen.iter().map(|event| event.number).eq(0..5), "{clock}");
        assert!(walk.seen.iter().all(|event| event.time == writer.start), "{clock}");
    }
}

/// Many processors that claim the largest buffers: what fits the limit is read, the rest is reported.
#[test]
fn scratch_memory_has_a_limit() {
    const CLAIM: usize = 16 << 20;
    const PROCESSORS: u16 = 20;
    let mut writer = TraceWriter::new().buffer_len(CLAIM as u32).compressed(Compression::Xpress);
    // As much noise as makes 16 MiB credible.
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let noise = (0..6_000).map(|_| noise()).collect();
    writer.push(EventSpec::powershell(4104, noise).by(100, 0).at(5));
    let bytes = writer.build();
    let first = buffers(&bytes)[1];
    let event = writer.events()[0].encode(writer.raw_time(5));
    let mut data = event;
    data.resize(CLAIM - BUFFER_HEADER_LEN, 0xff);
    let stored = xpress(&data);
    let mut hostile = bytes[..first].to_vec();
    for processor in 0..PROCESSORS {
        let mut header = bytes[first..first + BUFFER_HEADER_LEN].to_vec();
        put(&mut header, BUFFER_SIZE, (BUFFER_HEADER_LEN + stored.len()) as u32);
        put(&mut header, FILLED_BYTES, CLAIM as u32);
        header[0x28..0x2a].copy_from_slice(&processor.to_le_bytes());
        hostile.extend_from_slice(&header);
        hostile.extend_from_slice(&stored);
    }
    let trace = Trace::new(&hostile).unwrap();
    let mut events = trace.events();
    let mut count = 0;
    while events.next().is_some() {
        count += 1;
        assert!(events.scratch_len() <= SCRATCH_LEN_MAX);
    }
    let fit = SCRATCH_LEN_MAX / CLAIM;
    assert_eq!(count, 2 + fit);
    assert_eq!(events.damage().count(DamageKind::ScratchLimit), u64::from(PROCESSORS) - fit as u64);
    assert_eq!(events.scratch_len(), 0);

    // Without the noise so few bytes cannot stand for so many.
    let mut bomb = bytes[..first].to_vec();
    let mut header = bytes[first..first + BUFFER_HEADER_LEN].to_vec();
    let mut data = writer.events()[0].encode(1);
    data.truncate(0x50);
    data[..2].copy_from_slice(&[0x50, 0]);
    data.resize(CLAIM - BUFFER_HEADER_LEN, 0xff);
    let stored = xpress(&data);
    assert!(stored.len() < 200);
    put(&mut header, BUFFER_SIZE, (BUFFER_HEADER_LEN + stored.len()) as u32);
    put(&mut header, FILLED_BYTES, CLAIM as u32);
    bomb.extend_from_slice(&header);
    bomb.extend_from_slice(&stored);
    let walk = Walk::of(&bomb);
    assert_eq!((walk.seen.len(), walk.kinds()), (0, vec![(DamageKind::Compressed, 1)]));
}

#[test]
fn damage_is_counted_without_end_and_kept_with_one() {
    let mut bytes = small(None).build();
    for number in 0..3_000_u32 {
        let mut buffer = vec![0xff; BUFFER_LEN];
        put(&mut buffer, BUFFER_SIZE, number + 1);
        bytes.extend_from_slice(&buffer);
    }
    let walk = Walk::of(&bytes);
    // One of the sizes happens to be right.
    assert_eq!(walk.damage.count(DamageKind::BufferSize), 2_999);
    assert_eq!(walk.damage.kept().len(), DAMAGE_KEPT_MAX);
    assert_eq!(walk.seen.len(), 45);
}

#[test]
fn files_that_are_no_traces() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.etl");
    let error = TraceFile::open(&path).unwrap_err();
    assert!(matches!(error, EtlError::Open(_)), "{error}");
    for (content, want) in [
        (vec![], "the trace is empty (0 bytes)"),
        (b"MZ".to_vec(), "the trace ends within its header: 376 bytes are needed, 2 are there"),
        (
            vec![b'.'; 5_000],
            "not an event trace: marker 0x2e2e2e2e at offset 0x48, expected 0xc0010002 or 0xc0020002",
        ),
    ] {
        fs::write(&path, content).unwrap();
        let error = match TraceFile::open(&path) {
            Ok(file) => file.trace().unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.to_string(), want);
    }
    fs::write(&path, small(None).build()).unwrap();
    let file = TraceFile::open(&path).unwrap();
    assert_eq!(file.trace().unwrap().info().buffers_found, 10);
}

/// Where fuzzing starts: one small trace of each sort, and the small ones of real systems.
#[test]
#[ignore = "writes the seeds of the fuzz target `etl` to tests/fuzz/corpus"]
fn seeds() {
    const SEED_LEN_MAX: u64 = 32 << 10;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("fuzz/corpus/etl");
    fs::create_dir_all(&folder).unwrap();
    for format in FORMATS {
        for pointer_size in [4, 8] {
            let name = format.map_or("plain".to_owned(), |format| format!("{format:?}"));
            let mut writer = small(format).pointer_size(pointer_size).rotated(1);
            fs::write(folder.join(format!("{name}-{pointer_size}.etl")), writer.build()).unwrap();
            writer.is_never_closed = true;
            writer.empty_buffers = 1;
            writer.push(EventSpec::message(1, 0x2b).by(1, 2));
            writer.push(EventSpec::perf_info(0x0f2e, 3));
            writer.push(EventSpec::full(uuid::Uuid::from_u128(7), 2));
            fs::write(folder.join(format!("{name}-{pointer_size}-open.etl")), writer.build()).unwrap();
        }
    }
    let recorded = fs::read_dir(root.join("../../shared/data/recorded/etl")).into_iter().flatten();
    for entry in recorded {
        let entry = entry.unwrap();
        if entry.metadata().unwrap().len() <= SEED_LEN_MAX {
            fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
    }
}

/// Inputs of the fuzz target that once failed, and some (`cover-*`) that reach most of the reader.
#[test]
fn fuzz_findings_stay_fixed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/fuzz/etl");
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "bin") {
            fuzz::etl::etl(&fs::read(&path).unwrap());
            files += 1;
        }
    }
    assert!(files >= 20, "{files} files");
}
