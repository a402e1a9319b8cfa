//! Streams that an administrator created, changed or deleted, and streams that fill up.

use super::{Cluster, SENSOR, append, drain, entry, lines, runtime, settings};
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use etwsieve_collector::backend::{Appended, Backend, BackendError, Entry, EntryBody, EntryError, Heartbeat};
use etwsieve_collector::nats::{self, NatsBackend, NatsError, NatsFeed, NatsSettings};
use etwsieve_collector::sink::{BatchLimits, Feed};
use etwsieve_collector::status::now;
use etwsieve_transport::metrics::Text;
use etwsieve_transport::wire::message::{CountV1, RefusalReason, StatusV1};
use futures_util::{FutureExt, StreamExt};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Longest wait until a change is noticed.
const PATIENCE: Duration = Duration::from_mins(1);
const LIMITS: BatchLimits = BatchLimits { hits: 500, bytes: 8 << 20 };

async fn admin(cluster: &Cluster) -> Context {
    async_nats::jetstream::new(
        async_nats::connect(cluster.url().split(',').collect::<Vec<_>>()).await.unwrap(),
    )
}

async fn info(admin: &Context, stream: &str) -> Option<Info> {
    Some(admin.get_stream(stream).await.ok()?.cached_info().clone())
}

/// Waits until a condition holds.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Returns the value of a metric.
fn metric(nats: &NatsBackend, name: &str) -> f64 {
    let mut text = Text::new();
    nats.renderer()(&mut text);
    let text = text.finish();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn quick(settings: &NatsSettings) -> NatsSettings {
    NatsSettings { check_every: Duration::from_millis(100), ..settings.clone() }
}

/// Fills a stream, drains it and fills it again; hits that one sink has not received are kept.
#[test]
fn hits_that_all_sinks_have_received_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let Some(cluster) = Cluster::start(folder.path(), 1) else { return };
    let settings = NatsSettings {
        max_bytes: Some(1 << 20),
        duplicate_window_seconds: 1,
        sinks: vec!["fast".into(), "slow".into()],
        ..quick(&settings(&cluster, 1))
    };
    let runtime = runtime();
    let nats = runtime.block_on(NatsBackend::connect(&settings)).unwrap();
    let batch = |from: u64| -> Vec<Entry> { (from..from + 50).map(|n| entry(1, n, "a")).collect() };
    // When there is no room, sensors get DISK_FULL, and no hit is discarded.
    let mut stored = 0;
    let fill = |from: u64| {
        let mut stored = 0;
        for round in 0..1000 {
            let appended = match runtime.block_on(nats.append(batch(from + 50 * round))) {
                Ok(appended) => appended,
                Err(BackendError::Full(_)) => return stored,
                Err(error) => panic!("{error}"),
            };
            stored += appended.new;
            let is_full = |error: &EntryError| matches!(error, EntryError::Failed(BackendError::Full(_)));
            assert!(appended.errors.iter().all(|(_, error)| is_full(error)), "{appended:?}");
        }
        panic!("50,000 hits fit into 1 MB");
    };
    stored += fill(1);
    assert!(stored > 500, "{stored}");
    let shown = runtime.block_on(nats::status(&settings, now())).unwrap();
    assert!(shown.streams[0].fill() > 0.9, "{:?}", shown.streams);
    let mut table = Vec::new();
    shown.write_table(&mut table, now()).unwrap();
    let table = String::from_utf8(table).unwrap();
    assert!(table.contains("% full: ALMOST FULL"), "{table}");

    // One of two configured sinks has received everything; the other has never run.
    let path = folder.path();
    let feed = |name: &str| runtime.block_on(NatsFeed::connect(&settings, name)).unwrap();
    let fast = drain(feed("fast"), path, "fast.jsonl").delivered;
    assert!(fast >= stored, "{fast}");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(
        metric(&nats, "etwsieve_collector_stream_freed_total") as u64,
        0,
        "the other sink has received nothing"
    );
    // It starts and receives a part.
    let mut slow = feed("slow");
    let first = slow.next(LIMITS, Duration::from_secs(2)).unwrap();
    slow.acknowledge().unwrap();
    let removed = || metric(&nats, "etwsieve_collector_stream_freed_total") as u64;
    runtime.block_on(until("hits that both have received are removed", async || {
        removed() == first.len() as u64
    }));
    drop(slow);
    assert_eq!(
        drain(feed("slow"), path, "slow.jsonl").delivered + first.len() as u64,
        fast,
        "no unread hit was removed"
    );
    runtime.block_on(until("freed", async || removed() >= stored));
    // The same number of hits fits again.
    let again = fill(1_000_000);
    assert!(again + 100 >= stored, "{again} of {stored}");
    let delivered = drain(feed("fast"), path, "fast.jsonl").delivered;
    assert!(delivered >= again, "{delivered} of {again}");
    assert_eq!(lines(&path.join("fast.jsonl")).values().max(), Some(&1));

    // Hits are kept for a sink that will never run again until it is removed by name. A collector whose configuration
    // names it would add it again.
    drop(nats);
    assert!(runtime.block_on(nats::forget_sink(&settings, "slow")).unwrap());
    assert!(!runtime.block_on(nats::forget_sink(&settings, "slow")).unwrap());
    let shown = runtime.block_on(nats::status(&settings, now())).unwrap();
    assert_eq!(shown.sinks.iter().map(|sink| sink.sink.as_str()).collect::<Vec<_>>(), ["fast"]);
}

