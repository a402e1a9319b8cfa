//! The file sink: whole lines only, rotation, and repair after a crash.

use crate::feed::{MemoryFeed, config, drain, start};
use std::path::{Path, PathBuf};

/// Reads the sequence numbers in a file.
fn numbers(path: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is whole");
    let number =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["sequence"].as_u64().unwrap();
    text.lines().map(number).collect()
}

#[test]
fn each_hit_is_a_line_and_an_incomplete_line_is_removed() {
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
fn a_foreign_line_is_kept() {
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
    assert_eq!(all.len(), 2, "10 and 10 hits are in rotated files, 4 in the current one");
    let mut seen: Vec<u64> = all.iter().flat_map(|path| numbers(path)).chain(numbers(&path)).collect();
    seen.sort_unstable();
    assert_eq!(seen, (1..=24).collect::<Vec<_>>());

    let feed = MemoryFeed::new(40, |n| format!("{n} {}", "x".repeat(120_000)));
    let sink = config("type = \"jsonl\"\npath = \"hits.jsonl\"\nbatch_hits = 10\nrotate_mb = 1\nkeep = 2");
    drain(&sink, folder.path(), &feed);
    let left = rotated(folder.path());
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|path| !all.contains(path)), "the oldest are removed first");
}

#[test]
fn a_file_that_cannot_be_written_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let feed = MemoryFeed::new(20, |n| n.to_string());
    let sink = config("type = \"jsonl\"\npath = \"later/hits.jsonl\"");
    let (stop, thread, stats) = start(&sink, folder.path(), &feed);
    while stats.counts().error.is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::fs::create_dir(folder.path().join("later")).unwrap();
    thread.join().unwrap();
    drop(stop);
    assert_eq!(numbers(&folder.path().join("later/hits.jsonl")), (1..=20).collect::<Vec<_>>());
}

/// Lists the files in a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Runs several sinks with different sensors on one file and checks that every line is whole and every hit is written
/// once.
fn several_writers(path: &Path, names: &[&str], more: &str, mut meanwhile: impl FnMut()) {
    const HITS: u64 = 400;
    let folder = path.parent().unwrap();
    let writers: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(number, name)| {
            let text = move |n| format!("{number}-{n} {}", "x".repeat(3000));
            let feed = MemoryFeed::new(HITS, text).of_sensor(&format!("srv{number}"));
            let sink = config(&format!("type = \"jsonl\"\npath = \"{name}\"\nbatch_hits = 5\n{more}"));
            start(&sink, folder, &feed)
        })
        .collect();
    while writers.iter().any(|(_, thread, _)| !thread.is_finished()) {
        meanwhile();
    }
    for (_, thread, stats) in writers {
        thread.join().unwrap();
        assert_eq!(stats.counts().delivered, HITS);
    }
    let mut found = Vec::new();
    for path in files(folder) {
        if path.extension().is_none_or(|extension| extension != "jsonl") || path.is_symlink() {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "the last line is whole");
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let sensor = line["sensor"].as_str().unwrap().to_owned();
            found.push((sensor, line["sequence"].as_u64().unwrap()));
        }
    }
    found.sort();
    let expected: Vec<_> =
        (0..names.len()).flat_map(|sensor| (1..=HITS).map(move |n| (format!("srv{sensor}"), n))).collect();
    assert_eq!(found, expected);
}

#[test]
fn several_writers_of_one_file_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hits.jsonl");
    several_writers(&path, &["hits.jsonl", "hits.jsonl", "hits.jsonl"], "", || {
        std::thread::sleep(std::time::Duration::from_millis(1));
    });
}

#[test]
fn several_writers_rotate_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hits.jsonl");
    several_writers(&path, &["hits.jsonl", "hits.jsonl"], "rotate_mb = 1", || {
        std::thread::sleep(std::time::Duration::from_millis(1));
    });
    assert!(files(folder.path()).len() > 2);
}

#[test]
fn a_file_may_be_renamed_while_several_write_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hits.jsonl");
    let mut number = 0;
    several_writers(&path, &["hits.jsonl", "hits.jsonl"], "", || {
        std::thread::sleep(std::time::Duration::from_millis(3));
        number += 1;
        // As logrotate does.
        let _ = std::fs::rename(&path, folder.path().join(format!("old-{number}.jsonl")));
    });
}

#[cfg(unix)]
#[test]
fn another_name_of_a_file_is_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hits.jsonl");
    std::fs::write(&path, "").unwrap();
    std::os::unix::fs::symlink(&path, folder.path().join("link.jsonl")).unwrap();
    several_writers(&path, &["hits.jsonl", "link.jsonl"], "", || {
        std::thread::sleep(std::time::Duration::from_millis(1));
    });
}

#[cfg(unix)]
#[test]
fn new_files_are_private_and_rotation_keeps_permissions() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hits.jsonl");
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    let sink = config("type = \"jsonl\"\npath = \"hits.jsonl\"\nrotate_mb = 1\nbatch_hits = 10");
    drain(&sink, folder.path(), &MemoryFeed::new(10, |n| format!("{n} {}", "x".repeat(120_000))));
    assert_eq!(mode(), 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    drain(&sink, folder.path(), &MemoryFeed::new(1, |n| n.to_string()));
    assert_eq!((numbers(&path), mode()), (vec![1], 0o640));
}
