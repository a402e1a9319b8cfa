//! The protocol of `docs/wire.md` from the sensor's side: which frames are acknowledged, and which close the
//! connection.

use crate::collector::{Client, Collector, Word, hello};
use crate::common::{hit, rule};
use etwsieve_collector::server::{Security, ServerSettings};
use etwsieve_collector::status::{Status, now};
use etwsieve_transport::store::{HitFilter, Store};
use etwsieve_transport::wire::encode_data;
use etwsieve_transport::wire::frame::{FrameType, encode_frame};
use etwsieve_transport::wire::message::{
    AckV1, BusyReason, CountV1, GapReason, GapV1, HelloV1, StatusV1, WelcomeV1,
};
use std::time::Duration;

fn plain(folder: &std::path::Path, settings: ServerSettings) -> Collector {
    Collector::sqlite(folder, &Security::InsecureLoopback, settings)
}

fn stored(folder: &std::path::Path) -> Vec<u64> {
    let store = Store::open_read_only(folder.join("hits.db")).unwrap();
    store.hits(HitFilter::default()).map(|hit| hit.unwrap().hit.source_sequence).collect()
}

#[test]
fn hits_are_acknowledged_and_stored() {
    let folder = tempfile::tempdir().unwrap();
    let mut collector = plain(folder.path(), ServerSettings::default());
    let mut client = Client::plain(collector.addr);
    let expected = WelcomeV1 { version: 1, epoch: [1; 16], durable: 0, window: 512, quiet_ms: 60_000 };
    assert_eq!(client.hello(1, 1), Word::Welcome(expected));
    for sequence in 1..=300 {
        client.send_hit(sequence, &hit(sequence));
    }
    client.wait_for_ack(1, 300);
    // Acknowledged hits are visible to other readers of the file.
    assert_eq!(stored(folder.path()), (1..=300).collect::<Vec<_>>());
    drop(client);
    let mut client = Client::plain(collector.addr);
    assert_eq!(client.hello(1, 301), Word::Welcome(WelcomeV1 { durable: 300, ..expected }));
    collector.stop();
    assert_eq!(collector.counters.hits.get(), 300);
}

#[test]
fn repetitions_are_stored_once_and_conflicts_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut collector = plain(folder.path(), ServerSettings::default());
    for _ in 0..2 {
        let mut client = Client::plain(collector.addr);
        assert!(matches!(client.hello(1, 1), Word::Welcome(_)));
        for sequence in 1..=10 {
            client.send_hit(sequence, &hit(sequence));
        }
        client.wait_for_ack(1, 10);
        // Within one connection as well.
        client.send_hit(3, &hit(3));
        client.wait_for_ack(1, 10);
    }
    assert_eq!(stored(folder.path()), (1..=10).collect::<Vec<_>>());
    // A copy of the sensor sends another hit under the same number, twice.
    for _ in 0..2 {
        let mut client = Client::plain(collector.addr);
        assert!(matches!(client.hello(1, 5), Word::Welcome(_)));
        client.send_hit(5, &hit(500));
        client.wait_for_ack(1, 5);
    }
    collector.stop();
    let counters = &collector.counters;
    assert_eq!((counters.hits.get(), counters.repeated.get(), counters.conflicts.get()), (10, 13, 1));
    let mut numbers: Vec<_> = (1..=10).collect();
    numbers.push(500);
    assert_eq!(stored(folder.path()), numbers);
    let status = Status::read(&folder.path().join("hits.db"), now()).unwrap();
    assert_eq!(status.sensors[0].conflicts, 1);
    assert!(status.sensors[0].alarms[0].contains("copy"), "{status:?}");
}

#[test]
fn the_same_event_in_two_epochs_is_one_hit_with_the_rules_of_both() {
    let folder = tempfile::tempdir().unwrap();
    let mut collector = plain(folder.path(), ServerSettings::default());
    let mut client = Client::plain(collector.addr);
    assert!(matches!(client.hello(1, 1), Word::Welcome(_)));
    client.send_hit(1, &hit(7));
    client.wait_for_ack(1, 1);
    // Everything is acknowledged, so the connection may start another epoch.
    assert!(matches!(client.hello(2, 1), Word::Welcome(WelcomeV1 { durable: 0, .. })));
    let mut other = hit(7);
    other.rules = vec![rule("11111111-48b2-11ec-bcfc-3e22fbd008af", "Another")];
    client.send_hit(1, &other);
    client.wait_for_ack(2, 1);
    collector.stop();
    let store = Store::open_read_only(folder.path().join("hits.db")).unwrap();
    let hits: Vec<_> = store.hits(HitFilter::default()).collect::<Result<_, _>>().unwrap();
    assert_eq!(hits.len(), 1);
    assert_eq!(hits[0].hit.rules.len(), 2);
}

