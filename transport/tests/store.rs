//! The store: hits are stored once and returned unchanged. Foreign files, interruptions and damage.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod arbitrary;
mod common;

use arbitrary::any_hit;
use common::{hit, rule};
use etwsieve_transport::hit::{EventContent, HitV1, RuleRefV1, Scope, SpanV1, TEXT_UNITS_MAX, View};
use etwsieve_transport::store::{
    APPLICATION_ID, Detection, HitFilter, Inserted, SCHEMA_VERSION, Store, StoreError,
};
use proptest::prelude::*;
use rusqlite::Connection;
use std::collections::HashSet;
use std::fs;
use std::ops::ControlFlow;
use tempfile::TempDir;

fn store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("hits.db")).unwrap();
    (folder, store)
}

fn sql(store: &Store) -> Connection {
    Connection::open(store.path()).unwrap()
}

fn all(store: &Store) -> Vec<HitV1> {
    store.hits(HitFilter::default()).map(|hit| hit.unwrap().hit).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_hits_are_returned_in_time_order(mut hits in proptest::collection::vec(any_hit(), 0..40)) {
        for hit in &mut hits {
            // Ids and titles of rules are text columns, in which U+0000 is replaced.
            for rule in &mut hit.rules {
                for name in [&mut rule.id, &mut rule.title, &mut rule.level] {
                    *name = name.replace('\0', "\u{2400}");
                }
            }
            // Two rules with the same id and title are one rule in the store.
            let mut seen = HashSet::new();
            hit.rules.retain(|rule| seen.insert((rule.id.clone(), rule.title.clone())));
        }
        let (_folder, mut store) = store();
        let inserted = store.insert_batch(&hits).unwrap();
        let pairs = hits.iter().map(|hit| hit.rules.len() as u64).sum();
        prop_assert_eq!(inserted, Inserted { hits: hits.len() as u64, detections: pairs });
        let signed = |number| i64::try_from(number).unwrap_or(i64::MAX);
        let shown = |source: &str| source.replace('\0', "\u{2400}");
        hits.sort_by_key(|hit| (signed(hit.time), shown(&hit.source), signed(hit.source_sequence)));
        prop_assert_eq!(all(&store), hits);
    }
}

type Change = fn(&mut HitV1);

#[test]
fn a_repeated_replay_adds_only_new_rules() {
    let (_folder, mut store) = store();
    let trace: Vec<_> = (0..100).map(hit).collect();
    assert_eq!(store.insert_batch(&trace).unwrap(), Inserted { hits: 100, detections: 100 });
    assert_eq!(store.insert_batch(&trace).unwrap(), Inserted::default());

    let second = rule("11111111-2222-3333-4444-555555555555", "Another rule");
    let more = HitV1 { rules: vec![hit(5).rules[0].clone(), second.clone()], ..hit(5) };
    assert_eq!(store.insert_batch([&more]).unwrap(), Inserted { hits: 0, detections: 1 });
    assert_eq!(all(&store)[5].rules, [hit(5).rules[0].clone(), second]);

    let changes: [(&str, Change); 6] = [
        ("completeness", |hit| hit.partial = true),
        ("place in the same source", |hit| hit.source_sequence += 1000),
        ("time", |hit| hit.time += 1),
        ("view", |hit| hit.view = View::Normalized),
        ("scope", |hit| hit.scope = Scope::Block),
        ("a lone surrogate that reads like another", |hit| {
            if let EventContent::ScriptBlock { text, .. } = &mut hit.content {
                text.0.push(0xDC00);
            }
        }),
    ];
    for (name, change) in changes {
        let mut other = hit(5);
        change(&mut other);
        assert_eq!(store.insert_batch([&other]).unwrap().hits, 1, "another {name} is another event");
    }
    let mut view = 0;
    let count = |row: Detection| {
        view += row.count;
        ControlFlow::Continue(())
    };
    store.detections(count).unwrap();
    assert_eq!(view, 107, "100 events, one second rule, six other events");
}