/// No hit is removed before any sink has run, and a sink loses no hits if its consumer is deleted.
#[test]
fn a_sink_loses_nothing_when_its_consumer_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let Some(cluster) = Cluster::start(folder.path(), 1) else { return };
    let settings = NatsSettings { duplicate_window_seconds: 1, ..quick(&settings(&cluster, 1)) };
    let runtime = runtime();
    let nats = runtime.block_on(NatsBackend::connect(&settings)).unwrap();
    let batch: Vec<Entry> = (1..=100).map(|n| entry(1, n, "a")).collect();
    runtime.block_on(nats.append(batch)).unwrap();
    let feed = |name: &str| runtime.block_on(NatsFeed::connect(&settings, name)).unwrap();
    drop(feed("slow"));
    runtime.block_on(async {
        let stream = admin(&cluster).await.get_stream("ETWSIEVE").await.unwrap();
        stream.delete_consumer("slow").await.unwrap();
    });
    // The only remaining consumer has received everything, but the ledger knows the other sink.
    assert_eq!(drain(feed("fast"), folder.path(), "fast.jsonl").delivered, 100);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(metric(&nats, "etwsieve_collector_stream_freed_total") as u64, 0);
    assert_eq!(drain(feed("slow"), folder.path(), "slow.jsonl").delivered, 100);
}

/// Safe repairs are made before the first hit and while hits arrive.
#[test]
fn streams_that_would_lose_hits_are_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let Some(cluster) = Cluster::start(folder.path(), 1) else { return };
    let settings = quick(&settings(&cluster, 1));
    runtime().block_on(async {
        let admin = admin(&cluster).await;
        // The configuration of an earlier release, with unsafe settings.
        let poor = Config {
            name: "ETWSIEVE".into(),
            subjects: vec!["etwsieve.hits.>".into(), "etwsieve.gaps.>".into()],
            discard: DiscardPolicy::Old,
            max_bytes: 2 << 20,
            max_messages_per_subject: 10,
            max_age: Duration::from_hours(1),
            max_message_size: 4096,
            duplicate_window: Duration::from_secs(1),
            ..Config::default()
        };
        admin.create_stream(poor.clone()).await.unwrap();
        let nats = NatsBackend::connect(&settings).await.unwrap();
        let batch: Vec<Entry> = (1..=3000).map(|n| entry(1, n, "a")).collect();
        assert_eq!(append(std::slice::from_ref(&nats), batch).await.new, 3000);
        let is_right = |config: &Config| {
            config.discard == DiscardPolicy::New
                && config.max_bytes == 1 << 30
                && config.max_messages_per_subject == -1
                && config.max_age.is_zero()
                && config.max_message_size == -1
                && config.duplicate_window == Duration::from_mins(10)
                && config.subjects == ["etwsieve.hits.*"]
        };
        let found = info(&admin, "ETWSIEVE").await.unwrap();
        assert!(is_right(&found.config), "{:?}", found.config);
        assert_eq!(found.state.messages, 3000, "no hit was discarded");
        // A change while hits arrive is noticed and repaired.
        let changed = Config { discard: DiscardPolicy::Old, max_bytes: 2 << 20, ..found.config };
        admin.update_stream(&changed).await.unwrap();
        until("repaired again", async || is_right(&info(&admin, "ETWSIEVE").await.unwrap().config)).await;
    });
}

