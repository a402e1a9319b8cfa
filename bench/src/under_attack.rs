//! Measures hits per second of honest sensors with and without attacks on the collector.
//!
//! The attacks are those of a sensor with a stolen certificate, and of anybody who can reach the port. Attackers run on the
//! same machine and use its processors, so the figures are a lower bound for the defence of the collector. After each run
//! the store must contain every hit that was acknowledged to an honest sensor.

use crate::error::BenchError;
use crate::transport::Figure;
use etwsieve_collector::pki::{Authority, SensorName};
use etwsieve_tests::faults::client::{Client, Reply};
use etwsieve_tests::faults::{Account, Batch, Collector, Rng};
use etwsieve_transport::hit::{HitV1, RuleRefV1};
use etwsieve_transport::identity::Identity;
use etwsieve_transport::store::{HitFilter, Store};
use etwsieve_transport::wire::encode_data;
use etwsieve_transport::wire::frame::{FrameType, encode_frame};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Number of honest sensors, each with a connection.
const SENSORS: u64 = 8;
/// Maximum number of unacknowledged hits of an honest sensor.
const WINDOW: u64 = 32;
/// Number of hits after which an honest sensor reconnects, since new connections must succeed too.
const CONNECTION_HITS: u64 = 500;
/// Length of a script in characters, such that its hit has about 1 KB.
const SCRIPT_UNITS: u64 = 300;
/// Number of connections of each attack with frames.
const HOSTILE_CONNECTIONS: u64 = 4;
/// Number of rules in an expensive hit, which has about 60 KB.
const HOSTILE_RULES: usize = 1000;
/// Number of silent connections: three times the default limit for one address.
const SILENT: usize = 3000;
/// Maximum number of silent connections that are reopened in [`SILENT_TIME`].
const SILENT_STEP: usize = 20;
const SILENT_TIME: Duration = Duration::from_millis(10);
/// Pause of an attacker between two connections.
const HOSTILE_PAUSE: Duration = Duration::from_millis(10);
/// Maximum time without an answer.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// The source of expensive hits.
const HOSTILE_SOURCE: &str = "hostile";

/// The amount of work in a measurement.
#[derive(Clone, Copy, Debug)]
pub struct AttackAmount {
    /// Maximum number of hits of each honest sensor.
    pub hits: usize,
    /// Time for which they send.
    pub time: Duration,
    /// Number of runs with each attack, and of runs without it.
    pub rounds: usize,
}

impl AttackAmount {
    /// The amount for results.
    pub const FULL: Self = Self { hits: 12_000, time: Duration::from_secs(6), rounds: 3 };
    /// A small amount, to check that the measurement works.
    pub const TRIAL: Self = Self { hits: 300, time: Duration::from_secs(1), rounds: 1 };
}

/// An attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attack {
    /// Declares all sequence numbers as lost, in one GAP after the other.
    Gaps,
    /// Sends hits with a thousand rules as fast as they are accepted.
    Expensive,
    /// Opens connections and sends nothing.
    Silent,
}

/// Measures honest hits per second during each attack, and their ratio to those without it. Calls `show` with each figure.
///
/// # Errors
///
/// [`BenchError::Io`] if a program cannot be started or does not answer; [`BenchError::Peer`] if an acknowledged hit is not
/// in the store.
pub fn measure(amount: AttackAmount, mut show: impl FnMut(&Figure)) -> Result<Vec<Figure>, BenchError> {
    let rows = [
        (Attack::Gaps, "GAPs of all numbers"),
        (Attack::Expensive, "hits with 1,000 rules"),
        (Attack::Silent, "3,000 silent connections"),
    ];
    let mut figures = Vec::new();
    for (attack, name) in rows {
        // In turns, so that other load of the machine affects both alike.
        let (mut quiet, mut attacked) = (Vec::new(), Vec::new());
        for round in 0..amount.rounds {
            quiet.push(run(amount, attack, false, round as u64)?);
            attacked.push(run(amount, attack, true, round as u64)?);
        }
        let (quiet, attacked) = (median(quiet), median(attacked));
        let rows = [
            (format!("honest hits without {name}"), quiet, "hits/s", None),
            (format!("honest hits beside {name}"), attacked, "hits/s", None),
            (format!("share that {name} leave"), attacked / quiet * 100.0, "%", Some(90.0)),
        ];
        for (name, value, unit, aim) in rows {
            let figure = Figure { name, value, unit, aim };
            show(&figure);
            figures.push(figure);
        }
    }
    Ok(figures)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A collector and the configuration to connect to it.
struct Place {
    collector: Collector,
    /// `None` for connections without TLS.
    tls: Option<Arc<ClientConfig>>,
    _folder: TempDir,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl Place {
    /// Starts the collector, with TLS if the attack targets the handshake.
    fn start(attack: Attack) -> Result<Self, BenchError> {
        let folder = tempfile::tempdir().map_err(failed)?;
        let (argument, tls) = if attack == Attack::Silent {
            let pki = folder.path().join("pki");
            let authority = Authority::init(&pki, &["127.0.0.1".into()], 30).map_err(other)?;
            let name: SensorName = "honest.test".parse().map_err(other)?;
            let bundle = authority.issue(&name, 30, false, None).map_err(other)?.bundle;
            let tls = Identity::load(&bundle).and_then(|identity| identity.client_config()).map_err(other)?;
            (format!("--pki={}", pki.display()), Some(tls))
        } else {
            ("--insecure-loopback".to_owned(), None)
        };
        let mut collector = Collector::new(folder.path(), &[&argument]).map_err(failed)?.without_shim();
        collector.start_and_wait().map_err(failed)?;
        Ok(Self { collector, tls, _folder: folder })
    }

    fn connect(&self, epoch: u128, first: u64) -> io::Result<Client<Box<dyn Stream>>> {
        let stream = dial(self.collector.address)?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = ServerName::from(self.collector.address.ip());
                let connection = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
                Box::new(StreamOwned::new(connection, stream))
            }
        };
        let mut client = Client::new(stream, epoch.to_le_bytes());
        match client.hello(first)? {
            Reply::Welcome(_) => Ok(client),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }
}

fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    Ok(stream)
}

