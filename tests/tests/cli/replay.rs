//! Replay and the store on the command line: formats, exit codes, summaries, stopping.

use etwsieve_tests::program::{Program, command, run};
use etwsieve_tests::writer::{EventSpec, TraceWriter, script_block};
use etwsieve_tests::{corpus, demo};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use tempfile::TempDir;

const PROGRAM: Program = Program::Etwsieve;
const ID: &str = "339311ba-d4cc-4a10-b04e-417ef95bc8b6";
const HIT: &str = "Enter-PSSession -ComputerName srv01";

fn demo_path() -> PathBuf {
    corpus::repository().join(demo::PATH)
}

/// Writes a trace of `count` events on several processors, of which every tenth is a hit.
fn write_trace(path: &str, count: u32) {
    let mut writer = TraceWriter::new().processors(4);
    for number in 0..count {
        let text = if number % 10 == 0 { HIT } else { "Get-Date" };
        let payload = script_block(1, 1, text, &format!("{number:08x}{}", &ID[8..]), None);
        // Two events have the same time, so their order is that within the trace.
        let event = EventSpec::powershell(4104, payload).at(u64::from(number / 2) * 1000).by(8, 12);
        writer.push(event.on((number % 4) as u16));
    }
    fs::write(path, writer.build()).expect("the trace is written");
}

fn path_in(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).into_os_string().into_string().expect("temporary folders have plain names")
}

fn read_json(path: &str) -> Value {
    let text = fs::read_to_string(path).expect("the file was written");
    serde_json::from_str(&text).expect("it holds JSON")
}

#[test]
fn a_line_has_the_fields_of_the_contract_in_their_order() {
    let run = run(PROGRAM, ["replay".as_ref(), demo_path().as_os_str()]);
    let first = run.stdout.lines().next().unwrap();
    let keys = [
        "time",
        "rule_id",
        "rule_title",
        "level",
        "attack",
        "scope",
        "view",
        "source",
        "provider",
        "event_id",
        "event_version",
        "event_level",
        "task",
        "opcode",
        "keywords",
        "computer",
        "user_sid",
        "process_id",
        "thread_id",
        "activity_id",
        "event_record_id",
        "message_number",
        "message_total",
        "script_block_text",
        "script_block_id",
        "path",
        "partial",
        "beyond_nul",
        "transformations",
        "spans",
        "cut",
    ];
    let line: Value = serde_json::from_str(first).unwrap();
    assert_eq!(line.as_object().unwrap().keys().collect::<Vec<_>>(), keys);
    assert_eq!(line["time"], "2026-03-02T21:09:33.0043210Z");
    assert_eq!((&line["scope"], &line["view"]), (&"event".into(), &"raw".into()));
    assert_eq!(line["provider"], "a0c1853b-5c40-4b15-8766-3cf1c58f985a");
    assert_eq!((&line["computer"], &line["event_record_id"]), (&Value::Null, &Value::Null));
}

#[test]
fn output_does_not_depend_on_threads() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (path_in(&folder, "a.etl"), path_in(&folder, "b.etl"));
    write_trace(&a, 5_000);
    write_trace(&b, 3_000);
    let once = run(PROGRAM, ["replay", "--threads", "1", &a, &b]);
    assert_eq!(once.lines().len(), 800);
    let times: Vec<_> = once.lines().iter().map(|line| line["time"].as_str().unwrap().to_owned()).collect();
    assert!(times.is_sorted());
    for threads in ["2", "3", "8"] {
        let again = run(PROGRAM, ["replay", "--threads", threads, &a, &b]);
        assert!(again.stdout == once.stdout, "{threads} threads");
    }
}

