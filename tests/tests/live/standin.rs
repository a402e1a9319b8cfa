//! The stand-in of the ETW API behaves like the real one, according to a Windows program that calls it step by step.

use super::watching::host;
use etwsieve_etl::TraceFile;
use etwsieve_tests::corpus::repository;
use etwsieve_tests::standin::{Ending, Lab, Session, hostile::Hostile, windows_path};
use etwsieve_tests::{demo, standin};
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);
const PROBE: &str = "etw-probe";

/// Runs the probe on the session `s`. Returns its answers, one line per step, followed by the events of its callback.
fn steps(lab: &Lab, steps: &[&str]) -> Vec<String> {
    let mut command = lab.command(PROBE, [&["s"], steps].concat()).expect("the probe can be patched");
    let output = command.output().expect("the probe starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{steps:?}: {stderr}");
    let text = String::from_utf8(output.stdout).expect("answers are UTF-8");
    text.lines().map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn sessions_start_and_are_refused_as_windows_does() {
    let Some(host) = host() else { return };
    let rows: [(&str, &str, &[&str]); 16] = [
        ("starts", "", &["start 0"]),
        ("taken", "", &["start 0", "start 183"]),
        ("again after a stop", "", &["start 0", "stop 0 lost=0/0/0 kb=128", "start 0"]),
        ("stopped by handle", "", &["start 0", "stop_by_handle 0 lost=0/0/0 kb=128"]),
        ("absent", "", &["query 4201 lost=0/0/0 kb=128", "stop 4201 lost=0/0/0 kb=128", "open 4201"]),
        ("denied", "deny_start", &["start 5"]),
        ("no session left", "no_session_left", &["start 1450"]),
        ("the last session", "other_sessions 63", &["start 0"]),
        ("size too small", "", &["start_short=100 24", "start_short=122 24", "start_short=124 0"]),
        ("buffer too small", "", &["start=3 87", "start=16385 87", "start=4 0"]),
        ("nowhere to write", "", &["start_mode=0 161"]),
        ("circular and sequential", "", &["start_mode=259 87"]),
        ("nine on a provider", "provider_full", &["start 0", "enable 1450"]),
        ("eight on a provider", "sessions_on_provider 7", &["start 0", "enable 0"]),
        ("lying filter", "", &["start 0", "enable_lying 87", "enable=4104 0"]),
        ("opening denied", "deny_open", &["start 0", "open 5"]),
    ];
    for (name, scenario, expected) in rows {
        let lab = host.lab(scenario).unwrap();
        let words: Vec<&str> = expected.iter().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(steps(&lab, &words)[..expected.len()], *expected, "{name}");
    }
}

#[test]
fn a_session_delivers_until_it_is_stopped() {
    let Some(host) = host() else { return };
    let lab = host.lab("synthetic count=1000 units=250 every=10").unwrap();
    let words = [
        "start",
        "enable=4104",
        "open",
        "process",
        "wait_seen=1000",
        "query",
        "who",
        "loggers",
        "stop",
        "join",
        "close",
    ];
    let expected = [
        "start 0",
        "enable=4104 0",
        "open 0",
        "process",
        "wait_seen=1000 1000",
        "query 0 lost=0/0/0 kb=128",
        "who 0 sessions=1 bytes=56",
        "loggers 0 64",
        "stop 0 lost=0/0/0 kb=128",
        "join 0",
        "close 0",
        "records 1000",
        "by_id {4104: 1000}",
        "sids 0",
        "lost []",
        "hits 100",
    ];
    assert_eq!(steps(&lab, &words), expected);
    let report = lab.machine().report("s").unwrap().unwrap();
    assert_eq!((report.emitted, report.delivered_total, report.delivered[&4104]), (1000, 1000, 1000));
    assert_eq!((report.ending, report.filtered), (Ending::Stopped, 0));
    assert!(report.callback_ns > 0);
    assert!(lab.machine().session("s").unwrap().is_none());
}

#[test]
fn closing_ends_processing_and_leaves_the_session() {
    let Some(host) = host() else { return };
    let lab = host.lab("synthetic count=10").unwrap();
    let lines = steps(
        &lab,
        &["start", "enable_sid", "open", "process", "wait_seen=10", "close", "join", "close", "query_all"],
    );
    assert_eq!(lines[5..10], ["close 7007", "join 0", "close 6", "query_all 0 [\"s\"]", "records 10"]);
    assert!(lines.contains(&"sids 10".to_owned()), "{lines:?}");
    assert_eq!(lab.machine().report("s").unwrap().unwrap().ending, Ending::Closed);
    let session = lab.machine().session("s").unwrap().unwrap();
    assert_eq!((session.buffer_size_kb, session.providers[0].property, session.position), (128, 1, 10));
}

#[test]
fn a_session_outlives_its_process() {
    let Some(host) = host() else { return };
    let lab = host.lab("synthetic count=10").unwrap();
    let output = lab.command(PROBE, ["s", "start", "enable", "die"]).unwrap().output().unwrap();
    assert!(!output.status.success());
    // Another process finds that the name is in use, consumes the session, and stops it.
    let lines = steps(&lab, &["start", "query", "open", "process", "wait_seen=10", "stop", "join", "start"]);
    assert_eq!(lines[0], "start 183");
    assert_eq!(lines[5..9], ["stop 0 lost=0/0/0 kb=128", "join 0", "start 0", "records 10"]);
}

#[test]
fn other_controllers_stop_the_session_disable_providers_and_lose_events() {
    let Some(host) = host() else { return };
    let lab = host.lab("synthetic count=1000000\nrate 200").unwrap();
    let mut child = lab
        .command(PROBE, ["s", "start", "enable", "open", "process", "wait_seen=20", "join"])
        .unwrap()
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let machine = lab.machine();
    machine.wait("s", LIMIT, |session| session.position >= 20).unwrap();
    assert!(machine.lose("s", 7, 3).unwrap());
    assert!(machine.disable("s", &standin::feed::POWERSHELL.to_string()).unwrap());
    machine.wait_report("s", LIMIT, |report| report.filtered > 0).unwrap();
    let stopped = machine.stop("s").unwrap().unwrap();
    assert_eq!((stopped.events_lost, stopped.real_time_buffers_lost), (7, 3));
    assert!(child.wait().unwrap().success());
    let lines: Vec<String> =
        BufReader::new(child.stdout.take().unwrap()).lines().collect::<io::Result<_>>().unwrap();
    let report = machine.report("s").unwrap().unwrap();
    assert_eq!(lines[5].trim_end(), "join 0");
    assert_eq!(lines[6], format!("records {}", report.delivered_total));
    assert_eq!(report.emitted, report.delivered_total + report.filtered);
    assert_eq!(report.ending, Ending::Stopped);
}

#[test]
fn losses_and_interference_happen_where_the_scenario_says() {
    let Some(host) = host() else { return };
    let scenario = "synthetic count=100\nevents_lost after=10 count=5\nbuffers_lost after=20 count=2\n\
         log_buffers_lost after=30\ndisable_provider after=60\nstop_session after=80\n";
    let lab = host.lab(scenario).unwrap();
    let lines = steps(&lab, &["start", "enable", "open", "process", "join", "query"]);
    assert_eq!(lines[4..7], ["join 0", "query 4201 lost=0/0/0 kb=128", "records 63"]);
    assert!(lines.contains(&"by_id {0: 3, 4104: 60}".to_owned()), "{lines:?}");
    assert!(lines.contains(&"lost [32, 33, 34]".to_owned()), "{lines:?}");
    let report = lab.machine().report("s").unwrap().unwrap();
    assert_eq!((report.emitted, report.filtered, report.lost_records), (80, 20, 3));
}

#[test]
fn events_wait_in_buffers_until_a_flush_or_the_stop() {
    let Some(host) = host() else { return };
    let lab = host.lab("synthetic count=100\nhold 30").unwrap();
    let open = ["start", "enable", "open", "process", "wait_seen=70", "sleep=100"];
    let lines = steps(&lab, &[&open[..], &["wait_seen=70", "flush", "wait_seen=100"]].concat());
    assert_eq!((lines[6].as_str(), lines[8].as_str()), ("wait_seen=70 70", "wait_seen=100 100"));
    lab.machine().stop("s").unwrap();
    let lines = steps(&lab, &[&open[..], &["wait_seen=70", "stop", "join"]].concat());
    assert_eq!((lines[6].as_str(), lines[9].as_str()), ("wait_seen=70 70", "records 100"));
}

#[test]
fn filters_apply_and_events_that_do_not_fit_are_lost() {
    let Some(host) = host() else { return };
    let lab = host.lab("synthetic count=50 units=3000\nstop_session after=50").unwrap();
    let lines = steps(&lab, &["start=4", "enable", "open", "process", "join"]);
    assert_eq!(lines[5], "records 0");
    assert_eq!(lab.machine().report("s").unwrap().unwrap().too_large, 50);
    let lines = steps(&lab, &["start=64", "enable=4103", "open", "process", "join"]);
    assert_eq!(lines[5], "records 0");
    assert_eq!(lab.machine().report("s").unwrap().unwrap().filtered, 50);
}

#[test]
fn hostile_records_are_safe_for_a_correct_reader() {
    let Some(host) = host() else { return };
    let lab = host.lab("synthetic count=10\nhostile after=5\nstop_session after=10").unwrap();
    let lines = steps(&lab, &["start", "enable_sid", "open", "process", "join"]);
    assert_eq!(lines[5], format!("records {}", 10 + Hostile::ALL.len()));
    assert_eq!(lab.machine().report("s").unwrap().unwrap().hostile, Hostile::ALL.len() as u64);
}

#[test]
fn a_session_in_file_mode_leaves_a_trace() {
    let Some(host) = host() else { return };
    let trace = repository().join(demo::PATH);
    let lab = host.lab(&format!("trace {}", windows_path(&trace))).unwrap();
    let path = lab.folder().join("out.etl");
    let start = format!("start_file={}", windows_path(&path));
    let lines = steps(&lab, &[&start, "enable_sid=4104", "open", "stop"]);
    assert_eq!(lines[1..4], ["enable_sid=4104 0", "open 4201", "stop 0 lost=0/0/0 kb=128"]);
    let (recorded, source) = (events(&path), events(&trace));
    assert!(!recorded.is_empty());
    assert_eq!(recorded, source.into_iter().filter(|(id, ..)| *id == 4104).collect::<Vec<_>>());
}

/// Returns, for each event of a trace, its id and the properties that a recording must keep.
fn events(path: &Path) -> Vec<(u16, String)> {
    let file = TraceFile::open(path).expect("the trace opens");
    let trace = file.trace().expect("it is a trace");
    let mut events = trace.events();
    let mut rows = Vec::new();
    while let Some(event) = events.next() {
        if let Some(id) = event.event_id {
            let (time, process, thread, sid) = (event.time, event.process_id, event.thread_id, event.sid());
            rows.push((id, format!("{time} {process:?} {thread:?} {sid:?} {:?}", event.payload)));
        }
    }
    rows
}

#[test]
fn a_bad_scenario_is_reported() {
    let Some(host) = host() else { return };
    let lab = host.lab("trace Z:\\nowhere\\at-all.etl").unwrap();
    let lines = steps(&lab, &["start", "enable", "open", "process", "join"]);
    assert_eq!(lines[4], "join 1610");
    assert!(lab.machine().failure().unwrap().contains("at-all.etl"));
}

#[test]
fn sessions_of_others_are_seen() {
    let Some(host) = host() else { return };
    let lab = host.lab("").unwrap();
    let other = Session { name: "EventLog-Application".into(), buffer_size_kb: 64, ..Session::default() };
    lab.machine().insert(other, |_| Ok::<(), io::Error>(())).unwrap();
    let lines = steps(&lab, &["start", "query_all"]);
    assert_eq!(lines[1], "query_all 0 [\"EventLog-Application\", \"s\"]");
}

#[test]
#[cfg(unix)]
fn ctrl_c_reaches_the_program_and_a_kill_leaves_its_session() {
    use etwsieve_tests::standin::interrupt;

    let Some(host) = host() else { return };
    let lab = host.lab("").unwrap();
    let mut child = lab.command(PROBE, ["s", "wait_ctrl_c"]).unwrap().stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap().trim_end(), "ready");
    interrupt(&child).unwrap();
    assert_eq!(lines.next().unwrap().unwrap().trim_end(), "wait_ctrl_c pressed");
    assert!(child.wait().unwrap().success());

    let mut child = lab.command(PROBE, ["s", "start", "enable", "sleep=60000"]).unwrap().spawn().unwrap();
    lab.machine().wait("s", LIMIT, |session| !session.providers.is_empty()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(lab.machine().session("s").unwrap().is_some());
}
