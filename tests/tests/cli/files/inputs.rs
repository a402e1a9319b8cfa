//! Inputs that are found, and messages about the others.

use super::PROGRAM;
use super::support::{Folder, HIT, line, read_json, trace};
use etwsieve_tests::program::{command, run};
use serde_json::json;

#[test]
fn no_input_is_an_error_with_a_summary_of_zeroes() {
    let folder = Folder::new();
    let (empty, summary) = (folder.make("empty"), folder.at("s.json"));
    for missing in [empty.clone(), folder.at("typo.etl"), folder.at("empty/*.evtx")] {
        let run = run(PROGRAM, ["replay", "--summary", &summary, &missing]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{}", run.stderr);
        assert!(run.stderr.contains("error:") && !run.stderr.contains("panicked"), "{}", run.stderr);
        let summary = read_json(&summary);
        for key in ["events_seen", "events_selected", "events_matched", "detections"] {
            assert_eq!(summary[key], 0, "{key}");
        }
        assert_eq!((&summary["sources"], &summary["damaged"]["unreadable"]), (&json!([]), &json!(1)));
        assert_eq!(summary["interrupted"], false);
    }
    let rule = folder.write("rule.yml", etwsieve_matcher::builtin::TEXT);
    for args in [["rules", "cost", &rule, &empty].as_slice(), &["trace", &empty], &["trace", "typo.etl"]] {
        let run = run(PROGRAM, args);
        assert_eq!(run.code, Some(1), "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains("error:"), "{args:?}: {}", run.stderr);
    }
}

#[test]
fn patterns_that_the_shell_did_not_expand_are_expanded() {
    let folder = Folder::new();
    folder.make("case/deep");
    for name in ["case/a.jsonl", "case/b.jsonl", "case/deep/c.jsonl", "case/[d].jsonl"] {
        folder.write(name, line(HIT, "srv01"));
    }
    let rows = [
        ("case/[ab].jsonl", 2),
        ("case/?.jsonl", 2),
        ("case/*.jsonl", 3),
        ("case/**/*.jsonl", 4),
        ("ca*", 4),
        // A file with that literal name takes precedence over the pattern.
        ("case/[d].jsonl", 1),
    ];
    for (pattern, hits) in rows {
        let output = command(PROGRAM, ["replay", pattern]).current_dir(folder.path()).output().unwrap();
        let (stdout, stderr) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{pattern}");
        assert_eq!(stdout.lines().count(), hits, "{pattern}");
    }
    folder.write("case/r1.yml", etwsieve_matcher::builtin::TEXT);
    let check = run(PROGRAM, ["rules", "check", &folder.at("case/r?.yml")]);
    assert_eq!(check.code, Some(0), "{}", check.stderr);
}

#[test]
fn archives_in_folders_are_counted_as_skipped() {
    let folder = Folder::new();
    folder.make("case/old");
    folder.write("case/a.jsonl", line(HIT, "srv01"));
    for name in ["case/Security.evtx.gz", "case/old/logs.ZIP", "case/old/t.etl.zst", "case/b.7z", "case/c.xz"]
    {
        folder.write(name, "packed");
    }
    folder.write("case/notes.txt", "no archive");
    let summary = folder.at("s.json");
    let run = run(PROGRAM, ["replay", "--summary", &summary, &folder.at("case")]);
    assert_eq!((run.code, run.lines().len()), (Some(0), 1), "{}", run.stderr);
    assert!(run.stderr.contains("5 archives or compressed files are not read"), "{}", run.stderr);
    assert!(run.stderr.contains("Security.evtx.gz"), "{}", run.stderr);
    let summary = read_json(&summary);
    assert_eq!(summary["skipped"]["packed_files"], 5);
    assert_eq!(summary["skipped"]["paths"].as_array().unwrap().len(), 5);
}

#[test]
fn damage_is_reported_with_the_name_of_the_file() {
    let folder = Folder::new();
    folder.write("good.jsonl", line(HIT, "srv01"));
    folder.write("broken.jsonl", format!("{}{{\"event_id\": oops\n", line(HIT, "srv01")));
    let rule = folder.write("rule.yml", etwsieve_matcher::builtin::TEXT);
    let path = folder.path().to_str().unwrap();
    for args in [["replay", path].as_slice(), &["rules", "cost", &rule, path]] {
        let run = run(PROGRAM, args);
        assert_eq!(run.code, Some(1));
        let warning = run.stderr.lines().find(|line| line.contains("damaged line at offset"));
        assert!(warning.is_some_and(|line| line.contains("broken.jsonl: damaged")), "{}", run.stderr);
    }
}

#[test]
fn trace_reads_folders_and_names_other_formats() {
    let folder = Folder::new();
    folder.make("case");
    folder.write("case/a.etl", trace());
    folder.write("case/b.etl", trace());
    folder.write("case/c.jsonl", line(HIT, "srv01"));
    let all = run(PROGRAM, ["trace", &folder.at("case")]);
    assert_eq!((all.code, all.lines().len()), (Some(0), 2), "{}", all.stderr);
    assert_eq!(all.lines()[1]["source"], folder.at("case/b.etl"));
    let log = folder.write("x.evtx", [b"ElfFile\0".as_slice(), &[0; 5000]].concat());
    for (path, kind) in [(&log, "is an event log"), (&folder.at("case/c.jsonl"), "is JSON Lines")] {
        let other = run(PROGRAM, ["trace", path]);
        assert_eq!((other.code, other.stdout.as_str()), (Some(1), ""));
        assert!(other.stderr.contains(kind) && other.stderr.contains("etwsieve replay"), "{}", other.stderr);
    }
}

#[test]
fn files_that_vanish_and_folders_that_nest_are_reported() {
    let folder = Folder::new();
    folder.write("a.jsonl", line(HIT, "srv01"));
    let deep: String = (0..70).map(|_| "d/").collect();
    folder.make(&deep);
    folder.write(&format!("{deep}x.jsonl"), line(HIT, "srv01"));
    let run = run(PROGRAM, ["replay", folder.path().to_str().unwrap()]);
    assert_eq!((run.code, run.lines().len()), (Some(1), 1), "{}", run.stderr);
    assert!(run.stderr.contains("more than 64 nested folders"), "{}", run.stderr);
}

#[cfg(unix)]
#[test]
fn devices_sockets_and_links_to_folders_are_refused_by_name() {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    let folder = Folder::new();
    let case = folder.make("case");
    let real = folder.make("real");
    folder.write("case/a.jsonl", line(HIT, "srv01"));
    folder.write("real/b.jsonl", line(HIT, "srv01"));
    symlink("/dev/zero", folder.at("case/zero.jsonl")).unwrap();
    symlink(&real, folder.at("case/linked")).unwrap();
    let _socket = UnixListener::bind(folder.at("case/socket.evtx")).unwrap();
    folder.pipe("case/pipe.etl");
    let summary = folder.at("s.json");
    let run_all = run(PROGRAM, ["replay", "--summary", &summary, &case]);
    assert_eq!((run_all.code, run_all.lines().len()), (Some(1), 1), "{}", run_all.stderr);
    for word in
        ["zero.jsonl: it is a device", "socket.evtx: it is a socket", "pipe.etl: it is a pipe", "linked"]
    {
        assert!(run_all.stderr.contains(word), "{word} in {}", run_all.stderr);
    }
    let summary = read_json(&summary);
    assert_eq!(
        (&summary["damaged"]["unreadable"], &summary["skipped"]["linked_folders"]),
        (&3.into(), &1.into())
    );

    // Devices and pipes without a writer are not read if a small file is expected.
    let zero = folder.at("zero.yml");
    symlink("/dev/zero", &zero).unwrap();
    let trace = folder.at("case/a.jsonl");
    let sends = ["replay", "--collector", "localhost:1", "--spool"];
    let spool = folder.at("spool.db");
    let rows: [(&[&str], i32); 9] = [
        (&["replay", &zero], 1),
        (&["trace", &zero], 1),
        (&["rules", "check", &zero], 2),
        (&["replay", "--rules", &zero, &trace], 2),
        (&["config", "check", &zero], 2),
        (&["hits", &zero], 2),
        (&["replay", "--store", &zero, &trace], 2),
        (&[sends.as_slice(), &[&spool, "--bundle", &zero, &trace]].concat(), 2),
        (&[sends.as_slice(), &[&zero, "--insecure-loopback", &trace]].concat(), 2),
    ];
    for (args, code) in rows {
        let run = run(PROGRAM, args);
        assert_eq!(run.code, Some(code), "{args:?}: {}", run.stderr);
        assert!(
            run.stderr.contains("zero.yml") && run.stderr.contains("it is a device"),
            "{args:?}: {}",
            run.stderr
        );
    }
    let collector = run(super::COLLECTOR, ["config", "check", &zero]);
    assert_eq!(collector.code, Some(2));
    assert!(collector.stderr.contains("it is a device"), "{}", collector.stderr);
    assert_eq!(std::fs::read_dir(&case).unwrap().count(), 5, "nothing was written beside them");
}
