//! `etwsieve watch`, the release program, end to end on the stand-in of the ETW API: detections, losses, metrics, rules that
//! change, recordings.
//!
//! `ETWSIEVE_CAMPAIGN=full` runs the long tests in full length.

use super::watching::{PATIENCE, SESSION, Watching, campaign, lab, run};
use etwsieve_tests::corpus;
use etwsieve_tests::program::{self, Program};
use etwsieve_tests::standin::{Lab, windows_path};
use etwsieve_tests::writer::{AmsiScan, EventSpec, TraceWriter, script_block};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// The program for this system, for replays.
const PROGRAM: Program = Program::Etwsieve;

/// Returns a detection without the fields that only a live session has.
fn row(line: &Value) -> String {
    let mut line = line.clone();
    if let Some(object) = line.as_object_mut() {
        object.remove("source");
        object.remove("computer");
    }
    line.to_string()
}

fn rows<'a>(lines: impl IntoIterator<Item = &'a Value>) -> Vec<String> {
    let mut rows: Vec<String> = lines.into_iter().map(row).collect();
    rows.sort();
    rows
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Waits until all events of the scenario have been delivered, which are at least `events`.
fn delivered(lab: &Lab, events: u64) {
    let enough = |report: &etwsieve_tests::standin::Report| report.emitted >= events;
    lab.machine().wait_report(SESSION, PATIENCE, enough).expect("all events are delivered");
}

#[test]
fn detections_equal_replay_row_for_row() {
    let Some(data) = corpus::data() else { return };
    let rules: Vec<String> = corpus::rules(&data, &["sigma"]).iter().map(|path| text(path)).collect();
    for name in ["seed.etl", "synth.etl", "powershell-mixed.etl"] {
        let trace = corpus::trace(&data, name);
        let Some(lab) = lab(&format!("trace {}\nrate 2000\n", windows_path(&trace))) else { return };
        let mut replay = vec!["replay".to_owned(), "--allow-bad-rules".into()];
        let mut watch = vec!["--allow-bad-rules".to_owned()];
        for rule in &rules {
            replay.extend(["--rules".to_owned(), rule.clone()]);
            watch.extend(["--rules".to_owned(), windows_path(Path::new(rule))]);
        }
        replay.push(text(&trace));
        let replayed = program::run(PROGRAM, &replay);
        let expected = replayed.lines();
        assert!(!expected.is_empty(), "{name} has detections");

        let config = lab.folder().join("etwsieve.toml");
        fs::write(&config, "[pipeline]\nqueue_events = 8192\nqueue_bytes = 67108864\n").unwrap();
        watch.extend(["--config".to_owned(), windows_path(&config)]);
        let args: Vec<&str> = watch.iter().map(String::as_str).collect();
        let watching = Watching::start(&lab, &args);
        let mut last = None;
        lab.machine()
            .wait_report(SESSION, PATIENCE, |report| {
                // At the end of the trace the counts no longer change.
                let now = Some(report.emitted);
                thread::sleep(Duration::from_secs(2));
                report.emitted > 0 && std::mem::replace(&mut last, now) == now
            })
            .unwrap();
        let watched = watching.finish();
        assert_eq!(watched.code, Some(0), "{}", watched.log);
        watched.assert_balanced();
        assert_eq!(watched.dropped(), 0, "{:#}", watched.summary);
        assert_eq!(rows(watched.detections()), rows(&expected), "{name}");
        assert!(watched.detections().iter().all(|line| line["source"] == SESSION));
    }
}

/// The whole path: live events, the spool, TLS, and the store of a collector that is killed meanwhile.
#[cfg(target_os = "linux")]
#[test]
fn hits_reach_a_collector_that_is_killed() {
    use etwsieve_collector::pki::Authority;
    use etwsieve_tests::faults::{Collector, tail, wait_for};
    use etwsieve_transport::store::{HitFilter, Store};
    use std::collections::BTreeSet;

    let (count, every) = (12_000, 50);
    let Some(lab) = lab(&format!("synthetic count={count} units=250 every={every}\nrate 1500\n")) else {
        return;
    };
    let pki = lab.folder().join("pki");
    let authority = Authority::init(&pki, &["127.0.0.1".to_owned()], 30).unwrap();
    let bundle = authority.issue(&"live.test".parse().unwrap(), 30, false, None).unwrap().bundle;
    let pki = format!("--pki={}", pki.display());
    let mut collector = Collector::new(lab.folder(), &[&pki]).unwrap().without_shim();
    collector.start_and_wait().unwrap();
    let (address, bundle) = (collector.address.to_string(), windows_path(&bundle));
    let spool = windows_path(&lab.folder().join("spool.db"));
    let args = ["--collector", &address, "--bundle", &bundle, "--spool", &spool];
    let watching = Watching::start(&lab, &args);
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(1500));
        assert!(collector.kill(), "{}", tail(&collector.log));
        thread::sleep(Duration::from_millis(300));
        collector.start_and_wait().unwrap();
    }
    delivered(&lab, count);
    let path = collector.store();
    let times = || -> Vec<u64> {
        let store = Store::open_read_only(&path).unwrap();
        store.hits(HitFilter::default()).map(|hit| hit.unwrap().hit.time).collect()
    };
    let complete = wait_for(PATIENCE, || (times().len() as u64 >= count / every).then_some(()));
    let watched = watching.finish();
    assert!(complete.is_some(), "{} hits: {}", times().len(), watched.log);
    assert_eq!(watched.code, Some(0), "{}", watched.log);
    watched.assert_balanced();
    assert_eq!(watched.dropped(), 0, "{:#}", watched.summary);
    let stored = times();
    assert_eq!(stored.len() as u64, count / every, "none is doubled");
    assert_eq!(stored.iter().collect::<BTreeSet<_>>().len(), stored.len());
    assert_eq!(watched.detections().len(), stored.len());
    collector.stop().unwrap();
}

