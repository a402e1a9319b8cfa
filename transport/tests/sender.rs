//! The sender against a collector that may misbehave: no hit is lost or duplicated, and the order is preserved.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use etwsieve_transport::sender::{HitSender, Order, SenderError, SenderSettings};
use etwsieve_transport::wire::message::BusyReason;
use std::fs;
use std::time::Duration;
use support::{Authority, Mood, Stored, TestCollector, hit, open, sender, until};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

fn check(stored: &Stored, hits: u64) {
    let expected: Vec<u64> = (1..=hits).collect();
    assert_eq!(stored.hits(), expected);
    let mut sorted = stored.order.clone();
    sorted.sort_by_key(|(_, number)| *number);
    assert_eq!(stored.order, sorted, "the order is preserved");
    assert_eq!((stored.conflicts, stored.dropped()), (0, 0));
    assert_eq!(stored.violations, [""; 0]);
}

fn run(moods: &'static [Mood], window: u32, hits: u64) -> (u64, u64) {
    let folder = TempDir::new().unwrap();
    let collector =
        TestCollector::start(None, window, |number| moods.get(number).copied().unwrap_or(Mood::Honest));
    let sender = sender(&[&collector], None, open(folder.path()));
    for number in 1..=hits {
        sender.send(&hit(number, 300), || false);
    }
    assert!(sender.wait_sent(PATIENCE, || false), "{moods:?}: {:?}", sender.counts());
    let counts = sender.finish();
    check(&collector.stored(), hits);
    assert_eq!((counts.spool.offered, counts.spool.acknowledged, counts.dropped()), (hits, hits, 0));
    assert_eq!((counts.spool.hits, counts.spool.bytes), (0, 0), "acknowledged hits are deleted");
    (counts.connects, counts.connect_failures)
}

#[test]
fn hits_arrive_once_and_in_order() {
    assert_eq!(run(&[], 64, 3000), (1, 0));
    assert_eq!(run(&[], 1, 50), (1, 0));
}

#[test]
fn hits_survive_a_misbehaving_collector() {
    let rows: [(&str, &[Mood], (u64, u64)); 9] = [
        ("lost acknowledgements", &[Mood::LosesAcks(5), Mood::LosesAcks(1)], (3, 0)),
        ("closed in the middle", &[Mood::Closes(1), Mood::Closes(7)], (3, 0)),
        ("stale acknowledgements", &[Mood::StaleAcks], (1, 0)),
        ("acknowledged too much", &[Mood::AcksTooMuch], (2, 0)),
        ("garbage", &[Mood::Garbage], (1, 1)),
        ("a version that was not offered", &[Mood::WrongVersion], (1, 1)),
        (
            "disk full, store failed",
            &[Mood::Busy(BusyReason::DiskFull), Mood::Busy(BusyReason::StoreFailed)],
            (1, 2),
        ),
        (
            "overload, connections",
            &[Mood::Busy(BusyReason::Overload), Mood::Busy(BusyReason::Connections)],
            (1, 2),
        ),
        (
            "stopping, not allowed",
            &[Mood::Busy(BusyReason::Stopping), Mood::Busy(BusyReason::NotAllowed)],
            (1, 2),
        ),
    ];
    for (name, moods, connections) in rows {
        assert_eq!(run(moods, 16, 200), connections, "{name}");
    }
}