/// No hit is acknowledged while a stream has an unsafe configuration that cannot be repaired.
#[test]
fn streams_that_cannot_be_repaired_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let Some(cluster) = Cluster::start(folder.path(), 1) else { return };
    let settings = quick(&settings(&cluster, 1));
    runtime().block_on(async {
        let admin = admin(&cluster).await;
        let base =
            Config { name: "ETWSIEVE".into(), subjects: vec!["etwsieve.hits.>".into()], ..Config::default() };
        let rows = [
            ("memory", Config { storage: StorageType::Memory, ..base.clone() }),
            ("not `limits`", Config { retention: RetentionPolicy::Interest, ..base.clone() }),
            ("not `limits`", Config { retention: RetentionPolicy::WorkQueue, ..base.clone() }),
        ];
        let mut nats = None;
        for (number, (reason, config)) in (1..).zip(rows) {
            admin.create_stream(config).await.unwrap();
            // The first collector finds the stream when it starts, but starts anyway.
            let nats = match &nats {
                None => nats.insert(NatsBackend::connect(&settings).await.unwrap()),
                Some(nats) => nats,
            };
            until(reason, async || metric(nats, "etwsieve_collector_stream_unusable") > 0.0).await;
            match nats.append(vec![entry(1, number, "a")]).await {
                Err(BackendError::Failed(detail)) => assert!(detail.contains(reason), "{detail}"),
                other => panic!("{reason}: {other:?}"),
            }
            admin.delete_stream("ETWSIEVE").await.unwrap();
            until("usable again", async || metric(nats, "etwsieve_collector_stream_unusable") == 0.0).await;
            assert_eq!(
                nats.append(vec![entry(1, number, "a")]).await.unwrap().new,
                1,
                "it is created again with the right configuration"
            );
            admin.delete_stream("ETWSIEVE").await.unwrap();
        }
    });
}

/// Deleted streams are created again without a restart; hits wait for them.
#[test]
fn deleted_streams_are_created_again() {
    let folder = tempfile::tempdir().unwrap();
    let Some(cluster) = Cluster::start(folder.path(), 1) else { return };
    let settings = NatsSettings { check_every: Duration::from_mins(10), ..settings(&cluster, 1) };
    runtime().block_on(async {
        let nats = NatsBackend::connect(&settings).await.unwrap();
        let admin = admin(&cluster).await;
        for (number, stream) in (1..).zip(["ETWSIEVE", "ETWSIEVE-LEDGER", "ETWSIEVE-STATUS"]) {
            admin.delete_stream(stream).await.unwrap();
            let appended = append(std::slice::from_ref(&nats), vec![entry(1, number, "a")]).await;
            assert_eq!(appended.new, 1, "{stream}: hits wait only until it is created");
            until(stream, async || info(&admin, stream).await.is_some()).await;
        }
        assert_eq!(metric(&nats, "etwsieve_collector_stream_recreated_total") as u64, 1);
        // Another stream now has the subject; its PubAck does not count.
        admin.delete_stream("ETWSIEVE").await.unwrap();
        let thief =
            Config { name: "OTHER".into(), subjects: vec!["etwsieve.hits.>".into()], ..Config::default() };
        if admin.create_stream(thief).await.is_ok() {
            let stored = nats.append(vec![entry(1, 9, "a")]).await;
            assert!(
                matches!(&stored, Err(BackendError::Failed(detail)) if detail.contains("OTHER")),
                "{stored:?}"
            );
        }
    });
}

