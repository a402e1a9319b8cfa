//! Draining a real nats-server to sinks: promptly, once, and even if consumers or streams are deleted.

use crate::cluster::Cluster;
use crate::common;
use etwsieve_collector::backend::{Backend, Entry, EntryBody};
use etwsieve_collector::nats::{self, NatsBackend, NatsFeed, NatsSettings};
use etwsieve_collector::sink::config::SinkConfig;
use etwsieve_collector::sink::{Backoff, BatchLimits, Feed, SinkStats};
use etwsieve_collector::status::now;
use etwsieve_transport::stop::Stop;
use etwsieve_transport::wire::codec;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const SENSOR: &str = "srv1.example.test";
const STREAM: &str = "ETWSIEVE";
const LIMITS: BatchLimits = BatchLimits { hits: 500, bytes: 8 << 20 };
/// Longest wait for a condition.
const PATIENCE: Duration = Duration::from_mins(2);

fn settings(cluster: &Cluster) -> NatsSettings {
    NatsSettings { replicas: 1, max_gb: 1, ..NatsSettings::for_url(&cluster.url()) }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Stores hits with these numbers and retries until they are acknowledged.
fn store(runtime: &Runtime, backend: &NatsBackend, numbers: std::ops::RangeInclusive<u64>) {
    let entry = |sequence| {
        let bytes = codec::encode_hit(&common::hit(sequence)).unwrap();
        Entry {
            sensor: Arc::from(SENSOR),
            epoch: [1; 16],
            item: EntryBody::Hit { sequence, version: 1, bytes },
        }
    };
    let batch: Vec<Entry> = numbers.map(entry).collect();
    let begun = Instant::now();
    while runtime.block_on(backend.append(batch.clone())).is_err() {
        assert!(begun.elapsed() < PATIENCE, "the hits are not acknowledged");
    }
}

/// Deletes the consumer of a sink, or the stream, as an administrator would.
fn delete(runtime: &Runtime, cluster: &Cluster, consumer: Option<&str>) {
    runtime.block_on(async {
        let client = async_nats::connect(cluster.url().as_str()).await.unwrap();
        let context = async_nats::jetstream::new(client);
        match consumer {
            Some(name) => {
                _ = context.get_stream(STREAM).await.unwrap().delete_consumer(name).await.unwrap();
            }
            None => _ = context.delete_stream(STREAM).await.unwrap(),
        }
    });
}

/// A sink that runs until it is stopped.
struct Draining {
    stop: Stop,
    thread: JoinHandle<()>,
    stats: Arc<SinkStats>,
}

impl Draining {
    fn start(feed: NatsFeed, folder: &Path, more: &str, until_empty: bool) -> Self {
        #[derive(serde::Deserialize)]
        struct Document {
            sink: [SinkConfig; 1],
        }
        let text = format!("[[sink]]\ntype = \"jsonl\"\npath = \"hits.jsonl\"\n{more}");
        let Document { sink: [sink] } = toml::from_str(&text).unwrap();
        let mut runner = sink.runner(folder, Box::new(feed)).unwrap();
        runner.backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(200));
        let (stop, stats) = (Stop::default(), runner.stats.clone());
        let asked = stop.clone();
        Self { stop, stats, thread: std::thread::spawn(move || runner.run(&asked, until_empty)) }
    }

    fn stop(self) {
        self.stop.request();
        self.thread.join().unwrap();
    }
}

/// Counts the lines of each sequence number in the file.
fn numbers(path: &Path) -> BTreeMap<u64, usize> {
    let mut found = BTreeMap::new();
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let end = text.rfind('\n').map_or(0, |at| at + 1);
    for line in text[..end].lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        *found.entry(line["sequence"].as_u64().unwrap()).or_default() += 1;
    }
    found
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn once_each(path: &Path, numbers_max: u64) {
    let expected: BTreeMap<u64, usize> = (1..=numbers_max).map(|number| (number, 1)).collect();
    assert_eq!(numbers(path), expected);
}

