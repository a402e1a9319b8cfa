//! Hits of joined script blocks equal the verdicts of independent engines and those of a naive join, for every number of
//! threads.

use etwsieve_matcher::{EventKind, Field, Fields, Rule, load, naive};
use etwsieve_tests::corpus;
use etwsieve_tests::program::{Program, Run, cell, run};
use etwsieve_tests::writer::script_block;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

const PROGRAM: Program = Program::Etwsieve;
/// The built-in rule about Enter-PSSession and -ComputerName.
const RULE: &str = "a4e8f3a4-48b2-11ec-bcfc-3e22fbd008af";
const ID: &str = "339311ba-d4cc-4a10-b04e-417ef95bc8b6";

fn replay(rules: &[PathBuf], options: &[&str], path: &Path) -> Run {
    let mut args: Vec<OsString> = ["replay", "--format", "jsonl"].map(OsString::from).into();
    args.extend(options.iter().map(OsString::from));
    for folder in rules {
        args.extend(["--rules".into(), folder.into()]);
    }
    args.push(path.into());
    let run = run(PROGRAM, args);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    run
}

/// Returns rule and block id of each line about a joined block.
fn block_rows(lines: &[Value]) -> BTreeSet<Vec<String>> {
    let of_blocks = lines.iter().filter(|line| line["scope"] == "block" && line["partial"] != true);
    of_blocks.map(|line| ["rule_id", "script_block_id"].map(|key| cell(line, key)).to_vec()).collect()
}

fn compare(rules: &[&str], verdicts: &str, lines_min: usize) {
    let Some(data) = corpus::data() else { return };
    let trace = corpus::trace(&data, "powershell-4104.etl");
    let run = replay(&corpus::rules(&data, rules), &["--view", "raw"], &trace);
    let lines = run.lines();
    assert!(lines.len() >= lines_min, "{verdicts}: events hit as before");
    let columns = ["rule_id", "script_block_id"];
    let expected: BTreeSet<_> =
        corpus::csv_rows(&data.join("traces").join(verdicts), &columns).into_iter().collect();
    assert_eq!(block_rows(&lines), expected, "{verdicts}");
}

#[test]
fn sigma() {
    compare(&["sigma/ps_script"], "verdicts-blocks-sigma.csv", 76);
}

#[test]
fn escu() {
    compare(&["splunk-escu"], "verdicts-blocks-escu.csv", 169);
}

/// Checks each case by name: whether an event matches, and whether the joined text matches.
#[test]
fn hand_made_cases() {
    let Some(data) = corpus::data() else { return };
    let mut lines = replay(&[], &["--view", "raw"], &corpus::trace(&data, "seed.etl")).lines();
    lines.retain(|line| line["rule_id"] == RULE);
    let ids = |scopes: &[&str]| -> BTreeSet<String> {
        let chosen = lines.iter().filter(|line| scopes.iter().any(|scope| line["scope"] == *scope));
        chosen.map(|line| cell(line, "script_block_id")).collect()
    };
    let (events, blocks, any) = (ids(&["event"]), ids(&["block"]), ids(&["event", "block"]));
    assert!(events.is_disjoint(&blocks), "nothing is reported twice");
    let columns = ["case", "script_block_id", "raw_event", "raw_block"];
    let rows = corpus::csv_rows(&data.join("traces/seed.expected.csv"), &columns);
    assert!(rows.len() > 100 && !blocks.is_empty());
    for row in rows {
        assert_eq!(events.contains(&row[1]), row[2] == "yes", "event: case {} of block {}", row[0], row[1]);
        assert_eq!(any.contains(&row[1]), row[3] == "yes", "block: case {} of block {}", row[0], row[1]);
    }
    for line in lines.iter().filter(|line| line["scope"] == "block") {
        assert_eq!((&line["view"], &line["message_number"]), (&json!("raw"), &Value::Null));
        let text = cell(line, "script_block_text").to_ascii_lowercase();
        assert!(text.contains("enter-pssession") && text.contains("-computername"), "{line}");
    }
}

