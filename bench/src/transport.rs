//! Measures the way to the collector: durable hits per second, latency of a hit, memory of idle connections, and processor
//! time of the sensor.
//!
//! The collector is the real program on the loopback interface, with the embedded store on a real disk, real syncs and
//! mutual TLS. Throughput and idle connections are measured with light clients that have no spool, latency with the
//! sensor's sender and its spool, and processor time with the real sensor.

use crate::error::BenchError;
use etwsieve_collector::pki::{Authority, SensorName};
use etwsieve_tests::faults::client::{Client, Reply};
use etwsieve_tests::faults::{Account, Batch, Collector, Ledger, Rng, Sensor};
use etwsieve_transport::hit::HitV1;
use etwsieve_transport::identity::Identity;
use etwsieve_transport::sender::{Address, HitSender, Order, SenderSettings};
use etwsieve_transport::spool::{BYTES_MAX_LEAST, Keep, Spool, SpoolSettings};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde::Serialize;
use std::io;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Length of a script in UTF-16 units, such that its hit has about 4 KB.
const SCRIPT_UNITS: u64 = 1850;
/// Maximum number of unacknowledged frames of a light client, as the collector permits by default.
const WINDOW: u64 = 512;
/// Maximum time without an answer.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Maximum time for all connections; after that the collector closes the first ones as silent.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(50);

/// A measured quantity and its aim.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The quantity.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// The aim, if any.
    pub aim: Option<f64>,
}

/// The amount of work in a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// Number of hits for throughput, of all sensors together.
    pub hits: u64,
    /// Number of single hits for latency.
    pub singles: u64,
    /// Number of idle connections.
    pub idle: u64,
    /// Number of hits that the real sensor replays.
    pub replayed: u64,
}

impl Amount {
    /// The amount for results.
    pub const FULL: Self = Self { hits: 60_000, singles: 2000, idle: 10_000, replayed: 20_000 };
    /// A small amount, to check that the measurement works.
    pub const TRIAL: Self = Self { hits: 300, singles: 20, idle: 20, replayed: 200 };
}