#[test]
fn tls_requires_the_right_name_and_authority() {
    let folder = TempDir::new().unwrap();
    let (authority, foreign) = (Authority::new(), Authority::new());
    let bundle = folder.path().join("ws01.pem");
    let honest = TestCollector::start(Some(authority.server(&["localhost"])), 64, |_| Mood::Honest);
    let misnamed = TestCollector::start(Some(authority.server(&["other.example"])), 64, |_| Mood::Honest);
    let impostor = TestCollector::start(Some(foreign.server(&["localhost"])), 64, |_| Mood::Honest);
    let rows = [
        ("expired", authority.bundle(&["ws01"], 2021)),
        ("of a foreign authority", foreign.bundle(&["ws01"], 2040)),
    ];
    for (name, text) in rows {
        fs::write(&bundle, text).unwrap();
        let sender = sender(&[&honest], Some(&bundle), open(folder.path()));
        sender.offer(&hit(1, 10));
        until(name, || sender.counts().connect_failures >= 2);
        let counts = sender.finish();
        assert_eq!((counts.connects, counts.spool.acknowledged), (0, 0), "{name}");
        assert!(honest.stored().hellos.is_empty(), "{name}");
        // Delete the spool, so that the next row starts with an empty one.
        fs::remove_file(folder.path().join("spool.db")).unwrap();
    }
    fs::write(&bundle, authority.bundle(&["ws01"], 2040)).unwrap();
    let sender = sender(&[&misnamed, &impostor, &honest], Some(&bundle), open(folder.path()));
    for number in 1..=500 {
        sender.send(&hit(number, 3000), || false);
    }
    assert!(sender.wait_sent(PATIENCE, || false), "fail-over to the third: {:?}", sender.counts());
    let counts = sender.finish();
    assert_eq!((counts.connects, counts.connect_failures), (1, 2));
    assert_eq!(counts.certificate_expires_unix, 2_208_988_800);
    check(&honest.stored(), 500);
    assert!(misnamed.stored().hellos.is_empty() && impostor.stored().hellos.is_empty());
}

#[test]
fn hits_of_earlier_processes_are_sent_first() {
    let folder = TempDir::new().unwrap();
    for process in 0..3u64 {
        let mut spool = open(folder.path());
        for number in 1..=10 {
            let bytes = etwsieve_transport::wire::codec::encode_hit(&hit(process * 10 + number, 10)).unwrap();
            spool.push(&bytes, 1000);
        }
        spool.flush(1000).unwrap();
    }
    let collector = TestCollector::start(None, 4, |_| Mood::Honest);
    let sender = sender(&[&collector], None, open(folder.path()));
    for number in 31..=40 {
        sender.offer(&hit(number, 10));
    }
    assert!(sender.wait_sent(PATIENCE, || false));
    drop(sender);
    let stored = collector.stored();
    let order: Vec<u64> = stored.order.iter().map(|key| stored.numbers[key].unwrap()).collect();
    assert_eq!(order, (1..=40).collect::<Vec<_>>());
    assert_eq!(stored.hellos.len(), 4, "one for each epoch");
    assert_eq!(stored.violations, [""; 0]);
}

#[test]
fn a_status_has_all_counts_and_is_sent_at_the_requested_interval() {
    let folder = TempDir::new().unwrap();
    let collector = TestCollector::start(None, 4, |_| Mood::Honest);
    let sender = sender(&[&collector], None, open(folder.path()));
    sender.offer(&hit(1, 10));
    until("statuses come", || collector.stored().statuses.len() >= 4);
    let stored = collector.stored();
    let last = stored.statuses.last().unwrap();
    let count = |name: &str| last.counts.iter().find(|count| count.name == name).map(|count| count.value);
    assert_eq!((count("hits_offered"), count("hits_acknowledged")), (Some(1), Some(1)));
    for name in
        ["hits_dropped_queue_full", "spool_hits", "spool_repairs", "connects", "certificate_expires_unix"]
    {
        assert!(count(name).is_some(), "{name}");
    }
    assert_eq!(stored.hellos.len(), 1, "an idle connection stays open");
}

#[test]
fn plain_tcp_requires_a_loopback_address() {
    let folder = TempDir::new().unwrap();
    for (address, refused) in
        [("192.0.2.1:6514", true), ("collector.example:6514", true), ("127.0.0.1:1", false)]
    {
        let settings = SenderSettings {
            order: Order::Listed,
            collectors: vec![address.parse().unwrap()],
            bundle: None,
            software: String::new(),
            computer: String::new(),
            more_counts: Box::new(Vec::new),
        };
        let result = HitSender::start(settings, open(folder.path()));
        assert_eq!(matches!(result, Err(SenderError::NotLoopback(_))), refused, "{address}");
    }
}
