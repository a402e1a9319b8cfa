//! A light sensor: the protocol of `docs/wire.md` without a spool, for tests with thousands of sensors or a hostile one.

use super::rng::Rng;
use etwsieve_transport::hit::HitV1;
use etwsieve_transport::wire::frame::{FrameType, HEADER_LEN, split_frame};
use etwsieve_transport::wire::message::{AckV1, BusyV1, HelloV1, StatusV1, WelcomeV1};
use etwsieve_transport::wire::{decode_message, encode_data, encode_message};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Maximum time without a byte from the collector.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A connection to a collector over the stream `S`.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    epoch: [u8; 16],
    input: Vec<u8>,
    output: Vec<u8>,
    refused: u64,
}

/// A message of the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The collector accepts the connection.
    Welcome(WelcomeV1),
    /// All hits up to a sequence number are durable.
    Ack(AckV1),
    /// The collector accepts no more hits.
    Busy(BusyV1),
}

impl Client<TcpStream> {
    /// Connects without TLS.
    ///
    /// # Errors
    ///
    /// Errors of connecting.
    pub fn connect(address: SocketAddr, epoch: [u8; 16]) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        Ok(Self::new(stream, epoch))
    }
}

impl<S: Read + Write> Client<S> {
    /// Uses a stream that is connected already.
    pub fn new(stream: S, epoch: [u8; 16]) -> Self {
        Self { stream, epoch, input: Vec::new(), output: Vec::new(), refused: 0 }
    }

    /// The underlying stream.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Sends HELLO and returns the reply.
    ///
    /// # Errors
    ///
    /// Errors of the stream, `UnexpectedEof` at its end, `InvalidData` for bytes that are not valid frames.
    pub fn hello(&mut self, first_unacknowledged: u64) -> io::Result<Reply> {
        let hello = HelloV1 {
            versions: vec![1],
            instance: self.epoch,
            epoch: self.epoch,
            first_unacknowledged,
            software: "etwsieve-tests".to_owned(),
            computer: String::new(),
        };
        encode_message(&hello, &mut self.output).map_err(io::Error::other)?;
        self.flush()?;
        self.receive()
    }

    /// Appends a hit to the output buffer.
    ///
    /// # Errors
    ///
    /// If the hit does not fit into a frame.
    pub fn queue(&mut self, sequence: u64, hit: &HitV1) -> io::Result<()> {
        encode_data(sequence, hit, &mut self.output).map_err(io::Error::other)
    }

    /// Appends arbitrary bytes to the output buffer.
    pub fn queue_bytes(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
    }

    /// Appends a heartbeat to the output buffer.
    ///
    /// # Errors
    ///
    /// Never: a heartbeat fits into a frame.
    pub fn queue_status(&mut self) -> io::Result<()> {
        encode_message(&StatusV1::default(), &mut self.output).map_err(io::Error::other)
    }

    /// Sends the output buffer.
    ///
    /// # Errors
    ///
    /// Errors of the stream.
    pub fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.output)?;
        self.output.clear();
        self.stream.flush()
    }

    /// Number of frames that the collector could not store.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Waits for the next message of the collector. REFUSED is only counted, because the ACK that covers it follows.
    ///
    /// # Errors
    ///
    /// As [`hello`](Self::hello).
    pub fn receive(&mut self) -> io::Result<Reply> {
        loop {
            let invalid = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
            if let Some(split) = split_frame(&self.input).map_err(|error| invalid(error.to_string()))? {
                let reply = match split.frame_type {
                    FrameType::Welcome => decode_message(split.payload).map(Reply::Welcome),
                    FrameType::Ack => decode_message(split.payload).map(Reply::Ack),
                    FrameType::Busy => decode_message(split.payload).map(Reply::Busy),
                    FrameType::Refused => {
                        self.refused += 1;
                        self.input.drain(..HEADER_LEN + split.payload.len());
                        continue;
                    }
                    other => return Err(invalid(format!("a collector sent {other:?}"))),
                };
                let reply = reply.map_err(|error| invalid(error.to_string()))?;
                self.input.drain(..HEADER_LEN + split.payload.len());
                return Ok(reply);
            }
            let mut part = [0; 4096];
            match self.stream.read(&mut part)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                len => self.input.extend_from_slice(&part[..len]),
            }
        }
    }
}

/// The connections that a delivery took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    /// Connections that were accepted.
    pub connections: u64,
    /// Attempts that were not, and connections that ended too early.
    pub failures: u64,
}

/// Sends hits with sequence numbers from 1 until all are acknowledged, and tries one collector after the other, as a sensor
/// does.
///
/// # Errors
///
/// `TimedOut` with the last error if delivery takes longer than `limit`; `InvalidData` as soon as a collector violates the
/// protocol.
pub fn deliver(
    collectors: &[SocketAddr],
    epoch: [u8; 16],
    hits: &[HitV1],
    limit: Duration,
    rng: &mut Rng,
) -> io::Result<Effort> {
    let start = Instant::now();
    let (mut effort, mut acknowledged) = (Effort::default(), 0);
    let mut at = rng.within(0..collectors.len() as u64) as usize;
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    while start.elapsed() < limit {
        let connected = Client::connect(collectors[at], epoch);
        match connected.and_then(|client| send(client, hits, &mut acknowledged, &mut effort)) {
            Ok(()) => return Ok(effort),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error),
            Err(error) => last = error,
        }
        effort.failures += 1;
        at = (at + 1) % collectors.len();
        thread::sleep(Duration::from_millis(rng.within(20..400)));
    }
    let what = format!("{acknowledged} of {} acknowledged after {limit:?}, {effort:?}: {last}", hits.len());
    Err(io::Error::new(io::ErrorKind::TimedOut, what))
}

fn send(
    mut client: Client<TcpStream>,
    hits: &[HitV1],
    acknowledged: &mut u64,
    effort: &mut Effort,
) -> io::Result<()> {
    let Reply::Welcome(welcome) = client.hello(*acknowledged + 1)? else {
        return Err(io::Error::other("BUSY"));
    };
    effort.connections += 1;
    let all = hits.len() as u64;
    let mut sent = *acknowledged;
    while *acknowledged < all {
        while sent < all && sent - *acknowledged < u64::from(welcome.window) {
            client.queue(sent + 1, &hits[sent as usize])?;
            sent += 1;
        }
        client.flush()?;
        match client.receive()? {
            Reply::Ack(ack) if ack.epoch == client.epoch && ack.sequence > sent => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "an ACK above the last sent sequence number",
                ));
            }
            Reply::Ack(ack) if ack.epoch == client.epoch => *acknowledged = ack.sequence.max(*acknowledged),
            Reply::Ack(_) | Reply::Welcome(_) => {}
            Reply::Busy(busy) => return Err(io::Error::other(busy.reason.as_str())),
        }
    }
    Ok(())
}
