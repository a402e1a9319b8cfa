//! The store on the command line: rules with the same title, copies of a trace, texts with U+0000, private files.

use etwsieve_tests::program::{Program, Run, run};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const PROGRAM: Program = Program::Etwsieve;

struct Case {
    folder: TempDir,
}

impl Case {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
        fs::write(&path, text).expect("the file is written");
        path
    }

    /// Replays traces with the rules in `rules.yml` to `hits.db`.
    fn replay(&self, traces: &[&Path]) -> Run {
        let (rules, store) = (self.path("rules.yml"), self.path("hits.db"));
        let options = ["replay", "--format", "jsonl", "--rules", text(&rules), "--store", text(&store)];
        let run = run(PROGRAM, options.into_iter().chain(traces.iter().map(|path| text(path))));
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        run
    }

    fn stats(&self) -> String {
        let stats = run(PROGRAM, ["hits", "--stats", text(&self.path("hits.db"))]).stdout;
        stats.lines().next().unwrap_or_default().to_owned()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

fn rule(title: &str, word: &str) -> String {
    format!(
        "title: {title}\nlogsource:\n  product: windows\n  category: ps_script\ndetection:\n  s:\n    ScriptBlockText|contains: {word}\n  condition: s\n"
    )
}

/// Returns a line of a JSON Lines trace.
fn event(time: &str, script: &str, block: u32) -> String {
    let id = format!("{block:08x}-d4cc-4a10-b04e-417ef95bc8b6");
    let line = json!({
        "time": time, "event_id": 4104, "process_id": 7, "script_block_text": script, "script_block_id": id, "path": "",
    });
    format!("{line}\n")
}

const TIME: &str = "2026-11-30T10:00:00Z";

/// Rules without an id that have the same title are different rules, in every output and in the store.
#[test]
fn rules_without_an_id_and_with_the_same_title_are_counted_separately() {
    let case = Case::new();
    case.write("rules.yml", &[rule("Same", "one"), rule("Same", "two"), rule("Same", "two")].join("---\n"));
    let trace = case.write("a.jsonl", &(event(TIME, "one two", 1) + &event(TIME, "one", 2)));
    let first = case.replay(&[&trace]);
    let ids: Vec<Value> = first.lines().iter().map(|line| line["rule_id"].clone()).collect();
    assert_eq!(ids.len(), 4, "{}", first.stdout);
    assert_eq!(ids[0], ids[3]);
    assert!(ids[1] != ids[0] && ids[2] != ids[1], "{ids:?}");
    let prefix = etwsieve_transport::hit::DERIVED_ID_PREFIX;
    assert!(ids.iter().all(|id| id.as_str().is_some_and(|id| id.starts_with(prefix))), "{ids:?}");
    assert_eq!(case.stats(), "2 events with hits, 4 detections");
    // The store recognises the rules in other files.
    fs::remove_file(case.path("rules.yml")).expect("the rules are removed");
    case.write("rules.yml/b.yml", &rule("Same", "'two'"));
    case.write("rules.yml/a.yml", &(rule("Same", "two") + "---\n" + &rule("Same", "one")));
    case.replay(&[&trace]);
    assert_eq!(case.stats(), "2 events with hits, 4 detections");
}

#[test]
fn a_copy_of_a_trace_adds_nothing_and_equal_events_are_kept() {
    let case = Case::new();
    case.write("rules.yml", &rule("T", "hit"));
    // Two equal lines, and a script of two fragments that matches only when joined.
    let lines = event(TIME, "hit", 1).repeat(2) + &event(TIME, "no", 2);
    let fragment = |number: u32, script: &str| {
        let mut line: Value = serde_json::from_str(&event(TIME, script, 3)).expect("a line");
        (line["message_number"], line["message_total"]) = (number.into(), 2.into());
        format!("{line}\n")
    };
    let lines = lines + &fragment(1, "a hi") + &fragment(2, "t z");
    let trace = case.write("a.jsonl", &lines);
    let shown = case.replay(&[&trace]).lines();
    let scopes: Vec<&str> = shown.iter().filter_map(|line| line["scope"].as_str()).collect();
    assert_eq!(scopes, ["event", "event", "block"]);
    let stats = "3 events with hits, 3 detections";
    assert_eq!(case.stats(), stats);
    // The same trace again, in another path, in a longer export, and twice in one run.
    let copy = case.write("other/b.jsonl", &lines);
    let longer = case.write("longer.jsonl", &(event(TIME, "before", 9).repeat(5) + &lines));
    for traces in [&[&*trace][..], &[&copy], &[&longer], &[&trace, &copy]] {
        case.replay(traces);
        assert_eq!(case.stats(), stats, "{traces:?}");
    }
    let more = case.write("more.jsonl", &(lines + &event(TIME, "hit", 1)));
    case.replay(&[&more]);
    assert_eq!(case.stats(), "4 events with hits, 4 detections");
}

#[test]
fn queries_see_text_after_a_nul() {
    let case = Case::new();
    case.write("rules.yml", &rule("T", "hit"));
    let script = "hit \0 \u{7} \u{1b}[31m \u{2028} <script>";
    let trace = case.write("a.jsonl", &event(TIME, script, 1));
    let shown = case.replay(&[&trace]);
    assert_eq!(shown.lines()[0]["script_block_text"], script, "JSON has the original");
    let store = Connection::open(case.path("hits.db")).expect("the store opens");
    for from in ["hits", "detections"] {
        let column = if from == "hits" { "script_block_text" } else { "ScriptBlockText" };
        let query = format!("SELECT {column}, length({column}) FROM {from} WHERE {column} LIKE '%<script>'");
        let (found, length): (String, usize) =
            store.query_row(&query, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("it is found");
        assert_eq!((found, length), (script.replace('\0', "\u{2400}"), script.chars().count()), "{from}");
    }
    let kept = run(PROGRAM, ["hits", "--format", "jsonl", text(&case.path("hits.db"))]);
    assert_eq!(kept.stdout, shown.stdout, "the store gives back the original");
}

#[test]
fn times_outside_the_range_of_other_programs() {
    let case = Case::new();
    let rules = case.write("rules.yml", &rule("T", "hit"));
    let times = ["1601-01-01T00:00:00Z", "1969-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.9999999Z"];
    let lines: String = (1..).zip(times).map(|(block, time)| event(time, "hit", block)).collect();
    let trace = case.write("a.jsonl", &lines);
    let run = run(PROGRAM, ["replay", "--format", "splunk", "--rules", text(&rules), text(&trace)]);
    let seconds: Vec<Value> = run.lines().iter().map(|line| line["time"].clone()).collect();
    assert_eq!(seconds, ["-11644473600.0000000", "-0.0000001", "253402300799.9999999"]);
}

/// Even with a permissive umask other users cannot read scripts.
#[cfg(unix)]
#[test]
fn files_with_scripts_are_private() {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;
    let case = Case::new();
    case.write("rules.yml", &rule("T", "hit"));
    let trace = case.write("a.jsonl", &event(TIME, "hit", 1));
    let out = case.path("out");
    fs::create_dir(&out).expect("a folder");
    // Nothing listens on this port, so the hit stays in the spool.
    let script = "umask 000; exec \"$0\" replay --rules \"$1\" --store \"$3/hits.db\" --collector 127.0.0.1:9 \
        --insecure-loopback --collector-wait 1 --spool \"$3/spool/\" \"$2\"";
    let rules = case.path("rules.yml");
    let status = Command::new("sh")
        .args(["-c", script, PROGRAM.path().to_str().unwrap(), text(&rules), text(&trace), text(&out)])
        .status()
        .expect("the program starts");
    assert_eq!(status.code(), Some(1), "the hit could not be sent");
    let mut files = Vec::new();
    for folder in [out.clone(), out.join("spool")] {
        for entry in fs::read_dir(folder).expect("the folder is there") {
            let entry = entry.expect("an entry");
            let metadata = entry.metadata().expect("its permissions");
            let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(metadata.permissions().mode() & 0o777, expected, "{}", entry.path().display());
            files.push(entry.file_name());
        }
    }
    for name in ["hits.db", "spool.db", "spool.db-lock"] {
        assert!(files.iter().any(|file| file == name), "{name} in {files:?}");
    }
}
