//! The way to the collector: hits acknowledged as durable in a second, from an event to its durable hit, idle
//! connections and their memory, what a sensor spends on a thousand hits a second.
//!
//! The collector is the real program on the loopback interface, with the embedded store on a real disk and real syncs.
//! Sensors are light clients that speak the protocol without a spool; only the last figure takes the real sensor. No TLS.

use crate::error::BenchError;
use etwsieve_tests::faults::client::{Client, Word};
use etwsieve_tests::faults::{Account, Batch, Books, Collector, Rng, Sensor};
use etwsieve_transport::hit::HitV1;
use serde::Serialize;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of a hit's script, such that the hit has about 4 KB: two bytes a unit.
const SCRIPT_UNITS: u64 = 1850;
/// Longest time that connecting may take, before the collector calls the first ones silent.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(50);

/// One figure, with what is aimed at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// The aim, if there is one.
    pub aim: Option<f64>,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// Hits of a run of throughput, over all its sensors.
    pub hits: u64,
    /// Single hits whose time is taken.
    pub singles: u64,
    /// Idle connections.
    pub idle: u64,
    /// Hits that a real sensor replays.
    pub replayed: u64,
}

impl Amount {
    /// A result.
    pub const FULL: Self = Self { hits: 60_000, singles: 2000, idle: 1000, replayed: 20_000 };
    /// Whether it works.
    pub const TRIAL: Self = Self { hits: 300, singles: 20, idle: 20, replayed: 200 };
}

/// Measures all. Answers are checked: every hit that was acknowledged is in the store, once and whole.
///
/// # Errors
///
/// [`BenchError::Io`] where a program cannot be started or does not answer; [`BenchError::Peer`] for a wrong answer.
pub fn measure(amount: Amount, mut told: impl FnMut(&Figure)) -> Result<Vec<Figure>, BenchError> {
    let mut figures = Vec::new();
    let mut tell = |figure: Figure| {
        told(&figure);
        figures.push(figure);
    };
    for sensors in [1, 16, 64] {
        let value = throughput(sensors, amount.hits)?;
        let name = format!("acknowledged durable hits of 4 KB, {sensors} sensors");
        tell(Figure { name, value, unit: "hits/s", aim: Some(20_000.0) });
    }
    let [median, p99] = latency(amount.singles)?;
    let name = |which| format!("one hit to its acknowledgement, {which}");
    tell(Figure { name: name("median"), value: median, unit: "ms", aim: None });
    tell(Figure { name: name("p99"), value: p99, unit: "ms", aim: Some(20.0) });
    let value = idle(amount.idle)?;
    tell(Figure {
        name: format!("memory of each of {} idle connections", amount.idle),
        value,
        unit: "KB",
        aim: Some(20.0),
    });
    let value = sensor(amount.replayed)?;
    tell(Figure { name: "sensor's processor time for 1,000 hits".into(), value, unit: "ms", aim: None });
    Ok(figures)
}

fn collector(place: &Path) -> io::Result<Collector> {
    let mut collector = Collector::new(place, &["--insecure-loopback"])?.without_shim();
    collector.start_and_wait()?;
    Ok(collector)
}

