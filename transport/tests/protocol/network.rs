//! A network of connections that deliver bytes in order, or lose them when they are cut.

use fastrand::Rng;
use std::collections::BTreeMap;

/// Microseconds since the start of the simulation.
pub type Time = u64;

/// The receiving side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    Sensor,
    Collector,
}

/// Something that reaches one side of a connection.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub connection: usize,
    pub to: To,
    /// `None`: the connection was closed.
    pub bytes: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Direction {
    /// When the last bytes on their way arrive; later ones do not overtake them.
    last_arrival: Time,
    /// Nothing more is delivered.
    is_cut: bool,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// Both sides notice, and everything in flight is lost.
    Noticed,
    /// The sensor notices. What it has sent still reaches the collector, which learns of the end later.
    HalfOpen,
    /// Nobody notices until a timeout.
    Silent,
}

#[derive(Debug)]
pub struct Network {
    /// Deliveries in the order of their arrival.
    pending: BTreeMap<(Time, u64), Delivery>,
    order: u64,
    connections: Vec<[Direction; 2]>,
    /// Maximum delay of a delivery.
    delay_max: Time,
    /// Maximum number of bytes in a delivery.
    chunk_max: usize,
}

impl Network {
    pub fn new(delay_max: Time, chunk_max: usize) -> Self {
        Self { pending: BTreeMap::new(), order: 0, connections: Vec::new(), delay_max, chunk_max }
    }

    /// Ends the faults: bytes arrive whole and soon.
    pub fn recover(&mut self) {
        self.delay_max = self.delay_max.min(10_000);
        self.chunk_max = usize::MAX;
    }

    pub fn connect(&mut self) -> usize {
        self.connections.push(Default::default());
        self.connections.len() - 1
    }

    /// Sends bytes in pieces of random length with random delays.
    pub fn send(&mut self, connection: usize, to: To, mut bytes: &[u8], now: Time, rng: &mut Rng) {
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(rng.usize(1..=self.chunk_max).min(bytes.len()));
            self.deliver(connection, to, Some(piece.to_vec()), now, rng);
            bytes = rest;
        }
    }

    /// Tells one side, after everything in flight to it, that the other one has closed the connection.
    pub fn close(&mut self, connection: usize, to: To, now: Time, rng: &mut Rng) {
        self.deliver(connection, to, None, now, rng);
        self.connections[connection][to as usize].is_cut = true;
    }

    fn deliver(&mut self, connection: usize, to: To, bytes: Option<Vec<u8>>, now: Time, rng: &mut Rng) {
        let direction = &mut self.connections[connection][to as usize];
        if direction.is_cut {
            return;
        }
        let arrival = (now + rng.u64(0..=self.delay_max)).max(direction.last_arrival);
        direction.last_arrival = arrival;
        self.order += 1;
        self.pending.insert((arrival, self.order), Delivery { connection, to, bytes });
    }

    pub fn cut(&mut self, connection: usize, cut: Cut, now: Time, rng: &mut Rng) {
        if !matches!(cut, Cut::HalfOpen) {
            self.lose(connection, To::Collector);
        }
        self.lose(connection, To::Sensor);
        match cut {
            Cut::Noticed => {
                self.close(connection, To::Sensor, now, rng);
                self.close(connection, To::Collector, now, rng);
            }
            Cut::HalfOpen => {
                self.close(connection, To::Sensor, now, rng);
                let later = now + rng.u64(0..=20_000_000);
                self.close(connection, To::Collector, later, rng);
            }
            Cut::Silent => {
                for direction in &mut self.connections[connection] {
                    direction.is_cut = true;
                }
            }
        }
    }

    /// Discards everything in flight to one side.
    pub fn lose(&mut self, connection: usize, to: To) {
        self.pending.retain(|_, delivery| delivery.connection != connection || delivery.to != to);
    }

    pub fn next_arrival(&self) -> Option<Time> {
        self.pending.first_key_value().map(|((time, _), _)| *time)
    }

    pub fn take_arrived(&mut self, now: Time) -> Option<Delivery> {
        let entry = self.pending.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }
}