#[test]
fn gaps_and_statuses_are_acknowledged_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let mut collector = plain(folder.path(), ServerSettings::default());
    let mut client = Client::plain(collector.addr);
    assert!(matches!(client.hello(1, 1), Word::Welcome(_)));
    let count = |name: &str, value| CountV1 { name: name.into(), value };
    let status = StatusV1 {
        time: 133_601_515_200_000_000,
        uptime_seconds: 5,
        counts: vec![count("spool_hits", 42), count("hits_dropped_spool_full", 8), count("not_known", 1)],
    };
    client.send(&status);
    // No frame has been sent yet.
    assert_eq!(client.word(), Word::Ack(AckV1 { epoch: [1; 16], sequence: 0 }));
    client.send_hit(1, &hit(1));
    client.send_hit(2, &hit(2));
    client.wait_for_ack(1, 2);
    // The gap covers sent hits: two of ten are stored.
    let gap = GapV1 { from: 1, to: 10, count: 10, reason: GapReason::SpoolFull };
    client.send(&gap);
    client.wait_for_ack(1, 10);
    client.send(&gap);
    client.wait_for_ack(1, 10);
    // The gap overlaps one that is already recorded.
    client.send(&GapV1 { from: 9, to: 12, count: 4, ..gap });
    client.wait_for_ack(1, 12);
    let path = folder.path().join("hits.db");
    let shown = Status::read(&path, now()).unwrap();
    assert_eq!(shown.is_running, Some(true));
    let mut shown = shown;
    while shown.sensors[0].spool_hits.is_none() {
        // STATUS frames are stored within a second or two.
        std::thread::sleep(Duration::from_millis(50));
        shown = Status::read(&path, now()).unwrap();
    }
    let sensor = &shown.sensors[0];
    assert_eq!((sensor.sensor.as_str(), sensor.connected), ("insecure-loopback", true));
    assert_eq!((sensor.hits, sensor.gaps, sensor.lost, sensor.repeated), (2, 2, 10, 1));
    assert_eq!((sensor.spool_hits, sensor.dropped), (Some(42), 8));
    assert_eq!(sensor.computer.as_deref(), Some("PC1"));
    drop(client);
    collector.stop();
    let shown = Status::read(&path, now()).unwrap();
    assert_eq!((shown.is_running, shown.sensors[0].connected), (Some(false), false));
    let mut table = Vec::new();
    shown.write_table(&mut table, now()).unwrap();
    let table = String::from_utf8(table).unwrap();
    assert!(table.contains("collector not running, 1 sensors") && table.contains("10 hits lost"), "{table}");
}

