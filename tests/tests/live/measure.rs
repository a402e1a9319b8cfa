//! Measures the live sensor on the stand-in: time of the callback and memory. The measurements are printed and run only on
//! request; they assert counts, not times:
//!
//! ```text
//! cargo test -p etwsieve-tests --test live measure -- --ignored --nocapture
//! ```

use super::watching::{PATIENCE, SESSION, Watching, lab};
use etwsieve_tests::corpus;
use etwsieve_tests::standin::windows_path;
use std::fs;
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

/// Size of a buffer of the sensor's session, in bytes.
const BUFFER_LEN: usize = 128 << 10;

/// Measures copies of `len` bytes between many buffers; median of the rounds in nanoseconds.
fn memcpy_ns(len: usize) -> f64 {
    const BUFFERS: usize = 256;
    const ROUNDS: usize = 200;
    let from: Vec<Vec<u8>> = (0..BUFFERS).map(|n| vec![n as u8; len]).collect();
    let mut to: Vec<Vec<u8>> = (0..BUFFERS).map(|_| Vec::with_capacity(len)).collect();
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for (from, to) in from.iter().zip(&mut to) {
                to.clear();
                to.extend_from_slice(black_box(from));
            }
            black_box(&to);
            start.elapsed().as_nanos() as f64 / BUFFERS as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

/// Returns a value of the status of a process, in kilobytes.
fn status_kb(id: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).unwrap_or(0)
}

/// Measures the callback in a scenario of `count` events, as its mean in nanoseconds; `None` without a stand-in.
fn callback_ns(scenario: &str, count: u64) -> Option<f64> {
    let lab = lab(scenario)?;
    let watching = Watching::start(&lab, &[]);
    let report = lab
        .machine()
        .wait_report(SESSION, PATIENCE, |report| report.emitted >= count)
        .expect("events are delivered");
    let watched = watching.finish();
    watched.assert_balanced();
    Some(report.callback_ns as f64 / report.delivered_total as f64 - report.clock_ns as f64)
}

#[test]
#[ignore = "a measurement"]
fn callback() {
    println!("payload bytes | one by one ns | by buffers ns | memcpy ns | 2 memcpy + 60 ns");
    for (units, count) in [(250, 100_000), (3_000, 50_000), (20_000, 15_000)] {
        // The text with its NUL, two numbers, the id and an empty path.
        let bytes = 8 + 2 * (units + 1) + 2 * 37 + 2;
        let source = format!("synthetic count={count} units={units} every=0");
        // A single event finds the matcher parked and wakes it. ETW delivers whole buffers.
        let buffer = (BUFFER_LEN / bytes).max(1);
        let paces = ["rate 5000".to_owned(), format!("burst {buffer} every_ms={}", (buffer / 5).max(1))];
        let [alone, together] = paces.map(|pace| callback_ns(&format!("{source}\n{pace}\n"), count));
        let (Some(alone), Some(together)) = (alone, together) else { return };
        let memcpy = memcpy_ns(bytes);
        println!(
            "{bytes:>13} | {alone:>13.0} | {together:>13.0} | {memcpy:>9.0} | {:>16.0}",
            2.0 * memcpy + 60.0
        );
    }
}

#[test]
#[ignore = "a measurement"]
fn memory_with_all_rules_under_load() {
    let Some(data) = corpus::data() else { return };
    let Some(lab) = lab("synthetic count=60000 units=3000 every=1000\nrate 3000\n") else { return };
    let mut args = vec!["--allow-bad-rules".to_owned()];
    for rules in corpus::rules(&data, &["sigma"]) {
        args.extend(["--rules".to_owned(), windows_path(&rules)]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let watching = Watching::start(&lab, &args);
    lab.machine()
        .wait_report(SESSION, PATIENCE, |report| report.emitted >= 45_000)
        .expect("events are delivered");
    let (resident, own) = (status_kb(watching.id(), "VmRSS"), status_kb(watching.id(), "RssAnon"));
    println!("resident {resident} KB with Wine's libraries, {own} KB of it anonymous");
    thread::sleep(Duration::from_millis(100));
    let watched = watching.finish();
    watched.assert_balanced();
    println!("rules: {}", watched.count("rules"));
}