#[test]
fn a_hit_is_delivered_without_waiting_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let Some(cluster) = Cluster::start(folder.path(), 1) else { return };
    let runtime = runtime();
    let backend = runtime.block_on(NatsBackend::connect(&settings(&cluster))).unwrap();
    let mut feed = runtime.block_on(NatsFeed::connect(&settings(&cluster), "jsonl")).unwrap();
    // Far below the time limit of the call: a hit is returned as soon as it is available.
    let wait = 10 * PATIENCE;
    let waiting = std::thread::spawn(move || {
        let mut sizes = Vec::new();
        while sizes.iter().sum::<usize>() < 3 {
            sizes.push(feed.next(LIMITS, wait).unwrap().len());
            feed.acknowledge().unwrap();
        }
        (feed, sizes)
    });
    for number in 1..=3 {
        store(&runtime, &backend, number..=number);
    }
    let begun = Instant::now();
    let (mut feed, _) = waiting.join().unwrap();
    assert!(begun.elapsed() < wait);
    // Available hits come in one batch, once.
    store(&runtime, &backend, 4..=403);
    assert_eq!(feed.next(LIMITS, wait).unwrap().len(), 400);
    feed.hold();
    feed.acknowledge().unwrap();
    assert_eq!(feed.lag().unwrap().hits, 0, "the last acknowledgement covers all");
    assert!(feed.next(LIMITS, Duration::from_millis(1)).unwrap().is_empty());
}

#[test]
fn a_deleted_consumer_or_stream_is_created_again() {
    let folder = tempfile::tempdir().unwrap();
    let Some(cluster) = Cluster::start(folder.path(), 1) else { return };
    let (runtime, settings) = (runtime(), settings(&cluster));
    let backend = runtime.block_on(NatsBackend::connect(&settings)).unwrap();
    let feed = runtime.block_on(NatsFeed::connect(&settings, "jsonl")).unwrap();
    let path = folder.path().join("hits.jsonl");
    let drain = Draining::start(feed, folder.path(), "", false);
    store(&runtime, &backend, 1..=20);
    wait_for("the first hits", || numbers(&path).len() == 20);

    delete(&runtime, &cluster, Some("jsonl"));
    wait_for("the missing consumer is reported", || drain.stats.counts().read_errors > 0);
    store(&runtime, &backend, 21..=40);
    wait_for("hits after the consumer was deleted", || numbers(&path).len() == 40);

    let errors = drain.stats.counts().read_errors;
    delete(&runtime, &cluster, None);
    wait_for("the missing stream is reported", || drain.stats.counts().read_errors > errors);
    store(&runtime, &backend, 41..=60);
    wait_for("hits after the stream was deleted", || numbers(&path).len() == 60);
    wait_for("it gets on", || drain.stats.counts().error.is_none());
    drain.stop();
    // It remembers the delivered hits, although the new consumer starts with the first one.
    once_each(&path, 60);
}

#[test]
fn two_drains_share_one_file() {
    const HITS: u64 = 3000;
    let folder = tempfile::tempdir().unwrap();
    let Some(cluster) = Cluster::start(folder.path(), 1) else { return };
    let (runtime, settings) = (runtime(), settings(&cluster));
    let backend = runtime.block_on(NatsBackend::connect(&settings)).unwrap();
    for begin in (1..HITS).step_by(500) {
        store(&runtime, &backend, begin..=begin + 499);
    }
    let drains: Vec<_> = (0..2)
        .map(|_| {
            let feed = runtime.block_on(NatsFeed::connect(&settings, "jsonl")).unwrap();
            Draining::start(feed, folder.path(), "batch_hits = 7", true)
        })
        .collect();
    let delivered: Vec<u64> = drains
        .into_iter()
        .map(|drain| {
            drain.thread.join().unwrap();
            drain.stats.counts().delivered
        })
        .collect();
    println!("delivered: {delivered:?}");
    assert_eq!(delivered.iter().sum::<u64>(), HITS);
    once_each(&folder.path().join("hits.jsonl"), HITS);
}

#[test]
fn a_failing_sink_is_shown_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let Some(cluster) = Cluster::start(folder.path(), 1) else { return };
    let (runtime, settings) = (runtime(), settings(&cluster));
    let backend = runtime.block_on(NatsBackend::connect(&settings)).unwrap();
    store(&runtime, &backend, 1..=5);
    let feed = runtime.block_on(NatsFeed::connect(&settings, "late")).unwrap();
    let drain = Draining::start(feed, &folder.path().join("missing"), "", false);
    let sink = || {
        let status = runtime.block_on(nats::status(&settings, now())).unwrap();
        assert_eq!(status.sensors.len(), 1, "a sink is not a sensor");
        let [sink] = <[_; 1]>::try_from(status.sinks).unwrap();
        sink
    };
    wait_for("the reason", || sink().error.is_some());
    let shown = sink();
    assert!(shown.error.unwrap().contains("cannot write to"), "the reason is shown");
    assert_eq!(
        (shown.sink.as_str(), shown.delivered, shown.delivered_hits, shown.waiting),
        ("late", 0, 0, 5)
    );
    std::fs::create_dir(folder.path().join("missing")).unwrap();
    wait_for("it delivers", || sink().error.is_none() && sink().delivered_hits == 5);
    let shown = sink();
    assert!(shown.delivered > 0 && shown.waiting == 0, "{shown:?}");
    let counts = drain.stats.counts();
    assert_eq!((shown.delivered_hits, shown.retries, shown.refused), (counts.delivered, counts.retries, 0));
    drain.stop();
}