#[test]
fn a_sustainable_rate_loses_nothing() {
    let count = campaign(100_000, 1_000_000);
    // Lower in the short form, since other suites may use the processors.
    let rate = campaign(10_000, 40_000);
    let scenario = format!("synthetic count={count} units=250 every=1000\nrate {rate}\n");
    let Some(lab) = lab(&scenario) else { return };
    let config = lab.folder().join("etwsieve.toml");
    // The queue holds the events of most of a second, for which other work may stop the program.
    fs::write(&config, "[pipeline]\nqueue_events = 8192\nqueue_bytes = 67108864\n").unwrap();
    let watching = Watching::start(&lab, &["--config", &windows_path(&config)]);
    delivered(&lab, count);
    let watched = watching.finish();
    watched.assert_balanced();
    let report = lab.machine().report(SESSION).unwrap().unwrap();
    assert_eq!(watched.count("events_seen"), report.delivered_total);
    assert_eq!((watched.count("events_seen"), watched.dropped()), (count, 0), "{:#}", watched.summary);
    assert_eq!(watched.detections().len() as u64, count / 1000);
    assert_eq!(watched.count("hits_lost"), 0);
}

#[test]
fn an_overload_is_counted_exactly_and_has_no_lasting_effect() {
    let count = campaign(200_000, 1_000_000);
    // Events arrive as fast as the callback returns. The newest 40 arrive at the stop, when the queue is empty.
    let scenario = format!("synthetic count={count} units=2000 every=10\nhold 40\n");
    let Some(lab) = lab(&scenario) else { return };
    let config = lab.folder().join("etwsieve.toml");
    fs::write(&config, "[pipeline]\nqueue_events = 64\nthreads = 1\n").unwrap();
    let watching = Watching::start(&lab, &["--config", &windows_path(&config)]);
    delivered(&lab, count - 40);
    thread::sleep(Duration::from_secs(2));
    let peak = fs::read_to_string(format!("/proc/{}/status", watching.id())).unwrap_or_default();
    let watched = watching.finish();
    watched.assert_balanced();
    let report = lab.machine().report(SESSION).unwrap().unwrap();
    assert_eq!(report.delivered_total, count);
    assert_eq!(watched.count("events_seen"), count, "{:#}", watched.summary);
    assert!(watched.dropped() > 0, "the queue of 64 events overflows: {:#}", watched.summary);
    assert_eq!(watched.detections().len() as u64, watched.count("detections"));
    // The last four hits are among the newest events, which are searched as usual.
    let found: Vec<&str> =
        watched.detections().iter().filter_map(|line| line["script_block_text"].as_str()).collect();
    for hit in (0..4).map(|n| count - 10 * n) {
        let number = format!("{hit:012}");
        assert!(found.iter().any(|text| text.contains(&number)), "{number}: {:?}", found.last());
    }
    if let Some(line) = peak.lines().find(|line| line.starts_with("VmHWM")) {
        let kb: u64 = line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).unwrap();
        assert!(kb < 300_000, "memory is bounded: {line}");
    }
}

