//! Detections on the corpus equal the verdicts of independent engines, row by row.

use etwsieve_tests::corpus;
use etwsieve_tests::program::{Program, Run, cell, run};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

const PROGRAM: Program = Program::Etwsieve;
/// The columns that identify a rule and an event of a trace.
const ROW: [&str; 5] = ["rule_id", "time", "event_id", "script_block_id", "message_number"];
const SIGMA: &[&str] = &["sigma/ps_script"];
const ESCU: &[&str] = &["splunk-escu"];
const BOTH_EVENTS: &[&str] = &["sigma/ps_script", "sigma/ps_module"];
const SIGMA_AND_ESCU: &[&str] = &["sigma/ps_script", "splunk-escu"];

fn replay(data: &Path, rules: &[&str], path: PathBuf) -> Run {
    let mut args: Vec<OsString> =
        ["replay", "--format", "jsonl", "--scope", "event", "--view", "raw"].map(OsString::from).into();
    for folder in corpus::rules(data, rules) {
        args.extend(["--rules".into(), folder.into()]);
    }
    args.push(path.into());
    let run = run(PROGRAM, args);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    run
}

/// Counts how often each row occurs.
fn counted(rows: impl IntoIterator<Item = Vec<String>>) -> BTreeMap<Vec<String>, usize> {
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(row).or_default() += 1;
    }
    counts
}

fn assert_same(name: &str, got: &BTreeMap<Vec<String>, usize>, expected: &BTreeMap<Vec<String>, usize>) {
    assert!(!expected.is_empty(), "{name}: there are expected rows");
    let missing: Vec<_> = expected.iter().filter(|(row, count)| got.get(*row) != Some(count)).collect();
    let extra: Vec<_> = got.iter().filter(|(row, count)| expected.get(*row) != Some(count)).collect();
    assert!(missing.is_empty() && extra.is_empty(), "{name}: missing {missing:?}, extra {extra:?}");
}

/// Replays a trace and compares its rows with a file of verdicts.
fn compare(trace: &str, rules: &[&str], verdicts: &str) {
    let Some(data) = corpus::data() else { return };
    let lines = replay(&data, rules, corpus::trace(&data, trace)).lines();
    let got = counted(lines.iter().map(|line| ROW.map(|key| cell(line, key)).to_vec()));
    let expected = counted(corpus::csv_rows(&data.join("traces").join(verdicts), &ROW));
    assert_same(verdicts, &got, &expected);
}

#[test]
fn sigma() {
    compare("powershell-4104.etl", SIGMA, "verdicts-sigma.csv");
}

#[test]
fn escu() {
    compare("powershell-4104.etl", ESCU, "verdicts-escu.csv");
}

#[test]
fn script_blocks_and_module_logging() {
    compare("powershell-mixed.etl", BOTH_EVENTS, "verdicts-mixed.csv");
}

#[test]
fn bench_benign() {
    compare("bench-benign.etl", SIGMA_AND_ESCU, "verdicts-bench-benign.csv");
}

#[test]
fn bench_busy() {
    compare("bench-busy.etl", SIGMA_AND_ESCU, "verdicts-bench-busy.csv");
}

/// Excludes the blocks that test case folding outside ASCII, on which the engines differ.
#[test]
fn generated_events() {
    let Some(data) = corpus::data() else { return };
    let folder = data.join("traces");
    let left_out: BTreeSet<String> =
        corpus::csv_rows(&folder.join("synth-uni-blocks.csv"), &["script_block_id"])
            .concat()
            .into_iter()
            .collect();
    let lines = replay(&data, SIGMA, corpus::trace(&data, "synth.etl")).lines();
    let compared = lines.iter().filter(|line| !left_out.contains(&cell(line, "script_block_id")));
    let got = counted(compared.map(|line| ROW.map(|key| cell(line, key)).to_vec()));
    let expected = counted(corpus::csv_rows(&folder.join("verdicts-synth.csv"), &ROW));
    assert_same("verdicts-synth.csv", &got, &expected);
}

#[test]
fn built_in_rule_on_hand_made_cases() {
    let Some(data) = corpus::data() else { return };
    let folder = data.join("traces");
    let lines = replay(&data, &[], corpus::trace(&data, "seed.etl")).lines();
    let rule = "a4e8f3a4-48b2-11ec-bcfc-3e22fbd008af";
    assert!(
        lines
            .iter()
            .all(|line| line["rule_id"] == rule && line["attack"] == serde_json::json!(["T1021.006"]))
    );

    // For each event.
    let keys = ["time", "script_block_id", "message_number"];
    let columns = ["time", "script_block_id", "message_number", "raw_event"];
    let events = corpus::csv_rows(&folder.join("seed.events.csv"), &columns);
    let hits = events.into_iter().filter(|row| row[3] == "yes").map(|row| row[..3].to_vec());
    let got = counted(lines.iter().map(|line| keys.map(|key| cell(line, key)).to_vec()));
    assert_same("seed.events.csv", &got, &counted(hits));

    // For each block and case.
    let blocks: BTreeSet<String> = lines.iter().map(|line| cell(line, "script_block_id")).collect();
    let rows = corpus::csv_rows(&folder.join("seed.expected.csv"), &["case", "script_block_id", "raw_event"]);
    assert!(rows.len() > 100);
    for row in rows {
        assert_eq!(blocks.contains(&row[1]), row[2] == "yes", "case {} of block {}", row[0], row[1]);
    }
}

#[test]
fn event_logs() {
    let Some(data) = corpus::data() else { return };
    let folder = data.join("recorded/evtx");
    let rules = ["sigma/ps_script", "sigma/ps_module", "splunk-escu"];
    let lines = replay(&data, &rules, folder.clone()).lines();
    let got = counted(lines.iter().map(|line| {
        let source = PathBuf::from(cell(line, "source"));
        let file = source
            .strip_prefix(&folder)
            .expect("the source is the file's path")
            .to_str()
            .unwrap()
            .replace('\\', "/");
        vec![cell(line, "rule_id"), file, cell(line, "event_record_id"), cell(line, "event_id")]
    }));
    let columns = ["rule_id", "file", "event_record_id", "event_id"];
    let expected = counted(corpus::csv_rows(&data.join("traces/verdicts-evtx.csv"), &columns));
    assert_same("verdicts-evtx.csv", &got, &expected);
}
