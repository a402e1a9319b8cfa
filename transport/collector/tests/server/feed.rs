//! The store as a feed: it returns every rule of every hit once, and repeats a batch until it is acknowledged.

use crate::common::{hit, rule};
use etwsieve_collector::backend::{Backend, Entry, EntryBody};
use etwsieve_collector::sink::{BatchLimits, Feed, Record};
use etwsieve_collector::sqlite::SqliteFeed;
use etwsieve_collector::sqlite::{SqliteBackend, SqliteOptions};
use etwsieve_transport::hit::HitV1;
use etwsieve_transport::wire::codec::encode_hit;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

fn entry(sequence: u64, hit: &HitV1) -> Entry {
    let item = EntryBody::Hit { sequence, version: 1, bytes: encode_hit(hit).unwrap() };
    Entry { sensor: Arc::from("srv1"), epoch: [7; 16], item }
}

#[test]
fn hits_come_until_acknowledged_and_late_rules_come_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hits.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let backend = SqliteBackend::start(&path, SqliteOptions::default(), Arc::default()).unwrap();
    let append = |entries| runtime.block_on(backend.append(entries)).unwrap();
    append((1..=5).map(|sequence| entry(sequence, &hit(sequence))).collect());

    let mut feed = SqliteFeed::open(&path, "jsonl", Arc::default()).unwrap();
    let numbers = |feed: &mut SqliteFeed, hits_max| -> Vec<u64> {
        let items = feed.next(BatchLimits { hits: hits_max, bytes: 1 << 20 }, Duration::ZERO).unwrap();
        assert!(items.iter().all(|item| (item.sensor.as_str(), item.epoch) == ("srv1", [7; 16])));
        items.iter().map(|item| item.sequence).collect()
    };
    assert_eq!(feed.lag().unwrap().hits, 5);
    assert!(feed.lag().unwrap().oldest.unwrap() > 1_700_000_000);
    assert_eq!(numbers(&mut feed, 3), [1, 2, 3]);
    assert_eq!(numbers(&mut feed, 3), [1, 2, 3], "not acknowledged");
    feed.acknowledge().unwrap();
    assert_eq!(numbers(&mut feed, 100), [4, 5]);
    drop(feed);
    let mut feed = SqliteFeed::open(&path, "jsonl", Arc::default()).unwrap();
    assert_eq!(numbers(&mut feed, 100), [4, 5], "a restart keeps the cursor");
    feed.acknowledge().unwrap();
    assert_eq!(numbers(&mut feed, 100), [0_u64; 0]);
    assert_eq!(feed.lag().unwrap().hits, 0);

    // A second hit of the same event with another rule.
    let mut more = hit(2);
    more.rules.push(rule("11111111-48b2-11ec-bcfc-3e22fbd008af", "Another"));
    append(vec![entry(6, &more)]);
    let items = feed.next(BatchLimits { hits: 100, bytes: 1 << 20 }, Duration::ZERO).unwrap();
    assert_eq!(items.len(), 1);
    assert_eq!(items[0].hit.rules, more.rules[1..]);
    assert_eq!(items[0].hit.source_sequence, 2);
    // Each sink has a separate cursor, and a batch is limited in bytes.
    let mut other = SqliteFeed::open(&path, "splunk", Arc::default()).unwrap();
    assert_eq!(other.next(BatchLimits { hits: 100, bytes: 1 }, Duration::ZERO).unwrap().len(), 1);
    runtime.block_on(backend.stop());
}