/// Sends invalid frames after a HELLO for epoch 1 from number 1.
#[test]
fn violations_close_only_their_connection() {
    let folder = tempfile::tempdir().unwrap();
    let mut collector = plain(folder.path(), ServerSettings { window: 4, ..ServerSettings::default() });
    let mut bystander = Client::plain(collector.addr);
    assert!(matches!(bystander.hello(77, 1), Word::Welcome(_)));
    let frame = |frame_type, payload: &[u8]| {
        let mut bytes = Vec::new();
        encode_frame(frame_type, payload, &mut bytes).unwrap();
        bytes
    };
    let data = |sequence| {
        let mut bytes = Vec::new();
        encode_data(sequence, &hit(sequence), &mut bytes).unwrap();
        bytes
    };
    let with = |mut bytes: Vec<u8>, at: usize, value: &[u8]| {
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    let gap = |numbers: [u64; 3]| {
        let mut payload: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        payload.extend([0; 4]);
        frame(FrameType::Gap, &payload)
    };
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("garbage", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("a damaged frame", with(data(1), 40, &[0xAA])),
        ("a DATA frame of 1 MiB and a byte", with(data(1), 8, &(1_048_577_u32).to_le_bytes())),
        ("a STATUS of 64 KiB and a byte", with(frame(FrameType::Status, b""), 8, &65_537_u32.to_le_bytes())),
        ("a skipped number", data(2)),
        ("number 0", data(0)),
        ("a hit cut short", frame(FrameType::Data, &1_u64.to_le_bytes())),
        ("a gap that ends before it begins", gap([5, 4, 1])),
        ("a gap from 0", gap([0, 4, 1])),
        ("a gap that begins too late", gap([2, 4, 3])),
        ("a gap beyond all numbers", gap([1, u64::MAX, 3])),
        ("an ACK", frame(FrameType::Ack, &[0; 24])),
        ("a WELCOME", frame(FrameType::Welcome, &[0; 33])),
        ("a HELLO of nothing", frame(FrameType::Hello, b"")),
    ];
    let count = rows.len() as u64;
    for (name, bytes) in rows {
        let mut client = Client::plain(collector.addr);
        assert!(matches!(client.hello(1, 1), Word::Welcome(_)), "{name}");
        let _ = client.send_bytes(&bytes);
        assert_eq!(client.word(), Word::Closed, "{name}");
    }
    let first: [(&str, Vec<u8>); 3] = [
        ("DATA first", data(1)),
        ("a long DATA first", with(data(1), 8, &65_537_u32.to_le_bytes())),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00\x00\x00".to_vec()),
    ];
    for (name, bytes) in &first {
        let mut client = Client::plain(collector.addr);
        let _ = client.send_bytes(bytes);
        assert_eq!(client.word(), Word::Closed, "{name}");
    }
    bystander.send_hit(1, &hit(1));
    bystander.wait_for_ack(77, 1);
    collector.stop();
    assert_eq!(collector.counters.violations.get(), count + first.len() as u64);
    assert_eq!(stored(folder.path()), [1]);
}

#[test]
fn a_gap_may_straddle_the_next_number() {
    let folder = tempfile::tempdir().unwrap();
    let mut collector = plain(folder.path(), ServerSettings::default());
    for (epoch, next, closes) in [(1, 11, false), (2, 12, true)] {
        let mut client = Client::plain(collector.addr);
        assert!(matches!(client.hello(epoch, 1), Word::Welcome(_)));
        for sequence in 1..=5 {
            client.send_hit(sequence, &hit(u64::from(epoch) * 100 + sequence));
        }
        client.wait_for_ack(epoch, 5);
        // The next number is 6.
        client.send(&GapV1 { from: 4, to: 10, count: 7, reason: GapReason::SpoolFull });
        client.wait_for_ack(epoch, 10);
        client.send_hit(next, &hit(u64::from(epoch) * 100 + next));
        if closes {
            assert_eq!(client.word(), Word::Closed, "number 11 was skipped");
        } else {
            client.wait_for_ack(epoch, next);
        }
    }
    collector.stop();
    // Of each gap 4 and 5 were stored.
    assert_eq!(collector.counters.lost.get(), 10);
}

#[test]
fn ids_of_zeros_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    let mut collector = plain(folder.path(), ServerSettings::default());
    let mut client = Client::plain(collector.addr);
    client.send(&HelloV1 { instance: [0; 16], epoch: [0; 16], ..hello(0, 1) });
    assert!(matches!(client.word(), Word::Welcome(WelcomeV1 { epoch, durable: 0, .. }) if epoch == [0; 16]));
    client.send_hit(1, &hit(1));
    client.wait_for_ack(0, 1);
    collector.stop();
    assert_eq!(stored(folder.path()), [1]);
}

#[test]
fn two_connections_may_use_one_epoch_and_each_has_its_own_acknowledgements() {
    let folder = tempfile::tempdir().unwrap();
    let mut collector = plain(folder.path(), ServerSettings::default());
    let mut first = Client::plain(collector.addr);
    let mut second = Client::plain(collector.addr);
    assert!(matches!(first.hello(1, 1), Word::Welcome(_)));
    assert!(matches!(second.hello(1, 1), Word::Welcome(_)));
    for sequence in 1..=20 {
        first.send_hit(sequence, &hit(sequence));
    }
    first.wait_for_ack(1, 20);
    // The second connection has sent no frames; those of the first one do not count.
    second.send(&StatusV1::default());
    assert_eq!(second.word(), Word::Ack(AckV1 { epoch: [1; 16], sequence: 0 }));
    for sequence in 1..=10 {
        second.send_hit(sequence, &hit(sequence));
    }
    second.wait_for_ack(1, 10);
    first.send_hit(21, &hit(21));
    first.wait_for_ack(1, 21);
    collector.stop();
    assert_eq!(stored(folder.path()), (1..=21).collect::<Vec<_>>());
    assert_eq!((collector.counters.repeated.get(), collector.counters.conflicts.get()), (10, 0));
}

/// A high number may be durable before lower ones.
#[test]
fn durable_is_the_highest_number_even_if_lower_ones_are_missing() {
    let folder = tempfile::tempdir().unwrap();
    let collector = plain(folder.path(), ServerSettings::default());
    let mut client = Client::plain(collector.addr);
    assert!(matches!(client.hello(1, 100), Word::Welcome(_)));
    client.send_hit(100, &hit(100));
    client.wait_for_ack(1, 100);
    drop(client);
    let mut client = Client::plain(collector.addr);
    assert!(matches!(client.hello(1, 1), Word::Welcome(WelcomeV1 { durable: 100, .. })));
    // The sensor ignores it and sends its hits.
    client.send_hit(1, &hit(1));
    client.wait_for_ack(1, 1);
}