/// A running `etwsieve-collector drain`, which is killed when dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    fn drain(folder: &Path, url: &str, arguments: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_etwsieve-collector"))
            .current_dir(folder)
            .args(["drain", "--store", url, "--sink", "jsonl:hits.jsonl"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("drain.log")).unwrap())
            .spawn()
            .unwrap();
        Self(child)
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn scrape(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

#[test]
fn the_program_waits_for_the_cluster_and_serves_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut cluster) = Cluster::start(folder.path(), 1) else { return };
    let (runtime, settings) = (runtime(), settings(&cluster));
    let backend = runtime.block_on(NatsBackend::connect(&settings)).unwrap();
    store(&runtime, &backend, 1..=10);
    drop(backend);
    cluster.kill(0);
    let metrics = free_address();
    let mut program = Program::drain(folder.path(), &cluster.url(), &["--metrics", &metrics.to_string()]);
    let has = |line: &str| scrape(metrics).is_some_and(|text| text.lines().any(|it| it == line));
    wait_for("the sink reports its failure", || has("etwsieve_collector_sink_failing{sink=\"jsonl\"} 1"));
    assert!(program.0.try_wait().unwrap().is_none(), "it goes on");
    cluster.restart(0);
    wait_for("all is delivered", || has("etwsieve_collector_sink_delivered_total{sink=\"jsonl\"} 10"));
    wait_for("no hits are pending", || has("etwsieve_collector_sink_waiting_hits{sink=\"jsonl\"} 0"));
    let text = scrape(metrics).unwrap();
    for line in [
        "etwsieve_collector_sink_failing{sink=\"jsonl\"} 0",
        "etwsieve_collector_sink_refused_total{sink=\"jsonl\"} 0",
        "etwsieve_collector_sink_dropped_total{sink=\"jsonl\"} 0",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}: {text}");
    }
    once_each(&folder.path().join("hits.jsonl"), 10);
}

/// `cargo test --release --package etwsieve-collector --test nats -- --ignored --nocapture throughput`
#[test]
#[ignore = "a measurement"]
fn throughput_and_lag() {
    const HITS: u64 = 60_000;
    const PROBES: u64 = 100;
    let folder = tempfile::tempdir().unwrap();
    let Some(cluster) = Cluster::start(folder.path(), 1) else { return };
    let (runtime, settings) = (runtime(), settings(&cluster));
    let backend = runtime.block_on(NatsBackend::connect(&settings)).unwrap();
    for begin in (1..HITS).step_by(1000) {
        store(&runtime, &backend, begin..=begin + 999);
    }
    let path = folder.path().join("hits.jsonl");
    let feed = runtime.block_on(NatsFeed::connect(&settings, "jsonl")).unwrap();
    let begun = Instant::now();
    let drain = Draining::start(feed, folder.path(), "", false);
    wait_for("all are delivered", || drain.stats.counts().delivered == HITS);
    println!("{:.0} hits/s", HITS as f64 / begun.elapsed().as_secs_f64());

    let len = || std::fs::metadata(&path).unwrap().len();
    let mut lags: Vec<Duration> = (HITS + 1..=HITS + PROBES)
        .map(|number| {
            let before = len();
            store(&runtime, &backend, number..=number);
            let acknowledged = Instant::now();
            while len() == before {
                std::thread::sleep(Duration::from_micros(200));
            }
            acknowledged.elapsed()
        })
        .collect();
    lags.sort_unstable();
    let [median, last] = [lags[lags.len() / 2], lags[lags.len() - 1]].map(|lag| lag.as_secs_f64() * 1000.0);
    println!("from acknowledgement to file: median {median:.1} ms, maximum {last:.1} ms");
    drain.stop();
}