/// Returns honest hits per second.
fn run(amount: AttackAmount, attack: Attack, is_attacked: bool, seed: u64) -> Result<f64, BenchError> {
    let mut place = Place::start(attack)?;
    let mut rng = Rng::new(seed);
    let batch =
        |number| Batch::new(&format!("h{number}"), amount.hits, SCRIPT_UNITS..SCRIPT_UNITS + 1, &mut rng);
    let batches: Vec<Batch> = (0..SENSORS).map(batch).collect();
    let frames: Vec<Vec<Vec<u8>>> =
        batches.iter().map(|batch| frames(&batch.hits())).collect::<Result<_, _>>()?;
    let stop = AtomicBool::new(false);
    let (acknowledged, seconds) = thread::scope(|scope| {
        if is_attacked {
            let (place, stop) = (&place, &stop);
            match attack {
                Attack::Silent => {
                    scope.spawn(|| stay_silent(place.collector.address, stop));
                }
                Attack::Gaps | Attack::Expensive => (0..HOSTILE_CONNECTIONS).for_each(|number| {
                    scope.spawn(move || send_hostile(place, attack, u128::from(number), stop));
                }),
            }
            // The attack has begun when the clock starts.
            thread::sleep(amount.time / 4);
        }
        let start = Instant::now();
        let deadline = start + amount.time;
        let threads: Vec<_> = (1_000_000..)
            .zip(&frames)
            .map(|(epoch, frames)| {
                let place = &place;
                scope.spawn(move || send_honest(place, epoch, frames, deadline))
            })
            .collect();
        let panicked = |_| Err(io::Error::other("a client panicked"));
        let acknowledged: Vec<io::Result<u64>> =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect();
        let seconds = start.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        (acknowledged, seconds)
    });
    let acknowledged: Vec<u64> = acknowledged.into_iter().collect::<io::Result<_>>().map_err(failed)?;
    place.collector.stop().map_err(failed)?;
    check(&place, &batches, &acknowledged)?;
    Ok(acknowledged.iter().sum::<u64>() as f64 / seconds)
}

/// Checks that every acknowledged hit is stored once and unchanged.
fn check(place: &Place, batches: &[Batch], acknowledged: &[u64]) -> Result<(), BenchError> {
    let mut account = Account::default();
    for (batch, acknowledged) in batches.iter().zip(acknowledged) {
        account.offer(batch);
        let scripts = batch.scripts[..*acknowledged as usize].to_vec();
        account.due(&Batch { name: String::new(), scripts });
    }
    let store = Store::open_read_only(place.collector.store()).map_err(other)?;
    let hits: Vec<HitV1> = store
        .hits(HitFilter::default())
        .map(|row| row.map(|row| row.hit))
        .collect::<Result<_, _>>()
        .map_err(other)?;
    let balance = account.compare(hits.iter().filter(|hit| hit.source != HOSTILE_SOURCE), 0);
    if balance.is_even() { Ok(()) } else { Err(other(format!("{balance:?}"))) }
}

fn frames(hits: &[HitV1]) -> Result<Vec<Vec<u8>>, BenchError> {
    let frame = |(sequence, hit): (u64, &HitV1)| {
        let mut frame = Vec::new();
        encode_data(sequence, hit, &mut frame).map(|()| frame).map_err(other)
    };
    (1..).zip(hits).map(frame).collect()
}

