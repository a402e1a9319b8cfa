//! Traces from pipes, and stops while a pipe is silent.

use super::PROGRAM;
use super::support::{Folder, HIT, line, trace};
use etwsieve_tests::program::{command, run};
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Time after which a child counts as hung. It needs much less.
const PATIENCE: Duration = Duration::from_mins(1);

/// Starts a thread that writes to a pipe as soon as it has a reader.
fn feed(path: &str, bytes: Vec<u8>) -> thread::JoinHandle<()> {
    let path = path.to_owned();
    thread::spawn(move || {
        let mut pipe = OpenOptions::new().write(true).open(path).unwrap();
        // A reader that rejects the format does not read everything.
        let _ = pipe.write_all(&bytes);
    })
}

#[test]
fn traces_of_every_format_are_read_from_pipes() {
    let folder = Folder::new();
    let evtx = {
        let spec = etwsieve_tests::writer::AmsiScan::powershell(HIT);
        let event = etwsieve_tests::writer::EventSpec::amsi(&spec);
        let time = etwsieve_etl::FileTime(133_601_515_200_000_000);
        etwsieve_tests::writer::event_log(&[(event, time, spec)], etwsieve_tests::writer::Content::Binary)
    };
    let rows = [("etl", trace()), ("jsonl", line(HIT, "srv01").into_bytes()), ("evtx", evtx)];
    for (format, bytes) in rows {
        let file = folder.write(&format!("file.{format}"), &bytes);
        let direct = run(PROGRAM, ["replay", "--amsi", &file]);
        assert_eq!((direct.code, direct.lines().len()), (Some(0), 1), "{format}: {}", direct.stderr);
        // The name has no extension; the first bytes determine the format.
        let pipe = folder.pipe(&format!("pipe-{format}"));
        let feeder = feed(&pipe, bytes.clone());
        let piped = run(PROGRAM, ["replay", "--amsi", &pipe]);
        feeder.join().unwrap();
        assert_eq!(piped.code, Some(0), "{format}: {}", piped.stderr);
        assert_eq!(piped.stdout.replace(&pipe, &file), direct.stdout, "{format}");
        let stdin = command(PROGRAM, ["replay", "--amsi", "-"])
            .stdin(fs::File::open(&file).unwrap())
            .output()
            .unwrap();
        let stdout = String::from_utf8(stdin.stdout).unwrap();
        assert_eq!(stdout.replace("standard input", &file), direct.stdout, "{format}");
    }
    let pipe = folder.pipe("facts");
    let feeder = feed(&pipe, trace());
    let facts = run(PROGRAM, ["trace", &pipe]);
    feeder.join().unwrap();
    assert_eq!(
        (facts.code, &facts.lines()[0]["source"]),
        (Some(0), &pipe.clone().into()),
        "{}",
        facts.stderr
    );
}

#[test]
fn input_that_is_not_a_trace_is_rejected_before_it_is_read() {
    let zero = fs::File::open("/dev/zero").unwrap();
    let output = command(PROGRAM, ["replay", "-"]).stdin(zero).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("standard input") && stderr.contains("an event trace"), "{stderr}");
}

#[test]
fn rules_may_come_from_a_pipe() {
    let folder = Folder::new();
    let (pipe, file) = (folder.pipe("rules"), folder.write("a.jsonl", line(HIT, "srv01")));
    let feeder = feed(&pipe, etwsieve_matcher::builtin::TEXT.into());
    let run = run(PROGRAM, ["replay", "--rules", &pipe, &file]);
    feeder.join().unwrap();
    assert_eq!((run.code, run.lines().len()), (Some(0), 1), "{}", run.stderr);
}

/// Waits until the process catches SIGTERM, which it does once it is ready to stop.
fn wait_for_handler(child: &Child) {
    let start = Instant::now();
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0);
        if caught & (1 << (15 - 1)) != 0 {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "no handler: {status}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Sends SIGTERM once, and returns the exit code and what is on standard error.
fn stop(mut child: Child) -> (Option<i32>, String) {
    wait_for_handler(&child);
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() >= PATIENCE {
            child.kill().unwrap();
            panic!("one SIGTERM did not end it");
        }
        thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn one_signal_ends_the_wait_for_a_pipe() {
    let folder = Folder::new();
    let (pipe, summary) = (folder.pipe("pipe"), folder.at("s.json"));
    let rule = folder.write("rule.yml", etwsieve_matcher::builtin::TEXT);
    let start =
        |args: &[&str]| command(PROGRAM, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // There is never a writer.
    for args in [
        ["replay", "--summary", &summary, &pipe].as_slice(),
        &["trace", &pipe],
        &["rules", "cost", &rule, &pipe],
    ] {
        let (code, stderr) = stop(start(args));
        assert_eq!(code, Some(130), "{args:?}: {stderr}");
    }
    let run = super::support::read_json(&summary);
    assert_eq!((&run["interrupted"], &run["events_seen"]), (&true.into(), &0.into()));
    // The writer stops after the beginning of a trace.
    for bytes in [&trace()[..600], b"{", b"ElfFile\0"] {
        let child = start(&["replay", &pipe]);
        let mut writer = OpenOptions::new().write(true).open(&pipe).unwrap();
        writer.write_all(bytes).unwrap();
        let (code, stderr) = stop(child);
        assert_eq!(code, Some(130), "{bytes:?}: {stderr}");
    }
    // Hits have no reader and do not fit into the pipe.
    let hits = folder.write("hits.jsonl", line(HIT, "srv01").repeat(2_000));
    let mut child = start(&["replay", "--format", "jsonl", &hits]);
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 100]).unwrap();
    let (code, stderr) = stop(child);
    assert_eq!(code, Some(130), "{stderr}");
    assert!(stderr.contains("nothing reads standard output"), "{stderr}");
    drop(stdout);
    // Standard input stays open.
    let child =
        command(PROGRAM, ["replay", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(stop(child).0, Some(130));
}
