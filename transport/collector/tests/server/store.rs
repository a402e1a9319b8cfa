//! Acknowledged hits are durable: full and failing stores, damaged files, retention, and many sensors at once.

use crate::collector::{Authority, Client, Collector, Word};
use crate::common::hit;
use etwsieve_collector::backend::{Appended, Backend, BackendError, Entry, Heartbeat, Id};
use etwsieve_collector::server::{Security, ServerSettings};
use etwsieve_collector::sink::{BatchLimits, Feed};
use etwsieve_collector::sqlite::SqliteFeed;
use etwsieve_collector::sqlite::{OpenError, SqliteBackend, SqliteOptions};
use etwsieve_collector::status::{Status, now};
use etwsieve_transport::store::{HitFilter, Store};
use etwsieve_transport::wire::message::{AckV1, BusyReason, StatusV1};
use futures_util::future::BoxFuture;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;

fn stored(path: &Path) -> usize {
    Store::open_read_only(path).unwrap().hits(HitFilter::default()).map(Result::unwrap).count()
}

/// A back end that stores entries only when permitted.
struct Gate {
    open: Semaphore,
    verdict: Mutex<Result<(), BackendError>>,
    given: AtomicUsize,
}

struct Gated(Arc<Gate>);

impl Gate {
    fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self {
            open: Semaphore::new(permits),
            verdict: Mutex::new(Ok(())),
            given: AtomicUsize::new(0),
        })
    }
}