/// Sends until the deadline and returns the number of acknowledged hits. Reopens a connection that was refused or closed,
/// which takes time and is a permitted effect of an attack.
fn send_honest(place: &Place, epoch: u128, frames: &[Vec<u8>], deadline: Instant) -> io::Result<u64> {
    let (mut acknowledged, mut last) = (0, io::Error::from(io::ErrorKind::TimedOut));
    while Instant::now() < deadline && acknowledged < frames.len() as u64 {
        let sent = place
            .connect(epoch, acknowledged + 1)
            .and_then(|client| stream(client, frames, &mut acknowledged, deadline));
        if let Err(error) = sent {
            last = error;
            thread::sleep(HOSTILE_PAUSE);
        }
    }
    if acknowledged == 0 { Err(last) } else { Ok(acknowledged) }
}

fn stream(
    mut client: Client<Box<dyn Stream>>,
    frames: &[Vec<u8>],
    acknowledged: &mut u64,
    deadline: Instant,
) -> io::Result<()> {
    let all = (frames.len() as u64).min(*acknowledged + CONNECTION_HITS);
    let (mut sent, mut confirmed) = (*acknowledged, *acknowledged);
    while confirmed < all && Instant::now() < deadline {
        let until = (confirmed + WINDOW).min(all);
        for frame in &frames[sent as usize..until as usize] {
            client.queue_bytes(frame);
        }
        sent = until;
        client.flush()?;
        match client.receive()? {
            Reply::Ack(ack) => confirmed = ack.sequence.max(confirmed),
            other => return Err(io::Error::other(format!("{other:?}"))),
        }
        *acknowledged = confirmed.max(*acknowledged);
    }
    Ok(())
}

/// Opens one connection after the other and sends frames on it, until `stop` is set.
fn send_hostile(place: &Place, attack: Attack, number: u128, stop: &AtomicBool) {
    let mut epoch = number << 64;
    while !stop.load(Ordering::Relaxed) {
        epoch += 1;
        // The collector may answer an attack in any way.
        let _ = place.connect(epoch, 1).and_then(|client| match attack {
            Attack::Gaps => send_gap(client),
            _ => send_expensive(client, epoch as u64, stop),
        });
        thread::sleep(HOSTILE_PAUSE);
    }
}

fn send_gap(mut client: Client<Box<dyn Stream>>) -> io::Result<()> {
    let all = i64::MAX.cast_unsigned();
    let mut payload: Vec<u8> = [1, all, all].iter().flat_map(|number: &u64| number.to_le_bytes()).collect();
    payload.extend(0u32.to_le_bytes());
    let mut frame = Vec::new();
    encode_frame(FrameType::Gap, &payload, &mut frame).map_err(io::Error::other)?;
    client.queue_bytes(&frame);
    client.flush()?;
    client.receive().map(drop)
}

fn send_expensive(mut client: Client<Box<dyn Stream>>, seed: u64, stop: &AtomicBool) -> io::Result<()> {
    let batch = Batch::new(HOSTILE_SOURCE, 1, 100..101, &mut Rng::new(seed));
    let mut hit = batch.hits().into_iter().next().ok_or(io::ErrorKind::InvalidData)?;
    let rule = |number: usize| RuleRefV1 { id: format!("r{number}"), ..RuleRefV1::default() };
    hit.rules = (0..HOSTILE_RULES).map(rule).collect();
    let mut waiting = VecDeque::new();
    for sequence in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        hit.time = seed << 24 | sequence;
        client.queue(sequence, &hit)?;
        client.flush()?;
        waiting.push_back(sequence);
        while waiting.len() as u64 >= WINDOW {
            let Reply::Ack(ack) = client.receive()? else { return Err(io::ErrorKind::Other.into()) };
            waiting.retain(|number| *number > ack.sequence);
        }
    }
    Ok(())
}

/// Holds silent connections and reopens those that the collector has closed.
fn stay_silent(address: SocketAddr, stop: &AtomicBool) {
    let mut held: VecDeque<TcpStream> = VecDeque::new();
    while !stop.load(Ordering::Relaxed) {
        let opened = (0..SILENT_STEP).filter_map(|_| TcpStream::connect(address).ok());
        held.extend(opened.filter(|stream| stream.set_nonblocking(true).is_ok()));
        let is_open = |stream: &TcpStream| matches!((&*stream).read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        held.retain(is_open);
        while held.len() > SILENT {
            held.pop_front();
        }
        thread::sleep(SILENT_TIME);
    }
}

fn failed(source: io::Error) -> BenchError {
    BenchError::Io { path: "etwsieve-collector".into(), source }
}

fn other(error: impl std::fmt::Display) -> BenchError {
    BenchError::Peer { name: "etwsieve-collector".into(), detail: error.to_string() }
}