/// Hits a second until all are acknowledged.
fn throughput(sensors: u64, hits: u64) -> Result<f64, BenchError> {
    let place = tempfile::tempdir().map_err(failed)?;
    let mut collector = collector(place.path()).map_err(failed)?;
    let each = hits / sensors;
    let mut rng = Rng::new(sensors);
    let batch =
        |number| Batch::new(&format!("t{number}"), each as usize, SCRIPT_UNITS..SCRIPT_UNITS + 1, &mut rng);
    let batches: Vec<Batch> = (0..sensors).map(batch).collect();
    // Encoded before the clock runs: the sensor's work is measured by itself.
    let frames: Vec<Vec<Vec<u8>>> =
        batches.iter().map(|batch| frames(&batch.hits())).collect::<Result<_, _>>()?;
    let address = collector.address;
    let start = Instant::now();
    let sent: Vec<io::Result<()>> = thread::scope(|scope| {
        let numbered = (1..).zip(&frames);
        let threads: Vec<_> =
            numbered.map(|(number, frames)| scope.spawn(move || stream(address, number, frames))).collect();
        let panicked = |_| Err(io::Error::other("a client panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    });
    let seconds = start.elapsed().as_secs_f64();
    sent.into_iter().collect::<io::Result<()>>().map_err(failed)?;
    collector.stop().map_err(failed)?;
    let mut account = Account::default();
    for batch in &batches {
        account.offer(batch);
        account.due(batch);
    }
    check(account, &collector)?;
    Ok((each * sensors) as f64 / seconds)
}

fn frames(hits: &[HitV1]) -> Result<Vec<Vec<u8>>, BenchError> {
    let frame = |(sequence, hit): (u64, &HitV1)| {
        let mut frame = Vec::new();
        let encoded = etwsieve_transport::wire::encode_data(sequence, hit, &mut frame);
        encoded.map(|()| frame).map_err(|error| wrong(error.to_string()))
    };
    (1..).zip(hits).map(frame).collect()
}

/// Sends frames in a full window until the last is acknowledged.
fn stream(address: SocketAddr, epoch: u128, frames: &[Vec<u8>]) -> io::Result<()> {
    let mut client = Client::connect(address, epoch.to_le_bytes())?;
    let Word::Welcome(welcome) = client.hello(1)? else { return Err(io::Error::other("no WELCOME")) };
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < frames.len() as u64 {
        let until = (acknowledged + u64::from(welcome.window)).min(frames.len() as u64);
        for frame in &frames[sent as usize..until as usize] {
            client.queue_bytes(frame);
        }
        sent = until;
        client.flush()?;
        match client.hear()? {
            Word::Ack(ack) => acknowledged = ack.sequence.max(acknowledged),
            other => return Err(io::Error::other(format!("{other:?}"))),
        }
    }
    Ok(())
}

/// Median and 99th percentile from a hit to its acknowledgement, in milliseconds, while nothing else is sent.
fn latency(count: u64) -> Result<[f64; 2], BenchError> {
    let place = tempfile::tempdir().map_err(failed)?;
    let mut collector = collector(place.path()).map_err(failed)?;
    let batch = Batch::new("l", count as usize, SCRIPT_UNITS..SCRIPT_UNITS + 1, &mut Rng::new(1));
    let one_by_one = || -> io::Result<Vec<f64>> {
        let mut client = Client::connect(collector.address, [9; 16])?;
        client.hello(1)?;
        let mut times = Vec::new();
        for (sequence, hit) in (1..).zip(&batch.hits()) {
            let start = Instant::now();
            client.queue(sequence, hit)?;
            client.flush()?;
            while !matches!(client.hear()?, Word::Ack(ack) if ack.sequence >= sequence) {}
            times.push(start.elapsed().as_secs_f64() * 1000.0);
        }
        Ok(times)
    };
    let mut times = one_by_one().map_err(failed)?;
    times.sort_by(f64::total_cmp);
    collector.stop().map_err(failed)?;
    let mut account = Account::default();
    account.offer(&batch);
    account.due(&batch);
    check(account, &collector)?;
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    Ok([at(50), at(99)])
}

/// Kilobytes by which the collector grows for each connection that has said HELLO and then nothing.
fn idle(count: u64) -> Result<f64, BenchError> {
    let place = tempfile::tempdir().map_err(failed)?;
    let mut collector = collector(place.path()).map_err(failed)?;
    let connect = |number: u64| -> io::Result<Client<_>> {
        let mut client = Client::connect(collector.address, u128::from(number).to_le_bytes())?;
        match client.hello(1)? {
            Word::Welcome(_) => Ok(client),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    };
    // What the first ones bring along is not theirs.
    let first: Vec<_> = (1..=10).map(connect).collect::<io::Result<_>>().map_err(failed)?;
    let before = collector.resident_bytes().map_err(failed)?;
    let start = Instant::now();
    let rest: Vec<_> = (11..11 + count).map(connect).collect::<io::Result<_>>().map_err(failed)?;
    if start.elapsed() > CONNECT_TIME_MAX {
        return Err(wrong("connecting took so long that the first were silent for too long".into()));
    }
    let after = collector.resident_bytes().map_err(failed)?;
    drop((first, rest));
    collector.stop().map_err(failed)?;
    Ok(after.saturating_sub(before) as f64 / 1024.0 / count as f64)
}

/// Milliseconds of processor time that the real sensor needs for 1,000 hits: with a collector, less without one.
fn sensor(hits: u64) -> Result<f64, BenchError> {
    let place = tempfile::tempdir().map_err(failed)?;
    let mut collector = collector(place.path()).map_err(failed)?;
    let batch = Batch::new("s", hits as usize, SCRIPT_UNITS..SCRIPT_UNITS + 1, &mut Rng::new(2));
    let mut sensor =
        Sensor::new(place.path(), "sensor", &["--insecure-loopback"]).map_err(failed)?.without_shim();
    let trace = batch.write(place.path()).map_err(failed)?;
    let before = children_milliseconds();
    sensor.start(&trace, &[collector.address]).map_err(failed)?;
    if !sensor.wait().is_some_and(|status| status.success()) {
        return Err(wrong(etwsieve_tests::faults::tail(&sensor.log)));
    }
    // The sensor is the only child that has ended meanwhile.
    let spent = children_milliseconds() - before;
    collector.stop().map_err(failed)?;
    let mut account = Account::default();
    account.offer(&batch);
    account.due(&batch);
    check(account, &collector)?;
    Ok(spent / hits as f64 * 1000.0)
}

/// Processor time of children that have ended, of this process; 0 where the system does not tell.
fn children_milliseconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything: fields 16 and 17 count ticks of 10 ms.
    let fields: Vec<f64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split(' ')
        .filter_map(|field| field.parse().ok())
        .collect();
    // Field 3 is a letter and no number: field 16 is the thirteenth number.
    fields.get(12..14).map_or(0.0, |ticks| (ticks[0] + ticks[1]) * 10.0)
}

fn check(account: Account, collector: &Collector) -> Result<(), BenchError> {
    let store = collector.store();
    let balance = account.compare_with_store(&store, 0).map_err(|error| wrong(error.to_string()))?;
    let books = Books::read(&store).map_err(|error| wrong(error.to_string()))?;
    if balance.is_even() && books.conflicts == 0 {
        Ok(())
    } else {
        Err(wrong(format!("{balance:?}, {books:?}")))
    }
}

fn wrong(detail: String) -> BenchError {
    BenchError::Peer { name: "etwsieve-collector".into(), detail }
}

fn failed(source: io::Error) -> BenchError {
    BenchError::Io { path: "etwsieve-collector".into(), source }
}
