//! Content that PowerShell passes to the antimalware scanner: event 1101 in .etl, .evtx and JSON Lines.

use etwsieve_etl::{FileTime, TraceFile};
use etwsieve_tests::corpus;
use etwsieve_tests::program::{Program, Run, run};
use etwsieve_tests::writer::{AmsiScan, Content, EventSpec, TraceWriter, event_log, script_block};
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use uuid::{Uuid, uuid};

const PROGRAM: Program = Program::Etwsieve;
const AMSI: &str = "2a576b87-09a7-520e-c21a-4942f0271d67";
const ID: &str = "339311ba-d4cc-4a10-b04e-417ef95bc8b6";

/// Rules about text, file and keyword of scanned content, and one about a field that only event 4104 has.
const RULES: &str = "\
title: Text
logsource: {product: windows, category: ps_script}
detection: {s: {ScriptBlockText|contains: Enter-PSSession}, condition: s}
---
title: File
logsource: {product: windows, category: ps_script}
detection: {s: {Path|endswith: evil.ps1, ScriptBlockText|re: 'Get-\\w+'}, condition: s}
---
title: Keyword
logsource: {product: windows, service: powershell}
detection: {s: [hidden-word], condition: s}
---
title: Script block only
logsource: {product: windows, category: ps_script}
detection: {s: {ScriptBlockText|contains: Enter-PSSession, MessageNumber: 1, EventID: 4104}, condition: s}
---
title: No block id
logsource: {product: windows, category: ps_script}
detection: {s: {ScriptBlockText|contains: Enter-PSSession, ScriptBlockId: null}, condition: s}
---
title: Module
logsource: {product: windows, category: ps_module}
detection: {s: {Payload|contains: Enter-PSSession}, condition: s}
";

struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new(rules: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("rules.yml"), rules).unwrap();
        Self { folder }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> OsString {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.into()
    }

    fn replay(&self, options: &[&str], trace: &OsString) -> (Run, Value) {
        let summary = self.folder.path().join("summary.json");
        let mut args: Vec<OsString> = vec!["replay".into(), "--rules".into()];
        args.push(self.folder.path().join("rules.yml").into());
        args.extend(["--summary".into(), summary.clone().into()]);
        args.extend(options.iter().map(OsString::from));
        args.push(trace.clone());
        let run = run(PROGRAM, args);
        let summary = serde_json::from_str(&fs::read_to_string(summary).unwrap()).unwrap();
        (run, summary)
    }
}

fn trace(specs: impl IntoIterator<Item = EventSpec>) -> Vec<u8> {
    let mut writer = TraceWriter::new().buffer_len(128 * 1024);
    for (number, spec) in (0..).zip(specs) {
        let at = if spec.ticks == 0 { 1000 * (number + 1) } else { spec.ticks };
        writer.push(spec.at(at));
    }
    writer.build()
}

/// Scans that match the rules, in every form that Windows records.
fn scans() -> Vec<AmsiScan> {
    let powershell = |text: &str| AmsiScan::powershell(text);
    let mut nul: Vec<u16> = "a\0 hidden-word".encode_utf16().collect();
    nul.push(0xD800);
    vec![
        powershell("Enter-PSSession -ComputerName srv"),
        AmsiScan { pointer_len: 4, ..powershell("enter-pssession é") },
        AmsiScan { version: 1, content_name: r"C:\x\evil.ps1".into(), ..powershell("Get-Item .") },
        AmsiScan { app_name: "PowerShell_pwsh.exe_7.4.6".into(), ..powershell(&"# \r\n".repeat(500)) },
        AmsiScan { result: 32_768, content: nul, ..powershell("") },
        powershell(""),
        AmsiScan { result: 0x4001, ..powershell("x Enter-PSSession") },
    ]
}

