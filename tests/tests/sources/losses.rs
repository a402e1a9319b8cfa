//! A replay reports the losses that a trace records, besides the counts of its events.

use etwsieve_event::provider::LOST_EVENT;
use etwsieve_tests::program::{Program, run};
use etwsieve_tests::writer::{EventSpec, TraceWriter, script_block};
use serde_json::{Value, json};
use std::fs;

const PROGRAM: Program = Program::Etwsieve;
/// The types of events about losses: a lost event, buffer or file.
const TYPES: [u8; 3] = [32, 33, 34];

fn trace(events_lost: u32, buffers_lost: u32) -> TraceWriter {
    let mut writer = TraceWriter::new();
    (writer.events_lost, writer.buffers_lost) = (events_lost, buffers_lost);
    writer.push(EventSpec::powershell(4104, script_block(1, 1, "Get-Date", "id", None)).at(5));
    writer
}

#[test]
fn a_replay_reports_the_losses_of_its_traces() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (whole, lossy, open, summary) =
        (path("whole.etl"), path("lossy.etl"), path("open.etl"), path("summary.json"));
    fs::write(&whole, trace(0, 0).build()).unwrap();
    let mut writer = trace(7, 3);
    for kind in TYPES {
        writer.push(EventSpec::full(LOST_EVENT, kind).at(9));
    }
    fs::write(&lossy, writer.build()).unwrap();
    // A session that was never closed has no count in the header, but its buffers mark the loss.
    let mut writer = trace(1, 0).never_closed(1);
    writer.push(EventSpec::powershell(4104, vec![0; 65_536]).at(7));
    fs::write(&open, writer.build()).unwrap();
    let run = run(PROGRAM, ["replay", "--summary", &summary, &whole, &lossy, &open]);
    assert_eq!(run.code, Some(0), "what the traces hold was read: {}", run.stderr);
    let summary: Value = serde_json::from_str(&fs::read_to_string(summary).unwrap()).unwrap();
    let losses = |part: &Value| {
        ["events_lost", "buffers_lost", "buffers_marking_loss", "lost_event_records"]
            .map(|key| part[key].clone())
    };
    let sources = &summary["sources"];
    assert_eq!(losses(&sources[0]), [json!(0), json!(0), json!(0), json!(0)]);
    assert_eq!(losses(&sources[1]), [json!(7), json!(3), json!(1), json!(3)]);
    assert_eq!(losses(&sources[2])[2], json!(1), "{}", sources[2]);
    assert_eq!(summary["buffers_lost"], json!(3));
    assert_eq!(summary["events_seen"], json!(sources[0]["events_seen"].as_u64().unwrap() * 3 + 3));
    assert_eq!(
        (&summary["damaged"], &summary["dropped"]),
        (&json!({}), &json!({})),
        "nobody saw these events"
    );
    let warning =
        run.stderr.lines().find(|line| line.contains("lossy.etl")).expect("a warning that names the file");
    assert!(warning.contains("7 events and 3 buffers were lost"), "{warning}");
    assert!(!run.stderr.contains("whole.etl"), "{}", run.stderr);
}

#[test]
fn sources_without_loss_counts_report_none() {
    let folder = tempfile::tempdir().unwrap();
    let (lines, summary) = (folder.path().join("a.jsonl"), folder.path().join("s.json"));
    fs::write(&lines, r#"{"time":"2020-07-22T00:02:31Z","script_block_text":"a"}"#).unwrap();
    let run = run(PROGRAM, ["replay".as_ref(), "--summary".as_ref(), summary.as_os_str(), lines.as_os_str()]);
    assert_eq!(run.code, Some(0));
    let summary: Value = serde_json::from_str(&fs::read_to_string(summary).unwrap()).unwrap();
    assert_eq!((&summary["events_seen"], &summary["events_lost"]), (&json!(1), &Value::Null));
}
