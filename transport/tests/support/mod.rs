//! A small blocking collector for tests of the sender, which can misbehave; also hits, bundles and spools.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]
#![allow(dead_code, unreachable_pub, reason = "each test uses a part")]

use etwsieve_transport::hit::{EventContent, HitV1};
use etwsieve_transport::identity::Identity;
use etwsieve_transport::protocol::FrameBuffer;
use etwsieve_transport::sender::{Address, HitSender, Order, SenderSettings};
use etwsieve_transport::spool::{BYTES_MAX_LEAST, Keep, Spool, SpoolSettings};
use etwsieve_transport::wire::frame::{FrameType, PAYLOAD_LEN_MAX};
use etwsieve_transport::wire::message::{
    AckV1, BusyReason, BusyV1, GapV1, HelloV1, Message, StatusV1, WelcomeV1,
};
use etwsieve_transport::wire::{decode_data, decode_message, encode_message};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Returns a hit with a text of `len` bytes.
pub fn hit(number: u64, len: usize) -> HitV1 {
    HitV1 {
        time: 133_000_000_000_000_000 + number,
        source: "test".into(),
        source_sequence: number,
        provider: [7; 16],
        event_id: 1,
        version: 1,
        level: 3,
        content: EventContent::Notice { detail: "x".repeat(len) },
        ..HitV1::default()
    }
}

/// The behaviour of a collector on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Follows the protocol.
    Honest,
    /// Stores frames, acknowledges nothing, and closes after the given number of frames.
    LosesAcks(usize),
    /// Closes after the given number of frames without storing the last one.
    Closes(usize),
    /// Sends repeated and late ACKs, and ACKs for unknown epochs.
    StaleAcks,
    /// Acknowledges more than it received.
    AcksTooMuch,
    /// Sends bytes that are not a frame.
    Garbage,
    /// Sends a WELCOME with a version that was not offered.
    WrongVersion,
    /// Answers with BUSY.
    Busy(BusyReason),
}

/// The contents of a collector.
#[derive(Debug, Default)]
pub struct Stored {
    /// By epoch and number: `source_sequence` of the hit, or `None` for a dropped hit.
    pub numbers: BTreeMap<([u8; 16], u64), Option<u64>>,
    /// The hits in the order of their first arrival.
    pub order: Vec<([u8; 16], u64)>,
    /// Number of repeated frames with the same contents.
    pub repeated: u64,
    /// Number of repeated frames with other contents.
    pub conflicts: u64,
    pub gaps: Vec<GapV1>,
    pub statuses: Vec<StatusV1>,
    pub hellos: Vec<HelloV1>,
    /// Violations of the protocol by the sensor.
    pub violations: Vec<String>,
}

impl Stored {
    pub fn hits(&self) -> Vec<u64> {
        self.numbers.values().copied().flatten().collect()
    }

    pub fn dropped(&self) -> u64 {
        self.numbers.values().filter(|hit| hit.is_none()).count() as u64
    }
}

pub struct TestCollector {
    pub address: Address,
    pub stored: Arc<Mutex<Stored>>,
    pub connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TestCollector {
    /// `mood` returns the behaviour on the connection with the given number, starting at 0.
    pub fn start(
        tls: Option<Arc<rustls::ServerConfig>>,
        window: u32,
        mood: impl Fn(usize) -> Mood + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = format!("localhost:{}", listener.local_addr().unwrap().port()).parse().unwrap();
        let (stored, connections, stop) =
            (Arc::<Mutex<Stored>>::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let thread = thread::spawn({
            let (stored, connections, stop) =
                (Arc::clone(&stored), Arc::clone(&connections), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Acquire) {
                    let Ok((stream, _)) = listener.accept() else {
                        thread::sleep(Duration::from_millis(2));
                        continue;
                    };
                    let number = connections.fetch_add(1, Ordering::AcqRel);
                    stream.set_nonblocking(false).unwrap();
                    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
                    let mood = mood(number);
                    // The sensor has to handle every end of a connection.
                    let _ = match &tls {
                        None => serve(stream, mood, window, &stored, &stop),
                        Some(config) => {
                            let tls = rustls::ServerConnection::new(Arc::clone(config)).unwrap();
                            serve(rustls::StreamOwned::new(tls, stream), mood, window, &stored, &stop)
                        }
                    };
                }
            }
        });
        Self { address, stored, connections, stop, thread: Some(thread) }
    }

    pub fn stored(&self) -> std::sync::MutexGuard<'_, Stored> {
        self.stored.lock().unwrap()
    }
}