#[test]
fn the_summary_adds_up() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, summary) = (path_in(&folder, "a.etl"), path_in(&folder, "run.json"));
    write_trace(&trace, 1_000);
    let demo = demo_path();
    let run = run(PROGRAM, ["replay", "--summary", &summary, &trace, demo.to_str().unwrap()]);
    assert_eq!(run.code, Some(0));
    let summary = read_json(&summary);
    let number = |value: &Value, key: &str| value[key].as_u64().unwrap_or_else(|| panic!("{key} in {value}"));
    for part in [&summary, &summary["sources"][0], &summary["sources"][1]] {
        assert_eq!(
            number(part, "events_seen"),
            number(part, "events_selected") + number(part, "events_other")
        );
        assert_eq!(
            number(part, "events_selected"),
            number(part, "events_matched") + number(part, "events_not_matched")
        );
        assert!(part["elapsed_seconds"].as_f64().unwrap() > 0.0);
        assert_eq!((&part["dropped"], &part["damaged"]), (&serde_json::json!({}), &serde_json::json!({})));
    }
    let trace = &summary["sources"][0];
    assert_eq!(
        (number(trace, "events_selected"), number(trace, "events_matched"), number(trace, "detections")),
        (1000, 100, 100)
    );
    assert_eq!(number(&summary, "detections") as usize, run.lines().len());
    assert_eq!(
        number(&summary, "events_seen"),
        number(trace, "events_seen") + number(&summary["sources"][1], "events_seen")
    );
}

#[test]
fn damaged_and_missing_inputs_give_exit_code_1_and_the_rest_is_processed() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, cut, summary) =
        (path_in(&folder, "whole.etl"), path_in(&folder, "cut.etl"), path_in(&folder, "s.json"));
    write_trace(&whole, 2_000);
    let bytes = fs::read(&whole).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 2 + 77]).unwrap();
    let text = path_in(&folder, "notes.etl");
    fs::write(&text, "this is not a trace, only text that is long enough to be examined").unwrap();
    let gone = path_in(&folder, "gone.etl");

    let run = run(PROGRAM, ["replay", "--summary", &summary, &cut, &text, &gone, &whole]);
    assert_eq!(run.code, Some(1));
    for word in ["gone.etl", "notes.etl", "offset"] {
        assert!(run.stderr.contains(word), "{word} in {}", run.stderr);
    }
    let hits_of = |name: &str| run.lines().iter().filter(|line| line["source"] == name).count();
    assert_eq!(hits_of(&whole), 200);
    assert!((1..200).contains(&hits_of(&cut)), "{} hits", hits_of(&cut));
    let summary = read_json(&summary);
    assert_eq!(summary["damaged"]["unreadable"], 2);
    assert!(summary["damaged"].as_object().unwrap().len() > 1, "{summary}");
}

#[test]
fn packed_files_say_how_to_unpack_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_in(&folder, "trace.etl.zst");
    fs::write(&path, [0x28, 0xB5, 0x2F, 0xFD, 0, 0, 0, 0, 0]).unwrap();
    let run = run(PROGRAM, ["replay", &path]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("zstd -d"), "{}", run.stderr);
}

#[test]
fn wrong_usage_and_rejected_rules_give_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let good = path_in(&folder, "good.yml");
    fs::write(&good, etwsieve_matcher::builtin::TEXT).unwrap();
    let bad = path_in(&folder, "bad.yml");
    fs::write(
        &bad,
        etwsieve_matcher::builtin::TEXT.replace("|contains|", "|resembles|").replace("id: a4", "id: b4"),
    )
    .unwrap();
    let demo = demo_path();
    let demo = demo.to_str().unwrap();

    assert_eq!(run(PROGRAM, ["replay"]).code, Some(2));
    assert_eq!(run(PROGRAM, ["replay", "--format", "xml", demo]).code, Some(2));
    assert_eq!(run(PROGRAM, ["replay", "--threads", "0", demo]).code, Some(2));
    let refused = run(PROGRAM, ["replay", "--rules", &bad, demo]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
    let line =
        1 + fs::read_to_string(&bad).unwrap().lines().position(|line| line.contains("resembles")).unwrap();
    let expected = format!("bad.yml:{line}: unknown modifier `resembles`");
    assert!(refused.stderr.contains(&expected), "{}", refused.stderr);
    let folder_of_rules = folder.path().to_str().unwrap();
    assert_eq!(run(PROGRAM, ["replay", "--rules", folder_of_rules, demo]).code, Some(2));
    let allowed = run(PROGRAM, ["replay", "--allow-bad-rules", "--rules", folder_of_rules, demo]);
    assert_eq!((allowed.code, allowed.lines().len()), (Some(0), demo::DETECTIONS));
    assert!(allowed.stderr.contains("resembles"), "{}", allowed.stderr);

    let check = run(PROGRAM, ["rules", "check", &good]);
    assert_eq!(check.code, Some(0));
    assert!(
        check.stdout.starts_with("rules: 1 loaded, 0 for other log sources, 0 filters applied, 0 rejected"),
        "{}",
        check.stdout
    );
    assert_eq!(run(PROGRAM, ["rules", "check", &bad]).code, Some(2));
    assert_eq!(run(PROGRAM, ["rules", "check", &path_in(&folder, "none")]).code, Some(2));
}

