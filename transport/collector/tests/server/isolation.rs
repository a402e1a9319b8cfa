//! No sensor harms another: a frame that cannot be stored is refused alone, and idle connections take no places of
//! sensors.

use crate::collector::{Authority, Client, Collector, Word};
use crate::common::{hit, rule};
use etwsieve_collector::backend::{
    Appended, Backend, BackendError, Entry, EntryError, Heartbeat, Id, Refusal,
};
use etwsieve_collector::server::{Security, ServerSettings};
use etwsieve_collector::sqlite::{SqliteBackend, SqliteOptions};
use etwsieve_collector::status::{SensorStatus, Status, now};
use etwsieve_transport::hit::HitV1;
use etwsieve_transport::store::{HitFilter, Store};
use etwsieve_transport::wire::frame::{FrameType, encode_frame};
use etwsieve_transport::wire::message::{
    AckV1, BusyReason, CountV1, GAP_COUNT_MAX, GapReason, GapV1, RefusalReason, RefusedV1, StatusV1,
};
use futures_util::future::BoxFuture;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// A collector with TLS and two sensors, `evil.test` and `honest.test`.
struct Lab {
    folder: tempfile::TempDir,
    collector: Collector,
    evil: Arc<rustls::ClientConfig>,
    honest: Arc<rustls::ClientConfig>,
}

impl Lab {
    fn start(settings: ServerSettings, prepare: impl FnOnce(&rusqlite::Connection)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hits.db");
        // The tables come first, then what makes them refuse something.
        let first = SqliteBackend::start(&path, SqliteOptions::default(), Arc::default()).unwrap();
        tokio::runtime::Runtime::new().unwrap().block_on(first.stop());
        prepare(&rusqlite::Connection::open(&path).unwrap());
        let mut authority = Authority::new(&folder.path().join("pki"));
        let evil = authority.issue("evil.test");
        let honest = authority.issue("honest.test");
        let (evil, honest) = (authority.client_config(Some(&evil)), authority.client_config(Some(&honest)));
        let collector = Collector::sqlite(folder.path(), &authority.security(), settings);
        Self { folder, collector, evil, honest }
    }

    fn evil(&self, epoch: u8) -> Client {
        connect(self.collector.addr, &self.evil, epoch)
    }

    fn honest(&self, epoch: u8) -> Client {
        connect(self.collector.addr, &self.honest, epoch)
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("hits.db")
    }

    fn sensor(&self, name: &str) -> SensorStatus {
        let status = Status::read(&self.path(), now()).unwrap();
        status.sensors.into_iter().find(|sensor| sensor.sensor == name).unwrap()
    }
}

fn connect(addr: std::net::SocketAddr, config: &Arc<rustls::ClientConfig>, epoch: u8) -> Client {
    let mut client = Client::tls(addr, Arc::clone(config));
    assert!(matches!(client.hello(epoch, 1), Word::Welcome(_)));
    client
}

fn stored(path: &Path) -> usize {
    Store::open_read_only(path).unwrap().hits(HitFilter::default()).map(Result::unwrap).count()
}

/// Waits until a condition holds.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_mins(1), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the frame of a gap that our encoder would refuse.
fn raw_gap(from: u64, to: u64, count: u64) -> Vec<u8> {
    let mut payload: Vec<u8> = [from, to, count].iter().flat_map(|number| number.to_le_bytes()).collect();
    payload.extend([0; 4]);
    let mut frame = Vec::new();
    encode_frame(FrameType::Gap, &payload, &mut frame).unwrap();
    frame
}

#[test]
fn a_gap_of_all_numbers_only_closes_its_connection() {
    let mut lab = Lab::start(ServerSettings::default(), |_| {});
    let mut honest = lab.honest(1);
    let all = i64::MAX.cast_unsigned();
    for (number, count) in (1..=8).zip([all, GAP_COUNT_MAX + 1].into_iter().cycle()) {
        let mut evil = lab.evil(number);
        evil.send_bytes(&raw_gap(1, all, count)).unwrap();
        honest.send_hit(u64::from(number), &hit(u64::from(number)));
        assert_eq!(evil.word(), Word::Closed);
        honest.wait_for_ack(1, u64::from(number));
    }
    // A long gap with a count within the limit is accepted.
    let mut evil = lab.evil(100);
    evil.send_bytes(&raw_gap(1, all, GAP_COUNT_MAX)).unwrap();
    evil.wait_for_ack(100, all);
    lab.collector.stop();
    let counters = &lab.collector.counters;
    assert_eq!((counters.batches_failed.get(), counters.entries_failed.get()), (0, 0));
    assert_eq!((counters.violations.get(), counters.hits.get()), (8, 8));
    assert_eq!(lab.sensor("evil.test").lost, GAP_COUNT_MAX);
}

