//! The file: whole lines only, rotated, and mended after a crash.

use crate::feed::{MemoryFeed, config, drain};
use std::path::Path;

/// The sequence numbers of the lines of a file.
fn numbers(path: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is whole");
    let number =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["sequence"].as_u64().unwrap();
    text.lines().map(number).collect()
}

#[test]
fn a_line_for_each_hit_and_a_broken_one_is_cut_off() {
    let whole = "{\"sequence\":900}\n";
    let rows = [
        ("no file", String::new(), vec![]),
        ("whole lines", whole.repeat(2), vec![900, 900]),
        ("half a line", format!("{whole}{{\"sequence\":90"), vec![900]),
        ("half a long line", format!("{whole}{{{}", "x".repeat(200_000)), vec![900]),
        ("only half a line", "{\"sequence\"".to_owned(), vec![]),
    ];
    for (row, before, kept) in rows {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hits.jsonl");
        if !before.is_empty() {
            std::fs::write(&path, before).unwrap();
        }
        let feed = MemoryFeed::new(120, |n| format!("script {n}"));
        let counts =
            drain(&config("type = \"jsonl\"\npath = \"hits.jsonl\"\nbatch_hits = 50"), folder.path(), &feed);
        assert_eq!((feed.acknowledged(), counts.delivered), (120, 120), "{row}");
        let expected: Vec<u64> = kept.into_iter().chain(1..=120).collect();
        assert_eq!(numbers(&path), expected, "{row}");
    }
}

#[test]
fn somebody_elses_line_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hits.jsonl");
    std::fs::write(&path, "a note without an end").unwrap();
    let feed = MemoryFeed::new(2, |n| n.to_string());
    drain(&config("type = \"jsonl\"\npath = \"hits.jsonl\""), folder.path(), &feed);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("a note without an end\n{") && text.lines().count() == 3, "{text}");
}

#[test]
fn full_files_are_rotated_and_the_newest_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hits.jsonl");
    // Each batch of 4 hits is longer than a megabyte.
    let feed = MemoryFeed::new(24, |n| format!("{n} {}", "x".repeat(120_000)));
    let sink = config("type = \"jsonl\"\npath = \"hits.jsonl\"\nbatch_hits = 10\nrotate_mb = 1\nkeep = 0");
    drain(&sink, folder.path(), &feed);
    let rotated = |folder: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|found| *found != path)
            .collect();
        names.sort();
        names
    };
    let all = rotated(folder.path());
    assert_eq!(all.len(), 2, "10 and 10 hits are in rotated files, 4 in the present one");
    let mut seen: Vec<u64> = all.iter().flat_map(|path| numbers(path)).chain(numbers(&path)).collect();
    seen.sort_unstable();
    assert_eq!(seen, (1..=24).collect::<Vec<_>>());

    let feed = MemoryFeed::new(40, |n| format!("{n} {}", "x".repeat(120_000)));
    let sink = config("type = \"jsonl\"\npath = \"hits.jsonl\"\nbatch_hits = 10\nrotate_mb = 1\nkeep = 2");
    drain(&sink, folder.path(), &feed);
    let left = rotated(folder.path());
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|path| !all.contains(path)), "the oldest went first");
}

#[test]
fn a_file_that_cannot_be_written_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let feed = MemoryFeed::new(20, |n| n.to_string());
    let sink = config("type = \"jsonl\"\npath = \"later/hits.jsonl\"");
    let (stop, thread, stats) = crate::feed::start(&sink, folder.path(), &feed);
    while stats.counts().error.is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::fs::create_dir(folder.path().join("later")).unwrap();
    thread.join().unwrap();
    drop(stop);
    assert_eq!(numbers(&folder.path().join("later/hits.jsonl")), (1..=20).collect::<Vec<_>>());
}

/// The file contains scripts.
#[cfg(unix)]
#[test]
fn files_are_their_owners() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let feed = MemoryFeed::new(2, |n| n.to_string());
    drain(&config("type = \"jsonl\"\npath = \"hits.jsonl\""), folder.path(), &feed);
    let mode = folder.path().join("hits.jsonl").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
