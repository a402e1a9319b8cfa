//! Identities of events in a store: they do not depend on paths, and equal events are all kept. Stores of version 1 are
//! migrated.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod common;

use common::{hit, rule};
use etwsieve_transport::hit::{EventContent, EventIdentity, HitV1, RuleRefV1, Scope, Utf16Text, View};
use etwsieve_transport::store::{APPLICATION_ID, HitFilter, Inserted, SCHEMA_VERSION, Store, StoreError};
use etwsieve_transport::wire::codec::encode_event;
use rusqlite::{Connection, params};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The tables of a store, as the release with version 1 created them.
const SCHEMA_V1: &str = include_str!("schema/store_v1.sql");

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hits.db");
    (folder, path)
}

fn all(store: &Store) -> Vec<HitV1> {
    store.hits(HitFilter::default()).map(|stored| stored.unwrap().hit).collect()
}

/// Opens the store and stores all hits, like one run of the program.
fn run(path: &Path, hits: &[HitV1]) -> Inserted {
    Store::open(path).unwrap().insert_batch(hits).unwrap()
}

/// The same hits from another source, with their numbers shifted by `shift`.
fn moved(hits: &[HitV1], source: &str, shift: u64) -> Vec<HitV1> {
    let moved = |hit: &HitV1| HitV1 {
        source: source.into(),
        source_sequence: hit.source_sequence + shift,
        ..hit.clone()
    };
    hits.iter().map(moved).collect()
}

/// Events with record ids, including a reassembled block and a normalised view.
fn records() -> Vec<HitV1> {
    let mut hits: Vec<HitV1> = (0..6).map(|n| HitV1 { event_record_id: Some(5000 + n), ..hit(n) }).collect();
    hits[3].scope = Scope::Block;
    hits[4].view = View::Normalized;
    hits
}

/// Lines of a trace without record ids; two of them are equal.
fn lines() -> Vec<HitV1> {
    let mut hits: Vec<HitV1> = (0..4).map(hit).collect();
    hits[2] = HitV1 { source_sequence: 2, ..hit(1) };
    hits
}

#[test]
fn a_copy_or_another_export_of_a_trace_adds_nothing() {
    for (name, trace) in [("records", records()), ("lines with equal ones", lines())] {
        let (_folder, path) = folder();
        assert_eq!(run(&path, &trace).hits, trace.len() as u64, "{name}");
        assert_eq!(run(&path, &trace), Inserted::default(), "{name}: again");
        assert_eq!(run(&path, &moved(&trace, "copy.evtx", 0)), Inserted::default(), "{name}: a copy");
        assert_eq!(
            run(&path, &moved(&trace, "longer.evtx", 70)),
            Inserted::default(),
            "{name}: a longer export"
        );
        // Both sources in one run, as when a folder is replayed.
        let both = [moved(&trace, "a/x.evtx", 0), moved(&trace, "b/x.evtx", 0)].concat();
        assert_eq!(run(&path, &both), Inserted::default(), "{name}: two copies");
        assert_eq!(all(&Store::open(&path).unwrap()), trace, "{name}");
    }
}

#[test]
fn equal_events_are_all_stored_however_they_are_batched() {
    let (_folder, path) = folder();
    let trace = lines();
    let mut store = Store::open(&path).unwrap();
    for hit in &trace {
        assert_eq!(store.insert_batch([hit]).unwrap().hits, 1);
    }
    // A repeated batch, and further rules of one of the equal events.
    assert_eq!(store.insert_batch(&trace[1..3]).unwrap(), Inserted::default());
    let more = HitV1 { rules: vec![rule("b", "B")], ..trace[2].clone() };
    assert_eq!(store.insert_batch([&more]).unwrap(), Inserted { hits: 0, detections: 1 });
    let rules: Vec<usize> = all(&store).iter().map(|hit| hit.rules.len()).collect();
    assert_eq!(rules, [1, 1, 2, 1]);
    // A trace with a third equal event.
    let third = HitV1 { source_sequence: 9, ..hit(1) };
    let longer = [trace, vec![third]].concat();
    assert_eq!(run(&path, &moved(&longer, "other.jsonl", 3)).hits, 1);
}

type Change = fn(&mut HitV1);

