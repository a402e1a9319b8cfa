//! Measures a cluster without faults: acknowledged hits per second, their cost, and the speed of a drain.

use super::Cluster;
use super::batch::Batch;
use super::client::{Client, Reply, deliver};
use super::hosts::Collector;
use super::programs::{PATIENCE, Programs, Running, command, wait_for};
use super::rng::Rng;
use serde::Serialize;
use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Number of sensors that send concurrently.
const SENSORS: usize = 16;
/// Number of hits that are sent one by one to measure when the sink receives them.
const SINGLE_HITS: usize = 50;
/// Clock ticks per second in `/proc/PID/stat`.
const TICKS_PER_SECOND: f64 = 100.0;

/// The results of a measurement.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ClusterFigures {
    /// Number of nats-servers and of replicas of each stream.
    pub replicas: usize,
    /// Number of streams of hits.
    pub partitions: usize,
    /// Number of acknowledged hits.
    pub hits: usize,
    /// Acknowledged hits per second.
    pub acknowledged_per_second: f64,
    /// Processor time of the collector for 1,000 hits, in milliseconds.
    pub collector_cpu_ms_per_1000: f64,
    /// Hits per second that one drain writes to a file.
    pub drained_per_second: f64,
    /// Median time from an acknowledgement to the line in the file, in milliseconds.
    pub lag_ms_median: f64,
    /// Maximum of the same.
    pub lag_ms_max: f64,
}

/// Measures with this number of nodes, partitions and hits. Returns `None` if nats-server is not installed.
///
/// # Errors
///
/// Errors of the file system and of starting programs.
pub fn measure_cluster(
    place: &Path,
    nodes: usize,
    partitions: usize,
    hits: usize,
) -> io::Result<Option<ClusterFigures>> {
    Programs::find();
    let place = &place.join(format!("figures-{nodes}-{partitions}"));
    fs::create_dir_all(place)?;
    let Some(cluster) = Cluster::start(place, nodes) else { return Ok(None) };
    let mut collector = Collector::new(place, &["--insecure-loopback"])?.before_cluster(&cluster.url());
    let nats = format!("replicas = {nodes}\npartitions = {partitions}\n");
    let path = place.join("collector.toml");
    let config = fs::read_to_string(&path)?;
    fs::write(&path, config + &nats)?;
    collector.start_and_wait()?;
    let address = collector.address;

    let before = collector.processor_ticks()?;
    let begun = Instant::now();
    let per_sensor = hits / SENSORS;
    let sensors = (0..SENSORS).map(|number| {
        thread::spawn(move || {
            let mut rng = Rng::new(number as u64);
            let batch = Batch::new(&format!("s{number}"), per_sensor, 300..1500, &mut rng);
            let epoch = [number as u8 + 1; 16];
            deliver(&[address], epoch, &batch.hits(), 3 * PATIENCE, &mut rng)
        })
    });
    for sensor in sensors.collect::<Vec<_>>() {
        sensor.join().map_err(|_| io::Error::other("a sensor has panicked"))??;
    }
    let hits = per_sensor * SENSORS;
    let acknowledged_per_second = hits as f64 / begun.elapsed().as_secs_f64();
    let cpu = (collector.processor_ticks()? - before) as f64 / TICKS_PER_SECOND;

    let file = place.join("drained.jsonl");
    let drain = |arguments: &[&str]| {
        let config = place.join("drain.toml");
        let text = format!(
            "store = '{}'\n[nats]\nmax_gb = 1\n{nats}[[sink]]\ntype = 'jsonl'\npath = '{}'\nrotate_mb = 0\n",
            cluster.url(),
            file.display()
        );
        fs::write(&config, text)?;
        let mut drain = command(&Programs::find().collector, ["drain", "--config"]);
        drain.arg(&config).args(arguments);
        Running::start(drain, &place.join("drain.log"))
    };
    let begun = Instant::now();
    let ended = drain(&["--once"])?.wait();
    let drained_per_second = hits as f64 / begun.elapsed().as_secs_f64();
    if !ended.is_some_and(|status| status.success()) {
        return Err(io::Error::other("the drain failed"));
    }

    let _running = drain(&[])?;
    thread::sleep(Duration::from_secs(2));
    let mut lags = Vec::new();
    let mut rng = Rng::new(99);
    let batch = Batch::new("single", SINGLE_HITS, 300..1500, &mut rng).hits();
    let mut client = Client::connect(address, [0xEE; 16])?;
    client.hello(1)?;
    for (sequence, hit) in (1u64..).zip(&batch) {
        let len = fs::metadata(&file)?.len();
        client.queue(sequence, hit)?;
        client.flush()?;
        while !matches!(client.receive()?, Reply::Ack(ack) if ack.sequence == sequence) {}
        let acknowledged = Instant::now();
        let written =
            wait_for(PATIENCE, || fs::metadata(&file).is_ok_and(|file| file.len() > len).then_some(()));
        written.ok_or_else(|| io::Error::other("a hit does not reach the file"))?;
        lags.push(acknowledged.elapsed().as_secs_f64() * 1000.0);
        thread::sleep(Duration::from_millis(rng.within(20..200)));
    }
    lags.sort_by(f64::total_cmp);
    Ok(Some(ClusterFigures {
        replicas: nodes,
        partitions,
        hits,
        acknowledged_per_second,
        collector_cpu_ms_per_1000: cpu * 1e6 / hits as f64,
        drained_per_second,
        lag_ms_median: lags[lags.len() / 2],
        lag_ms_max: lags[lags.len() - 1],
    }))
}