#[test]
fn rules_are_replaced_under_load_without_a_missed_detection() {
    let rounds = campaign(3, 100);
    // Enough events for the rounds, in each of which the rules are checked twice, one second apart.
    let count = (rounds * 3 + 10) * 2000;
    let Some(lab) = lab(&format!("synthetic count={count} units=250 every=10\nrate 2000\n")) else { return };
    let rules = lab.folder().join("rules");
    fs::create_dir(&rules).unwrap();
    let rule = |title: &str, needle: &str| {
        format!(
            "title: {title}\nlogsource:\n  product: windows\n  category: ps_script\ndetection:\n  selection:\n    \
             ScriptBlockText|contains: '{needle}'\n  condition: selection\n"
        )
    };
    fs::write(rules.join("always.yml"), rule("Always", "Enter-PSSession")).unwrap();
    let config = lab.folder().join("etwsieve.toml");
    let toml = "rules = ['rules']\n[reload]\ncheck_seconds = 1\n[pipeline]\nqueue_events = 4096\n";
    fs::write(&config, toml).unwrap();
    let watching = Watching::start(&lab, &["--config", &windows_path(&config)]);
    for round in 0..rounds {
        fs::write(rules.join("other.yml"), rule("Other", &format!("needle{round}"))).unwrap();
        let loaded = format!("{} rule sets reloaded", round + 1);
        let start = std::time::Instant::now();
        while watching.log().matches("rules reloaded").count() as u64 <= round {
            assert!(start.elapsed() < PATIENCE, "{loaded}: {}", watching.log());
            thread::sleep(Duration::from_millis(50));
        }
    }
    // An invalid set is rejected, and the previous one stays active.
    fs::write(rules.join("other.yml"), "title: [").unwrap();
    let start = std::time::Instant::now();
    while !watching.log().contains("the previous rules stay active") {
        assert!(start.elapsed() < PATIENCE, "{}", watching.log());
        thread::sleep(Duration::from_millis(50));
    }
    delivered(&lab, count);
    let watched = watching.finish();
    watched.assert_balanced();
    assert_eq!(watched.dropped(), 0, "{:#}", watched.summary);
    assert_eq!((watched.count("reloads"), watched.count("reload_failures")), (rounds, 1));
    let always = watched.detections().iter().filter(|line| line["rule_title"] == "Always").count();
    assert_eq!(always as u64, count / 10, "{:#}", watched.summary);
}

#[test]
fn hostile_records_are_counted_and_survived() {
    let Some(lab) = lab("synthetic count=1000 units=250 every=100\nrate 500\nhostile after=500\n") else {
        return;
    };
    let watching = Watching::start(&lab, &[]);
    delivered(&lab, 1000);
    let watched = watching.finish();
    watched.assert_balanced();
    let report = lab.machine().report(SESSION).unwrap().unwrap();
    assert!(report.hostile > 5, "{report:?}");
    // One record is of a provider that is not enabled, which ferrisetw skips.
    assert_eq!(watched.count("events_seen"), report.delivered_total - report.lost_records - 1);
    assert_eq!(watched.count("dropped.no_payload"), 1, "{:#}", watched.summary);
    assert!(watched.count("undecodable") > 0, "{:#}", watched.summary);
    assert_eq!(watched.detections().len(), 10, "{:#}", watched.summary);
}

/// The provider of the antimalware scanner.
const AMSI: &str = "2a576b87-09a7-520e-c21a-4942f0271d67";