/// A script too long for a hit is truncated to the surroundings of its spans. Other rules of the same event keep other
/// pieces.
#[test]
fn rules_of_a_truncated_script_are_merged_with_their_pieces() {
    let (_folder, mut store) = store();
    let cut = |starts: &[u32], name: &str| {
        let mut hit = hit(1);
        let EventContent::ScriptBlock { text, .. } = &mut hit.content else { panic!("a script") };
        text.0 = (0..2 * TEXT_UNITS_MAX).map(|at| (at ^ at >> 7) as u16).collect();
        let spans = starts.iter().map(|&start| SpanV1 { text: 0, start, len: 10 }).collect();
        hit.rules = vec![RuleRefV1 { spans, ..rule(name, name) }];
        hit.cut_to_limits();
        hit
    };
    let (first, second) = (cut(&[100_000], "first"), cut(&[200_000, 250_000], "second"));
    assert_eq!(store.insert_batch([&first, &second]).unwrap(), Inserted { hits: 1, detections: 2 });
    assert_eq!(store.insert_batch([&second, &first]).unwrap(), Inserted::default());
    let stored = all(&store).remove(0);
    assert_eq!(stored.rules, [first.rules[0].clone(), second.rules[0].clone()]);
    for hit in [&first, &second] {
        let EventContent::ScriptBlock { text, .. } = &hit.content else { panic!("a script") };
        let EventContent::ScriptBlock { text: shown, .. } = &stored.content else { panic!("a script") };
        for span in &hit.rules[0].spans {
            assert_eq!(shown.0[stored.shown(*span).unwrap()], text.0[hit.shown(*span).unwrap()]);
        }
    }
    let units: i64 = sql(&store).query_row("SELECT cut_units FROM hits", [], |row| row.get(0)).unwrap();
    assert_eq!(units as usize, 2 * TEXT_UNITS_MAX);
}

type Want = fn(usize, &HitV1) -> bool;

#[test]
fn hits_are_filtered_and_ordered_over_many_pages() {
    let (_folder, mut store) = store();
    let mut hits: Vec<_> = (0..150).map(hit).collect();
    for (index, hit) in hits.iter_mut().enumerate() {
        // Pairs of equal times, so that pages end between them.
        hit.time = 1000 + index as u64 / 2;
        hit.computer = Some(if index % 3 == 0 { "SRV-A" } else { "srv-b" }.into());
        if index % 7 == 0 {
            (hit.scope, hit.view) = (Scope::Block, View::Call);
        }
        if index % 5 == 0 {
            hit.rules = vec![rule("ABC", "Fifth")];
        }
    }
    let mut shuffled = hits.clone();
    shuffled.reverse();
    store.insert_batch(&shuffled).unwrap();
    let filter = |change: fn(&mut HitFilter)| {
        let mut filter = HitFilter::default();
        change(&mut filter);
        filter
    };
    let rows: [(&str, HitFilter, Want); 11] = [
        ("everything", HitFilter::default(), |_, _| true),
        ("from", filter(|f| f.from = Some(1040)), |_, hit| hit.time >= 1040),
        ("until", filter(|f| f.until = Some(1040)), |_, hit| hit.time <= 1040),
        ("computer", filter(|f| f.computer = Some("srv-a".into())), |index, _| index % 3 == 0),
        ("scope", filter(|f| f.scope = Some(Scope::Block)), |index, _| index % 7 == 0),
        ("view", filter(|f| f.view = Some(View::Raw)), |index, _| index % 7 != 0),
        ("rule id", filter(|f| f.rule = Some("abc".into())), |index, _| index % 5 == 0),
        ("rule title", filter(|f| f.rule = Some("fifth".into())), |index, _| index % 5 == 0),
        ("part of a rule title", filter(|f| f.rule = Some("IFT".into())), |index, _| index % 5 == 0),
        // Hits are stored in reverse order.
        ("stored in between", filter(|f| (f.after_id, f.until_id) = (Some(3), Some(6))), |index, _| {
            (144..=146).contains(&index)
        }),
        (
            "all of them",
            HitFilter {
                from: Some(1010),
                until: Some(1060),
                rule: Some("ABC".into()),
                computer: Some("SRV-A".into()),
                ..HitFilter::default()
            },
            |index, hit| index % 15 == 0 && (1010..=1060).contains(&hit.time),
        ),
    ];
    for (name, filter, want) in rows {
        let found: Vec<_> = store.hits(filter).map(|hit| hit.unwrap().hit).collect();
        let wanted: Vec<_> = hits
            .iter()
            .enumerate()
            .filter(|(index, hit)| want(*index, hit))
            .map(|(_, hit)| hit.clone())
            .collect();
        assert!(!wanted.is_empty(), "{name}");
        assert_eq!(found, wanted, "{name}");
    }
}

