//! Texts of rules, sensors and file names cannot send escape sequences to the terminal.

use super::PROGRAM;
use super::support::{Folder, HIT, line};
use etwsieve_tests::program::{Run, command, run};
use etwsieve_tests::samples;
use etwsieve_transport::hit::{EventContent, HitV1, RuleRefV1};
use etwsieve_transport::printable::is_hidden;
use etwsieve_transport::store::Store;
use std::fs;

/// Escape sequences and control characters that clear the screen, set a title, start a new line, change the direction of
/// text or hide a letter; some in 8-bit form.
const HOSTILE: &str = "\x1b[2J\x1b]0;x\x07\nerror: none\r\u{202e}gpj\u{200b}\u{9b}31m\u{2066}";

/// Checks that the output contains no control characters except line ends, and that no line starts as [`HOSTILE`] intends.
fn check(run: &Run, what: &str) {
    for text in [&run.stdout, &run.stderr] {
        assert!(!text.chars().any(|c| c != '\n' && is_hidden(c)), "{what}: {text:?}");
        assert!(!text.lines().any(|line| line.starts_with("error: none")), "{what}: {text:?}");
    }
}

fn hostile_hit() -> HitV1 {
    HitV1 {
        source: format!("{HOSTILE}.etl"),
        provider: [7; 16],
        computer: Some(format!("srv{HOSTILE}")),
        process_id: Some(4242),
        rules: vec![RuleRefV1 {
            id: format!("id{HOSTILE}"),
            title: format!("title{HOSTILE}"),
            level: format!("high{HOSTILE}"),
            attack: vec![HOSTILE.into()],
            ..RuleRefV1::default()
        }],
        ..samples::hit(1, EventContent::Notice { detail: HOSTILE.into() })
    }
}

#[test]
fn tables_of_hits_are_clean() {
    let folder = Folder::new();
    let store = folder.at("hits.db");
    Store::open(&store).unwrap().insert_batch(&[hostile_hit()]).unwrap();
    for args in [["--format", "table"].as_slice(), &["--stats"], &["--stats", "--computer", "srv"]] {
        let run = run(PROGRAM, ["hits", &store].iter().chain(args));
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        check(&run, "hits");
    }
    let table = run(PROGRAM, ["hits", "--format", "table", &store]).stdout;
    assert_eq!(table.lines().count(), 2, "one line a hit: {table:?}");
    assert!(table.contains("high") && table.contains("title"), "{table:?}");

    let computer = format!("srv{HOSTILE}");
    let trace = folder.write("a.jsonl", line(&format!("{HIT} {HOSTILE}"), &computer));
    let title = format!("title: \"A title \\e[2J\\e]0;x\\a\\n{}\"", "\\u202e\\u009b31m");
    let rule = etwsieve_matcher::builtin::TEXT;
    let first = rule.lines().next().unwrap();
    let rule = folder.write("rule.yml", rule.replacen(first, &title, 1));
    let replayed = run(PROGRAM, ["replay", "--format", "table", "--rules", &rule, &trace]);
    assert_eq!((replayed.code, replayed.stdout.lines().count()), (Some(0), 2), "{}", replayed.stderr);
    check(&replayed, "replay");
    let cost = run(PROGRAM, ["rules", "cost", "--format", "table", "--rules", &rule, &trace]);
    assert_eq!(cost.code, Some(0), "{}", cost.stderr);
    check(&cost, "rules cost");
}

/// File names on Unix may contain any byte; on Windows they cannot contain control characters.
#[cfg(unix)]
#[test]
fn file_names_in_errors_and_warnings_are_clean() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder = Folder::new();
    let case = folder.make(&format!("case{HOSTILE}"));
    let names: [&[u8]; 4] = [b"bad\xff\xfe", b"esc\x1b[31m", b"line\nerror: none", "dir\u{202e}".as_bytes()];
    for name in names {
        let at =
            |ending: &[u8]| std::path::Path::new(&case).join(OsStr::from_bytes(&[name, ending].concat()));
        fs::write(at(b".jsonl"), line(HIT, "srv01") + "{oops\n").unwrap();
        fs::write(at(b".yml"), "title: [\n").unwrap();
        fs::write(at(b".zip"), "PK").unwrap();
    }
    let store = folder.at(&format!("hits{HOSTILE}.db"));
    let commands: [&[&str]; 12] = [
        &[
            "-v",
            "replay",
            "--format",
            "table",
            "--store",
            &store,
            "--summary",
            &format!("{case}/s.json"),
            &case,
        ],
        &["replay", &format!("{case}/gone")],
        &["replay", &format!("{case}/{HOSTILE}*")],
        &["replay", "--summary", &format!("{case}/{HOSTILE}/s"), &case],
        &["replay", HOSTILE, "--no-such-option"],
        &["replay", &format!("--{HOSTILE}")],
        &["trace", &case],
        &["rules", "check", &case],
        &["hits", &format!("{case}/gone")],
        &["hits", "--format", "table", &store],
        &["config", "check", &format!("{case}/gone")],
        &["config", "print", &format!("{case}/gone")],
    ];
    for args in commands {
        check(&run(PROGRAM, args), &format!("{args:?}"));
    }
    let summary = super::support::read_json(format!("{case}/s.json"));
    assert_eq!((&summary["detections"], &summary["skipped"]["packed_files"]), (&4.into(), &4.into()));
    let pki = folder.at(&format!("pki{HOSTILE}"));
    let commands: [&[&str]; 5] = [
        &["pki", "--pki", &pki, "list"],
        &["pki", "--pki", &pki, "init", "--host", "localhost"],
        &["pki", "--pki", &pki, "issue", "ws01"],
        &["status", "--store", &format!("{case}/gone")],
        &["config", "check", &format!("{case}/gone")],
    ];
    for args in commands {
        check(&run(super::COLLECTOR, args), &format!("{args:?}"));
    }
}

#[test]
fn ten_thousand_files_are_read_and_each_is_counted() {
    let folder = Folder::new();
    let case = folder.make("case");
    let line = line("Get-Date", "srv01");
    for number in 0..10_000 {
        fs::write(format!("{case}/{number}.jsonl"), &line).unwrap();
    }
    let summary = folder.at("s.json");
    // Standard error is a file, so the program shows no progress bar.
    let errors = fs::File::create(folder.at("errors")).unwrap();
    let status = command(PROGRAM, ["replay", "--summary", &summary, &case]).stderr(errors).status().unwrap();
    assert_eq!(status.code(), Some(0));
    let summary = super::support::read_json(&summary);
    assert_eq!(
        (summary["events_seen"].as_u64(), summary["sources"].as_array().unwrap().len()),
        (Some(10_000), 10_000)
    );
}