impl Backend for Gated {
    fn append(&self, batch: Vec<Entry>) -> BoxFuture<'static, Result<Appended, BackendError>> {
        let gate = Arc::clone(&self.0);
        gate.given.fetch_add(batch.len(), Ordering::SeqCst);
        Box::pin(async move {
            gate.open.acquire().await.unwrap().forget();
            gate.verdict.lock().unwrap().clone()?;
            Ok(Appended { new: batch.len() as u64, ..Appended::default() })
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

fn gated(gate: &Arc<Gate>, settings: ServerSettings) -> Collector {
    let backend = Arc::new(Gated(Arc::clone(gate)));
    Collector::start(&Security::InsecureLoopback, settings, backend, Arc::default()).unwrap()
}

/// Errors of the store reach the sensor, and nothing is acknowledged after an error.
#[test]
fn only_stored_hits_are_acknowledged() {
    let rows = [
        (BackendError::Full("x".into()), BusyReason::DiskFull),
        (BackendError::Failed("x".into()), BusyReason::StoreFailed),
        (BackendError::Overload("x".into()), BusyReason::Overload),
    ];
    for (error, reason) in rows {
        let gate = Gate::new(1);
        let collector = gated(&gate, ServerSettings::default());
        let mut client = Client::plain(collector.addr);
        assert!(matches!(client.hello(1, 1), Word::Welcome(_)));
        client.send_hit(1, &hit(1));
        client.wait_for_ack(1, 1);
        *gate.verdict.lock().unwrap() = Err(error);
        gate.open.add_permits(1);
        client.send_hit(2, &hit(2));
        client.send_hit(3, &hit(3));
        assert!(matches!(client.word(), Word::Busy(busy) if busy.reason == reason), "{reason:?}");
        assert_eq!(client.word(), Word::Closed);
        gate.open.close();
    }
}

#[test]
fn an_acknowledgement_waits_for_the_store_unless_configured_otherwise() {
    for ack_before_sync in [false, true] {
        let gate = Gate::new(0);
        let mut collector = gated(&gate, ServerSettings { ack_before_sync, ..ServerSettings::default() });
        let mut client = Client::plain(collector.addr);
        assert!(matches!(client.hello(1, 1), Word::Welcome(_)));
        client.send_hit(1, &hit(1));
        if ack_before_sync {
            // The negative control: the store has not even started.
            client.wait_for_ack(1, 1);
        } else {
            while gate.given.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            // When the collector stops, it acknowledges only permitted entries.
            gate.open.add_permits(1);
            client.wait_for_ack(1, 1);
        }
        gate.open.add_permits(10);
        collector.stop();
    }
}

#[test]
fn a_status_is_answered_at_once_and_waits_for_no_hit() {
    let gate = Gate::new(0);
    let mut collector = gated(&gate, ServerSettings::default());
    let mut client = Client::plain(collector.addr);
    assert!(matches!(client.hello(1, 1), Word::Welcome(_)));
    client.send_hit(1, &hit(1));
    let status = StatusV1::default();
    for _ in 0..3 {
        client.send(&status);
        // The store has not stored the hit.
        assert_eq!(client.word(), Word::Ack(AckV1 { epoch: [1; 16], sequence: 0 }));
    }
    gate.open.add_permits(10);
    client.wait_for_ack(1, 1);
    client.send(&status);
    assert_eq!(client.word(), Word::Ack(AckV1 { epoch: [1; 16], sequence: 1 }));
    collector.stop();
}

#[test]
fn a_window_is_not_exceeded() {
    let gate = Gate::new(0);
    let mut collector = gated(&gate, ServerSettings { window: 4, ..ServerSettings::default() });
    let mut client = Client::plain(collector.addr);
    assert!(matches!(client.hello(1, 1), Word::Welcome(_)));
    for sequence in 1..=5 {
        client.send_hit(sequence, &hit(sequence));
    }
    assert_eq!(client.word(), Word::Closed);
    gate.open.add_permits(10);
    collector.stop();
    assert_eq!(collector.counters.violations.get(), 1);
}

#[test]
fn another_epoch_has_to_wait_for_the_acknowledgement() {
    let gate = Gate::new(0);
    let mut collector = gated(&gate, ServerSettings::default());
    let mut client = Client::plain(collector.addr);
    assert!(matches!(client.hello(1, 1), Word::Welcome(_)));
    client.send_hit(1, &hit(1));
    assert_eq!(client.hello(2, 1), Word::Closed);
    gate.open.add_permits(10);
    collector.stop();
    assert_eq!(collector.counters.violations.get(), 1);
}

#[test]
fn a_full_store_sends_busy_and_accepts_hits_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hits.db");
    let options = SqliteOptions { pages_max: 100, ..SqliteOptions::default() };
    let mut collector = Collector::with_options(
        folder.path(),
        &Security::InsecureLoopback,
        ServerSettings::default(),
        options,
    );
    let mut client = Client::plain(collector.addr);
    assert!(matches!(client.hello(1, 1), Word::Welcome(_)));
    let mut acknowledged = 0;
    let reason = 'full: {
        for sequence in 1..2000 {
            client.send_hit(sequence, &hit(sequence));
            loop {
                match client.word() {
                    Word::Ack(ack) => acknowledged = ack.sequence,
                    Word::Busy(busy) => break 'full busy.reason,
                    other => panic!("{other:?}"),
                }
                if acknowledged == sequence {
                    break;
                }
            }
        }
        panic!("100 pages hold 2000 hits");
    };
    assert_eq!(reason, BusyReason::DiskFull);
    collector.stop();
    drop(collector);
    assert_eq!(stored(&path) as u64, acknowledged);
    // With room again, unacknowledged hits are accepted.
    let collector = Collector::sqlite(folder.path(), &Security::InsecureLoopback, ServerSettings::default());
    let mut client = Client::plain(collector.addr);
    assert!(
        matches!(client.hello(1, acknowledged + 1), Word::Welcome(welcome) if welcome.durable == acknowledged)
    );
    for sequence in acknowledged + 1..acknowledged + 101 {
        client.send_hit(sequence, &hit(sequence));
    }
    client.wait_for_ack(1, acknowledged + 100);
    assert_eq!(stored(&path) as u64, acknowledged + 100);
}

#[test]
fn a_damaged_store_is_quarantined_and_a_foreign_file_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hits.db");
    let send = |epoch: u8| {
        let mut collector =
            Collector::sqlite(folder.path(), &Security::InsecureLoopback, ServerSettings::default());
        let mut client = Client::plain(collector.addr);
        assert!(matches!(client.hello(epoch, 1), Word::Welcome(_)));
        for sequence in 1..=50 {
            client.send_hit(sequence, &hit(sequence + u64::from(epoch) * 1000));
        }
        client.wait_for_ack(epoch, 50);
        collector.stop();
        collector.counters.quarantined.get()
    };
    assert_eq!(send(1), 0);
    // Damage in the middle, then at the beginning.
    for (epoch, range) in [(2, 4096..40_960), (3, 0..100)] {
        let mut bytes = fs::read(&path).unwrap();
        bytes[range].fill(0xA5);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(send(epoch), 1, "epoch {epoch}");
        assert_eq!(stored(&path), 50);
        assert_eq!(Status::read(&path, now()).unwrap().quarantined, 1);
        let kept = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("hits.db.damaged-"))
            .any(|entry| fs::read(entry.path()).unwrap() == bytes);
        assert!(kept, "the damaged file is kept unchanged");
    }
    let other = folder.path().join("letter.txt");
    fs::write(&other, "Dear sir").unwrap();
    for _ in 0..2 {
        let error = SqliteBackend::start(&other, SqliteOptions::default(), Arc::default()).unwrap_err();
        assert!(matches!(error, OpenError::Store(_)), "{error}");
        assert_eq!(fs::read(&other).unwrap(), b"Dear sir");
    }
}

