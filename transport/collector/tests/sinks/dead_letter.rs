//! The dead-letter file is shared fairly among sensors, and sinks do not wait for it.

use crate::feed::{MemoryFeed, config, dead_letters, drain};
use crate::http::{Reply, Request, serve};
use etwsieve_collector::sink::config::SinkConfig;
use serde_json::{Value, json};
use std::path::Path;

const MIB: u64 = 1024 * 1024;

/// Starts an Elasticsearch that refuses documents with `poison` in their script. Returns its number of accepted
/// documents.
fn answer(taken: &mut u64, request: &Request) -> Reply {
    let text = std::str::from_utf8(&request.body).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let judged = lines.chunks(2).map(|pair| {
        let is_bad = pair[1]["powershell"]["file"]["script_block_text"].as_str().unwrap().contains("poison");
        *taken += u64::from(!is_bad);
        json!({ "create": { "status": if is_bad { 400 } else { 201 }, "error": { "type": "x" } } })
    });
    Reply::Body(200, json!({ "items": judged.collect::<Vec<_>>() }).to_string())
}

fn sink(address: std::net::SocketAddr, more: &str) -> SinkConfig {
    config(&format!("type = \"elastic\"\nurl = \"http://{address}\"\ndead_letter_mb = 1\n{more}"))
}

fn poison(sensor: &str, count: u64, len: usize) -> MemoryFeed {
    MemoryFeed::new(count, |n| format!("poison {n} {}", "x".repeat(len))).of_sensor(sensor)
}

/// Returns the total length of a sensor's lines.
fn used(path: &Path, sensor: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap();
    let is_of = |line: &&str| serde_json::from_str::<Value>(line).unwrap()["hit"]["sensor"] == sensor;
    text.lines().filter(is_of).map(|line| line.len() as u64 + 1).sum()
}

#[test]
fn no_sensor_fills_the_file_and_no_sink_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("elastic.dead.jsonl");
    let (address, taken) = serve(0, answer);
    // Three times as much as fits, a few refused hits of another sensor, and accepted hits in between.
    let honest = MemoryFeed::new(40, |n| n.to_string());
    let feed = MemoryFeed::join(&[&poison("evil", 300, 10_000), &honest, &poison("srv2", 5, 100), &honest]);
    let counts = drain(&sink(address, ""), folder.path(), &feed);
    assert_eq!((feed.acknowledged(), counts.delivered, counts.retries), (385, 80, 0));
    assert_eq!(*taken.lock().unwrap(), 80);
    assert_eq!(counts.refused + counts.dropped, 305);
    assert!(counts.dropped > 200 && counts.refused > 20, "{counts:?}");
    assert!(used(&path, "evil") <= MIB / 2);
    assert_eq!(dead_letters(&path).iter().filter(|(n, _)| *n <= 5).count() as u64, 5 + 5, "{counts:?}");

    // After a restart the existing lines count, and there is still room for each of the other sensors.
    let more =
        MemoryFeed::join(&[&poison("evil", 300, 100), &poison("srv3", 300, 10_000), &poison("srv4", 5, 100)]);
    let counts = drain(&sink(address, ""), folder.path(), &more);
    assert_eq!(more.acknowledged(), 605);
    assert!(used(&path, "evil") <= MIB / 2 + 1000 && used(&path, "srv3") <= MIB / 4, "{counts:?}");
    assert!(used(&path, "srv4") > 5 * 100);
    assert!(std::fs::metadata(&path).unwrap().len() < MIB);
}

#[test]
fn the_sink_continues_when_the_file_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("elastic.dead.jsonl");
    std::fs::write(&path, vec![b'\n'; MIB as usize]).unwrap();
    let (address, _) = serve(0, answer);
    let counts = drain(&sink(address, ""), folder.path(), &poison("evil", 10, 10));
    assert_eq!((counts.refused, counts.dropped), (0, 10));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), MIB);
    // An administrator inspects the file and moves it away.
    std::fs::rename(&path, folder.path().join("seen")).unwrap();
    let counts = drain(&sink(address, ""), folder.path(), &poison("evil", 10, 10));
    assert_eq!((counts.refused, counts.dropped, dead_letters(&path).len()), (10, 0, 10));
}

#[test]
fn a_hit_longer_than_the_file_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let (address, _) = serve(0, answer);
    let text = format!("poison {}", "\u{1}".repeat(128 * 1024 - 10));
    let counts = drain(&sink(address, ""), folder.path(), &MemoryFeed::new(1, |_| text.clone()));
    assert_eq!((counts.refused, counts.dropped), (0, 1));
    assert_eq!(std::fs::metadata(folder.path().join("elastic.dead.jsonl")).unwrap().len(), 0);
}

#[test]
fn an_unwritable_file_does_not_block_the_sink_forever() {
    let folder = tempfile::tempdir().unwrap();
    let (address, taken) = serve(0, answer);
    let honest = MemoryFeed::new(40, |n| n.to_string());
    let feed = MemoryFeed::join(&[&poison("evil", 3, 100), &honest]);
    let sink = sink(address, "dead_letter = 'missing/dead.jsonl'\nbatch_hits = 3");
    let counts = drain(&sink, folder.path(), &feed);
    assert_eq!((feed.acknowledged(), counts.refused, counts.dropped, counts.retries), (43, 0, 3, 5));
    assert_eq!(*taken.lock().unwrap(), 40);
}

#[test]
fn two_sinks_share_a_file_without_filling_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dead.jsonl");
    let (address, _) = serve(0, answer);
    let start = |sensor: &str| {
        let sink = sink(address, "dead_letter = 'dead.jsonl'\nbatch_hits = 3");
        crate::feed::start(&sink, folder.path(), &poison(sensor, 100, 10_000))
    };
    for (_, thread, _) in [start("one"), start("two")] {
        thread.join().unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    assert!((text.len() as u64) < MIB && text.ends_with('\n'));
    assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
}