/// A collector may be started before its cluster.
#[test]
fn a_collector_waits_for_its_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut cluster) = Cluster::start(folder.path(), 1) else { return };
    cluster.kill(0);
    let settings = settings(&cluster, 1);
    let runtime = runtime();
    let connecting = runtime.spawn(async move { NatsBackend::connect(&settings).await });
    std::thread::sleep(Duration::from_secs(2));
    assert!(!connecting.is_finished());
    cluster.restart(0);
    let nats = runtime.block_on(connecting).unwrap().unwrap();
    assert_eq!(runtime.block_on(nats.append(vec![entry(1, 1, "a")])).unwrap().new, 1);
}

/// Sensors are divided among streams; a cluster with another number of partitions is refused.
#[test]
fn partitions_divide_sensors_and_do_not_change() {
    let folder = tempfile::tempdir().unwrap();
    let Some(cluster) = Cluster::start(folder.path(), 1) else { return };
    let settings = NatsSettings { partitions: 4, ..settings(&cluster, 1) };
    runtime().block_on(async {
        let nats = NatsBackend::connect(&settings).await.unwrap();
        let of =
            |sensor: usize, n: u64| Entry { sensor: format!("s{sensor}.test").into(), ..entry(1, n, "a") };
        let batch: Vec<Entry> =
            (1..=20).flat_map(|n| (0..20).map(move |sensor| (sensor, n))).map(|(s, n)| of(s, n)).collect();
        assert_eq!(append(std::slice::from_ref(&nats), batch.clone()).await.new, 400);
        assert_eq!(append(std::slice::from_ref(&nats), batch).await.repeated, 400);
        let admin = admin(&cluster).await;
        for partition in 0..4 {
            let found = info(&admin, &format!("ETWSIEVE-P{partition}-OF-4")).await.unwrap();
            assert!(found.state.messages >= 20, "{:?}", found.state);
        }
        let shown = nats::status(&settings, now()).await.unwrap();
        assert_eq!(shown.sensors.iter().map(|sensor| sensor.hits).sum::<u64>(), 400);
        assert_eq!((shown.sensors.len(), shown.streams.len()), (20, 4));
        let other = NatsSettings { partitions: 1, ..settings.clone() };
        let Err(NatsError::Settings(text)) = NatsBackend::connect(&other).await else {
            panic!("it is refused")
        };
        assert!(text.contains("the cluster has 4 ("), "{text}");
    });
    // A drain reads all partitions, whatever its configuration says, with each sensor's hits in order.
    let other = NatsSettings { partitions: 1, ..settings };
    let feed = runtime().block_on(async {
        let mut feed = NatsFeed::connect(&other, "jsonl").await.unwrap();
        tokio::task::spawn_blocking(move || {
            let mut last: BTreeMap<String, u64> = BTreeMap::new();
            while last.len() < 20 || last.values().any(|sequence| *sequence < 20) {
                for item in feed.next(LIMITS, Duration::from_secs(5)).unwrap() {
                    let before = last.insert(item.sensor.clone(), item.sequence).unwrap_or_default();
                    assert_eq!(item.sequence, before + 1, "{}", item.sensor);
                }
                feed.acknowledge().unwrap();
            }
            last.len()
        })
        .await
        .unwrap()
    });
    assert_eq!(feed, 20);
}