#[test]
fn a_store_has_one_collector() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hits.db");
    let first = SqliteBackend::start(&path, SqliteOptions::default(), Arc::default()).unwrap();
    let error = SqliteBackend::start(&path, SqliteOptions::default(), Arc::default()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(first.stop());
    SqliteBackend::start(&path, SqliteOptions::default(), Arc::default()).unwrap();
}

/// Names the store that [`another_program_reads_the_store`] opens.
const STORE_VARIABLE: &str = "ETWSIEVE_TEST_STORE";

#[test]
#[ignore = "part of another test, which runs it in a separate process"]
fn another_program_reads_the_store() {
    let path = std::env::var(STORE_VARIABLE).unwrap();
    let connection = rusqlite::Connection::open(path).unwrap();
    let hits: i64 = connection.query_row("SELECT count(*) FROM hits", [], |row| row.get(0)).unwrap();
    assert!(hits > 0);
    connection.close().unwrap();
}

/// SQLite's locks belong to the process: if anything else in the process opens and closes the file, they are lost, and
/// the next program that reads the store removes the log that the collector is writing.
#[cfg(unix)]
#[test]
fn a_program_that_reads_the_store_does_not_remove_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hits.db");
    let mut collector =
        Collector::sqlite(folder.path(), &Security::InsecureLoopback, ServerSettings::default());
    // A sink opens the store a second time, as `serve` does.
    let feed = SqliteFeed::open(&path, "sink", Arc::clone(&collector.counters)).unwrap();
    let mut client = Client::plain(collector.addr);
    assert!(matches!(client.hello(1, 1), Word::Welcome(_)));
    client.send_hit(1, &hit(1));
    client.wait_for_ack(1, 1);
    let log = folder.path().join("hits.db-wal");
    assert!(log.exists());
    let looked = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::another_program_reads_the_store", "--ignored"])
        .env(STORE_VARIABLE, &path)
        .output()
        .unwrap();
    assert!(looked.status.success(), "{}", String::from_utf8_lossy(&looked.stdout));
    assert!(log.exists(), "hits acknowledged from now on would be lost with the process");
    client.send_hit(2, &hit(2));
    client.wait_for_ack(1, 2);
    assert_eq!(stored(&path), 2);
    drop(feed);
    collector.stop();
}

