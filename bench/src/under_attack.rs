//! Honest sensors while others attack the collector: hits per second with and without.
//!
//! The attacks are those that one may expect of a sensor whose certificate was stolen, and of anybody who reaches the port.
//! Attackers run on the same machine and take their part of its processors, so that a figure says at least what the
//! collector does to defend itself. What was acknowledged to honest sensors is compared with the store after each run.

use crate::error::BenchError;
use crate::transport::Figure;
use etwsieve_tests::faults::client::{Client, Reply};
use etwsieve_tests::faults::{Account, Batch, Collector, Rng};
use etwsieve_transport::hit::{HitV1, RuleRefV1};
use etwsieve_transport::identity::Identity;
use etwsieve_transport::pki::{Authority, SensorName};
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

/// Honest sensors, each with a connection.
const SENSORS: u64 = 8;
/// Hits of an honest sensor that wait for their acknowledgement.
const WINDOW: u64 = 32;
/// Hits after which an honest sensor connects anew: new connections must get in as well.
const CONNECTION_HITS: u64 = 500;
/// Characters of a script: a hit of about 1 KB.
const SCRIPT_UNITS: u64 = 300;
/// Connections of each attack with frames.
const EVIL: u64 = 4;
/// Rules of an expensive hit, which makes it some 60 KB.
const EVIL_RULES: usize = 1000;
/// Connections that send nothing: three times as many as one address may have by default.
const SILENT: usize = 3000;
/// Of these, how many are opened anew in [`SILENT_TIME`], at most.
const SILENT_STEP: usize = 20;
const SILENT_TIME: Duration = Duration::from_millis(10);
/// Pause of an attacker between two connections.
const EVIL_PAUSE: Duration = Duration::from_millis(10);
/// Longest time without an answer.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Where expensive hits come from.
const EVIL_SOURCE: &str = "evil";

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Siege {
    /// Hits that each honest sensor has to send, at most.
    pub hits: usize,
    /// How long they send.
    pub time: Duration,
    /// Runs with and without each attack, in turns.
    pub rounds: usize,
}

impl Siege {
    /// A result.
    pub const FULL: Self = Self { hits: 12_000, time: Duration::from_secs(6), rounds: 3 };
    /// Whether it works.
    pub const TRIAL: Self = Self { hits: 300, time: Duration::from_secs(1), rounds: 1 };
}

/// What attackers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attack {
    /// Declare all numbers lost, in one GAP after the other.
    Gaps,
    /// Send hits with a thousand rules as fast as they are taken.
    Expensive,
    /// Open connections and send nothing.
    Silent,
}

/// Measures honest hits per second beside each attack, and their share of those without it.
///
/// # Errors
///
/// [`BenchError::Io`] where a program cannot be started or does not answer; [`BenchError::Peer`] if something that was
/// acknowledged is not in the store.
pub fn measure(siege: Siege, mut told: impl FnMut(&Figure)) -> Result<Vec<Figure>, BenchError> {
    let rows = [
        (Attack::Gaps, "GAPs of all numbers"),
        (Attack::Expensive, "hits with 1,000 rules"),
        (Attack::Silent, "3,000 silent connections"),
    ];
    let mut figures = Vec::new();
    for (attack, name) in rows {
        // In turns, so that what else the machine does meets both alike.
        let (mut quiet, mut attacked) = (Vec::new(), Vec::new());
        for round in 0..siege.rounds {
            quiet.push(run(siege, attack, false, round as u64)?);
            attacked.push(run(siege, attack, true, round as u64)?);
        }
        let (quiet, attacked) = (median(quiet), median(attacked));
        let rows = [
            (format!("honest hits without {name}"), quiet, "hits/s", None),
            (format!("honest hits beside {name}"), attacked, "hits/s", None),
            (format!("share that {name} leave"), attacked / quiet * 100.0, "%", Some(90.0)),
        ];
        for (name, value, unit, aim) in rows {
            let figure = Figure { name, value, unit, aim };
            told(&figure);
            figures.push(figure);
        }
    }
    Ok(figures)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A collector, and how to connect to it.
struct Place {
    collector: Collector,
    /// `None`: without TLS.
    tls: Option<Arc<ClientConfig>>,
    _folder: TempDir,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl Place {
    /// With TLS where the attack is on the handshake.
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

/// Honest hits a second.
fn run(siege: Siege, attack: Attack, is_attacked: bool, seed: u64) -> Result<f64, BenchError> {
    let mut place = Place::start(attack)?;
    let mut rng = Rng::new(seed);
    let batch =
        |number| Batch::new(&format!("h{number}"), siege.hits, SCRIPT_UNITS..SCRIPT_UNITS + 1, &mut rng);
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
                Attack::Gaps | Attack::Expensive => (0..EVIL).for_each(|number| {
                    scope.spawn(move || send_evil(place, attack, u128::from(number), stop));
                }),
            }
            // The attack is under way when the clock starts.
            thread::sleep(siege.time / 4);
        }
        let start = Instant::now();
        let deadline = start + siege.time;
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

/// What was acknowledged is in the store, once and whole.
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
    let balance = account.compare(hits.iter().filter(|hit| hit.source != EVIL_SOURCE), 0);
    if balance.is_even() { Ok(()) } else { Err(other(format!("{balance:?}"))) }
}

fn frames(hits: &[HitV1]) -> Result<Vec<Vec<u8>>, BenchError> {
    let frame = |(sequence, hit): (u64, &HitV1)| {
        let mut frame = Vec::new();
        encode_data(sequence, hit, &mut frame).map(|()| frame).map_err(other)
    };
    (1..).zip(hits).map(frame).collect()
}

/// Sends until the time is over; returns how many hits were acknowledged. A connection that is refused or cut is opened
/// anew: that costs time, and is what an attack may do.
fn send_honest(place: &Place, epoch: u128, frames: &[Vec<u8>], deadline: Instant) -> io::Result<u64> {
    let (mut acknowledged, mut last) = (0, io::Error::from(io::ErrorKind::TimedOut));
    while Instant::now() < deadline && acknowledged < frames.len() as u64 {
        let sent = place
            .connect(epoch, acknowledged + 1)
            .and_then(|client| stream(client, frames, &mut acknowledged, deadline));
        if let Err(error) = sent {
            last = error;
            thread::sleep(EVIL_PAUSE);
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

/// One connection after the other, each with its frames, until it is told to stop.
fn send_evil(place: &Place, attack: Attack, number: u128, stop: &AtomicBool) {
    let mut epoch = number << 64;
    while !stop.load(Ordering::Relaxed) {
        epoch += 1;
        // Whatever the collector does about it is its right.
        let _ = place.connect(epoch, 1).and_then(|client| match attack {
            Attack::Gaps => send_gap(client),
            _ => send_expensive(client, epoch as u64, stop),
        });
        thread::sleep(EVIL_PAUSE);
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
    let batch = Batch::new(EVIL_SOURCE, 1, 100..101, &mut Rng::new(seed));
    let mut hit = batch.hits().into_iter().next().ok_or(io::ErrorKind::InvalidData)?;
    let rule = |number: usize| RuleRefV1 { id: format!("r{number}"), ..RuleRefV1::default() };
    hit.rules = (0..EVIL_RULES).map(rule).collect();
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

/// Holds connections that send nothing, and opens those anew that the collector has closed.
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
