//! The reader reads everything that the writer can write: every kind of header, clock, pointer size, extended item and
//! compression.

use etwsieve_etl::{ClockType, Compression, Event, FileTime, HeaderKind, Trace};
use etwsieve_tests::writer::{
    EventSpec, TraceWriter, lznt1, module_logging, script_block, script_block_marker, xpress, xpress_huffman,
};
use proptest::prelude::*;
use uuid::Uuid;

const KINDS: [HeaderKind; 16] = [
    HeaderKind::System32,
    HeaderKind::System64,
    HeaderKind::Compact32,
    HeaderKind::Compact64,
    HeaderKind::PerfInfo32,
    HeaderKind::PerfInfo64,
    HeaderKind::Full32,
    HeaderKind::Full64,
    HeaderKind::Instance32,
    HeaderKind::Instance64,
    HeaderKind::Event32,
    HeaderKind::Event64,
    HeaderKind::Message,
    HeaderKind::Timed,
    HeaderKind::Error,
    HeaderKind::WNode,
];
const FORMATS: [Option<Compression>; 4] =
    [None, Some(Compression::Xpress), Some(Compression::Lznt1), Some(Compression::XpressHuffman)];
const SID: [u8; 28] =
    [1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0xf4, 1, 0, 0];

/// Returns an event with this kind of header in which every field has a different value.
fn specimen(header: HeaderKind, seed: u32) -> EventSpec {
    let bytes = seed.to_le_bytes();
    let mut event = EventSpec::new(header);
    event.ticks = u64::from(seed);
    event.process_id = seed ^ 0x1111;
    event.thread_id = seed ^ 0x2222;
    event.provider = Uuid::from_u128(0x1234_5678_9abc_def0_0000_0000_0000_0000 | u128::from(seed));
    event.event_id = seed as u16 ^ 0x3333;
    event.version = u16::from(bytes[0]);
    (event.channel, event.level, event.opcode) = (bytes[1], bytes[2], bytes[0] ^ 0x55);
    event.task = seed as u16 ^ 0x4444;
    event.keywords = u64::from(seed) << 30;
    event.property = seed as u16 ^ 0x7777;
    event.activity_id = Uuid::from_u128(u128::from(seed) << 64);
    event.hook_id = seed as u16 ^ 0x0666;
    event.counters = bytes[0] & 7;
    event.message_options = 0x2b;
    event.payload(bytes.repeat(seed as usize % 40))
}

/// Checks that an event that was read equals the one that was written.
fn check(event: &Event<'_>, want: &EventSpec, writer: &TraceWriter) {
    use HeaderKind::{
        Compact32, Compact64, Error, Event32, Event64, Full32, Full64, Instance32, Instance64, Message,
        PerfInfo32, PerfInfo64, System32, System64, Timed, WNode,
    };
    assert_eq!(event.header, want.header);
    assert_eq!(event.payload, want.payload, "{want:?}");
    assert_eq!(event.processor, want.processor);
    assert_eq!(event.raw_time, want.has_time().then(|| writer.raw_time_of(want)));
    let ids = (Some(want.process_id), Some(want.thread_id));
    let (kernel, classic, event64) = match want.header {
        System32 | System64 | Compact32 | Compact64 | PerfInfo32 | PerfInfo64 => (true, false, false),
        Full32 | Full64 | Instance32 | Instance64 => (false, true, false),
        Event32 | Event64 => (false, false, true),
        Message | Timed | Error | WNode => (false, false, false),
    };
    let message = |bit| want.header == Message && want.message_options & bit != 0;
    let has_ids =
        classic || event64 || message(0x20) || (kernel && !matches!(want.header, PerfInfo32 | PerfInfo64));
    assert_eq!((event.process_id, event.thread_id), if has_ids { ids } else { (None, None) }, "{want:?}");
    let has_guid = classic || event64 || message(2) && !message(4);
    assert_eq!(event.provider, has_guid.then_some(want.provider), "{want:?}");
    assert_eq!(event.event_id, (event64 || want.header == Message).then_some(want.event_id));
    assert_eq!(event.hook_id, kernel.then_some(want.hook_id));
    assert_eq!(event.activity_id, event64.then_some(want.activity_id));
    assert_eq!(event.version, if kernel || classic || event64 { want.version } else { 0 });
    assert_eq!(event.level, if classic || event64 { want.level } else { 0 });
    assert_eq!(event.opcode, if classic || event64 { want.opcode } else { 0 });
    assert_eq!(event.channel, if event64 { want.channel } else { 0 });
    assert_eq!(event.task, if event64 { want.task } else { 0 });
    assert_eq!(event.keywords, if event64 { want.keywords } else { 0 });
    assert_eq!(event.property, if event64 { want.property } else { 0 });
    let items: Vec<_> = event.extended().map(|item| (item.kind, item.data.to_vec())).collect();
    assert_eq!(items, if event64 { want.items.clone() } else { Vec::new() });
}