#[test]
fn filters_are_allow_lists() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(path_in(&folder, "rule.yml"), etwsieve_matcher::builtin::TEXT).unwrap();
    let filter = "title: the night shift's short cut\nlogsource:\n  product: windows\n  category: ps_script\nfilter:\n  rules:\n    - a4e8f3a4-48b2-11ec-bcfc-3e22fbd008af\n  jump:\n    Path|endswith: \\jump.ps1\n  condition: not jump\n";
    fs::write(path_in(&folder, "filter.yml"), filter).unwrap();
    let demo = demo_path();
    let run = run(PROGRAM, ["replay", "--rules", folder.path().to_str().unwrap(), demo.to_str().unwrap()]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(run.lines().len(), demo::DETECTIONS - 1);
}

#[test]
fn every_format_has_a_line_for_each_detection() {
    let demo = demo_path();
    let of = |format| run(PROGRAM, ["replay", "--format", format, demo.to_str().unwrap()]);
    let ecs = of("ecs").lines();
    assert_eq!(ecs.len(), demo::DETECTIONS);
    assert_eq!(ecs[0]["rule"]["id"], "a4e8f3a4-48b2-11ec-bcfc-3e22fbd008af");
    assert_eq!(ecs[0]["threat"]["technique"]["id"][0], "T1021.006");
    assert!(ecs[0].get("host").is_none(), "absent values are left out: {}", ecs[0]);
    let splunk = of("splunk").lines();
    assert_eq!(splunk[0]["event"]["signature"], "Creating Scriptblock text (1 of 1)");
    assert_eq!(splunk[0]["event"]["dest"], 0);
    assert_eq!(splunk[0]["time"], "1772485773.0043210");
    let table = of("table").stdout;
    assert_eq!(table.lines().count(), demo::DETECTIONS + 1);
    assert!(!table.contains('\x1b'), "no colours outside a terminal");
}

#[test]
fn the_store_keeps_each_hit_once_and_returns_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = path_in(&folder, "hits.db");
    let demo = demo_path();
    let demo = demo.to_str().unwrap();
    let first = run(PROGRAM, ["replay", "--store", &store, demo]);
    let second = run(PROGRAM, ["replay", "--store", &store, demo]);
    assert_eq!((first.code, second.code), (Some(0), Some(0)), "{}{}", first.stderr, second.stderr);
    let kept = run(PROGRAM, ["hits", &store]);
    assert_eq!(kept.code, Some(0), "{}", kept.stderr);
    assert_eq!(kept.stdout, first.stdout, "the store gives back what was printed");
    let stats = run(PROGRAM, ["hits", "--stats", &store]);
    assert!(stats.stdout.starts_with("2 events with hits, 2 detections"), "{}", stats.stdout);
    assert_eq!(run(PROGRAM, ["hits", &path_in(&folder, "none.db")]).code, Some(2));
    let other = path_in(&folder, "other.db");
    fs::write(
        &other,
        "not a database, but long enough to be read as the header of one, were it one ..........",
    )
    .unwrap();
    let refused = run(PROGRAM, ["replay", "--store", &other, demo]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
    assert!(refused.stderr.contains("other.db"), "{}", refused.stderr);
}