#[test]
fn totals() {
    let (_folder, mut store) = store();
    assert_eq!(store.stats().unwrap(), etwsieve_transport::store::StoreStats::default());
    let mut hits: Vec<_> = (0..5).map(hit).collect();
    hits[0].computer = None;
    hits[4].rules.push(rule("b", "B"));
    store.insert_batch(&hits).unwrap();
    let stats = store.stats().unwrap();
    assert_eq!((stats.hits, stats.detections), (5, 6));
    let rules: Vec<_> =
        stats.rules.iter().map(|r| (r.title.as_str(), r.level.as_str(), r.count, r.first, r.last)).collect();
    assert_eq!(
        rules,
        [
            ("Remote session", "medium", 5, hits[0].time, hits[4].time),
            ("B", "medium", 1, hits[4].time, hits[4].time),
        ]
    );
    let computers: Vec<_> =
        stats.computers.iter().map(|c| (c.computer.as_deref(), c.count, c.first, c.last)).collect();
    assert_eq!(
        computers,
        [(Some("srv1.example.test"), 4, hits[1].time, hits[4].time), (None, 1, hits[0].time, hits[0].time),]
    );
}

#[test]
fn application_id_version_and_durability_are_set() {
    let (_folder, store) = store();
    let connection = sql(&store);
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(pragma("application_id"), i64::from(APPLICATION_ID));
    assert_eq!(pragma("user_version"), i64::from(SCHEMA_VERSION));
    let journal: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(journal, "wal");
}

type Make = Box<dyn Fn(&std::path::Path)>;
type Verdict = fn(&StoreError) -> bool;

#[test]
fn foreign_files_are_rejected_and_stay_unchanged() {
    let database = |statements: &'static str| {
        move |path: &std::path::Path| Connection::open(path).unwrap().execute_batch(statements).unwrap()
    };
    let foreign: Verdict = |error| matches!(error, StoreError::NotAStore { .. });
    let rows: [(&str, Make, Verdict); 5] = [
        (
            "text",
            Box::new(|path| fs::write(path, "not a database but some text\n".repeat(40)).unwrap()),
            foreign,
        ),
        ("short text", Box::new(|path| fs::write(path, "x").unwrap()), foreign),
        ("someone's database", Box::new(database("CREATE TABLE t (a)")), foreign),
        (
            "another application",
            Box::new(database("PRAGMA application_id = 77; CREATE TABLE t (a)")),
            foreign,
        ),
        (
            "a newer store",
            Box::new(|path| {
                drop(Store::open(path).unwrap());
                Connection::open(path).unwrap().pragma_update(None, "user_version", 3).unwrap();
            }),
            |error| matches!(error, StoreError::Newer { found: 3, supported: 2, .. }),
        ),
    ];
    for (name, make, verdict) in rows {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        make(&path);
        let before = fs::read(&path).unwrap();
        for result in [Store::open(&path), Store::open_read_only(&path)] {
            let error = result.map(|_| name).unwrap_err();
            assert!(verdict(&error), "{name}: {error}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{name}: {error}");
        }
        assert_eq!(fs::read(&path).unwrap(), before, "{name}");
    }
}

#[test]
fn paths_that_cannot_be_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.db");
    assert!(matches!(Store::open_read_only(&missing), Err(StoreError::NotFound { .. })));
    assert!(!missing.exists(), "reading creates nothing");
    assert!(matches!(Store::open(folder.path()), Err(StoreError::Sqlite { .. })), "a folder");
    assert!(matches!(Store::open(missing.join("hits.db")), Err(StoreError::Sqlite { .. })), "no folder");
    let empty = folder.path().join("empty.db");
    fs::write(&empty, "").unwrap();
    assert!(matches!(Store::open_read_only(&empty), Err(StoreError::NotAStore { .. })));
    Store::open(&empty).unwrap();
    Store::open_read_only(&empty).unwrap();
}

#[test]
fn readers_read_while_a_writer_writes_and_cannot_write() {
    let (_folder, mut store) = store();
    store.insert_batch([&hit(1)]).unwrap();
    let mut reader = Store::open_read_only(store.path()).unwrap();
    assert_eq!(all(&reader), [hit(1)]);
    store.insert_batch([&hit(2)]).unwrap();
    assert_eq!(all(&reader), [hit(1), hit(2)]);
    reader.insert_batch([&hit(3)]).unwrap_err();
    assert_eq!(all(&store).len(), 2);
}