/// A sensor that knows the bytes of another sensor's hit cannot suppress that hit: both reach the sinks.
#[test]
fn equal_hits_of_two_sensors_are_two() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hits.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let backend = SqliteBackend::start(&path, SqliteOptions::default(), Arc::default()).unwrap();
    let append = |entries| runtime.block_on(backend.append(entries)).unwrap();
    let from = |sensor: &str, epoch: u8, sequence: u64, hit: &HitV1| Entry {
        sensor: Arc::from(sensor),
        epoch: [epoch; 16],
        ..entry(sequence, hit)
    };
    let stolen = hit(1);
    append(vec![from("evil", 1, 1, &stolen)]);
    append(vec![from("srv1", 1, 1, &stolen), from("srv2", 1, 1, &stolen)]);
    // Sent again: under the same number, under another one, and from a copy of the trace.
    let copy = HitV1 { source: "copy.etl".into(), ..stolen.clone() };
    append(vec![
        from("srv1", 1, 1, &stolen),
        from("srv1", 1, 2, &stolen),
        from("srv1", 2, 1, &stolen),
        from("srv1", 1, 3, &copy),
    ]);
    let mut feed = SqliteFeed::open(&path, "jsonl", Arc::default()).unwrap();
    let items = feed.next(BatchLimits { hits: 100, bytes: 1 << 20 }, Duration::ZERO).unwrap();
    let sent: Vec<_> =
        items.iter().map(|item| (item.sensor.as_str(), item.epoch[0], item.sequence)).collect();
    assert_eq!(sent, [("evil", 1, 1), ("srv1", 1, 1), ("srv2", 1, 1)]);
    let ids: std::collections::HashSet<String> =
        items.iter().flat_map(Record::of).map(|record| record.identity()).collect();
    assert_eq!(ids.len(), 3);
    runtime.block_on(backend.stop());
}

/// Equal events of a trace without record ids are different hits; a record that is exported again is the same hit.
#[test]
fn equal_events_of_one_sensor_are_distinguished_by_record_or_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hits.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let backend = SqliteBackend::start(&path, SqliteOptions::default(), Arc::default()).unwrap();
    let line = HitV1 { source_sequence: 9, ..hit(1) };
    let record = HitV1 { event_record_id: Some(5), ..hit(2) };
    let exported_again = HitV1 { source: "second.evtx".into(), source_sequence: 700, ..record.clone() };
    let hits = [hit(1), line, record, exported_again];
    let entries = (1..).zip(&hits).map(|(sequence, hit)| entry(sequence, hit)).collect();
    runtime.block_on(backend.append(entries)).unwrap();
    let mut feed = SqliteFeed::open(&path, "jsonl", Arc::default()).unwrap();
    let items = feed.next(BatchLimits { hits: 100, bytes: 1 << 20 }, Duration::ZERO).unwrap();
    assert_eq!(items.iter().map(|item| item.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    runtime.block_on(backend.stop());
}

/// A migration of the store adds the sensor to the identity of its events.
#[test]
fn a_store_of_version_1_knows_the_events_of_its_sensors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hits.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let append = |entries| {
        let backend = SqliteBackend::start(&path, SqliteOptions::default(), Arc::default()).unwrap();
        runtime.block_on(backend.append(entries)).unwrap();
        runtime.block_on(backend.stop());
    };
    append((1..=3).map(|sequence| entry(sequence, &hit(sequence))).collect());
    // The state of version 1.
    let connection = rusqlite::Connection::open(&path).unwrap();
    for id in 1..=3 {
        let event: Vec<u8> =
            connection.query_row("SELECT event FROM hits WHERE id = ?1", [id], |row| row.get(0)).unwrap();
        let hash = Sha256::digest(&event);
        connection.execute("UPDATE hits SET event_hash = ?2 WHERE id = ?1", (id, hash.as_slice())).unwrap();
    }
    connection.execute_batch("ALTER TABLE hits DROP COLUMN nuls; PRAGMA user_version = 1").unwrap();
    drop(connection);
    let copy = HitV1 { source: "copy.etl".into(), ..hit(2) };
    append(vec![
        entry(4, &hit(1)),
        entry(5, &copy),
        Entry { sensor: Arc::from("srv2"), ..entry(1, &hit(3)) },
    ]);
    let mut feed = SqliteFeed::open(&path, "jsonl", Arc::default()).unwrap();
    let items = feed.next(BatchLimits { hits: 100, bytes: 1 << 20 }, Duration::ZERO).unwrap();
    let sent: Vec<_> = items.iter().map(|item| (item.sensor.as_str(), item.sequence)).collect();
    assert_eq!(sent, [("srv1", 1), ("srv1", 2), ("srv1", 3), ("srv2", 1)]);
}