#[test]
fn different_events_have_different_identities() {
    let changes: [(&str, Change); 12] = [
        ("provider", |hit| hit.provider[0] ^= 1),
        ("computer", |hit| hit.computer = Some("srv9.example.test".into())),
        ("record id", |hit| hit.event_record_id = Some(1)),
        ("time", |hit| hit.time += 1),
        ("event id", |hit| hit.event_id = 4103),
        ("process", |hit| hit.process_id = Some(1)),
        ("thread", |hit| hit.thread_id = Some(1)),
        ("user", |hit| hit.user_sid = None),
        ("scope", |hit| hit.scope = Scope::Block),
        ("view", |hit| hit.view = View::Call),
        ("completeness", |hit| hit.partial = true),
        ("payload", |hit| {
            if let EventContent::ScriptBlock { path, .. } = &mut hit.content {
                *path = None;
            }
        }),
    ];
    let identity = |hit: &HitV1| EventIdentity::of(hit).unwrap();
    for (name, change) in changes {
        let mut other = hit(1);
        change(&mut other);
        assert_ne!(identity(&other), identity(&hit(1)), "{name}");
    }
    let renamed = HitV1 { source: "x".into(), source_sequence: 77, rules: vec![], ..hit(1) };
    assert_eq!(identity(&renamed), identity(&hit(1)));
}

/// The identity of a sensor's event belongs to that sensor, however often and with whichever number it is sent.
#[test]
fn events_of_different_sensors_have_different_identities() {
    let of = |sensor: &str, hit: &HitV1| EventIdentity::of(hit).unwrap().from_sensor(sensor, hit);
    for record_id in [None, Some(7)] {
        let event = HitV1 { event_record_id: record_id, ..hit(1) };
        let copy = HitV1 { source: "copy.etl".into(), ..event.clone() };
        assert_eq!(of("srv1", &event), of("srv1", &copy));
        assert_ne!(of("srv1", &event), of("srv2", &event));
        assert_ne!(of("srv1", &event), of("srv", &event));
        let further_down = HitV1 { source_sequence: 70, ..event.clone() };
        assert_eq!(of("srv1", &event) == of("srv1", &further_down), record_id.is_some());
    }
}

/// Writes a store of version 1.
fn store_v1(path: &Path, hits: &[HitV1]) {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(SCHEMA_V1).unwrap();
    connection.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    connection.execute_batch("BEGIN").unwrap();
    for hit in hits {
        let event = encode_event(hit).unwrap();
        let EventContent::ScriptBlock { text, .. } = &hit.content else { panic!("a script") };
        connection
            .execute(
                "INSERT INTO hits (event_hash, hit_version, event, time, source, source_sequence, provider, event_id,
                    event_version, channel, event_level, opcode, task, keywords, computer, scope, view, partial,
                    script_block_text)
                 VALUES (?1, 1, ?2, ?3, ?4, ?5, ?6, ?7, 1, 16, 5, 15, 2, 0, ?8, ?9, ?10, 0, ?11)",
                params![
                    Sha256::digest(&event).as_slice(),
                    event,
                    hit.time,
                    hit.source,
                    hit.source_sequence,
                    hit.provider_guid().to_string(),
                    hit.event_id,
                    hit.computer,
                    hit.scope.as_str(),
                    hit.view.as_str(),
                    text.to_string_lossy(),
                ],
            )
            .unwrap();
        let id = connection.last_insert_rowid();
        for rule in &hit.rules {
            connection
                .execute(
                    "INSERT INTO hit_rules (hit_id, rule_id, title, level, attack, beyond_nul, spans, transformations)
                     VALUES (?1, ?2, ?3, ?4, '[\"T1021.006\"]', 0, '[]', '[]')",
                    params![id, rule.id, rule.title, rule.level],
                )
                .unwrap();
        }
    }
    connection.execute_batch("COMMIT").unwrap();
}