#[test]
fn a_batch_is_stored_completely_or_not_at_all() {
    let (_folder, mut store) = store();
    let mut bad = hit(2);
    bad.source = "s".repeat(5000);
    let error = store.insert_batch([&hit(1), &bad, &hit(3)]).unwrap_err();
    assert!(matches!(error, StoreError::Hit { index: 1, .. }), "{error}");
    assert_eq!(all(&store), []);
    assert_eq!(store.insert_batch([&hit(1), &hit(3)]).unwrap().hits, 2, "and continues");
}

/// Copies the files in the middle of a transaction, including the log, like a killed process leaves them.
#[test]
fn a_killed_writer_leaves_all_committed_hits() {
    let (folder, mut store) = store();
    let committed: Vec<_> = (0..50).map(hit).collect();
    store.insert_batch(&committed).unwrap();

    let dying = sql(&store);
    // With such a small cache, uncommitted pages are written to the log.
    dying.execute_batch("PRAGMA cache_size = 5; BEGIN IMMEDIATE").unwrap();
    for round in 0..200 {
        dying
            .execute(
                "INSERT INTO hits SELECT NULL, randomblob(32), hit_version, event, time, source, source_sequence,
                    provider, event_id, event_version, channel, event_level, opcode, task, keywords, computer,
                    user_sid, process_id, thread_id, activity_id, event_record_id, scope, view, partial, message_number,
                    message_total, script_block_text, script_block_id, path, cut_units, cut_sha256, context_info,
                    user_data, payload, notice, app_name, scan_result, nuls
                 FROM hits WHERE id = ?1",
                [round % 50 + 1],
            )
            .unwrap();
    }
    let crash = folder.path().join("crash");
    fs::create_dir(&crash).unwrap();
    for name in ["hits.db", "hits.db-wal"] {
        fs::copy(folder.path().join(name), crash.join(name)).unwrap();
    }
    let log = fs::metadata(crash.join("hits.db-wal")).unwrap().len();
    assert!(log > 200_000, "uncommitted pages are in the log: {log} bytes");
    let mut survivor = Store::open(crash.join("hits.db")).unwrap();
    assert_eq!(all(&survivor), committed);
    assert_eq!(survivor.insert_batch(&committed).unwrap(), Inserted::default());
    drop(dying);
    assert_eq!(all(&store), committed, "dropped without a commit");
}

#[test]
fn a_damaged_hit_is_reported_and_skipped() {
    let (_folder, mut store) = store();
    let hits: Vec<_> = (0..40).map(hit).collect();
    store.insert_batch(&hits).unwrap();
    let damages = [
        ("UPDATE hits SET event = x'00' WHERE source_sequence = 3", 3, "truncated"),
        ("UPDATE hits SET event = zeroblob(2000000) WHERE source_sequence = 5", 5, "longer than"),
        ("UPDATE hits SET hit_version = 2 WHERE source_sequence = 20", 20, "hit version 2"),
        ("UPDATE hit_rules SET attack = '[' WHERE hit_id = 31", 30, "EOF"),
    ];
    let connection = sql(&store);
    for (statement, ..) in damages {
        assert_eq!(connection.execute(statement, []).unwrap(), 1);
    }
    let found: Vec<_> = store.hits(HitFilter::default()).collect();
    assert_eq!(found.len(), 40);
    for (index, found) in found.into_iter().enumerate() {
        match damages.iter().find(|(_, sequence, _)| *sequence == index) {
            None => assert_eq!(found.unwrap().hit, hits[index]),
            Some((_, _, word)) => {
                let error = found.unwrap_err();
                assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
                assert!(error.to_string().contains(word), "{error}");
            }
        }
    }
}

/// Text columns, their expected contents, and the number of U+0000 in the row.
type NulRow<'a> = (&'a str, EventContent, &'a str, &'a str, i64);