/// Symbolic links to the file or its folder, and hard links, name the same store.
#[cfg(target_os = "linux")]
#[test]
fn a_store_has_one_collector_under_any_name() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("data")).unwrap();
    symlink(at("data"), at("folder")).unwrap();
    symlink("data/hits.db", at("link.db")).unwrap();
    symlink("link.db", at("second.db")).unwrap();
    let start = |name: &str| SqliteBackend::start(&at(name), SqliteOptions::default(), Arc::default());
    // The store is created through a link whose target does not exist yet.
    let first = start("second.db").unwrap();
    fs::hard_link(at("data/hits.db"), at("hard.db")).unwrap();
    for name in ["data/hits.db", "folder/hits.db", "link.db", "second.db", "hard.db", "data/../link.db"] {
        let error = start(name).unwrap_err();
        assert!(matches!(error, OpenError::InUse { .. }), "{name}: {error}");
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(first.stop());
    drop(first);
    // The files are beside the database, not beside the link.
    let beside: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "hard.db.lock" && (name.contains("-wal") || name.contains(".lock")))
        .collect();
    assert_eq!(beside, [""; 0]);
    let again = start("data/hits.db").unwrap();
    assert!(matches!(start("link.db").unwrap_err(), OpenError::InUse { .. }));
    runtime.block_on(again.stop());
}

/// The target of a link is quarantined, and the link stays.
#[cfg(unix)]
#[test]
fn a_damaged_store_behind_a_link_is_quarantined_in_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("data")).unwrap();
    std::os::unix::fs::symlink("data/hits.db", at("link.db")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for round in 0..2 {
        let counters = Arc::new(etwsieve_collector::counters::Counters::default());
        let backend =
            SqliteBackend::start(&at("link.db"), SqliteOptions::default(), Arc::clone(&counters)).unwrap();
        runtime.block_on(backend.stop());
        assert_eq!(counters.quarantined.get(), round);
        fs::write(at("data/hits.db"), vec![0xA5; 8192]).unwrap();
    }
    assert!(at("link.db").is_symlink());
    let kept = fs::read_dir(at("data")).unwrap().filter(|entry| {
        entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("hits.db.damaged-")
    });
    assert_eq!(kept.count(), 1);
}

#[test]
fn retention_keeps_hits_that_a_sink_has_not_received() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hits.db");
    let options =
        SqliteOptions { retention_bytes: 1, sinks: Some(vec!["slow".into()]), ..SqliteOptions::default() };
    let mut collector = Collector::with_options(
        folder.path(),
        &Security::InsecureLoopback,
        ServerSettings::default(),
        options,
    );
    let mut client = Client::plain(collector.addr);
    assert!(matches!(client.hello(1, 1), Word::Welcome(_)));
    for sequence in 1..=50 {
        client.send_hit(sequence, &hit(sequence));
    }
    client.wait_for_ack(1, 50);
    let counters = Arc::clone(&collector.counters);
    while counters.retention_held.get() == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(
        (stored(&path), counters.expired.get()),
        (50, 0),
        "far above the limit, but nothing is removed"
    );
    let mut feed = SqliteFeed::open(&path, "slow", Arc::clone(&counters)).unwrap();
    let taken = feed.next(BatchLimits { hits: 20, bytes: 1 << 20 }, Duration::ZERO).unwrap();
    feed.acknowledge().unwrap();
    while counters.expired.get() < 20 {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!((taken.len(), stored(&path)), (20, 30));
    drop(feed);
    collector.stop();
}