/// Checks the column `normalized` of every case: whether the joined text matches with plain dashes and without backticks.
/// The call-aware view finds more and is excluded.
#[test]
fn hand_made_cases_normalised() {
    let Some(data) = corpus::data() else { return };
    let trace = corpus::trace(&data, "seed.etl");
    let lines = replay(&[], &[], &trace).lines();
    let found: BTreeSet<String> = lines
        .iter()
        .filter(|line| line["rule_id"] == RULE && (line["view"] == "raw" || line["view"] == "normalized"))
        .map(|line| cell(line, "script_block_id"))
        .collect();
    let columns = ["case", "script_block_id", "normalized"];
    let rows = corpus::csv_rows(&data.join("traces/seed.expected.csv"), &columns);
    assert_eq!(rows.len(), 181);
    for row in &rows {
        assert_eq!(found.contains(&row[1]), row[2] == "yes", "case {} of block {}", row[0], row[1]);
    }
}

/// A match after U+0000 is marked in each view, in events and in blocks.
#[test]
fn matches_after_a_nul_are_marked() {
    let rows: [(&str, &[&str], &str); 6] = [
        ("raw", &["a\0Enter-PSSession -ComputerName b"], "event"),
        ("normalized", &["a\0Enter\u{2013}PSSess`ion -ComputerName b"], "event"),
        ("normalized", &["a\0iex ('Enter-'+'PSSession -ComputerName b')"], "event"),
        ("call", &["a;\0;etsn b"], "event"),
        ("raw", &["a\0Enter-PSSess", "ion -ComputerName b"], "block"),
        ("normalized", &["a\0Enter-PS`Sess", "ion -ComputerName b"], "block"),
    ];
    for (view, parts, scope) in rows {
        for (nul, expected) in [("\0", true), (" ", false)] {
            let total = parts.len() as i32;
            let line =
                |(number, text): (i32, &&str)| fragment(number, total, &text.replace('\0', nul), ID, 4, 0);
            let lines: String = (1..).zip(parts).map(line).collect();
            let mut file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
            std::io::Write::write_all(&mut file, lines.as_bytes()).unwrap();
            let found = replay(&[], &[], file.path()).lines();
            let [hit] = &found[..] else { panic!("{parts:?}: {found:?}") };
            let facts = (&hit["view"], &hit["scope"], &hit["beyond_nul"]);
            assert_eq!(facts, (&json!(view), &json!(scope), &json!(expected)), "{parts:?}");
        }
    }
}

#[test]
fn output_does_not_depend_on_threads() {
    let Some(data) = corpus::data() else { return };
    let rules = corpus::rules(&data, &["sigma/ps_script", "splunk-escu"]);
    let trace = corpus::trace(&data, "powershell-4104.etl");
    let one = replay(&rules, &["--threads", "1"], &trace).stdout;
    assert!(one.contains("\"scope\":\"block\""));
    for threads in ["2", "5"] {
        assert!(replay(&rules, &["--threads", threads], &trace).stdout == one, "{threads} threads");
    }
}

#[test]
fn scope_and_view_choose() {
    let Some(data) = corpus::data() else { return };
    let rules = corpus::rules(&data, &["splunk-escu"]);
    let trace = corpus::trace(&data, "powershell-4104.etl");
    let count = |options: &[&str], scope: &str| {
        let lines = replay(&rules, options, &trace).lines();
        lines.iter().filter(|line| line["scope"] == scope).count()
    };
    assert_eq!(count(&["--scope", "event", "--view", "raw"], "block"), 0);
    assert_eq!(count(&["--scope", "event", "--view", "raw"], "event"), 169);
    assert!(count(&["--scope", "block", "--view", "raw"], "block") >= 4);
    assert_eq!(count(&["--scope", "block", "--view", "raw"], "event"), 0);
    let refused = run(PROGRAM, ["replay", "--scope", "file", "x.etl"]);
    assert_eq!(refused.code, Some(2));
}

fn rule_set(data: &Path, folder: &str) -> Vec<Rule> {
    let folder = data.join("rules").join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "yml"));
    files.sort();
    let texts: Vec<(String, String)> =
        files.iter().map(|path| (path.display().to_string(), fs::read_to_string(path).unwrap())).collect();
    load(texts.iter().map(|(name, text)| (name.as_str(), text.as_str()))).rules
}

/// Maximum size of a block in bytes for the naive evaluator, which is quadratic.
const NAIVE_BLOCK_LEN_MAX: usize = 100_000;
/// Maximum number of blocks of a trace for the naive evaluator.
const NAIVE_BLOCKS_MAX: usize = 40;