/// Measures everything and calls `show` with each figure. Checks that every acknowledged hit is stored once and unchanged.
///
/// # Errors
///
/// [`BenchError::Io`] if a program cannot be started or does not answer; [`BenchError::Peer`] for a wrong answer.
pub fn measure(amount: Amount, mut show: impl FnMut(&Figure)) -> Result<Vec<Figure>, BenchError> {
    let mut figures = Vec::new();
    let mut tell = |figure: Figure| {
        show(&figure);
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

/// A light client over TLS.
type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A collector with its certificate authority, and the configuration of a sensor.
struct Lab {
    place: TempDir,
    collector: Collector,
    bundle: PathBuf,
    tls: Arc<ClientConfig>,
}

impl Lab {
    fn start() -> Result<Self, BenchError> {
        let place = tempfile::tempdir().map_err(failed)?;
        let pki = place.path().join("pki");
        let authority = Authority::init(&pki, &["127.0.0.1".into()], 30).map_err(other)?;
        let name: SensorName = "bench.test".parse().map_err(other)?;
        let bundle = authority.issue(&name, 30, false, None).map_err(other)?.bundle;
        let tls = Identity::load(&bundle).and_then(|identity| identity.client_config()).map_err(other)?;
        let pki = format!("--pki={}", pki.display());
        let mut collector = Collector::new(place.path(), &[&pki]).map_err(failed)?.without_shim();
        collector.start_and_wait().map_err(failed)?;
        Ok(Self { place, collector, bundle, tls })
    }

    fn connect(&self, epoch: u128) -> io::Result<Client<Tls>> {
        let stream = TcpStream::connect(self.collector.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        let name = ServerName::from(self.collector.address.ip());
        let connection = ClientConnection::new(Arc::clone(&self.tls), name).map_err(io::Error::other)?;
        let mut client = Client::new(StreamOwned::new(connection, stream), epoch.to_le_bytes());
        match client.hello(1)? {
            Reply::Welcome(_) => Ok(client),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }

    /// Stops the collector and checks that its store contains everything that it has acknowledged.
    fn check(mut self, batches: &[Batch]) -> Result<(), BenchError> {
        self.collector.stop().map_err(failed)?;
        let mut account = Account::default();
        for batch in batches {
            account.offer(batch);
            account.due(batch);
        }
        let store = self.collector.store();
        let balance = account.compare_with_store(&store, 0).map_err(other)?;
        let ledger = Ledger::read(&store).map_err(other)?;
        if balance.is_even() && ledger.conflicts == 0 {
            Ok(())
        } else {
            Err(wrong(format!("{balance:?}, {ledger:?}")))
        }
    }
}

/// Measures hits per second until all are acknowledged.
fn throughput(sensors: u64, hits: u64) -> Result<f64, BenchError> {
    let lab = Lab::start()?;
    let each = hits / sensors;
    let mut rng = Rng::new(sensors);
    let batch =
        |number| Batch::new(&format!("t{number}"), each as usize, SCRIPT_UNITS..SCRIPT_UNITS + 1, &mut rng);
    let batches: Vec<Batch> = (0..sensors).map(batch).collect();
    // Encoded before the clock runs, because the work of the sensor is measured separately.
    let frames: Vec<Vec<Vec<u8>>> =
        batches.iter().map(|batch| frames(&batch.hits())).collect::<Result<_, _>>()?;
    let start = Instant::now();
    let sent: Vec<io::Result<()>> = thread::scope(|scope| {
        let (numbered, lab) = ((1..).zip(&frames), &lab);
        let threads: Vec<_> =
            numbered.map(|(number, frames)| scope.spawn(move || stream(lab, number, frames))).collect();
        let panicked = |_| Err(io::Error::other("a client panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    });
    let seconds = start.elapsed().as_secs_f64();
    sent.into_iter().collect::<io::Result<()>>().map_err(failed)?;
    lab.check(&batches)?;
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

/// Sends frames, always as many as the window permits, until the last one is acknowledged.
fn stream(lab: &Lab, epoch: u128, frames: &[Vec<u8>]) -> io::Result<()> {
    let mut client = lab.connect(epoch)?;
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < frames.len() as u64 {
        let until = (acknowledged + WINDOW).min(frames.len() as u64);
        for frame in &frames[sent as usize..until as usize] {
            client.queue_bytes(frame);
        }
        sent = until;
        client.flush()?;
        match client.receive()? {
            Reply::Ack(ack) => acknowledged = ack.sequence.max(acknowledged),
            other => return Err(io::Error::other(format!("{other:?}"))),
        }
    }
    Ok(())
}

/// Measures the time from passing a hit to the sender, through its spool, to its acknowledgement, while nothing else is
/// sent. Returns median and 99th percentile in milliseconds.
fn latency(count: u64) -> Result<[f64; 2], BenchError> {
    let lab = Lab::start()?;
    let batch = Batch::new("l", count as usize, SCRIPT_UNITS..SCRIPT_UNITS + 1, &mut Rng::new(1));
    let path = lab.place.path().join("spool.db");
    let spool = SpoolSettings { path, bytes_max: BYTES_MAX_LEAST, keep: Keep::Oldest };
    let spool = Spool::open(spool, 1000).map_err(other)?;
    let address: Address = lab.collector.address.to_string().parse().map_err(other)?;
    let settings = SenderSettings {
        order: Order::Listed,
        collectors: vec![address],
        bundle: Some(lab.bundle.clone()),
        software: "etwsieve-bench".into(),
        computer: String::new(),
        more_counts: Box::new(Vec::new),
    };
    let sender = HitSender::start(settings, spool).map_err(other)?;
    let mut times = Vec::new();
    for (number, hit) in (1..).zip(&batch.hits()) {
        let start = Instant::now();
        sender.send(hit, || false);
        while sender.counts().spool.acknowledged < number {
            if start.elapsed() > SILENCE_MAX {
                return Err(wrong(format!("no acknowledgement: {:?}", sender.counts())));
            }
            thread::sleep(Duration::from_micros(50));
        }
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    sender.finish();
    // The first hit waits for the connection.
    let mut times = times.split_off(1);
    times.sort_by(f64::total_cmp);
    lab.check(&[batch])?;
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    Ok([at(50), at(99)])
}

/// Measures the memory of the collector, in kilobytes, for each connection that is silent after HELLO.
fn idle(count: u64) -> Result<f64, BenchError> {
    let lab = Lab::start()?;
    let connect = |number: u64| lab.connect(u128::from(number));
    // The first connections cause allocations that do not belong to them.
    let first: Vec<_> = (1..=10).map(connect).collect::<io::Result<_>>().map_err(failed)?;
    let before = lab.collector.resident_bytes().map_err(failed)?;
    let start = Instant::now();
    let rest: Vec<_> = (11..11 + count).map(connect).collect::<io::Result<_>>().map_err(failed)?;
    if start.elapsed() > CONNECT_TIME_MAX {
        return Err(wrong("connecting took so long that the first were silent for too long".into()));
    }
    let after = lab.collector.resident_bytes().map_err(failed)?;
    drop((first, rest));
    lab.check(&[])?;
    Ok(after.saturating_sub(before) as f64 / 1024.0 / count as f64)
}

/// Measures the processor time of the real sensor for 1,000 hits, including reading its trace, in milliseconds.
fn sensor(hits: u64) -> Result<f64, BenchError> {
    let lab = Lab::start()?;
    let batch = Batch::new("s", hits as usize, SCRIPT_UNITS..SCRIPT_UNITS + 1, &mut Rng::new(2));
    let bundle = lab.bundle.to_string_lossy();
    let place = lab.place.path();
    let mut sensor = Sensor::new(place, "sensor", &["--bundle", &bundle]).map_err(failed)?.without_shim();
    let trace = batch.write(place).map_err(failed)?;
    let before = children_milliseconds();
    sensor.start(&trace, &[lab.collector.address]).map_err(failed)?;
    if !sensor.wait().is_some_and(|status| status.success()) {
        return Err(wrong(etwsieve_tests::faults::tail(&sensor.log)));
    }
    // No other child process has ended in the meantime.
    let spent = children_milliseconds() - before;
    lab.check(&[batch])?;
    Ok(spent / hits as f64 * 1000.0)
}

/// Returns the processor time of child processes that have ended, in milliseconds; 0 if the system does not report it.
fn children_milliseconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name may contain anything. After it, fields 16 and 17 count ticks of 10 ms.
    let fields: Vec<f64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split(' ')
        .filter_map(|field| field.parse().ok())
        .collect();
    // Field 3 is a letter, so field 16 is the thirteenth number.
    fields.get(12..14).map_or(0.0, |ticks| (ticks[0] + ticks[1]) * 10.0)
}

fn wrong(detail: String) -> BenchError {
    BenchError::Peer { name: "etwsieve-collector".into(), detail }
}

fn failed(source: io::Error) -> BenchError {
    BenchError::Io { path: "etwsieve-collector".into(), source }
}

fn other(error: impl std::fmt::Display) -> BenchError {
    wrong(error.to_string())
}