/// Reads the trace of `writer` and checks its events, which are in the order of time after the two of the first buffer.
fn round_trip(writer: &TraceWriter) {
    let bytes = writer.build();
    let trace = Trace::new(&bytes).unwrap();
    let mut want: Vec<&EventSpec> = writer.events().iter().collect();
    // The sort is stable: events of one processor keep their order, and processors break ties.
    want.sort_by_key(|event| (writer.raw_time_of(event), event.processor));
    let mut events = trace.events();
    for hook_id in [0, 0x50] {
        let event = events.next().unwrap();
        assert_eq!((event.hook_id, event.time), (Some(hook_id), trace.info().start.unwrap()));
    }
    for want in want {
        let event = events.next().expect("an event is missing");
        check(&event, want, writer);
    }
    assert!(events.next().is_none(), "an event that was not written");
    assert_eq!(events.damage().kept(), []);
    assert_eq!(events.bytes_consumed(), bytes.len() as u64);
}

#[test]
fn every_kind_of_header() {
    for pointer_size in [4, 8] {
        for format in FORMATS {
            let mut writer = TraceWriter::new().pointer_size(pointer_size);
            writer.compression = format;
            for (number, header) in KINDS.into_iter().enumerate() {
                // Events without a time stamp follow directly after their predecessor.
                writer.push(specimen(header, 1_000 + number as u32));
            }
            round_trip(&writer);
        }
    }
}

#[test]
fn every_option_of_a_message() {
    let mut writer = TraceWriter::new();
    for options in 0..64 {
        let mut event = specimen(HeaderKind::Message, 5_000 + u32::from(options));
        event.message_options = options;
        writer.push(event);
    }
    round_trip(&writer);
}

#[test]
fn every_clock() {
    let rows = [
        (ClockType::PerformanceCounter, 10_000_000),
        (ClockType::PerformanceCounter, 2_646_484),
        (ClockType::PerformanceCounter, 24_000_000),
        (ClockType::SystemTime, 10_000_000),
        (ClockType::CpuCycles, 3_400),
        (ClockType::Other(0), 10_000_000),
    ];
    for (clock, frequency) in rows {
        let mut writer = TraceWriter::new().clock(clock, frequency);
        for ticks in [0, 1, 2, 1_000, 10_000_000, 36_000_000_000] {
            writer.push(EventSpec::powershell(4104, vec![1]).at(ticks));
        }
        round_trip(&writer);
        let bytes = writer.build();
        let trace = Trace::new(&bytes).unwrap();
        assert_eq!(trace.info().clock.kind, clock);
        let mut events = trace.events();
        let mut times = Vec::new();
        while let Some(event) = events.next() {
            times.extend(event.event_id.map(|_| event.time));
        }
        let hz = trace.info().clock.hz;
        for (time, want) in times.iter().zip(writer.events()) {
            let late = time.0 - writer.start.0 - want.ticks;
            // Times are rounded up to a tick of the clock, so they are exact if a tick is at most 100 ns.
            assert!(late <= if hz < 10_000_000 { 10_000_000 / hz } else { 0 }, "{clock}, {late} ticks late");
        }
        assert_eq!(times.len(), writer.events().len());
    }
}