#[test]
fn sums_of_losses_saturate() {
    let mut lab = Lab::start(ServerSettings::default(), |connection| {
        let insert = "INSERT INTO sensors (name, first_seen, last_seen, lost) VALUES ('evil.test', 0, 0, ?1)";
        connection.execute(insert, [i64::MAX - 7]).unwrap();
    });
    let mut evil = lab.evil(1);
    for (from, to) in [(1, 5), (6, 10), (11, 20)] {
        evil.send(&GapV1 { from, to, count: to - from + 1, reason: GapReason::SpoolFull });
        evil.wait_for_ack(1, to);
    }
    lab.collector.stop();
    assert_eq!(lab.sensor("evil.test").lost, i64::MAX.cast_unsigned());
    assert_eq!(lab.collector.counters.batches_failed.get(), 0);
}

/// The trigger simulates an entry that the store refuses because of its contents.
#[test]
fn a_frame_that_cannot_be_stored_is_refused_alone() {
    let mut lab = Lab::start(ServerSettings::default(), |connection| {
        let sql = "CREATE TRIGGER poison BEFORE INSERT ON received WHEN new.sequence = 1013
            BEGIN SELECT raise(ABORT, 'poison'); END";
        connection.execute_batch(sql).unwrap();
    });
    let mut honest = lab.honest(1);
    for round in 0..3_u64 {
        let mut evil = Client::tls(lab.collector.addr, Arc::clone(&lab.evil));
        assert!(matches!(evil.hello(2, 1001), Word::Welcome(_)));
        for sequence in 1001..=1020 {
            evil.send_hit(sequence, &hit(sequence));
            let number = round * 20 + sequence - 1000;
            honest.send_hit(number, &hit(number));
        }
        let expected = RefusedV1 {
            epoch: [2; 16],
            from: 1013,
            to: 1013,
            reason: RefusalReason::NotStorable,
            detail: "poison".into(),
        };
        let mut refused = Vec::new();
        loop {
            match evil.word() {
                Word::Refused(word) => refused.push(word),
                Word::Ack(ack) if ack.sequence < 1013 => assert_eq!(refused, []),
                Word::Ack(ack) => {
                    assert_eq!(refused, std::slice::from_ref(&expected), "before the ACK that covers it");
                    if ack.sequence == 1020 {
                        break;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        honest.wait_for_ack(1, round * 20 + 20);
    }
    lab.collector.stop();
    let counters = &lab.collector.counters;
    assert_eq!(counters.refused[RefusalReason::NotStorable as usize].get(), 3);
    assert_eq!((counters.batches_failed.get(), counters.entries_failed.get()), (0, 0));
    assert_eq!(stored(&lab.path()), 60 + 19);
    // The loss is recorded once and shown.
    let evil = lab.sensor("evil.test");
    assert_eq!((evil.hits, evil.gaps, evil.lost), (19, 1, 1));
    let reason: String = rusqlite::Connection::open(lab.path())
        .unwrap()
        .query_row("SELECT reason FROM gaps", [], |row| row.get(0))
        .unwrap();
    assert_eq!(reason, "refused");
    assert_eq!(lab.sensor("honest.test").lost, 0);
}

#[test]
fn a_hit_without_rules_is_refused_and_the_next_one_is_stored() {
    let mut lab = Lab::start(ServerSettings::default(), |_| {});
    let mut client = lab.honest(1);
    client.send_hit(1, &HitV1 { rules: Vec::new(), ..hit(1) });
    let word = client.word();
    assert!(
        matches!(&word, Word::Refused(word) if word.from == 1 && word.detail.contains("rules")),
        "{word:?}"
    );
    assert_eq!(client.word(), Word::Ack(AckV1 { epoch: [1; 16], sequence: 1 }));
    client.send_hit(2, &hit(2));
    client.wait_for_ack(1, 2);
    lab.collector.stop();
    let sensor = lab.sensor("honest.test");
    assert_eq!((sensor.hits, sensor.gaps, sensor.lost), (1, 1, 1));
    assert_eq!(stored(&lab.path()), 1);
}

/// A store that accepts no hits must not make sensors discard theirs.
#[test]
fn a_store_that_accepts_no_hits_refuses_none() {
    let mut lab = Lab::start(ServerSettings::default(), |connection| {
        let sql = "CREATE TRIGGER broken BEFORE INSERT ON received BEGIN SELECT raise(ABORT, 'broken'); END";
        connection.execute_batch(sql).unwrap();
    });
    let mut client = lab.honest(1);
    client.send_hit(1, &hit(1));
    assert!(matches!(client.word(), Word::Busy(busy) if busy.reason == BusyReason::StoreFailed));
    lab.collector.stop();
    assert_eq!(lab.collector.counters.refused[RefusalReason::NotStorable as usize].get(), 0);
    assert_eq!(stored(&lab.path()), 0);
}

#[test]
fn a_sensor_whose_own_row_cannot_be_written_is_busy_alone() {
    let mut lab = Lab::start(ServerSettings::default(), |connection| {
        let sql = "CREATE TRIGGER poison BEFORE UPDATE OF hits ON sensors WHEN new.name = 'evil.test'
            BEGIN SELECT raise(ABORT, 'poison'); END";
        connection.execute_batch(sql).unwrap();
    });
    let mut honest = lab.honest(1);
    for number in 1..=5 {
        let mut evil = lab.evil(2);
        evil.send_hit(1, &hit(1000));
        honest.send_hit(number, &hit(number));
        assert!(matches!(evil.word(), Word::Busy(busy) if busy.reason == BusyReason::StoreFailed));
        honest.wait_for_ack(1, number);
    }
    lab.collector.stop();
    assert_eq!(lab.collector.counters.entries_failed.get(), 5);
    assert_eq!(stored(&lab.path()), 5);
}

#[test]
fn a_status_that_cannot_be_stored_fails_no_hits() {
    let mut lab = Lab::start(ServerSettings::default(), |connection| {
        let sql = "CREATE TRIGGER poison BEFORE UPDATE OF counts ON sensors WHEN new.counts LIKE '%poison%'
            BEGIN SELECT raise(ABORT, 'poison'); END;
            CREATE TRIGGER poison_new BEFORE INSERT ON sensors WHEN new.counts LIKE '%poison%'
            BEGIN SELECT raise(ABORT, 'poison'); END";
        connection.execute_batch(sql).unwrap();
    });
    let status = |name: &str, value| StatusV1 {
        counts: vec![CountV1 { name: name.into(), value }],
        ..StatusV1::default()
    };
    let (mut evil, mut honest) = (lab.evil(1), lab.honest(1));
    for number in 1..=20 {
        evil.send(&status("poison", u64::MAX));
        honest.send(&status("spool_hits", number));
        honest.send_hit(number, &hit(number));
        honest.wait_for_ack(1, number);
        assert_eq!(evil.word(), Word::Ack(AckV1 { epoch: [1; 16], sequence: 0 }));
    }
    until("the last status is stored", || lab.sensor("honest.test").spool_hits == Some(20));
    lab.collector.stop();
    let counters = &lab.collector.counters;
    assert_eq!((counters.batches_failed.get(), counters.entries_failed.get()), (0, 0));
    assert_eq!(counters.statuses.get(), 40);
    // Others were replaced by later ones.
    assert!((1..=40).contains(&counters.heartbeats.get()), "{}", counters.heartbeats.get());
    assert_eq!(counters.heartbeats_dropped.get(), 0);
    assert_eq!(stored(&lab.path()), 20);
}

/// Refuses odd sequence numbers and fails number 8.
struct Picky;

impl Backend for Picky {
    fn append(&self, batch: Vec<Entry>) -> BoxFuture<'static, Result<Appended, BackendError>> {
        let error = |entry: &Entry| match entry.item.numbers().0 {
            8 => Some(EntryError::Failed(BackendError::Overload("slow".into()))),
            number if number % 2 == 1 => Some(EntryError::Refused(Refusal {
                reason: RefusalReason::TooLarge,
                detail: "é".repeat(100),
            })),
            _ => None,
        };
        let errors = batch.iter().enumerate().filter_map(|(index, entry)| Some((index, error(entry)?)));
        let appended = Appended { errors: errors.collect(), ..Appended::default() };
        Box::pin(async { Ok(appended) })
    }

    fn record_heartbeats(&self, _: Vec<Heartbeat>) -> BoxFuture<'static, Result<(), BackendError>> {
        Box::pin(async { Err(BackendError::Full("x".into())) })
    }

    fn durable(&self, _: Arc<str>, _: Id) -> BoxFuture<'static, Result<u64, BackendError>> {
        Box::pin(async { Ok(0) })
    }

    fn stop(&self) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

#[test]
fn outcomes_of_single_entries_reach_their_own_connections() {
    let settings = ServerSettings { window: 4, ..ServerSettings::default() };
    let mut collector =
        Collector::start(&Security::InsecureLoopback, settings, Arc::new(Picky), Arc::default()).unwrap();
    let mut refused = Client::plain(collector.addr);
    let mut failed = Client::plain(collector.addr);
    assert!(matches!(refused.hello(1, 1), Word::Welcome(_)));
    assert!(matches!(failed.hello(2, 8), Word::Welcome(_)));
    failed.send_hit(8, &hit(8));
    assert!(matches!(failed.word(), Word::Busy(busy) if busy.reason == BusyReason::Overload));
    for round in 0..3_u64 {
        // A full window each time: refused frames release their room.
        let numbers = round * 4 + 1..=round * 4 + 4;
        for number in numbers.clone().filter(|number| *number != 8) {
            refused.send_hit(number, &hit(number));
        }
        if numbers.contains(&8) {
            refused.send(&GapV1 { from: 7, to: 8, count: 1, reason: GapReason::SpoolFull });
        }
        let mut expected: Vec<u64> = numbers.clone().filter(|number| number % 2 == 1).collect();
        loop {
            match refused.word() {
                Word::Refused(word) => {
                    assert_eq!(word.reason, RefusalReason::TooLarge);
                    assert_eq!(word.detail, "é".repeat(64), "shortened to the limit of the wire format");
                    expected.retain(|number| *number != word.from);
                }
                Word::Ack(ack) if ack.sequence == *numbers.end() => break,
                Word::Ack(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(expected, [0; 0], "each refusal is reported");
    }
    refused.send(&StatusV1::default());
    assert!(matches!(refused.word(), Word::Ack(_)), "the connection survives a STATUS that cannot be stored");
    collector.stop();
    let counters = &collector.counters;
    assert_eq!(counters.heartbeats_dropped.get(), 1);
    assert_eq!((counters.entries_failed.get(), counters.batches_failed.get()), (1, 0));
}

/// Many more connections without a handshake than the limit allows.
#[test]
fn silent_connections_take_no_places_of_sensors() {
    let settings = ServerSettings {
        connections_max: 4,
        handshakes_max: 64,
        handshakes_per_address_max: 32,
        handshake_time: Duration::from_mins(1),
        ..ServerSettings::default()
    };
    let mut lab = Lab::start(settings, |_| {});
    let mut connected = lab.honest(1);
    let mut idle = Vec::new();
    for number in 1..=20 {
        idle.extend((0..20).map(|_| std::net::TcpStream::connect(lab.collector.addr).unwrap()));
        // Two sensors from the same address: one is connected, the other connects now.
        connected.send_hit(number, &hit(number));
        connected.wait_for_ack(1, number);
        let mut new = lab.evil(2);
        new.send_hit(number.min(1), &hit(1000));
        new.wait_for_ack(2, 1);
    }
    let counters = &lab.collector.counters;
    assert!(counters.handshakes.get() <= 32, "{}", counters.handshakes.get());
    // The new sensor may have taken a place, too.
    assert!(counters.evicted.get() >= 400 - 32, "{}", counters.evicted.get());
    assert_eq!((counters.dropped.get(), counters.busy[BusyReason::Connections as usize].get()), (0, 0));
    drop(idle);
    lab.collector.stop();
    assert_eq!((lab.collector.counters.handshakes.get(), lab.collector.counters.connections.get()), (0, 0));
}

/// Many handshakes that fail at once.
#[test]
fn failed_handshakes_are_counted_and_others_served() {
    let mut lab = Lab::start(ServerSettings::default(), |_| {});
    let mut honest = lab.honest(1);
    for number in 1..=50 {
        let mut garbage = Client::plain(lab.collector.addr);
        garbage.send_bytes(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        honest.send_hit(number, &hit(number));
        honest.wait_for_ack(1, number);
    }
    until("all have failed", || lab.collector.counters.handshakes_failed.get() == 50);
    lab.collector.stop();
}

#[test]
fn one_sensor_with_many_connections_is_bounded_and_others_get_in() {
    let settings = ServerSettings { connections_per_sensor_max: 3, ..ServerSettings::default() };
    let mut lab = Lab::start(settings, |_| {});
    let mut held: Vec<_> = (1..=3).map(|epoch| lab.evil(epoch)).collect();
    for number in 0..30 {
        let mut more = Client::tls(lab.collector.addr, Arc::clone(&lab.evil));
        let _ = more.send_bytes(b"ETWS");
        assert!(
            matches!(more.word(), Word::Busy(busy) if busy.reason == BusyReason::Connections),
            "{number}"
        );
    }
    lab.honest(1).send_hit(1, &hit(1));
    held[0].send_hit(1, &hit(2));
    held[0].wait_for_ack(1, 1);
    drop(held);
    lab.collector.stop();
    assert_eq!(lab.collector.counters.hits.get(), 2);
}

/// Records the order of entries and stores them only when permitted.
struct Recorder {
    order: Mutex<Vec<Arc<str>>>,
    open: Semaphore,
}

struct Recording(Arc<Recorder>);

impl Backend for Recording {
    fn append(&self, batch: Vec<Entry>) -> BoxFuture<'static, Result<Appended, BackendError>> {
        let recorder = Arc::clone(&self.0);
        recorder.order.lock().unwrap().extend(batch.into_iter().map(|entry| entry.sensor));
        Box::pin(async move {
            let _permit = recorder.open.acquire().await.unwrap();
            Ok(Appended::default())
        })
    }

    fn record_heartbeats(&self, _: Vec<Heartbeat>) -> BoxFuture<'static, Result<(), BackendError>> {
        Box::pin(async { Ok(()) })
    }

    fn durable(&self, _: Arc<str>, _: Id) -> BoxFuture<'static, Result<u64, BackendError>> {
        Box::pin(async { Ok(0) })
    }

    fn stop(&self) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

/// A sensor with the most expensive hits gets only its turns; others overtake it.
#[test]
fn expensive_hits_do_not_delay_other_sensors() {
    const EXPENSIVE: u64 = 40;
    const HONEST: u64 = 100;
    let folder = tempfile::tempdir().unwrap();
    let mut authority = Authority::new(&folder.path().join("pki"));
    let (evil, honest) = (authority.issue("evil.test"), authority.issue("honest.test"));
    let recorder = Arc::new(Recorder { order: Mutex::default(), open: Semaphore::new(0) });
    let settings = ServerSettings { batch_frames: 4, ..ServerSettings::default() };
    let backend = Arc::new(Recording(Arc::clone(&recorder)));
    let mut collector = Collector::start(&authority.security(), settings, backend, Arc::default()).unwrap();
    let mut evil = connect(collector.addr, &authority.client_config(Some(&evil)), 1);
    let mut honest = connect(collector.addr, &authority.client_config(Some(&honest)), 1);
    let mut expensive = hit(1);
    expensive.rules = (0..1000).map(|number| rule(&number.to_string(), "x")).collect();
    for sequence in 1..=EXPENSIVE {
        evil.send_hit(sequence, &expensive);
    }
    until("two batches are being stored and the rest is queued", || {
        collector.counters.waiting.get() == EXPENSIVE && recorder.order.lock().unwrap().len() >= 2
    });
    for number in 1..=HONEST {
        honest.send_hit(number, &hit(number));
    }
    until("all wait", || collector.counters.waiting.get() == EXPENSIVE + HONEST);
    recorder.open.add_permits(2);
    honest.wait_for_ack(1, HONEST);
    evil.wait_for_ack(1, EXPENSIVE);
    collector.stop();
    let order = recorder.order.lock().unwrap();
    let last = order.iter().rposition(|sensor| &**sensor == "honest.test").unwrap();
    let before = order[..last].iter().filter(|sensor| &***sensor == "evil.test").count();
    // Two batches of four were being stored. A hundred short hits cost less than one expensive hit.
    assert!(before <= 2 * 4 + 1, "{before} expensive hits before the last of the others");
    assert_eq!(order.len() as u64, EXPENSIVE + HONEST);
}