#[test]
fn an_unsupported_version_gets_busy() {
    let folder = tempfile::tempdir().unwrap();
    let collector = plain(folder.path(), ServerSettings::default());
    let mut client = Client::plain(collector.addr);
    client.send(&HelloV1 { versions: vec![2, 9], ..hello(1, 1) });
    assert!(matches!(client.word(), Word::Busy(busy) if busy.reason == BusyReason::Version));
    assert_eq!(client.word(), Word::Closed);
    let mut client = Client::plain(collector.addr);
    client.send(&HelloV1 { versions: vec![2, 1], ..hello(1, 1) });
    assert!(matches!(client.word(), Word::Welcome(welcome) if welcome.version == 1));
}

#[test]
fn silence_and_incomplete_frames_time_out() {
    let folder = tempfile::tempdir().unwrap();
    let settings =
        ServerSettings { quiet_ms: 300, hello_time: Duration::from_millis(300), ..ServerSettings::default() };
    let mut collector = plain(folder.path(), settings);
    let mut mute = Client::plain(collector.addr);
    let mut half = Client::plain(collector.addr);
    half.send_bytes(b"ETWS\x01\x01").unwrap();
    let mut quiet = Client::plain(collector.addr);
    assert!(matches!(quiet.hello(1, 1), Word::Welcome(welcome) if welcome.quiet_ms == 300));
    for client in [&mut mute, &mut half, &mut quiet] {
        assert_eq!(client.word(), Word::Closed);
    }
    collector.stop();
    assert_eq!(collector.counters.timed_out.get(), 3);
}

#[test]
fn too_many_connections_get_busy() {
    let folder = tempfile::tempdir().unwrap();
    let settings = ServerSettings { connections_per_sensor_max: 2, ..ServerSettings::default() };
    let collector = plain(folder.path(), settings);
    let mut first = Client::plain(collector.addr);
    let mut second = Client::plain(collector.addr);
    assert!(matches!(first.hello(1, 1), Word::Welcome(_)));
    assert!(matches!(second.hello(2, 1), Word::Welcome(_)));
    let mut third = Client::plain(collector.addr);
    let _ = third.send_bytes(b"ETWS");
    assert!(matches!(third.word(), Word::Busy(busy) if busy.reason == BusyReason::Connections));
    // The other connections are still served.
    first.send_hit(1, &hit(1));
    first.wait_for_ack(1, 1);
}

#[test]
fn a_stop_acknowledges_durable_hits_and_sends_busy() {
    let folder = tempfile::tempdir().unwrap();
    let mut collector = plain(folder.path(), ServerSettings::default());
    let mut client = Client::plain(collector.addr);
    assert!(matches!(client.hello(1, 1), Word::Welcome(_)));
    for sequence in 1..=200 {
        client.send_hit(sequence, &hit(sequence));
    }
    collector.stop();
    let mut acknowledged = 0;
    loop {
        match client.word() {
            Word::Ack(ack) => acknowledged = ack.sequence,
            Word::Busy(busy) => {
                assert_eq!(busy.reason, BusyReason::Stopping);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let stored = stored(folder.path());
    assert!(stored.len() as u64 >= acknowledged, "{} stored, {acknowledged} acknowledged", stored.len());
    assert_eq!(stored, (1..=stored.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_sensor_above_its_rate_is_slowed_down_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut collector =
        plain(folder.path(), ServerSettings { frames_per_second: 50, ..ServerSettings::default() });
    let mut client = Client::plain(collector.addr);
    assert!(matches!(client.hello(1, 1), Word::Welcome(_)));
    for sequence in 1..=100 {
        client.send_hit(sequence, &hit(sequence));
    }
    client.wait_for_ack(1, 100);
    collector.stop();
    assert!(collector.counters.rate_pauses.get() > 10);
    assert_eq!(stored(folder.path()).len(), 100);
}

#[test]
fn a_small_queue_makes_sensors_wait() {
    let folder = tempfile::tempdir().unwrap();
    let settings =
        ServerSettings { queue_frames: 2, queue_bytes: 4096, batch_frames: 2, ..ServerSettings::default() };
    let mut collector = plain(folder.path(), settings);
    let addr = collector.addr;
    let clients: Vec<_> = (1..=8_u8)
        .map(|epoch| {
            std::thread::spawn(move || {
                let mut client = Client::plain(addr);
                assert!(matches!(client.hello(epoch, 1), Word::Welcome(_)));
                for sequence in 1..=20 {
                    client.send_hit(sequence, &hit(u64::from(epoch) * 1000 + sequence));
                }
                client.wait_for_ack(epoch, 20);
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    collector.stop();
    assert_eq!(collector.counters.hits.get(), 160);
    assert_eq!((collector.counters.waiting.get(), collector.counters.waiting_bytes.get()), (0, 0));
}