#[test]
fn facts_of_the_header() {
    let mut writer = TraceWriter::new().buffer_len(8192).processors(6).clock(ClockType::CpuCycles, 2_900);
    writer.events_lost = 7;
    writer.buffers_lost = 3;
    for processor in 0..6 {
        writer.push(EventSpec::powershell(4104, vec![0; 100]).on(processor).at(u64::from(processor) * 10));
    }
    // The event is too large for a buffer, so the session loses it.
    writer.push(EventSpec::powershell(4104, vec![0; 9_000]));
    for pointer_size in [4, 8] {
        let bytes = writer.clone().pointer_size(pointer_size).build();
        let info = Trace::new(&bytes).unwrap().info().clone();
        assert_eq!((info.os_version, info.os_build, info.file_version), ((10, 0), 19_045, (1, 5)));
        assert_eq!((info.processors, info.pointer_size, info.cpu_mhz), (6, pointer_size, 2_900));
        assert_eq!((info.clock.kind, info.clock.hz), (ClockType::CpuCycles, 2_900_000_000));
        assert_eq!((info.events_lost, info.buffers_lost), (8, 3));
        assert_eq!((info.buffers_written, info.buffers_found, info.buffers_compressed), (7, 7, 0));
        assert_eq!(info.buffers_marking_loss, 1);
        assert_eq!(
            (info.logger_name.as_str(), info.log_file_name.as_str()),
            ("etwsieve", "C:\\etwsieve.etl")
        );
        assert_eq!(info.start, Some(writer.start));
        assert_eq!(info.boot, Some(FileTime(writer.start.0 - 864_000_000_000)));
        assert_eq!(info.end, Some(FileTime(writer.start.0 + 51)));
        assert_eq!((info.buffer_size, info.log_file_mode, info.perf_freq), (8192, 1, 10_000_000));
        assert!(!info.is_never_closed());
    }
    let bytes = writer.compressed(Compression::Xpress).build();
    let info = Trace::new(&bytes).unwrap().info().clone();
    assert_eq!((info.file_version, info.log_file_mode), ((2, 0), 0x0400_0001));
    assert_eq!((info.buffers_found, info.buffers_compressed), (7, 6));
}

#[test]
fn extended_items() {
    let related = Uuid::from_u128(0xfeed);
    let mut writer = TraceWriter::new();
    writer.push(EventSpec::powershell(4104, vec![1]).sid(&SID).related_activity(related).at(1));
    writer.push(EventSpec::powershell(4104, vec![2]).item(13, &[]).item(6, &[9; 337]).at(2));
    writer.push(EventSpec::powershell(4104, vec![3]).sid(&SID[..27]).related_activity(related).at(3));
    writer.push(EventSpec::powershell(4104, vec![4]).item(2, &[1]).item(1, &[0; 15]).at(4));
    round_trip(&writer);
    let bytes = writer.build();
    let trace = Trace::new(&bytes).unwrap();
    let mut events = trace.events();
    let mut found = Vec::new();
    while let Some(event) = events.next() {
        if event.event_id.is_some() {
            found.push((event.sid().map(<[u8]>::to_vec), event.related_activity_id()));
        }
    }
    let whole = (Some(SID.to_vec()), Some(related));
    assert_eq!(found, [whole, (None, None), (None, Some(related)), (None, None)]);
}

#[test]
fn powershell_payloads() {
    let half_a_pair: &[u16] = &[0x61, 0xd83d];
    let rows = [
        ("4104", script_block(1, 2, "a", "id", None), "01000000 02000000 6100 0000 6900 6400 0000 0000"),
        ("4104 with path", script_block(-1, 1, "", "", Some("p")), "ffffffff 01000000 0000 0000 7000 0000"),
        (
            "4104 cut in a pair",
            script_block(1, 2, half_a_pair, "", None),
            "01000000 02000000 6100 3dd8 0000 0000 0000",
        ),
        ("4103", module_logging("c", "", "p"), "6300 0000 0000 7000 0000"),
        ("4105", script_block_marker("i", "r"), "6900 0000 7200 0000"),
    ];
    for (name, payload, want) in rows {
        let hex = want.replace(' ', "");
        let bytes =
            hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16));
        assert_eq!(payload, bytes.collect::<Result<Vec<u8>, _>>().unwrap(), "{name}");
    }
}

