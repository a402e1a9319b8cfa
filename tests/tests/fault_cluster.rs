//! Collectors without state in front of a real cluster of three nats-servers, all killed at random: what the sensors are told
//! to be there is there, once.
#![cfg(target_os = "linux")]

use etwsieve_collector::nats::{NatsFeed, NatsSettings};
use etwsieve_collector::sink::{BatchLimits, Feed, SinkItem};
use etwsieve_tests::faults::{
    Account, Batch, Cluster, Collector, Programs, Rng, Running, Sensor, command, listens, run_cluster, tail,
    wait_for,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

const SENSORS: usize = 3;
/// Hits of one trace; each sensor replays some.
const BATCH: usize = 60;
const ROUNDS: usize = 5;
/// Nodes that are killed, one after the other: sensors go on until there were so many.
const NODE_KILLS: usize = 4;
/// After a kill: an election takes 4 to 9 s, and two of three nodes must be up to date before the next one goes. More is
/// what three replicas do not promise.
const SETTLE_TIME: Duration = Duration::from_secs(12);

/// Who sent a hit, in which epoch, under which number.
type Key = (String, [u8; 16], u64);

struct Load {
    sensor: Sensor,
    /// The batch that is under way.
    batch: Batch,
    trace: PathBuf,
    rounds: usize,
}

impl Load {
    fn new(place: &Path, number: usize, rng: &mut Rng) -> Self {
        let arguments = ["--insecure-loopback", "--collector-wait", "60"];
        let sensor = Sensor::new(place, &format!("s{number}"), &arguments).expect("a sensor").without_shim();
        let batch = Batch::new(&format!("s{number}-0"), BATCH, 100..4000, rng);
        let trace = batch.write(place).expect("a trace");
        Self { sensor, batch, trace, rounds: 0 }
    }
}

#[test]
fn killed_nodes_and_collectors_lose_and_double_nothing() {
    let place = tempfile::tempdir().expect("a folder");
    let (place, mut rng) = (place.path(), Rng::new(11));
    let Some(mut cluster) = Cluster::start(place, 3) else { return };
    let mut collectors: Vec<Collector> = ["c0", "c1"]
        .map(|name| {
            let place = place.join(name);
            fs::create_dir_all(&place).expect("a folder");
            let collector = Collector::new(&place, &["--insecure-loopback"]).expect("a collector");
            collector.before_cluster(&cluster.url())
        })
        .into();
    for collector in &mut collectors {
        collector.start_and_wait().unwrap_or_else(|error| panic!("{error}"));
    }
    let addresses: Vec<_> = collectors.iter().map(|collector| collector.address).collect();

    let mut account = Account::default();
    let mut loads: Vec<Load> = (0..SENSORS).map(|number| Load::new(place, number, &mut rng)).collect();
    for load in &mut loads {
        account.offer(&load.batch);
        load.sensor.start(&load.trace, &addresses).expect("it starts");
    }
    let (mut node_kills, mut collector_kills, mut attempts) = (0, 0, 0);
    let mut last_node_kill: Option<Instant> = None;
    while loads.iter().any(|load| load.rounds < ROUNDS) || node_kills < NODE_KILLS {
        for (number, load) in loads.iter_mut().enumerate() {
            let Some(status) = load.sensor.take_ended() else { continue };
            attempts += 1;
            assert!(attempts < 1000, "sensors get nowhere: {}", tail(&load.sensor.log));
            // Exit code 0: every hit was acknowledged. Otherwise it is in the spool, and goes with the next trace.
            account.due(&load.batch);
            load.rounds += usize::from(status.success());
            load.batch = Batch::new(&format!("s{number}-{attempts}"), BATCH, 100..4000, &mut rng);
            load.trace = load.batch.write(place).expect("a trace");
            account.offer(&load.batch);
            load.sensor.start(&load.trace, &addresses).expect("it starts");
        }
        sleep(Duration::from_millis(rng.within(200..1500)));
        if node_kills < NODE_KILLS && last_node_kill.is_none_or(|last| last.elapsed() > SETTLE_TIME) {
            let node = rng.within(0..3) as usize;
            cluster.kill(node);
            node_kills += 1;
            sleep(Duration::from_millis(rng.within(100..900)));
            cluster.restart(node);
            last_node_kill = Some(Instant::now());
        } else {
            let collector = &mut collectors[rng.within(0..2) as usize];
            // One that is still looking for its cluster is left alone: it would never get there.
            if !collector.runs() {
                collector.start().expect("it starts");
            } else if listens(collector.address) {
                collector_kills += usize::from(collector.kill());
                sleep(Duration::from_millis(rng.within(0..500)));
                collector.start().expect("it starts");
            }
        }
    }
    for collector in &mut collectors {
        collector.start_and_wait().expect("it listens");
    }
    // Without disturbances: what is under way, and what is left in the spools.
    for load in &mut loads {
        let status = load.sensor.wait();
        account.due(&load.batch);
        if !status.is_some_and(|status| status.success()) {
            load.sensor.drain(place, &addresses).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    let items = everything(&cluster.url());
    let keys: BTreeSet<Key> = items.iter().map(key).collect();
    assert_eq!(keys.len(), items.len(), "a number is there twice");
    let balance = account.compare(items.iter().map(|item| &item.hit), 0);
    println!("{node_kills} nodes and {collector_kills} collectors killed, {attempts} replays: {balance:?}");
    assert!(balance.is_even(), "{balance:?}");
    assert!(node_kills > 0 && collector_kills > 0 && balance.sent >= (SENSORS * ROUNDS * BATCH) as u64);
    a_killed_drain_delivers_everything(place, &cluster.url(), &keys);
    for mut collector in collectors {
        collector.stop().unwrap_or_else(|error| panic!("{error}"));
    }
}

/// The short form of `faults --cluster`.
#[test]
fn a_cluster_under_faults_keeps_its_promise() {
    let place = tempfile::tempdir().expect("a folder");
    let outcome =
        run_cluster(5, Duration::from_secs(25), place.path()).unwrap_or_else(|error| panic!("{error}"));
    let Some(outcome) = outcome else { return };
    println!("{outcome:?}");
    assert!(outcome.is_kept(), "{outcome:?}");
    assert!(outcome.sent > 1000 && outcome.collector_kills + outcome.drain_kills > 0, "{outcome:?}");
}

fn key(item: &SinkItem) -> Key {
    (item.sensor.clone(), item.epoch, item.sequence)
}

/// All hits of the stream, through a sink of their own.
fn everything(url: &str) -> Vec<SinkItem> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let settings = NatsSettings::for_url(url);
    let mut feed = runtime.block_on(NatsFeed::connect(&settings, "test")).expect("a feed");
    let limits = BatchLimits { hits: 500, bytes: 8 << 20 };
    let mut items = Vec::new();
    loop {
        let batch = feed.next(limits, Duration::from_secs(2)).expect("the cluster answers");
        if batch.is_empty() && feed.lag().expect("the cluster answers").hits == 0 {
            return items;
        }
        items.extend(batch);
        feed.acknowledge().expect("the cluster answers");
    }
}

/// A drain may be killed at any moment: it delivers again what it had not acknowledged, and passes nothing over.
fn a_killed_drain_delivers_everything(place: &Path, url: &str, keys: &BTreeSet<Key>) {
    let file = place.join("drained.jsonl");
    let config = place.join("drain.toml");
    let text =
        format!("store = '{url}'\n[[sink]]\ntype = 'jsonl'\npath = '{}'\nbatch_hits = 20\n", file.display());
    fs::write(&config, text).expect("it is written");
    let start = || {
        let arguments = ["drain", "--once", "--config"];
        let mut drain = command(&Programs::find().collector, arguments);
        drain.arg(&config);
        Running::start(drain, &place.join("drain.log")).expect("it starts")
    };
    let mut drain = start();
    let some = || fs::metadata(&file).is_ok_and(|file| file.len() > 100_000).then_some(());
    assert!(wait_for(Duration::from_mins(1), some).is_some(), "{}", tail(&drain.log));
    assert!(drain.kill(), "it was not done yet");
    // What was out is given to the next one after a minute.
    let status = start().wait();
    assert!(status.is_some_and(|status| status.success()), "{}", tail(&place.join("drain.log")));
    let mut delivered: BTreeMap<Key, usize> = BTreeMap::new();
    for line in fs::read_to_string(&file).expect("the file").lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("whole lines");
        let mut epoch = [0; 16];
        let text = line["epoch"].as_str().expect("an epoch");
        for (at, byte) in epoch.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hexadecimal digits");
        }
        let sensor = line["sensor"].as_str().expect("a sensor").to_owned();
        *delivered.entry((sensor, epoch, line["sequence"].as_u64().expect("a number"))).or_default() += 1;
    }
    assert_eq!(delivered.keys().collect::<BTreeSet<_>>(), keys.iter().collect(), "all, and nothing else");
    let again = delivered.values().filter(|count| **count > 1).count();
    println!("a drain killed; {again} of {} hits delivered again", keys.len());
}