/// Compares with a naive join of the first blocks of the corpus that have several events and are not too long.
#[test]
fn blocks_of_the_corpus_equal_the_naive_join() {
    let Some(data) = corpus::data() else { return };
    let rules = rule_set(&data, "splunk-escu");
    assert!(rules.len() > 50);
    for name in ["powershell-4104.etl", "seed.etl"] {
        let path = corpus::trace(&data, name);
        let bytes = fs::read(&path).unwrap();
        let trace = etwsieve_etl::Trace::new(&bytes).unwrap();
        let mut fragments: Vec<(Option<u32>, Vec<u8>)> = Vec::new();
        let mut events = trace.events();
        while let Some(event) = events.next() {
            let fields = Fields::split(EventKind::ScriptBlock, event.payload);
            let numbers = (fields.number(Field::MessageNumber), fields.number(Field::MessageTotal));
            if event.event_id == Some(4104) && numbers != (Some(1), Some(1)) {
                fragments.push((event.process_id, event.payload.to_vec()));
            }
        }
        let id = |payload: &[u8]| {
            let fields = Fields::split(EventKind::ScriptBlock, payload);
            fields.text(Field::ScriptBlockId).unwrap_or_default().to_vec()
        };
        let mut lens = BTreeMap::<Vec<u8>, usize>::new();
        for (_, payload) in &fragments {
            *lens.entry(id(payload)).or_default() += payload.len();
        }
        let taken: BTreeSet<Vec<u8>> = lens
            .into_iter()
            .filter(|(_, len)| *len <= NAIVE_BLOCK_LEN_MAX)
            .map(|(id, _)| id)
            .take(NAIVE_BLOCKS_MAX)
            .collect();
        fragments.retain(|(_, payload)| taken.contains(&id(payload)));
        let borrowed: Vec<_> = fragments.iter().map(|(process, bytes)| (*process, &bytes[..])).collect();
        let mut expected = BTreeMap::<Vec<String>, bool>::new();
        for block in naive::blocks(&rules, &borrowed) {
            let fields = Fields::split(EventKind::ScriptBlock, borrowed[block.first].1);
            let id = fields.text(Field::ScriptBlockId).unwrap();
            let id: Vec<u16> = id.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
            for rule in block.rules {
                let row = vec![rules[rule as usize].id.clone(), String::from_utf16(&id).unwrap()];
                expected.insert(row, block.is_partial);
            }
        }
        let options = ["--scope", "block", "--view", "raw"];
        let lines = replay(&corpus::rules(&data, &["splunk-escu"]), &options, &path).lines();
        let is_taken = |line: &&Value| {
            let id = cell(line, "script_block_id");
            taken.contains(&id.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>())
        };
        let rows = lines.iter().filter(is_taken).map(|line| {
            let row = ["rule_id", "script_block_id"].map(|key| cell(line, key)).to_vec();
            (row, line["partial"] == true)
        });
        assert_eq!(rows.collect::<BTreeMap<_, _>>(), expected, "{name}: {} fragments", fragments.len());
        assert!(!fragments.is_empty(), "{name} has blocks");
    }
}

/// Returns a line of JSON Lines for a fragment.
fn fragment(number: i32, total: i32, text: &str, id: &str, process_id: u32, second: u32) -> String {
    let line = json!({
        "time": format!("2026-03-01T10:{:02}:{:02}Z", second / 60, second % 60),
        "event_id": 4104,
        "process_id": process_id,
        "message_number": number,
        "message_total": total,
        "script_block_text": text,
        "script_block_id": id,
        "path": "",
    });
    format!("{line}\n")
}

