//! The cost of reading any file is bounded in proportion to its length. It is counted in steps and bytes, not in seconds.

use super::walk::{BUFFER_SIZE, FORMATS, SEQUENCE_NUMBER, buffers, inflating, put, small};
use etwsieve_etl::{
    Compression, DamageKind, INDEX_STEPS_PER_BYTE_MAX, STEPS_FREE, Trace, TraceFile, WALK_STEPS_PER_BYTE_MAX,
};
use etwsieve_tests::writer::{EventSpec, TraceWriter};
use etwsieve_tests::{corpus, fuzz};
use std::fs;

const HEADER_LEN: usize = etwsieve_etl::BUFFER_HEADER_LEN;

/// Returns a compressed trace that ends after its first buffer, and the header of the second buffer.
fn start() -> (Vec<u8>, Vec<u8>) {
    let bytes = small(Some(Compression::Xpress)).build();
    let second = buffers(&bytes)[1];
    (bytes[..second].to_vec(), bytes[second..second + HEADER_LEN].to_vec())
}

/// Returns headers that look valid but have no valid buffer, each followed by `gap` bytes of noise.
fn dead_ends(count: usize, gap: usize) -> Vec<u8> {
    let (mut bytes, header) = start();
    for number in 0..count {
        let mut header = header.clone();
        put(&mut header, BUFFER_SIZE, (HEADER_LEN + gap + 20 + number % 7) as u32);
        bytes.extend_from_slice(&header);
        bytes.extend(std::iter::repeat_n(0xEE, gap));
    }
    bytes
}

/// This was quadratic once: each such header caused a search to the end of the file.
#[test]
fn headers_without_a_buffer_are_searched_once() {
    for gap in [4, 24, 1_000] {
        let steps = |count| {
            let bytes = dead_ends(count, gap);
            let trace = Trace::new(&bytes).unwrap();
            let (steps, _) = trace.index_cost();
            assert!(!trace.damage().is_empty(), "{gap}");
            (steps, bytes.len() as u64)
        };
        let ((few, _), (many, len)) = (steps(500), steps(4_000));
        assert!(many < 9 * few, "{gap}: {few} steps for 500 headers, {many} for 4000");
        assert!(many <= INDEX_STEPS_PER_BYTE_MAX * len / 2, "{gap}: {many} steps for {len} bytes");
    }
    fuzz::etl::etl(&dead_ends(300, 4));
}

/// The most expensive input for the search: a plausible header at every other byte.
#[test]
fn a_header_at_every_other_byte() {
    let mut bytes = TraceWriter::new().buffer_len(1 << 20).compressed(Compression::Xpress).build();
    bytes[0x2a..0x2c].copy_from_slice(&[1, 0]); // The number of the logger, as in what follows.
    bytes.extend([1, 0].repeat(200_000));
    let len = bytes.len() as u64;
    let trace = Trace::new(&bytes).unwrap();
    let (steps, _) = trace.index_cost();
    assert!(steps > 20 * len, "{steps} steps for {len} bytes: not the case it is meant to be");
    assert!(steps <= INDEX_STEPS_PER_BYTE_MAX * len, "{steps} steps for {len} bytes");
    fuzz::etl::etl(&bytes[..20_000]);
}

#[test]
fn runs_of_zeros_are_counted_once() {
    let (mut bytes, header) = start();
    for run in 0..600 {
        bytes.extend(std::iter::repeat_n(0, 80 + run % 40));
        bytes.extend_from_slice(&header[..40]);
    }
    let (steps, _) = Trace::new(&bytes).unwrap().index_cost();
    assert!(steps <= INDEX_STEPS_PER_BYTE_MAX / 2 * bytes.len() as u64, "{steps} for {} bytes", bytes.len());
    fuzz::etl::etl(&bytes);
}

/// Of many buffers that each decompress to 16 MiB, the reader reads only as many as the length of the file permits.
#[test]
fn decompressed_bytes_are_bounded_by_the_length_of_the_file() {
    const CLAIM: usize = 16 << 20;
    const BUFFERS: usize = 100;
    let (mut bomb, mut buffer) = inflating(CLAIM);
    for number in 0..BUFFERS as u32 {
        put(&mut buffer, SEQUENCE_NUMBER, number + 1);
        bomb.extend_from_slice(&buffer);
    }
    let len = bomb.len() as u64;
    let steps_max = len * WALK_STEPS_PER_BYTE_MAX + STEPS_FREE;
    assert!(BUFFERS as u64 * CLAIM as u64 / 4 > steps_max, "more than the file pays for");
    let trace = Trace::new(&bomb).unwrap();
    let mut events = trace.events();
    let mut read = 0;
    while let Some(event) = events.next() {
        read += u64::from(event.event_id.is_some());
    }
    let (steps, _) = events.cost();
    assert!(steps <= steps_max, "{steps} of {steps_max} steps");
    let unread = events.damage().count(DamageKind::WorkLimit);
    assert!(read > 50 && unread > 5, "{read} read, {unread} not");
    assert_eq!((read + unread, events.damage().total()), (BUFFERS as u64, unread), "each buffer once");
    let offsets = buffers(&bomb);
    let reported: Vec<_> = events.damage().kept().iter().map(|damage| damage.offset as usize).collect();
    assert_eq!(reported, offsets[offsets.len() - unread as usize..], "the last ones, by their offsets");
}

