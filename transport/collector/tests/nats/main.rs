//! The JetStream back end on real nats-servers: acknowledged hits are stored exactly once, whatever is killed.

#![expect(clippy::unwrap_used, reason = "a panic is the verdict of a test")]

#[path = "../../../../tests/src/faults/cluster.rs"]
#[allow(unreachable_pub, dead_code, reason = "the library of the suites has it too, and uses more of it")]
mod cluster;
#[path = "../support/collector.rs"]
mod collector;
#[path = "../../../tests/common/mod.rs"]
mod common;
mod drain;
mod login;
mod register;
mod streams;

use cluster::Cluster;
use etwsieve_collector::backend::{Appended, Backend, BackendError, Entry, EntryBody, Heartbeat};
use etwsieve_collector::nats::{self, NatsBackend, NatsError, NatsFeed, NatsSettings};
use etwsieve_collector::sink::config::SinkConfig;
use etwsieve_collector::sink::{BatchLimits, Feed, SinkCounts};
use etwsieve_collector::status::now;
use etwsieve_transport::stop::Stop;
use etwsieve_transport::wire::codec;
use etwsieve_transport::wire::message::{CountV1, GapReason, GapV1, StatusV1};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const SENSOR: &str = "srv1.example.test";

fn settings(cluster: &Cluster, replicas: usize) -> NatsSettings {
    NatsSettings { replicas, max_gb: 1, ..NatsSettings::for_url(&cluster.url()) }
}

/// Creates a hit with a sequence number; a different `text` makes it a different hit.
fn entry(epoch: u8, sequence: u64, text: &str) -> Entry {
    let mut hit = common::hit(sequence);
    hit.source = format!("{text}{epoch}");
    let bytes = codec::encode_hit(&hit).unwrap();
    Entry {
        sensor: Arc::from(SENSOR),
        epoch: [epoch; 16],
        item: EntryBody::Hit { sequence, version: 1, bytes },
    }
}

/// Appends a batch until it is acknowledged, as a sensor does.
async fn append(backends: &[NatsBackend], batch: Vec<Entry>) -> Appended {
    for attempt in 0.. {
        // The next attempt may use another collector.
        match backends[attempt % backends.len()].append(batch.clone()).await {
            Ok(appended) => return appended,
            Err(BackendError::Overload(detail)) => assert!(attempt < 20, "{detail}"),
            Err(other) => panic!("{other}"),
        }
    }
    unreachable!("the loop has no end")
}

/// Delivers everything to a file and returns the counts.
fn drain(feed: NatsFeed, folder: &Path, file: &str) -> SinkCounts {
    let runner = SinkConfig::jsonl(file.into()).runner(folder, Box::new(feed)).unwrap();
    let stats = runner.stats.clone();
    runner.run(&Stop::default(), true);
    stats.counts()
}

/// Counts the lines of each epoch and sequence number in a file.
fn lines(path: &Path) -> BTreeMap<(String, u64), usize> {
    let mut found = BTreeMap::new();
    for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let key = (line["epoch"].as_str().unwrap().to_owned(), line["sequence"].as_u64().unwrap());
        *found.entry(key).or_default() += 1;
    }
    found
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn repetitions_conflicts_gaps_and_shared_work() {
    let folder = tempfile::tempdir().unwrap();
    let Some(cluster) = Cluster::start(folder.path(), 1) else { return };
    let settings = settings(&cluster, 1);
    let runtime = runtime();
    let (first, second) = runtime.block_on(async {
        let backends =
            [NatsBackend::connect(&settings).await.unwrap(), NatsBackend::connect(&settings).await.unwrap()];
        let batch: Vec<Entry> = (1..=400).map(|n| entry(1, n, "a")).collect();
        let all_new = Appended { new: 400, ..Appended::default() };
        let all_repeated = Appended { repeated: 400, ..Appended::default() };
        assert_eq!(append(&backends[..1], batch.clone()).await, all_new);
        assert_eq!(append(&backends[1..], batch).await, all_repeated, "by another collector");
        // The same numbers in another epoch are other hits; other contents under one number are a conflict.
        let expected = Appended { new: 1, conflicts: 1, ..Appended::default() };
        assert_eq!(append(&backends, vec![entry(2, 1, "a"), entry(1, 1, "b")]).await, expected);
        let gap = GapV1 { from: 401, to: 410, count: 7, reason: GapReason::SpoolFull };
        let status = StatusV1 {
            counts: vec![CountV1 { name: "hits_offered".into(), value: 3 }],
            ..StatusV1::default()
        };
        let other = |item| Entry { sensor: Arc::from(SENSOR), epoch: [1; 16], item };
        let said = vec![other(EntryBody::Gap(gap))];
        let heartbeat = Heartbeat { sensor: Arc::from(SENSOR), status };
        backends[0].record_heartbeats(vec![heartbeat]).await.unwrap();
        assert_eq!(
            append(&backends, said.clone()).await,
            Appended { gaps: 1, lost: 7, ..Appended::default() }
        );
        assert_eq!(append(&backends, said).await, Appended { repeated: 1, ..Appended::default() });
        backends[0].stop().await;
        let late = backends[0].append(vec![entry(1, 500, "a")]).await;
        assert_eq!(late, Err(BackendError::Stopped));
        (
            NatsFeed::connect(&settings, "shared").await.unwrap(),
            NatsFeed::connect(&settings, "shared").await.unwrap(),
        )
    });

    // An unacknowledged batch is held and not given to another program.
    let mut first = first;
    let limits = BatchLimits { hits: 100, bytes: 8 << 20 };
    let mut taken = Vec::new();
    while taken.is_empty() {
        taken = first.next(limits, Duration::from_millis(500)).unwrap();
    }
    first.hold();
    assert_eq!(first.lag().unwrap().hits, 402);
    let path = folder.path().to_owned();
    let other = std::thread::spawn(move || {
        let mut second = second;
        let mut count = 0;
        loop {
            let batch = second.next(limits, Duration::from_millis(500)).unwrap();
            if batch.is_empty() {
                return count;
            }
            count += batch.len();
            second.acknowledge().unwrap();
        }
    });
    assert_eq!(other.join().unwrap(), 402 - taken.len());
    assert_eq!(first.lag().unwrap().hits, taken.len() as u64);
    first.acknowledge().unwrap();
    assert_eq!(first.lag().unwrap().hits, 0);

    // Each sink has a separate cursor.
    let feed = runtime.block_on(NatsFeed::connect(&settings, "jsonl")).unwrap();
    assert_eq!(drain(feed, &path, "all.jsonl").delivered, 402);
    let lines = lines(&path.join("all.jsonl"));
    assert_eq!(lines.len(), 401);
    assert_eq!(lines[&("01".repeat(16), 1)], 2, "both contents under one number");
    let shown = runtime.block_on(nats::status(&settings, now())).unwrap();
    assert_eq!(shown.is_running, None);
    let [sensor] = &shown.sensors[..] else { panic!("{shown:?}") };
    assert_eq!((sensor.sensor.as_str(), sensor.connected), (SENSOR, true));
    assert_eq!((sensor.hits, sensor.gaps, sensor.lost), (402, 1, 7));
    assert_eq!(sensor.alarms, ["a copy of it is running: 1 reused sequence numbers", "7 hits lost"]);
    let sinks: Vec<_> = shown.sinks.iter().map(|sink| (sink.sink.as_str(), sink.waiting)).collect();
    assert_eq!(sinks, [("jsonl", 0), ("shared", 0)]);
    // No hit comes twice after a restart.
    let feed = runtime.block_on(NatsFeed::connect(&settings, "jsonl")).unwrap();
    assert_eq!(drain(feed, &path, "again.jsonl").delivered, 0);
}

