//! Sinks of `serve`: every stored hit is delivered although the collector is killed and a destination fails for a while.

use etwsieve_tests::faults::{
    Account, Batch, Collector, PATIENCE, Programs, Rng, Sensor, command, free_address, tail, wait_for,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

const BATCH: usize = 400;
const KILLS: usize = 6;

/// Returns the complete lines of a file that is being written.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let end = text.rfind('\n').map_or(0, |at| at + 1);
    text[..end].lines().map(|line| serde_json::from_str(line).expect("whole lines")).collect()
}

/// Returns how often each epoch and sequence number occurs in a file.
fn numbers(path: &Path) -> BTreeMap<(String, u64), usize> {
    let mut found = BTreeMap::new();
    for line in lines(path) {
        let epoch = line["epoch"].as_str().expect("an epoch").to_owned();
        *found.entry((epoch, line["sequence"].as_u64().expect("a number"))).or_default() += 1;
    }
    found
}

fn scrape(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

#[test]
fn stored_hits_are_delivered_despite_kills() {
    let place = tempfile::tempdir().expect("a folder");
    let (place, mut rng) = (place.path(), Rng::new(21));
    let metrics = free_address().expect("a port");
    let mut collector = Collector::new(place, &["--insecure-loopback"]).expect("a collector").without_shim();
    // The folder of the second sink does not exist yet. That sink waits without delaying the other.
    let config = format!(
        "[metrics]\nlisten = '{metrics}'\n\
         [[sink]]\ntype = 'jsonl'\npath = 'first.jsonl'\nbatch_hits = 10\n\
         [[sink]]\ntype = 'jsonl'\nname = 'late'\npath = 'late/second.jsonl'\nformat = 'ecs'\n"
    );
    fs::write(place.join("collector.toml"), config).expect("it is written");
    collector.start_and_wait().expect("it listens");
    let batch = Batch::new("sinks", BATCH, 100..3000, &mut rng);
    let trace = batch.write(place).expect("a trace");
    let mut account = Account::default();
    account.offer(&batch);
    let arguments = ["--insecure-loopback", "--collector-wait", "60"];
    let mut sensor = Sensor::new(place, "sensor", &arguments).expect("a sensor").without_shim();
    sensor.start(&trace, &[collector.address]).expect("it starts");
    for _ in 0..KILLS {
        sleep(Duration::from_millis(rng.within(50..400)));
        collector.kill();
        collector.start_and_wait().expect("it listens again");
    }
    let status = sensor.wait();
    assert!(status.is_some_and(|status| status.success()), "{}", tail(&sensor.log));
    account.due(&batch);

    let first = place.join("first.jsonl");
    let complete = wait_for(PATIENCE, || (numbers(&first).len() == BATCH).then_some(()));
    assert!(complete.is_some(), "{} of {BATCH}: {}", numbers(&first).len(), tail(&collector.log));
    let text = wait_for(PATIENCE, || {
        let failing = r#"etwsieve_collector_sink_failing{sink="late"} 1"#;
        scrape(metrics).filter(|text| text.contains(failing))
    });
    let text = text.expect("the sink without a folder is reported as failing");
    assert!(text.contains(r#"etwsieve_collector_sink_failing{sink="jsonl"} 0"#), "{text}");
    assert!(!place.join("late").exists());
    let status = |key: &str, value: &str| {
        let mut status = command(&Programs::find().collector, ["status", "--format", "jsonl", "--store"]);
        let output = status.arg(collector.store()).output().expect("it starts");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines.find(|line| line[key] == value).expect("it is listed")
    };
    // It has never delivered anything; status shows the reason and the same counts as the metrics.
    let late = status("sink", "late");
    assert!(late["error"].as_str().is_some_and(|error| error.contains("late/second.jsonl")), "{late}");
    assert_eq!(
        (&late["delivered"], &late["delivered_hits"], &late["waiting"]),
        (&0.into(), &0.into(), &BATCH.into())
    );
    for (key, metric) in [("delivered_hits", "delivered_total"), ("waiting", "waiting_hits")] {
        for sink in ["jsonl", "late"] {
            let agree = wait_for(PATIENCE, || {
                let shown = format!(
                    "etwsieve_collector_sink_{metric}{{sink=\"{sink}\"}} {}",
                    status("sink", sink)[key]
                );
                scrape(metrics)?.lines().any(|line| line == shown).then_some(())
            });
            assert!(agree.is_some(), "{key} of {sink}: {} and {:?}", status("sink", sink), scrape(metrics));
        }
    }
    fs::create_dir(place.join("late")).expect("a folder");
    let second = place.join("late/second.jsonl");
    let complete = wait_for(PATIENCE, || (lines(&second).len() == BATCH).then_some(()));
    assert!(complete.is_some(), "{} of {BATCH}: {}", lines(&second).len(), tail(&collector.log));

    // The cursor is written after the file; then nothing is pending.
    for sink in ["jsonl", "late"] {
        let empty = wait_for(PATIENCE, || (status("sink", sink)["waiting"] == 0).then_some(()));
        assert!(empty.is_some(), "{sink}: {}", status("sink", sink));
    }
    assert_eq!(status("sensor", "insecure-loopback")["hits"], BATCH);
    collector.stop().expect("it ends with exit code 0");
    let balance = account.compare_with_store(&collector.store(), 0).expect("the store is readable");
    assert!(balance.is_even() && balance.sent == BATCH as u64, "{balance:?}");
    let again = numbers(&first).values().filter(|count| **count > 1).count();
    println!("{KILLS} kills: {BATCH} hits delivered, {again} of them again");
    // A restart does not deliver the hits again.
    let before = lines(&first).len();
    collector.start_and_wait().expect("it listens");
    sleep(Duration::from_secs(2));
    collector.stop().expect("it ends");
    assert_eq!(lines(&first).len(), before);
}