impl Drop for TestCollector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn serve(
    mut stream: impl Read + Write,
    mood: Mood,
    window: u32,
    stored: &Mutex<Stored>,
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut buffer = FrameBuffer::new(PAYLOAD_LEN_MAX);
    let (mut epoch, mut next, mut frames, mut acked) = ([0; 16], 0, 0usize, 0);
    loop {
        let mut chunk = [0; 16 << 10];
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(len) => buffer.extend(&chunk[..len]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if stop.load(Ordering::Acquire) {
                    return Ok(());
                }
                continue;
            }
            Err(error) => return Err(error),
        }
        let mut has_data = false;
        while let Some((frame_type, payload)) = buffer.next_frame().map_err(io::Error::other)? {
            let mut stored = stored.lock().unwrap();
            let mut came = |numbers: std::ops::RangeInclusive<u64>, hit: Option<u64>, stored: &mut Stored| {
                if *numbers.start() > next {
                    stored.violations.push(format!("{numbers:?} arrived, expected {next}"));
                }
                next = next.max(numbers.end() + 1);
                for number in numbers {
                    match stored.numbers.get(&(epoch, number)) {
                        None => {
                            stored.numbers.insert((epoch, number), hit);
                            if hit.is_some() {
                                stored.order.push((epoch, number));
                            }
                        }
                        Some(known) if *known == hit => stored.repeated += 1,
                        // A GAP does not remove stored hits.
                        Some(_) if hit.is_none() => stored.repeated += 1,
                        Some(_) => stored.conflicts += 1,
                    }
                }
            };
            match frame_type {
                FrameType::Hello => {
                    let hello: HelloV1 = decode_message(payload).map_err(io::Error::other)?;
                    (epoch, next, acked) = (hello.epoch, hello.first_unacknowledged, 0);
                    stored.hellos.push(hello);
                    match mood {
                        Mood::Garbage => return stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
                        Mood::Busy(reason) => return put(&mut stream, &BusyV1 { retry_after_ms: 1, reason }),
                        _ => {}
                    }
                    let version = if mood == Mood::WrongVersion { 9 } else { 1 };
                    put(&mut stream, &WelcomeV1 { version, epoch, durable: 0, window, quiet_ms: 400 })?;
                }
                FrameType::Status => {
                    stored.statuses.push(decode_message(payload).map_err(io::Error::other)?);
                    if !matches!(mood, Mood::LosesAcks(_)) {
                        put(&mut stream, &AckV1 { epoch, sequence: acked })?;
                    }
                }
                FrameType::Data | FrameType::Gap => {
                    frames += 1;
                    if mood == Mood::Closes(frames) {
                        return Ok(());
                    }
                    if frame_type == FrameType::Data {
                        let data = decode_data(payload).map_err(io::Error::other)?;
                        came(data.sequence..=data.sequence, Some(data.hit.source_sequence), &mut stored);
                    } else {
                        let gap: GapV1 = decode_message(payload).map_err(io::Error::other)?;
                        came(gap.from..=gap.to, None, &mut stored);
                        stored.gaps.push(gap);
                    }
                    has_data = true;
                    if mood == Mood::LosesAcks(frames) {
                        return Ok(());
                    }
                }
                other => stored.violations.push(format!("a {other:?} arrived")),
            }
        }
        if !has_data {
            continue;
        }
        match mood {
            Mood::LosesAcks(_) => {}
            Mood::AcksTooMuch => put(&mut stream, &AckV1 { epoch, sequence: next + 100_000 })?,
            Mood::StaleAcks => {
                put(&mut stream, &AckV1 { epoch, sequence: next - 1 })?;
                put(&mut stream, &AckV1 { epoch, sequence: acked })?;
                put(&mut stream, &AckV1 { epoch: [0xEE; 16], sequence: next + 5 })?;
                acked = next - 1;
                put(&mut stream, &AckV1 { epoch, sequence: acked })?;
            }
            _ => {
                acked = next - 1;
                put(&mut stream, &AckV1 { epoch, sequence: acked })?;
            }
        }
    }
}

fn put<M: Message>(stream: &mut impl Write, message: &M) -> io::Result<()> {
    let mut bytes = Vec::new();
    encode_message(message, &mut bytes).unwrap();
    stream.write_all(&bytes)?;
    stream.flush()
}

/// A private authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Returns the text of a bundle for `names`, valid until the first of January of `year`.
    pub fn bundle(&self, names: &[&str], year: i32) -> String {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let own = params.signed_by(&key, &self.0).unwrap();
        format!("{}{}{}", own.pem(), key.serialize_pem(), self.0.pem())
    }

    /// Returns the TLS configuration of a collector with a certificate for `names`.
    pub fn server(&self, names: &[&str]) -> Arc<rustls::ServerConfig> {
        let bundle = self.bundle(names, 2040);
        Identity::parse(bundle.as_bytes(), Path::new("collector.pem")).unwrap().server_config().unwrap()
    }
}

pub fn spool_settings(folder: &Path) -> SpoolSettings {
    SpoolSettings { path: folder.join("spool.db"), bytes_max: BYTES_MAX_LEAST, keep: Keep::Oldest }
}

pub fn open(folder: &Path) -> Spool {
    Spool::open(spool_settings(folder), 1000).unwrap()
}

pub fn sender(collectors: &[&TestCollector], bundle: Option<&Path>, spool: Spool) -> HitSender {
    let settings = SenderSettings {
        order: Order::Listed,
        collectors: collectors.iter().map(|collector| collector.address.clone()).collect(),
        bundle: bundle.map(Path::to_owned),
        software: "test".into(),
        computer: "ws01".into(),
        more_counts: Box::new(Vec::new),
    };
    HitSender::start(settings, spool).unwrap()
}

/// Waits until `is_so` returns true, at most a minute.
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_mins(1), "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}