#[test]
fn many_processors_and_wrapped_buffers() {
    for (processors, rotation) in [(1, 0), (3, 5), (64, 100), (300, 777)] {
        for format in FORMATS {
            let mut writer = TraceWriter::new().buffer_len(4096).processors(processors).rotated(rotation);
            writer.compression = format;
            for number in 0..3_000_u32 {
                let processor = (number * 7 % processors) as u16;
                writer.push(specimen(HeaderKind::Event64, number * 10 / 3).on(processor));
            }
            round_trip(&writer);
        }
    }
}

#[test]
fn the_writer_is_deterministic() {
    for format in FORMATS {
        let mut writer = TraceWriter::new().processors(4);
        writer.compression = format;
        for number in 0..500 {
            writer.push(specimen(KINDS[number as usize % KINDS.len()], number).on(number as u16 % 4));
        }
        assert_eq!(writer.build(), writer.clone().build());
    }
}

#[test]
fn long_runs_and_large_buffers() {
    // Matches of every length class, and buffers of more than one block of XPRESS with Huffman codes.
    for format in FORMATS {
        let mut writer = TraceWriter::new().buffer_len(1 << 20);
        writer.compression = format;
        for (number, len) in [0, 1, 9, 10, 24, 25, 26, 279, 280, 281, 60_000, 65_000].into_iter().enumerate()
        {
            let byte = number as u8;
            writer.push(EventSpec::powershell(4104, vec![byte; len]).at(number as u64));
            let noise = (0..len as u32).map(|i| (i.wrapping_mul(0x9E37_79B1) >> 24) as u8).collect();
            writer.push(EventSpec::powershell(4104, noise).at(number as u64));
        }
        round_trip(&writer);
    }
}

fn any_event() -> impl Strategy<Value = EventSpec> {
    let text = prop_oneof![
        any::<String>().prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..300)
    ];
    let items =
        proptest::collection::vec((any::<u16>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..3);
    (0..KINDS.len(), any::<u32>(), 0_u16..5, text, items, 0_u16..64).prop_map(
        |(kind, seed, processor, payload, items, message_options)| {
            let mut event = specimen(KINDS[kind], seed).on(processor).payload(payload);
            event.message_options = message_options;
            event.items = items;
            event
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random events with any clock and compression are read in the order of time.
    #[test]
    fn any_events_come_back(
        mut events in proptest::collection::vec(any_event(), 0..80),
        format in 0..FORMATS.len(),
        clock in 0..3_usize,
        buffer_kib in 4_u32..9,
        rotation in 0_usize..9,
    ) {
        let clock = [
            (ClockType::PerformanceCounter, 3_579_545), (ClockType::SystemTime, 1), (ClockType::CpuCycles, 2_000),
        ][clock];
        let mut writer = TraceWriter::new().clock(clock.0, clock.1).buffer_len(buffer_kib * 1024).rotated(rotation);
        writer.compression = FORMATS[format];
        events.sort_by_key(|event| event.ticks);
        // Events without a time stamp have that of their predecessor on the same processor.
        let mut last = [0; 5];
        for mut event in events {
            let last = &mut last[usize::from(event.processor)];
            if !event.has_time() {
                event.ticks = *last;
            }
            *last = event.ticks;
            writer.push(event);
        }
        round_trip(&writer);
    }

    #[test]
    fn any_bytes_survive_compression(
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..20_000),
            proptest::collection::vec(0..3_u8, 0..20_000),
            (any::<u8>(), 0..200_000_usize).prop_map(|(byte, len)| vec![byte; len]),
        ],
    ) {
        // One event cannot contain all of them, so they are split.
        for format in FORMATS {
            let mut writer = TraceWriter::new().buffer_len(1 << 20);
            writer.compression = format;
            for (number, part) in bytes.chunks(60_000).enumerate() {
                writer.push(EventSpec::powershell(4104, part.to_vec()).at(number as u64));
            }
            round_trip(&writer);
        }
        for packed in [xpress(&bytes), lznt1(&bytes), xpress_huffman(&bytes)] {
            prop_assert!(packed.len() <= bytes.len() * 9 / 8 + 300);
        }
    }
}