#[test]
fn a_walk_that_is_stopped_ends_soon() {
    let bytes = dead_ends(40_000, 4);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.etl");
    fs::write(&path, &bytes).unwrap();
    let file = TraceFile::open(&path).unwrap();
    let error = file.trace_until(&|| true).unwrap_err();
    assert_eq!(error.to_string(), "stopped before the buffers of the trace were found");

    // All events are damaged, so that the walk never returns to its caller with an event.
    let mut writer = TraceWriter::new();
    for number in 0..30_000 {
        writer.push(EventSpec::powershell(4104, vec![0; 8]).at(number).item(2, &[1]));
    }
    let mut bytes = writer.build();
    let item = bytes.windows(8).position(|window| window == [16, 0, 2, 0, 0, 0, 1, 0]).unwrap();
    let stride =
        bytes[item + 8..].windows(8).position(|window| window == [16, 0, 2, 0, 0, 0, 1, 0]).unwrap() + 8;
    let mut at = item;
    while at < bytes.len() {
        if bytes[at..].starts_with(&[16, 0, 2, 0, 0, 0, 1, 0]) {
            bytes[at] = 1;
            at += stride;
        } else {
            at += 8;
        }
    }
    let trace = Trace::new(&bytes).unwrap();
    let whole = {
        let mut events = trace.events();
        while events.next().is_some() {}
        events.damage().total()
    };
    assert_eq!(whole, 30_000);
    let stopped = || true;
    let mut events = trace.events_until(&stopped);
    while events.next().is_some() {}
    assert!(events.is_stopped());
    assert!(events.damage().total() < whole / 2, "{} of {whole}", events.damage().total());
    assert_eq!(events.damage().count(DamageKind::WorkLimit), 0, "a stop is not damage");
}

/// Recorded traces stay far below the bounds.
#[test]
fn recorded_traces_cost_little() {
    let Some(data) = corpus::data() else { return };
    let (mut worst, mut most_expanded) = (0.0_f64, 0.0_f64);
    for entry in fs::read_dir(data.join("recorded/etl")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "etl") {
            continue;
        }
        let file = TraceFile::open(&path).unwrap();
        let trace = file.trace().unwrap();
        let mut events = trace.events();
        let mut event_bytes = 0_u64;
        while let Some(event) = events.next() {
            event_bytes += u64::from(event.size);
        }
        let len = trace.len() as f64;
        let (steps, _) = events.cost();
        let (index, _) = trace.index_cost();
        println!(
            "{:>12} bytes, {:6.3} steps a byte to index, {:6.3} to walk, {:6.2} bytes of events a byte, {} compressed: {}",
            trace.len(),
            index as f64 / len,
            steps as f64 / len,
            event_bytes as f64 / len,
            trace.info().buffers_compressed,
            path.file_name().unwrap().display()
        );
        worst = worst.max(steps as f64 / len);
        most_expanded = most_expanded.max(event_bytes as f64 / len);
    }
    assert!(worst * 8.0 < WALK_STEPS_PER_BYTE_MAX as f64, "{worst}");
    println!("worst: {worst:.2} steps a byte, {most_expanded:.2} bytes of events a byte");
}

#[test]
fn every_format_from_a_file_as_from_memory() {
    for format in FORMATS {
        // Buffers that span several views of the file, with events across their borders.
        let mut writer = TraceWriter::new().buffer_len(3 << 20).processors(2);
        writer.compression = format;
        for number in 0..160_u64 {
            let len = 10_000 + (number as usize * 7_919) % 50_000;
            let payload = (0..len as u64).map(|at| (at.wrapping_mul(number + 3) >> 5) as u8).collect();
            writer.push(EventSpec::powershell(4104, payload).at(number).on(number as u16 % 2));
        }
        fuzz::etl::etl(&writer.build());
    }
}