fn version(path: &Path) -> i32 {
    Connection::open(path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

#[test]
fn a_store_of_version_1_is_readable_and_is_migrated_when_written() {
    let nul = |mut hit: HitV1| {
        let EventContent::ScriptBlock { text, .. } = &mut hit.content else { panic!("a script") };
        *text = Utf16Text("a\0b\0c".encode_utf16().collect());
        hit.rules[0].title = "T\0".into();
        hit
    };
    let mut trace = [records(), lines()].concat();
    trace.push(nul(hit(50)));
    let mut old = trace.clone();
    // Version 1 stored a copy of the trace as further events, which stay.
    old.extend(moved(&lines(), "copy.jsonl", 0));
    let (_folder, path) = folder();
    store_v1(&path, &old);

    let reader = Store::open_read_only(&path).unwrap();
    assert_eq!(all(&reader).len(), old.len());
    drop(reader);
    assert_eq!(version(&path), 1, "reading changes nothing");

    assert_eq!(run(&path, &trace), Inserted::default(), "existing hits are recognised");
    assert_eq!(version(&path), SCHEMA_VERSION);
    assert_eq!(run(&path, &moved(&trace, "other.evtx", 0)), Inserted::default(), "also from another path");
    assert_eq!(run(&path, &[hit(99)]).hits, 1);
    let store = Store::open(&path).unwrap();
    assert_eq!(all(&store).len(), old.len() + 1);
    assert!(all(&store).iter().any(|hit| hit.content == trace[10].content), "the original text is kept");
    let found: (String, i64) = Connection::open(&path)
        .unwrap()
        .query_row("SELECT script_block_text, nuls FROM hits WHERE nuls > 0", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(found, ("a\u{2400}b\u{2400}c".into(), 2));
}

#[test]
fn an_interrupted_migration_is_continued() {
    let (_folder, path) = folder();
    // More than one step of the migration, with equal events before and after its end.
    let trace: Vec<HitV1> = (0..1200).map(|n| HitV1 { source_sequence: n, ..hit(n % 400) }).collect();
    store_v1(&path, &trace);
    let copy = path.with_file_name("interrupted.db");
    std::fs::copy(&path, &copy).unwrap();
    drop(Store::open(&path).unwrap());
    // An interrupted migration leaves some hits of the new version, and the old version number.
    let connection = Connection::open(&copy).unwrap();
    connection
        .execute_batch(&format!(
            "ALTER TABLE hits ADD COLUMN nuls INTEGER NOT NULL DEFAULT 0; ATTACH '{}' AS updated;
             UPDATE hits SET event_hash = (SELECT event_hash FROM updated.hits AS u WHERE u.id = hits.id)
                WHERE id <= 600",
            path.display()
        ))
        .unwrap();
    drop(connection);
    for path in [&path, &copy] {
        assert_eq!(run(path, &trace), Inserted::default());
        assert_eq!(run(path, &moved(&trace, "copy.etl", 1)), Inserted::default());
    }
}

#[test]
fn a_damaged_hit_does_not_prevent_the_migration() {
    let (_folder, path) = folder();
    store_v1(&path, &records());
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("UPDATE hits SET event = x'00' WHERE id = 2").unwrap();
    drop(connection);
    assert_eq!(run(&path, &records()).hits, 1, "the damaged one is stored again");
    let store = Store::open(&path).unwrap();
    let (sound, damaged): (Vec<_>, Vec<_>) = store.hits(HitFilter::default()).partition(Result::is_ok);
    assert_eq!((sound.len(), damaged.len()), (6, 1));
    assert!(matches!(damaged[0], Err(StoreError::Damaged { id: 2, .. })));
}

/// Stores of earlier releases identified rules without an id by their title.
#[test]
fn a_rule_without_an_id_is_not_duplicated_under_its_derived_id() {
    let (_folder, path) = folder();
    let with = |ids: &[&str]| HitV1 {
        rules: ids.iter().map(|id| RuleRefV1 { id: (*id).into(), ..rule("", "Same") }).collect(),
        ..hit(1)
    };
    assert_eq!(run(&path, &[with(&[""])]).detections, 1);
    let now = with(&["derived-1", "derived-2"]);
    assert_eq!(run(&path, std::slice::from_ref(&now)).detections, 1, "one of them existed");
    assert_eq!(run(&path, std::slice::from_ref(&now)), Inserted::default());
    let store = Store::open(&path).unwrap();
    assert_eq!(all(&store), [now]);
}

/// Two processes replay overlapping traces into one store at the same time. Each event is stored once.
#[test]
fn two_writers_at_once_store_each_event_once() {
    let (_folder, path) = folder();
    let trace: Vec<HitV1> = (0..200).map(|n| HitV1 { source_sequence: n, ..hit(n / 2 * 2) }).collect();
    std::thread::scope(|scope| {
        for part in [&trace[..150], &trace[50..]] {
            // The part of the other process is a copy.
            let part = moved(part, if part.len() == 150 { "a.etl" } else { "b.etl" }, 0);
            let path = &path;
            scope.spawn(move || {
                let mut store = Store::open(path).unwrap();
                for batch in part.chunks(7) {
                    store.insert_batch(batch).unwrap();
                }
            });
        }
    });
    let stored = all(&Store::open(&path).unwrap());
    let times: Vec<u64> = stored.iter().map(|hit| hit.time).collect();
    let expected: Vec<u64> = trace.iter().map(|hit| hit.time).collect();
    assert_eq!(times, expected);
    assert_eq!(run(&path, &trace), Inserted::default());
}
