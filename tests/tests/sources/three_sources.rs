//! The same events as .evtx, .etl and JSON Lines give the same detections.

use etwsieve::event::EventRef;
use etwsieve::source::{Damage, Sink, evtx};
use etwsieve_etl::FileTime;
use etwsieve_tests::corpus;
use etwsieve_tests::program::{Program, Run, run};
use etwsieve_tests::writer::{EventSpec, TraceWriter};
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use uuid::Uuid;

const PROGRAM: Program = Program::Etwsieve;

/// Keeps the events of a source.
#[derive(Default)]
struct Keep(Vec<(EventSpec, FileTime)>);

impl Sink for Keep {
    fn wants(&self, _: &Uuid, event_id: u16) -> bool {
        matches!(event_id, 4103 | 4104)
    }

    fn event(&mut self, event: &EventRef<'_>) -> ControlFlow<()> {
        let header = &event.header;
        let mut spec = EventSpec::powershell(header.event_id, event.payload.to_vec())
            .by(header.process_id.unwrap_or(u32::MAX), header.thread_id.unwrap_or(u32::MAX));
        spec.provider = header.provider;
        spec.version = header.version.into();
        spec.level = header.level;
        spec.task = header.task;
        spec.opcode = header.opcode;
        spec.keywords = header.keywords;
        spec.activity_id = header.activity_id.unwrap_or_default();
        if let Some(sid) = event.user_sid {
            spec = spec.sid(sid.as_bytes());
        }
        self.0.push((spec, header.time));
        ControlFlow::Continue(())
    }

    fn unwanted(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn damaged(&mut self, damage: &Damage) {
        panic!("{damage}");
    }

    fn progress(&mut self, _: u64) {}
}

fn replay(data: &Path, path: &Path, options: &[&str]) -> Run {
    let mut args: Vec<OsString> = vec!["replay".into()];
    args.extend(options.iter().map(OsString::from));
    for folder in corpus::rules(data, &["sigma/ps_script", "sigma/ps_module", "splunk-escu"]) {
        args.extend(["--rules".into(), folder.into()]);
    }
    args.push(path.into());
    run(PROGRAM, args)
}

/// Returns the lines without the fields that only one kind of source has.
fn comparable(run: &Run) -> Vec<Value> {
    let mut lines = run.lines();
    for line in &mut lines {
        for key in ["source", "computer", "event_record_id"] {
            line[key] = Value::Null;
        }
    }
    lines.sort_by_key(Value::to_string);
    lines
}

#[test]
fn detections_do_not_depend_on_the_kind_of_file() {
    let Some(data) = corpus::data() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut compared = 0;
    for log in evtx_files(&data.join("recorded/evtx")) {
        let mut keep = Keep::default();
        evtx::read(&log, &mut keep).unwrap();
        let Some(start) = keep.0.iter().map(|(_, time)| *time).min() else { continue };
        let mut writer = TraceWriter::new().buffer_len(128 * 1024).processors(3);
        writer.start = start;
        let mut json_lines = String::new();
        for (number, (spec, time)) in (0u16..).zip(keep.0) {
            writer.push(spec.at(time.0 - start.0).on(number % 3));
        }
        let etl = folder.path().join("same.etl");
        fs::write(&etl, writer.build()).unwrap();

        let of_log = replay(&data, &log, &[]);
        let of_etl = replay(&data, &etl, &[]);
        assert_eq!((of_log.code, of_etl.code), (Some(0), Some(0)), "{} {}", of_log.stderr, of_etl.stderr);
        assert_eq!(comparable(&of_log), comparable(&of_etl), "{}", log.display());

        // The output of the program is also a valid input: every hit is a hit again.
        let plain = ["--scope", "event", "--view", "raw"];
        let of_log = replay(&data, &log, &plain);
        for line in of_log.lines() {
            json_lines += &line.to_string();
            json_lines.push('\n');
        }
        let jsonl = folder.path().join("same.jsonl");
        fs::write(&jsonl, &json_lines).unwrap();
        let mut again = comparable(&replay(&data, &jsonl, &plain));
        let mut once = comparable(&of_log);
        // An event is written once for each of its rules, so it is read that often.
        again.dedup();
        once.dedup();
        assert_eq!(again, once, "{}", log.display());
        compared += once.len();
    }
    assert!(compared > 50, "{compared} detections");
}

fn evtx_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let (files, errors) = etwsieve::input::traces(&[folder.to_owned()]);
    assert!(errors.is_empty());
    files
}