/// The statuses of many sensors are read in a few requests.
#[test]
fn status_reads_many_sensors_at_once() {
    status_of(3000, 100);
}

#[test]
#[ignore = "measurement: prints the time"]
fn status_of_100000_sensors() {
    status_of(100_000, 300);
}

fn status_of(count: usize, requests_max: usize) {
    let folder = tempfile::tempdir().unwrap();
    let Some(cluster) = Cluster::start(folder.path(), 1) else { return };
    let settings = settings(&cluster, 1);
    runtime().block_on(async {
        let nats = NatsBackend::connect(&settings).await.unwrap();
        let status =
            StatusV1 { counts: vec![CountV1 { name: "spool_hits".into(), value: 3 }], ..StatusV1::default() };
        let heartbeat = |number: usize| Heartbeat {
            sensor: format!("s{number}.example.test").into(),
            status: status.clone(),
        };
        for round in 0..count / 500 {
            nats.record_heartbeats((0..500).map(|number| heartbeat(500 * round + number)).collect())
                .await
                .unwrap();
        }
        nats.stop().await;
        let admin = admin(&cluster).await;
        until("all are stored", async || {
            info(&admin, "ETWSIEVE-STATUS").await.unwrap().state.messages == count as u64
        })
        .await;
        // Requests to the JetStream API are messages that can be observed.
        let mut requests = admin.client().subscribe("$JS.API.>").await.unwrap();
        admin.client().flush().await.unwrap();
        let begun = Instant::now();
        let shown = nats::status(&settings, now()).await.unwrap();
        let taken = begun.elapsed();
        admin.client().flush().await.unwrap();
        let mut used = 0;
        while requests.next().now_or_never().flatten().is_some() {
            used += 1;
        }
        assert_eq!(shown.sensors.len(), count);
        println!("{count} sensors in {taken:?}");
        assert!(shown.sensors.iter().all(|sensor| sensor.connected && sensor.spool_hits == Some(3)));
        assert!((5..requests_max).contains(&used), "{used} requests");
    });
}

/// A consumer with a maximum number of deliveries would skip hits.
#[test]
fn consumers_that_skip_hits_are_repaired_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let Some(cluster) = Cluster::start(folder.path(), 1) else { return };
    let settings = settings(&cluster, 1);
    runtime().block_on(async {
        let _nats = NatsBackend::connect(&settings).await.unwrap();
        let stream = admin(&cluster).await.get_stream("ETWSIEVE").await.unwrap();
        let base = pull::Config { max_deliver: 3, headers_only: true, ..pull::Config::default() };
        let poor = pull::Config { durable_name: Some("poor".into()), ..base };
        stream.create_consumer(poor).await.unwrap();
        NatsFeed::connect(&settings, "poor").await.unwrap();
        let found = stream.consumer_info("poor").await.unwrap().config;
        assert!(found.max_deliver <= 0 && !found.headers_only, "{found:?}");
        let silent = async_nats::jetstream::consumer::AckPolicy::None;
        let silent = pull::Config {
            durable_name: Some("silent".into()),
            ack_policy: silent,
            ..pull::Config::default()
        };
        stream.create_consumer(silent).await.unwrap();
        let error = NatsFeed::connect(&settings, "silent").await.err().unwrap();
        assert!(error.to_string().contains("delete it"), "{error}");
    });
}