#[test]
fn scanned_content_is_watched_on_request() {
    let text = "Enter-PSSession -ComputerName srv";
    let mut writer = TraceWriter::new();
    for number in 0..300u64 {
        let scan = AmsiScan::powershell(if number.is_multiple_of(10) { text } else { "Get-Date" });
        let event = match number % 3 {
            0 => EventSpec::powershell(4104, script_block(1, 1, "Get-Date", "an id", None)),
            1 => EventSpec::amsi(&scan),
            _ if number == 299 => EventSpec::amsi(&scan).payload(vec![7; 20]),
            _ => EventSpec::amsi(&AmsiScan { app_name: "VBScript".into(), ..scan }),
        };
        writer.push(event.at(10_000 * (number + 1)).by(4242, 8));
    }
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("scans.etl");
    fs::write(&trace, writer.build()).unwrap();
    let scenario = format!("trace {}\nrate 100\n", windows_path(&trace));

    let Some(quiet) = lab(&scenario) else { return };
    let watching = Watching::start(&quiet, &[]);
    assert!(quiet.machine().session(SESSION).unwrap().unwrap().provider(AMSI).is_none());
    delivered(&quiet, 300);
    let watched = watching.finish();
    assert_eq!((watched.count("events_seen"), watched.detections().len()), (100, 0), "{:#}", watched.summary);
    assert!(watched.summary.get("amsi").is_none(), "{:#}", watched.summary);
    drop(quiet);

    let scenario = format!("{scenario}disable_provider after=150 guid={AMSI}\n");
    let Some(lab) = lab(&scenario) else { return };
    let config = lab.folder().join("etwsieve.toml");
    fs::write(&config, "[guardian]\ncheck_seconds = 1\n").unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (config, metrics) = (windows_path(&config), format!("127.0.0.1:{port}"));
    let watching = Watching::start(&lab, &["--amsi", "--config", &config, "--metrics", &metrics]);
    let session = lab.machine().session(SESSION).unwrap().unwrap();
    let provider = session.provider(AMSI).expect("the scanner's provider is enabled");
    assert_eq!(provider.event_ids.as_deref(), Some(&[1101][..]), "{provider:?}");
    assert!(provider.filter_in && provider.admits(1101, 4, 1) && provider.property & 1 == 1, "{provider:?}");
    let editions: Vec<_> =
        session.providers.iter().filter(|other| other.event_ids.as_deref() == Some(&[4104])).collect();
    assert_eq!(editions.len(), 2, "{session:?}");
    lab.machine().wait(SESSION, PATIENCE, |session| session.provider(AMSI).is_none()).expect("disabled");
    lab.machine().wait(SESSION, PATIENCE, |session| session.provider(AMSI).is_some()).expect("enabled again");
    delivered(&lab, 300);
    let text_of_metrics = scrape(port);
    let watched = watching.finish();
    watched.assert_balanced();
    assert_eq!(watched.code, Some(0), "{}", watched.log);
    let report = lab.machine().report(SESSION).unwrap().unwrap();
    assert_eq!(watched.count("amsi.events_seen"), report.delivered[&1101], "{:#}", watched.summary);
    assert!(report.filtered < 100, "most come before or after: {report:?}");
    assert_eq!(watched.count("amsi.events_dropped"), 1, "{:#}", watched.summary);
    assert_eq!(watched.count("dropped.amsi_layout"), 1);
    let found = watched.detections();
    assert_eq!(found.len() as u64, watched.count("amsi.events_matched"));
    assert!(!found.is_empty() && found.len() <= 10, "{:#}", watched.summary);
    for line in found {
        assert_eq!((&line["event_id"], &line["provider"]), (&1101.into(), &AMSI.into()));
        assert_eq!((&line["script_block_text"], &line["source"]), (&text.into(), &SESSION.into()));
    }
    assert!(watched.notices().contains(&"Provider Disabled in the Sensor's ETW Session"));
    assert!(text_of_metrics.contains("etwsieve_amsi_events_total{fate=\"matched\"}"), "{text_of_metrics}");
}

/// Returns the metrics of the program.
fn scrape(port: u16) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("metrics are served");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn metrics_add_up_under_load() {
    let Some(lab) = lab("synthetic count=60000 units=250 every=100\nrate 20000\n") else { return };
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let watching = Watching::start(&lab, &["--metrics", &format!("127.0.0.1:{port}")]);
    let value = |text: &str, name: &str| -> f64 {
        let lines = text.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    let mut seen = 0.0;
    for _ in 0..20 {
        let text = scrape(port);
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        let now = value(&text, "etwsieve_events_seen_total");
        let fates = value(&text, "etwsieve_events_total{") + value(&text, "etwsieve_events_waiting");
        assert!((now - fates).abs() < 0.5, "{text}");
        assert!(now >= seen, "counts never fall");
        seen = now;
        thread::sleep(Duration::from_millis(100));
    }
    assert!(seen > 0.0);
    delivered(&lab, 60_000);
    let watched = watching.finish();
    watched.assert_balanced();
    assert_eq!(watched.count("events_seen"), 60_000);
}

#[test]
fn a_recording_replays_to_the_same_detections() {
    let Some(lab) = lab("synthetic count=5000 units=500 every=100\nrate 5000\n") else { return };
    let file = lab.folder().join("recorded.etl");
    let output = run(&lab, &["record", "--seconds", "3", &windows_path(&file)]);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{log}");
    assert!(log.contains("lost: 0 events, 0 buffers"), "{log}");
    assert!(lab.machine().sessions().unwrap().is_empty(), "no session is left");
    let replayed = program::run(PROGRAM, ["replay".to_owned(), text(&file)]);
    assert_eq!(replayed.lines().len(), 50, "{log}");
    // A recording does not overwrite a file.
    let again = run(&lab, &["record", "--seconds", "1", &windows_path(&file)]);
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("already exists"));
}