/// Matches the built-in rule against inconsistent fragments.
#[test]
fn inconsistent_fragments() {
    type Row<'a> = (&'a str, Vec<String>, Vec<(bool, &'a str)>);
    let other = ID.replace('3', "4");
    let enter = "Enter-PSSess";
    let rest = "ion -ComputerName srv01";
    let whole = "Enter-PSSession -ComputerName srv01";
    let f = |number, total, text, process_id, second| fragment(number, total, text, ID, process_id, second);
    let rows: Vec<Row<'_>> = vec![
        ("in order", vec![f(1, 2, enter, 4, 0), f(2, 2, rest, 4, 1)], vec![(false, whole)]),
        ("backwards", vec![f(2, 2, rest, 4, 0), f(1, 2, enter, 4, 1)], vec![(false, whole)]),
        (
            "twice",
            vec![f(1, 2, enter, 4, 0), f(1, 2, enter, 4, 1), f(2, 2, rest, 4, 2), f(2, 2, rest, 4, 3)],
            vec![(false, whole)],
        ),
        (
            "another text under the same number",
            vec![f(1, 2, enter, 4, 0), f(1, 2, "x", 4, 1), f(2, 2, rest, 4, 2)],
            vec![(false, whole)],
        ),
        ("two processes", vec![f(1, 2, enter, 4, 0), f(2, 2, rest, 8, 1)], vec![]),
        ("from zero", vec![f(0, 2, enter, 4, 0), f(1, 2, rest, 4, 1)], vec![(true, whole)]),
        ("negative", vec![f(-5, 2, enter, 4, 0), f(-4, 2, rest, 4, 1)], vec![(true, whole)]),
        ("total zero", vec![f(1, 0, enter, 4, 0), f(2, 0, rest, 4, 1)], vec![(true, whole)]),
        (
            "total beyond measure",
            vec![f(1, i32::MAX, enter, 4, 0), f(2, i32::MAX, rest, 4, 1)],
            vec![(true, whole)],
        ),
        (
            "total that grows",
            vec![f(1, 2, enter, 4, 0), f(2, 3, "ion", 4, 1), f(3, 3, " -ComputerName", 4, 2)],
            vec![(false, "Enter-PSSession -ComputerName")],
        ),
        ("first missing", vec![f(2, 3, enter, 4, 0), f(3, 3, rest, 4, 1)], vec![(true, whole)]),
        ("a needle does not cross what is missing", vec![f(1, 3, enter, 4, 0), f(3, 3, rest, 4, 1)], vec![]),
        (
            "two needles with something missing between",
            vec![f(1, 3, "Enter-PSSession", 4, 0), f(3, 3, "-ComputerName", 4, 1)],
            vec![(true, "Enter-PSSession-ComputerName")],
        ),
        ("too late", vec![f(1, 2, enter, 4, 0), f(2, 2, rest, 4, 301)], vec![]),
        ("an event shows it already", vec![f(1, 2, whole, 4, 0), f(2, 2, rest, 4, 1)], vec![]),
        (
            "between others",
            vec![
                f(1, 2, enter, 4, 0),
                fragment(1, 2, "x", &other, 4, 1),
                f(2, 2, rest, 4, 2),
                fragment(2, 2, "y", &other, 4, 3),
            ],
            vec![(false, whole)],
        ),
    ];
    for (name, lines, expected) in rows {
        let mut file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
        std::io::Write::write_all(&mut file, lines.concat().as_bytes()).unwrap();
        let mut found = replay(&[], &["--scope", "block", "--view", "raw"], file.path()).lines();
        found.retain(|line| line["rule_id"] == RULE);
        let rows: Vec<_> = found
            .iter()
            .map(|line| (line["partial"] == true, line["script_block_text"].as_str().unwrap()))
            .collect();
        assert_eq!(rows, expected, "{name}");
        for line in &found {
            assert_eq!(cell(line, "time"), "2026-03-01T10:00:00Z".replace('Z', ".0000000Z"), "{name}");
        }
    }
}

/// Checks the counts of blocks in the summary.
#[test]
fn blocks_are_counted() {
    let lines = [
        fragment(1, 2, "a", ID, 4, 0),
        fragment(1, 2, "b", ID, 4, 0),
        fragment(2, 2, "c", ID, 4, 0),
        fragment(7, 2, "c", ID, 8, 0),
        fragment(1, 1, "single", ID, 4, 0),
        fragment(1, 2, "nameless", "", 4, 0),
    ];
    let folder = tempfile::tempdir().unwrap();
    let (trace, summary) = (folder.path().join("t.jsonl"), folder.path().join("s.json"));
    fs::write(&trace, lines.concat()).unwrap();
    replay(&[], &["--summary", summary.to_str().unwrap()], &trace);
    let summary: Value = serde_json::from_str(&fs::read_to_string(&summary).unwrap()).unwrap();
    let expected = json!({
        "fragments": 5, "duplicates": 1, "lying": 1, "unplaced": 1, "reduced": 0, "joined": 1, "partial": 1,
        "evicted": 0, "detections": 0,
    });
    assert_eq!(summary["blocks"], expected);
    assert_eq!(summary["sources"][0]["blocks"], expected);
    // The trace writer encodes fragments in the same way as the lines above.
    assert!(script_block(1, 2, "a", ID, None).starts_with(&[1, 0, 0, 0, 2, 0, 0, 0]));
}