/// A reused number raises an alarm, and both hits are stored, whichever collectors received them.
#[test]
fn a_number_with_two_contents_is_a_conflict() {
    let folder = tempfile::tempdir().unwrap();
    let Some(cluster) = Cluster::start(folder.path(), 1) else { return };
    let settings = settings(&cluster, 1);
    let runtime = runtime();
    runtime.block_on(async {
        let (first, second) =
            (NatsBackend::connect(&settings).await.unwrap(), NatsBackend::connect(&settings).await.unwrap());
        let conflict = Appended { conflicts: 1, ..Appended::default() };
        let repeated = Appended { repeated: 1, ..Appended::default() };
        assert_eq!(first.append(vec![entry(1, 1, "a")]).await.unwrap().new, 1);
        assert_eq!(second.append(vec![entry(1, 1, "b")]).await.unwrap(), conflict);
        // Both are recognised when they are sent again through either collector.
        for nats in [&first, &second] {
            for text in ["a", "b"] {
                assert_eq!(nats.append(vec![entry(1, 1, text)]).await.unwrap(), repeated, "{text}");
            }
        }
        assert_eq!(first.append(vec![entry(1, 1, "c")]).await.unwrap(), conflict);
        let shown = nats::status(&settings, now()).await.unwrap();
        let [sensor] = &shown.sensors[..] else { panic!("{shown:?}") };
        assert_eq!((sensor.sensor.as_str(), sensor.hits, sensor.conflicts), ("srv1_example_test", 3, 2));
        assert_eq!(sensor.alarms[0], "a copy of it is running: 2 reused sequence numbers", "{SENSOR}");
        // The first message is gone, so the hit is stored again rather than lost.
        admin(&cluster).await.get_stream("ETWSIEVE").await.unwrap().purge().sequence(2).await.unwrap();
        assert_eq!(first.append(vec![entry(1, 1, "d")]).await.unwrap().conflicts, 1);
    });
    let feed = runtime.block_on(NatsFeed::connect(&settings, "jsonl")).unwrap();
    assert_eq!(drain(feed, folder.path(), "hits.jsonl").delivered, 3);
}

/// An entry that cannot be stored does not affect others in its batch.
#[test]
fn one_entry_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let Some(cluster) = Cluster::start(folder.path(), 1) else { return };
    let settings =
        NatsSettings { partitions: 2, check_every: Duration::from_mins(10), ..settings(&cluster, 1) };
    runtime().block_on(async {
        let nats = NatsBackend::connect(&settings).await.unwrap();
        let admin = admin(&cluster).await;
        // Sensors of both partitions; the stream of one partition accepts only short messages.
        let [first, second] = ["ETWSIEVE-P0-OF-2", "ETWSIEVE-P1-OF-2"];
        let entries: Vec<Entry> = (0..40)
            .map(|sensor| Entry { sensor: format!("s{sensor}.test").into(), ..entry(1, 1, "a") })
            .collect();
        let sealed = Config { sealed: true, ..info(&admin, second).await.unwrap().config };
        admin.update_stream(&sealed).await.unwrap();
        let appended = nats.append(entries.clone()).await.unwrap();
        let (stored, failed) = (appended.new, appended.errors.len() as u64);
        assert!(stored > 10 && failed > 10 && stored + failed == 40, "{appended:?}");
        assert_eq!(info(&admin, first).await.unwrap().state.messages, stored);
        assert!(
            appended.errors.iter().all(|(_, error)| matches!(error, EntryError::Failed(_))),
            "{appended:?}"
        );
    });
}

/// A hit that the servers never accept is refused and counted as lost; all others are stored.
#[test]
fn only_the_hit_that_is_too_long_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let Some(cluster) = Cluster::start(folder.path(), 1) else { return };
    let settings = settings(&cluster, 1);
    runtime().block_on(async {
        let nats = NatsBackend::connect(&settings).await.unwrap();
        let mut batch: Vec<Entry> = (1..=10).map(|n| entry(1, n, "a")).collect();
        batch[4].item = EntryBody::Hit { sequence: 5, version: 1, bytes: vec![0; 3 << 20] };
        let appended = nats.append(batch).await.unwrap();
        assert_eq!(appended.new, 9);
        let [(4, EntryError::Refused(refusal))] = &appended.errors[..] else { panic!("{appended:?}") };
        assert_eq!(refusal.reason, RefusalReason::TooLarge);
        let shown = nats::status(&settings, now()).await.unwrap();
        assert_eq!((shown.sensors[0].hits, shown.sensors[0].lost), (9, 1));
    });
}
