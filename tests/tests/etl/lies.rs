//! Hostile traces: false items, clocks and sizes, excessive memory claims, files that are not traces.

use super::walk::{
    BUFFER_LEN, BUFFER_SIZE, FORMATS, SEQUENCE_NUMBER, Seen, Walk, buffers, fill, inflating, put, small,
};
use etwsieve_etl::{
    BUFFER_HEADER_LEN, ClockType, DAMAGE_KEPT_MAX, DamageKind, EtlError, SCRATCH_LEN_MAX, Trace, TraceFile,
};
use etwsieve_tests::fuzz;
use etwsieve_tests::writer::{EventSpec, TraceWriter};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn false_extended_items_cost_only_their_event() {
    let bytes = small(None).build();
    let whole = Walk::of(&bytes);
    // Event 8 has a SID: an item of 24 bytes, of which 12 are data, directly after the header of 0x50 bytes.
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
fn a_damaged_time_stamp_does_not_move_other_events() {
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
            // At most the other events of its buffer wait for it.
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

/// Many processors claim buffers of the maximum size. Buffers within the limit are read, the others are reported.
#[test]
fn scratch_memory_has_a_limit() {
    const CLAIM: usize = 16 << 20;
    const PROCESSORS: u16 = 20;
    let (first, mut buffer) = inflating(CLAIM);
    let mut hostile = first.clone();
    for processor in 0..PROCESSORS {
        buffer[0x28..0x2a].copy_from_slice(&processor.to_le_bytes());
        hostile.extend_from_slice(&buffer);
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

    // Without the noise, that few bytes cannot decompress to that many.
    let mut data = EventSpec::powershell(4104, Vec::new()).by(100, 0).encode(1);
    data.truncate(0x50);
    data[..2].copy_from_slice(&[0x50, 0]);
    data.resize(CLAIM - BUFFER_HEADER_LEN, 0xff);
    buffer.truncate(BUFFER_HEADER_LEN);
    fill(&mut buffer, &data);
    assert!(buffer.len() < BUFFER_HEADER_LEN + 200);
    let bomb = [first, buffer].concat();
    let walk = Walk::of(&bomb);
    assert_eq!((walk.seen.len(), walk.kinds()), (0, vec![(DamageKind::Compressed, 1)]));
}

#[test]
fn damage_is_counted_without_limit_and_kept_up_to_a_limit() {
    let mut bytes = small(None).build();
    for number in 0..3_000_u32 {
        let mut buffer = vec![0xff; BUFFER_LEN];
        put(&mut buffer, BUFFER_SIZE, number + 1);
        bytes.extend_from_slice(&buffer);
    }
    let walk = Walk::of(&bytes);
    // One of the sizes is correct by chance.
    assert_eq!(walk.damage.count(DamageKind::BufferSize), 2_999);
    assert_eq!(walk.damage.kept().len(), DAMAGE_KEPT_MAX);
    assert_eq!(walk.seen.len(), 45);
}

#[test]
fn files_that_are_not_traces() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.etl");
    let error = TraceFile::open(&path).unwrap_err();
    assert!(matches!(error, EtlError::Open(_)), "{error}");
    for (content, want) in [
        (vec![], "the trace is empty (0 bytes)"),
        (b"MZ".to_vec(), "the trace ends within its header: expected 376 bytes, found 2"),
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

/// Writes the seeds for fuzzing: a small trace of each kind, and small recorded traces.
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