#[test]
fn killed_nodes_lose_and_double_nothing() {
    const HITS: u64 = 3000;
    const BATCH: u64 = 100;
    const KILLS: usize = 3;
    let folder = tempfile::tempdir().unwrap();
    let Some(mut cluster) = Cluster::start(folder.path(), 3) else { return };
    let settings = settings(&cluster, 3);
    let runtime = runtime();
    let backends = runtime.block_on(async {
        [NatsBackend::connect(&settings).await.unwrap(), NatsBackend::connect(&settings).await.unwrap()]
    });

    let publishing = runtime.spawn(async move {
        for begin in (1..=HITS).step_by(BATCH as usize) {
            let batch: Vec<Entry> = (begin..begin + BATCH).map(|n| entry(1, n, "a")).collect();
            append(&backends, batch.clone()).await;
            // The acknowledgement was lost, so the whole batch comes again.
            if begin % 1000 == 1 {
                append(&backends, batch).await;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        backends
    });
    let mut kills = 0;
    while kills < KILLS && !publishing.is_finished() {
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        std::thread::sleep(Duration::from_millis(500 + 4 * u64::from(random[0])));
        let node = usize::from(random[1]) % 3;
        println!("killing node {node}");
        cluster.kill(node);
        std::thread::sleep(Duration::from_millis(700));
        cluster.restart(node);
        // Two of three nodes must be up to date before the next one is killed.
        std::thread::sleep(Duration::from_secs(2));
        kills += 1;
    }
    let backends = runtime.block_on(publishing).unwrap();
    assert!(kills > 0, "nothing was killed while hits were published");
    // All hits are stored: nothing is new when they are sent again.
    let all: Vec<Entry> = (1..=HITS).map(|n| entry(1, n, "a")).collect();
    let again = runtime.block_on(append(&backends, all));
    assert_eq!(again, Appended { repeated: HITS, ..Appended::default() }, "after {kills} kills");

    let feed = runtime.block_on(NatsFeed::connect(&settings, "jsonl")).unwrap();
    let counts = drain(feed, folder.path(), "hits.jsonl");
    let lines = lines(&folder.path().join("hits.jsonl"));
    assert_eq!(lines.len() as u64, HITS, "nothing is lost");
    assert!(lines.values().all(|count| *count == 1), "nothing is doubled");
    assert_eq!((counts.delivered, counts.refused), (HITS, 0));
    println!("{kills} kills, {HITS} hits, 0 lost, 0 doubled");
}

#[test]
fn unusable_servers_have_specific_errors() {
    let runtime = runtime();
    // A single attempt, because a starting collector would wait for the server.
    let ask = |url: &str| runtime.block_on(nats::status(&NatsSettings::for_url(url), now())).unwrap_err();
    let connect =
        |url: &str| runtime.block_on(NatsBackend::connect(&NatsSettings::for_url(url))).unwrap_err();
    let error = ask("nats://127.0.0.1:1");
    assert!(matches!(error, NatsError::Connect(_)) && !error.is_final());
    assert!(matches!(connect(""), NatsError::Settings(_)));
    let error = connect("nats://user:geheim@ho st");
    assert!(matches!(error, NatsError::Settings(_)) && !error.to_string().contains("geheim"), "{error}");
}
