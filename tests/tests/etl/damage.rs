//! Damaged traces: intact parts are read, damage is reported, and nothing panics or hangs.

use super::walk::{
    BUFFER_LEN, BUFFER_SIZE, FILLED_BYTES, FORMATS, LOG_FILE_HEADER, SAVED_OFFSET, Walk, buffers,
    numbers_within, put, small, with_events,
};
use etwsieve_etl::{Compression, DamageKind, EtlError, Trace};
use etwsieve_tests::fuzz;
use std::collections::BTreeSet;

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
                // Exactly the events that end before the truncation.
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
fn a_false_buffer_size_costs_only_its_buffer() {
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
fn false_sizes_in_the_header_cost_nothing() {
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
fn a_false_buffer_size_in_a_compressed_trace() {
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
            // Buffers contain about five events; the reader finds all others.
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

        // At the end of a closed file the same zeros replace buffers, which counts as damage.
        let mut closed = small(format);
        closed.empty_buffers = 3;
        let walk = Walk::of(&closed.build());
        assert_eq!(walk.seen.len(), 45, "{format:?}");
        assert_eq!(walk.kinds(), [(DamageKind::Zeroed, 1)], "{format:?}");
        assert_eq!(walk.damage.kept()[0].found, 3 * BUFFER_LEN as u64, "{format:?}");
    }
}

#[test]
fn false_numbers_of_filled_bytes() {
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