#[cfg(unix)]
#[test]
fn follow_prints_each_hit_once_and_ctrl_c_ends_it() {
    use std::io::{BufRead as _, BufReader};
    let folder = tempfile::tempdir().unwrap();
    let store = path_in(&folder, "hits.db");
    let demo = demo_path().display().to_string();
    assert_eq!(run(PROGRAM, ["replay", "--store", &store, &demo]).code, Some(0));
    let mut child = command(PROGRAM, ["hits", "--follow", "--format", "jsonl", &store])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = |count: usize| -> Vec<Value> {
        lines.by_ref().take(count).map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
    };
    let first = next(2);
    assert!(first.iter().all(|line| line["source"] == demo.as_str()), "{first:?}");
    // New hits are printed while it runs, each once.
    for round in 1..=3 {
        // Each file has another event, since the same event from another path would add nothing.
        let payload = script_block(1, 1, HIT, ID, None);
        let mut writer = TraceWriter::new();
        writer.push(EventSpec::powershell(4104, payload).at(round * 1000).by(8, 12));
        let trace = path_in(&folder, &format!("more{round}.etl"));
        fs::write(&trace, writer.build()).unwrap();
        assert_eq!(run(PROGRAM, ["replay", "--store", &store, &trace]).code, Some(0));
        let line = next(1).remove(0);
        assert_eq!(line["source"], trace.as_str(), "{line}");
    }
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(lines.count(), 0);
}

#[test]
fn help_has_examples_and_exit_codes() {
    for command in ["replay", "hits", "trace"] {
        let help = run(PROGRAM, [command, "--help"]);
        assert_eq!(help.code, Some(0));
        assert!(help.stdout.contains("Examples:"), "{command}: {}", help.stdout);
    }
    assert!(run(PROGRAM, ["--help"]).stdout.contains("Exit codes:"));
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let trace = path_in(&folder, "a.etl");
    write_trace(&trace, 20_000);
    let mut child =
        command(PROGRAM, ["replay", &trace]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty());
}

/// The input is an endless pipe, so that the signal arrives during the replay however fast the machine is.
#[cfg(unix)]
#[test]
fn ctrl_c_stops_with_a_consistent_summary() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::Command;

    let folder = tempfile::tempdir().unwrap();
    let (pipe, summary) = (path_in(&folder, "endless.jsonl"), path_in(&folder, "s.json"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut child = command(PROGRAM, ["-v", "replay", "--summary", &summary, &pipe])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let line = serde_json::json!({
        "time_created": "2026-03-02T21:09:33.0043210Z", "event_id": 4104, "message_number": 1, "message_total": 1,
        "provider_guid": "a0c1853b-5c40-4b15-8766-3cf1c58f985a", "script_block_text": HIT, "script_block_id": ID,
    });
    let id = child.id();
    let feeder = std::thread::spawn(move || {
        let mut pipe = fs::OpenOptions::new().write(true).open(&pipe).unwrap();
        for number in 0.. {
            if writeln!(pipe, "{line}").is_err() {
                break;
            }
            if number == 1000 {
                Command::new("kill").args(["-INT", &id.to_string()]).status().unwrap();
            }
        }
    });
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let lines = stdout.lines().map_while(Result::ok).count() as u64;
    let mut stderr = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{stderr}");
    feeder.join().unwrap();
    assert!(stderr.contains("stopped after"), "{stderr}");
    let summary = read_json(&summary);
    assert_eq!(summary["interrupted"], true);
    assert!(lines > 0);
    assert_eq!(summary["events_matched"], lines);
    assert_eq!(summary["events_selected"], lines);
}

#[test]
fn an_event_may_match_hundreds_of_rules() {
    let folder = tempfile::tempdir().unwrap();
    let rule =
        |number: u32| etwsieve_matcher::builtin::TEXT.replace("id: a4e8f3a4", &format!("id: {number:08x}"));
    let rules: Vec<String> = (0..500).map(rule).collect();
    let (file, store) = (path_in(&folder, "rules.yml"), path_in(&folder, "hits.db"));
    fs::write(&file, rules.join("---\n")).unwrap();
    let demo = demo_path();
    let first = run(PROGRAM, ["replay", "--rules", &file, "--store", &store, demo.to_str().unwrap()]);
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let ids: Vec<String> =
        first.lines().iter().map(|line| line["rule_id"].as_str().unwrap()[..8].to_owned()).collect();
    let expected: Vec<String> = (0..2).flat_map(|_| (0..500).map(|number| format!("{number:08x}"))).collect();
    assert_eq!(ids, expected);
    assert_eq!(run(PROGRAM, ["hits", &store]).stdout, first.stdout);
}