#[test]
fn retention_removes_the_oldest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hits.db");
    let options = SqliteOptions { retention_bytes: 300_000, ..SqliteOptions::default() };
    let mut collector = Collector::with_options(
        folder.path(),
        &Security::InsecureLoopback,
        ServerSettings::default(),
        options,
    );
    let mut client = Client::plain(collector.addr);
    assert!(matches!(client.hello(1, 1), Word::Welcome(_)));
    for round in 0..20 {
        for sequence in round * 100 + 1..=round * 100 + 100 {
            client.send_hit(sequence, &hit(sequence));
        }
        client.wait_for_ack(1, round * 100 + 100);
    }
    let is_small = || collector.counters.expired.get() > 0 && stored(&path) < 2000;
    for _ in 0..600 {
        if is_small() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(is_small(), "{} hits", stored(&path));
    // Repeating a removed hit does no harm, and the newest hits are kept.
    client.send_hit(2001, &hit(2001));
    client.wait_for_ack(1, 2001);
    collector.stop();
    let store = Store::open_read_only(&path).unwrap();
    let kept: Vec<_> = store.hits(HitFilter::default()).map(|hit| hit.unwrap().hit.source_sequence).collect();
    assert_eq!(kept.last(), Some(&2001));
    assert!(kept.windows(2).all(|pair| pair[1] == pair[0] + 1), "the newest hits, without holes");
    assert_eq!(kept.len() as u64 + collector.counters.expired.get(), 2001);
}

#[test]
fn a_thousand_sensors_at_once_are_all_served() {
    const SENSORS: usize = 1000;
    const THREADS: usize = 20;
    let folder = tempfile::tempdir().unwrap();
    let mut authority = Authority::new(&folder.path().join("pki"));
    let bundle = authority.issue("many.example.test");
    let settings = ServerSettings { connections_per_sensor_max: SENSORS, ..ServerSettings::default() };
    let mut collector = Collector::sqlite(folder.path(), &authority.security(), settings);
    let (addr, config) = (collector.addr, authority.client_config(Some(&bundle)));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let config = Arc::clone(&config);
            std::thread::spawn(move || {
                // Each thread opens all of its connections before it uses the first one.
                let mut clients: Vec<_> =
                    (0..SENSORS / THREADS).map(|_| Client::tls(addr, Arc::clone(&config))).collect();
                for (index, client) in clients.iter_mut().enumerate() {
                    let number = (thread * 1000 + index) as u64;
                    let mut hello = crate::collector::hello(0, 1);
                    hello.epoch[..8].copy_from_slice(&number.to_le_bytes());
                    client.send(&hello);
                    for sequence in 1..=3 {
                        client.send_hit(sequence, &hit(number * 10 + sequence));
                    }
                }
                for client in &mut clients {
                    assert!(matches!(client.word(), Word::Welcome(_)));
                    let mut acknowledged = 0;
                    while acknowledged < 3 {
                        match client.word() {
                            Word::Ack(ack) => acknowledged = ack.sequence,
                            other => panic!("{other:?}"),
                        }
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    collector.stop();
    assert_eq!(collector.counters.hits.get(), SENSORS as u64 * 3);
    assert_eq!(stored(&folder.path().join("hits.db")), SENSORS * 3);
}

/// Measures the memory of idle connections in this process. It includes the client's side, so the collector uses less.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "measurement: run it alone, with a limit of at least 4,000 open files"]
fn idle_connections_take_little_memory() {
    const CONNECTIONS: usize = 2000;
    let resident = || -> usize {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let mut authority = Authority::new(&folder.path().join("pki"));
    let bundle = authority.issue("idle.example.test");
    let settings = ServerSettings { connections_per_sensor_max: CONNECTIONS, ..ServerSettings::default() };
    let collector = Collector::sqlite(folder.path(), &authority.security(), settings);
    let config = authority.client_config(Some(&bundle));
    let mut clients = Vec::new();
    let mut connect = |number: u8| {
        let mut client = Client::tls(collector.addr, Arc::clone(&config));
        assert!(matches!(client.hello(number, 1), Word::Welcome(_)));
        clients.push(client);
    };
    (0..100).for_each(|_| connect(1));
    let before = resident();
    (100..CONNECTIONS).for_each(|_| connect(1));
    let each = (resident() - before) as f64 / (CONNECTIONS - 100) as f64;
    println!("{each:.1} KB per connection, both sides");
    assert!(each < 60.0, "{each:.1} KB");
}