/// Queries stop at U+0000, so an attacker could hide text after one.
#[test]
fn queries_see_the_whole_text_despite_nuls() {
    let script = |text: &str, path: Option<&str>| EventContent::ScriptBlock {
        message_number: None,
        message_total: None,
        text: text.into(),
        script_block_id: None,
        path: path.map(Into::into),
    };
    let module =
        EventContent::Module { context_info: "a\0z".into(), user_data: "\0".into(), payload: "p\0q".into() };
    let amsi = EventContent::Amsi {
        text: "a\0z".into(),
        content_name: "n\0".into(),
        app_name: "\0app".into(),
        scan_result: 1,
    };
    let rows: [NulRow<'_>; 6] = [
        ("none", script("ab", None), "script_block_text", "ab", 0),
        ("inside", script("hit \0 <script>", None), "script_block_text", "hit \u{2400} <script>", 1),
        ("only", script("\0\0", Some("p\0")), "script_block_text || path", "\u{2400}\u{2400}p\u{2400}", 3),
        ("module", module, "context_info || user_data || payload", "a\u{2400}z\u{2400}p\u{2400}q", 3),
        ("scan", amsi, "script_block_text || path || app_name", "a\u{2400}zn\u{2400}\u{2400}app", 3),
        ("notice", EventContent::Notice { detail: "x\0y".into() }, "notice", "x\u{2400}y", 1),
    ];
    for (name, content, columns, shown, nuls) in rows {
        let (_folder, mut store) = store();
        let hit = HitV1 { content, ..hit(1) };
        store.insert_batch([&hit]).unwrap();
        let connection = sql(&store);
        let of_columns = format!("SELECT {columns}, length({columns}), nuls FROM hits");
        let (text, length, counted): (String, usize, i64) =
            connection.query_row(&of_columns, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        assert_eq!((text.as_str(), length, counted), (shown, shown.chars().count(), nuls), "{name}");
        assert_eq!(all(&store), [hit], "{name}: the original");
    }
    let (_folder, mut store) = store();
    let mut hit = HitV1 { content: script("hit \0 <script>", Some("C:\\a\0.ps1")), ..hit(1) };
    (hit.source, hit.computer, hit.user_sid) = ("s\0s".into(), Some("c\0c".into()), Some("u\0u".into()));
    hit.rules = vec![rule("i\0i", "t\0t")];
    store.insert_batch([&hit]).unwrap();
    let found: i64 = sql(&store)
        .query_row(
            "SELECT count(*) FROM detections WHERE ScriptBlockText LIKE '%<script>' AND Path LIKE '%.ps1'
                AND dest LIKE '%c' AND length(user_id) = 3 AND rule_title LIKE '%t' AND length(rule_id) = 3",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(found, 1);
    // Nothing has changed, so the same event is recognised.
    assert_eq!(store.insert_batch([&hit]).unwrap(), Inserted::default());
}

/// Further pieces of a truncated text, containing U+0000: the number of U+0000 is updated.
#[test]
fn merged_pieces_are_shown_without_nuls() {
    let (_folder, mut store) = store();
    let cut = |start: u32, name: &str| {
        let mut hit = hit(1);
        let EventContent::ScriptBlock { text, .. } = &mut hit.content else { panic!("a script") };
        text.0 = vec![u16::from(b'a'); 2 * TEXT_UNITS_MAX];
        text.0[100_000] = 0;
        text.0[200_000] = 0;
        hit.rules = vec![RuleRefV1 { spans: vec![SpanV1 { text: 0, start, len: 10 }], ..rule(name, name) }];
        hit.cut_to_limits();
        hit
    };
    let nuls = |store: &Store| -> (i64, bool) {
        let query = "SELECT nuls, instr(CAST(script_block_text AS BLOB), x'00') = 0 FROM hits";
        sql(store).query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    store.insert_batch([&cut(100_000, "first")]).unwrap();
    assert_eq!(nuls(&store), (1, true));
    store.insert_batch([&cut(199_995, "second")]).unwrap();
    assert_eq!(nuls(&store), (2, true));
}

/// SQLite gives its log and index the mode of the database.
#[cfg(unix)]
#[test]
fn a_new_store_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, mut store) = store();
    store.insert_batch([&hit(1)]).unwrap();
    let names: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{name}");
            name
        })
        .collect();
    assert_eq!(names.len(), 3, "database, log and index: {names:?}");
}

#[cfg(unix)]
#[test]
fn a_pipe_is_rejected_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    for result in [Store::open(&path), Store::open_read_only(&path)] {
        assert!(matches!(result, Err(StoreError::NotAStore { .. })));
    }
}