fn titles(run: &Run) -> Vec<String> {
    run.lines().iter().map(|line| line["rule_title"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_three_kinds_of_file_give_equal_detections() {
    let case = Case::new(RULES);
    let start = FileTime(133_601_515_200_000_000);
    let events: Vec<(EventSpec, FileTime, AmsiScan)> = (1u64..)
        .zip(scans())
        .map(|(number, scan)| {
            let spec = EventSpec::amsi(&scan).at(number * 1000).by(40 + number as u32, 7);
            (spec, FileTime(start.0 + number * 1000), scan)
        })
        .collect();
    let mut writer = TraceWriter::new().buffer_len(128 * 1024);
    writer.start = start;
    for (spec, ..) in &events {
        writer.push(spec.clone());
    }
    let of_etl = case.replay(&["--amsi"], &case.file("same.etl", &writer.build()));
    let expected = ["Text", "No block id", "Text", "No block id", "File", "Keyword", "Text", "No block id"];
    assert_eq!(titles(&of_etl.0), expected, "{}", of_etl.0.stderr);
    let comparable = |run: &Run| {
        let mut lines = run.lines();
        for line in &mut lines {
            for key in ["source", "event_record_id"] {
                line[key] = Value::Null;
            }
        }
        lines
    };
    let amsi = of_etl.1["amsi"].clone();
    assert_eq!((amsi["events_seen"].as_u64(), amsi["events_matched"].as_u64()), (Some(7), Some(5)));
    for (name, content) in [("binary.evtx", Content::Binary), ("digits.evtx", Content::Digits)] {
        let (run, summary) = case.replay(&["--amsi"], &case.file(name, &event_log(&events, content)));
        assert_eq!(run.code, Some(0), "{name}: {}", run.stderr);
        assert_eq!(comparable(&run), comparable(&of_etl.0), "{name}");
        assert_eq!(summary["amsi"], amsi, "{name}");
        assert_eq!(run.lines()[0]["event_record_id"], 1, "{name}");
    }
    // Lines written by the program, and a line with the minimum of fields.
    let (run, _) = case.replay(&["--amsi"], &case.file("same.jsonl", of_etl.0.stdout.as_bytes()));
    let mut once = comparable(&of_etl.0);
    let mut again = comparable(&run);
    for lines in [&mut once, &mut again] {
        // JSON cannot represent lone surrogates, and an event occurs once for each of its rules.
        lines.sort_by_key(Value::to_string);
        lines.dedup();
    }
    assert_eq!(again, once);
    let least = format!(
        r#"{{"time":"2024-05-12T00:00:00Z","provider":"{AMSI}","script_block_text":"Enter-PSSession"}}"#
    );
    let (run, _) = case.replay(&["--amsi"], &case.file("least.jsonl", least.as_bytes()));
    assert_eq!(titles(&run), ["Text", "No block id"], "{}", run.stderr);
    assert_eq!(run.lines()[0]["event_id"], 1101);
}

#[test]
fn lines_name_the_origin_of_the_text() {
    let case = Case::new(RULES);
    let text = "Enter-PSSession -ComputerName srv";
    let scan = AmsiScan { content_name: r"C:\a.ps1".into(), ..AmsiScan::powershell(text) };
    let app_name = scan.app_name.clone();
    let file = case.file(
        "both.etl",
        &trace([
            EventSpec::powershell(4104, script_block(1, 1, text, ID, None)).by(4, 8),
            EventSpec::amsi(&scan).by(4, 8),
        ]),
    );
    let store = case.folder.path().join("hits.db");
    let (run, summary) = case.replay(&["--amsi", "--store", store.to_str().unwrap()], &file);
    assert_eq!(titles(&run), ["Text", "Script block only", "Text", "No block id"], "{}", run.stderr);
    let lines = run.lines();
    let facts = |line: &Value| (line["event_id"].clone(), line["provider"].clone());
    assert_eq!(facts(&lines[0]), (4104.into(), "a0c1853b-5c40-4b15-8766-3cf1c58f985a".into()));
    let line = &lines[2];
    assert_eq!(facts(line), (1101.into(), AMSI.into()));
    assert_eq!((&line["script_block_text"], &line["path"]), (&text.into(), &r"C:\a.ps1".into()));
    assert_eq!((&line["app_name"], &line["scan_result"]), (&app_name.as_str().into(), &1.into()));
    for key in ["script_block_id", "message_number", "message_total"] {
        assert_eq!(line.get(key), Some(&Value::Null), "{key}");
    }
    assert_eq!(line["spans"], serde_json::json!([{ "field": "script_block_text", "start": 0, "len": 15 }]));
    assert_eq!((line["event_level"].as_u64(), line["keywords"].as_u64()), (Some(4), Some(1)));
    assert_eq!(summary["events_selected"], 2);
    assert_eq!(summary["amsi"]["events_selected"], 1);
    assert_eq!(summary["amsi"]["detections"], 2);

    // The store gives the same lines as the run, in every format.
    let of_store = |format: &str| {
        let args: Vec<OsString> =
            vec!["hits".into(), "--format".into(), format.into(), store.clone().into_os_string()];
        self::run(PROGRAM, args)
    };
    let stored = of_store("jsonl").lines();
    assert_eq!(stored, lines);
    let splunk = &of_store("splunk").lines()[2]["event"];
    assert_eq!((&splunk["ScriptBlockText"], &splunk["EventID"]), (&text.into(), &1101.into()));
    assert_eq!((&splunk["AppName"], &splunk["ScanResult"]), (&app_name.as_str().into(), &1.into()));
    assert_eq!(splunk["Name"], "Microsoft-Antimalware-Scan-Interface");
    let ecs = &of_store("ecs").lines()[2];
    assert_eq!(ecs["powershell"]["file"]["script_block_text"], text);
    assert_eq!(ecs["event"]["provider"], "Microsoft-Antimalware-Scan-Interface");
    assert_eq!(ecs["file"]["path"], r"C:\a.ps1");
    assert_eq!(ecs["etwsieve"]["amsi"]["app_name"], app_name.as_str());
    assert_eq!(of_store("table").stdout.matches(text).count(), 4);
}

/// Scanned content is searched in the same views as script blocks, with the built-in rules.
#[test]
fn other_views_of_content() {
    let case = Case::new(RULES);
    let rows = [
        ("Enter-PSSession -ComputerName b", "raw", ""),
        ("Enter\u{2013}PSSess`ion -ComputerName b", "normalized", "dash,backtick"),
        ("iex ('Enter-PSSession -Comp'+'uterName b')", "normalized", "concatenation"),
        ("etsn b", "call", "alias,positional"),
        ("a\0Enter-PSSess`ion -ComputerName b", "normalized", "backtick"),
    ];
    for (text, view, done) in rows {
        let path = case.file("scan.etl", &trace([EventSpec::amsi(&AmsiScan::powershell(text))]));
        let run = run(PROGRAM, ["replay".into(), "--amsi".into(), path]);
        let [line] = &run.lines()[..] else { panic!("{text}: {}", run.stdout) };
        assert_eq!(
            (&line["event_id"], &line["view"], &line["scope"]),
            (&1101.into(), &view.into(), &"event".into())
        );
        assert_eq!(line["beyond_nul"], text.contains('\0'), "{text}");
        let found: Vec<&str> =
            line["transformations"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        assert_eq!(found.join(","), done, "{text}");
    }
}

#[test]
fn without_the_option_nothing_changes() {
    let case = Case::new(RULES);
    let block = || EventSpec::powershell(4104, script_block(1, 1, "Enter-PSSession", ID, None)).at(9_000_000);
    let without = case.file("events.etl", &trace([block()]));
    let (run_without, summary_without) = case.replay(&[], &without);
    let specs = scans().iter().map(EventSpec::amsi).chain([block()]).collect::<Vec<_>>();
    let with = case.file("events.etl", &trace(specs));
    let (run_with, mut summary_with) = case.replay(&[], &with);
    assert_eq!(run_with.stdout, run_without.stdout);
    assert_eq!(summary_with["events_other"], 7 + summary_without["events_other"].as_u64().unwrap());
    assert_eq!(summary_with.get("amsi"), None);
    for part in ["/events_seen", "/events_other", "/elapsed_seconds", "/sources"] {
        let part = &part[1..];
        summary_with[part] = summary_without[part].clone();
    }
    assert_eq!(summary_with, summary_without);
}

#[test]
fn content_of_other_applications_is_skipped_and_malformed_events_are_reported() {
    let case = Case::new(RULES);
    let text = "Enter-PSSession";
    let by = |app: &str| AmsiScan { app_name: app.into(), ..AmsiScan::powershell(text) };
    let mut specs: Vec<EventSpec> =
        ["VBScript", "OFFICE_VBA", "DotNet"].iter().map(|app| EventSpec::amsi(&by(app))).collect();
    specs.push(EventSpec::amsi(&by("PowerShell_x_1")));
    // An event of another provider with the same id, and a script block of the wrong provider.
    let mut other = EventSpec::amsi(&by("PowerShell_x_1"));
    other.provider = Uuid::from_u128(7);
    specs.push(other);
    let mut other = EventSpec::amsi(&by("PowerShell_x_1"));
    other.provider = uuid!("a0c1853b-5c40-4b15-8766-3cf1c58f985a");
    specs.push(other);
    // Every truncation up to the end of the hash.
    let whole = EventSpec::amsi(&AmsiScan::powershell(text)).payload;
    let needed = whole.len() - 4;
    let cuts = (0..needed).map(|len| EventSpec::amsi(&by("x")).payload(whole[..len].to_vec()));
    specs.extend(cuts);
    let mut lies = whole.clone();
    let size_at = 13 + 2 * (AmsiScan::powershell("").app_name.len() + 1) + 2;
    lies[size_at..size_at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    specs.push(EventSpec::amsi(&by("x")).payload(lies));
    let (run, summary) = case.replay(&["--amsi"], &case.file("hostile.etl", &trace(specs)));
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(titles(&run), ["Text", "No block id"]);
    let amsi = &summary["amsi"];
    let dropped = needed as u64 + 1;
    assert_eq!(amsi["events_seen"], 4 + dropped);
    assert_eq!(amsi["events_selected"], 1 + dropped);
    assert_eq!((&amsi["events_matched"], &amsi["events_dropped"]), (&1.into(), &dropped.into()));
    assert_eq!(summary["dropped"], serde_json::json!({ "amsi_layout": dropped }));
    assert_eq!(summary["undecodable"], 0);
}

/// The provider in the recording, which belongs to an antimalware product and records scans in another form.
const RECORDED: Uuid = uuid!("8e805eb3-6a8f-4a1e-90fa-a831d94e54a1");

/// Returns the recorded scans: application and content.
fn recorded(data: &Path) -> Vec<(u64, u32, String, Vec<u16>)> {
    let file = TraceFile::open(data.join("recorded/etl/etlparser-AMSITrace.etl")).unwrap();
    let trace = file.trace().unwrap();
    let mut events = trace.events();
    let mut scans = Vec::new();
    while let Some(event) = events.next() {
        if event.provider != Some(RECORDED) {
            continue;
        }
        let units: Vec<u16> =
            event.payload.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
        // Two strings, and a counted copy of the second.
        let mut parts = units.splitn(3, |unit| *unit == 0);
        let (app, script) = (parts.next().unwrap(), parts.next().unwrap());
        let (count, copy) = parts.next().unwrap().split_first().unwrap();
        assert_eq!((usize::from(*count), copy), (script.len(), script), "both copies agree");
        let app = String::from_utf16(app).unwrap();
        scans.push((event.time.0, event.process_id.unwrap(), app, script.to_vec()));
    }
    scans
}

/// The scans of the recording are rewritten as events 1101. Contents, names, processes and times are the recorded ones.
#[test]
fn recorded_content_is_found() {
    let Some(data) = corpus::data() else { return };
    let scans = recorded(&data);
    assert_eq!(scans.len(), 19);
    let words = ["Get-Alias", "ResolvedCommand", "ModuleVersion", "powershell.exe -nop", "Export-Alias"];
    let rule = |word: &&str| {
        format!(
            "title: {word}\nlogsource: {{product: windows, category: ps_script}}\ndetection:\n  s: \
             {{ScriptBlockText|contains: '{word}'}}\n  condition: s\n"
        )
    };
    let case = Case::new(&words.iter().map(rule).collect::<Vec<_>>().join("---\n"));
    let file = data.join("recorded/etl/etlparser-AMSITrace.etl").into_os_string();
    let (_, summary) = case.replay(&["--amsi"], &file);
    assert_eq!((&summary["events_other"], &summary["amsi"]["events_seen"]), (&21.into(), &0.into()));

    let mut writer = TraceWriter::new().buffer_len(128 * 1024);
    writer.start = FileTime(scans.iter().map(|(time, ..)| *time).min().unwrap());
    let mut expected = Vec::new();
    for (time, process, app, script) in &scans {
        let scan = AmsiScan { app_name: app.clone(), content: script.clone(), ..AmsiScan::powershell("") };
        writer.push(EventSpec::amsi(&scan).at(time - writer.start.0).by(*process, 4));
        let text = String::from_utf16_lossy(script);
        let lower = text.to_ascii_lowercase();
        for word in words.iter().filter(|word| lower.contains(&word.to_ascii_lowercase())) {
            if app.starts_with("PowerShell") {
                expected.push((u64::from(*process), (*word).to_owned(), app.clone(), text.clone()));
            }
        }
    }
    expected.sort();
    let (run, summary) = case.replay(&["--amsi"], &case.file("rewritten.etl", &writer.build()));
    let text = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    let mut found: Vec<_> = run
        .lines()
        .iter()
        .map(|line| {
            let facts = (text(line, "rule_title"), text(line, "app_name"), text(line, "script_block_text"));
            (line["process_id"].as_u64().unwrap(), facts.0, facts.1, facts.2)
        })
        .collect();
    found.sort();
    assert!(expected.len() > 8, "{} hits", expected.len());
    assert!(found == expected, "{} hits instead of {}", found.len(), expected.len());
    // The needle of one rule occurs only in Visual Basic scripts, which are not PowerShell's.
    let foreign = scans.iter().filter(|(_, _, app, _)| !app.starts_with("PowerShell")).count();
    assert_eq!(foreign, 4);
    assert_eq!(summary["amsi"]["events_seen"], 19);
    assert_eq!(summary["amsi"]["events_selected"], 15);
}
