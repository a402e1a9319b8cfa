//! A bad network between sensors and a collector, on the loopback interface. Connections are closed after any byte, stop
//! carrying data without being closed, or are slow; without TLS, ACKs are dropped, delayed, duplicated or stale.

mod acks;

use super::rng::Rng;
use acks::Mangler;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Maximum number of bytes forwarded at once.
const PART_LEN: usize = 16 * 1024;
/// Interval in which waiting threads check whether to end.
const TICK: Duration = Duration::from_millis(20);

/// Faults of the network. Probabilities are in percent and apply to each connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct NetworkFaults {
    /// Probability that it is closed.
    pub cut: u64,
    /// Probability that it stays open but no longer carries data.
    pub half_open: u64,
    /// Maximum number of bytes, in both directions, before that happens.
    pub within_bytes: u64,
    /// Maximum delay of forwarded data, in milliseconds.
    pub delay_ms_max: u64,
    /// Faults of each ACK, for connections without TLS.
    pub acks: Acks,
}

/// Probabilities of what happens to an ACK, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Acks {
    /// It never arrives.
    pub dropped: u64,
    /// It arrives after the next one.
    pub swapped: u64,
    /// It arrives twice.
    pub doubled: u64,
    /// An older one arrives before it again.
    pub stale: u64,
}

impl Acks {
    /// Returns true if all ACKs are forwarded unchanged.
    fn are_whole(self) -> bool {
        self.dropped + self.swapped + self.doubled + self.stale == 0
    }
}

/// Counts of what the network has done.
#[derive(Debug, Default)]
pub struct Counts {
    /// Accepted connections.
    pub connections: AtomicU64,
    /// Connections that were closed.
    pub cut: AtomicU64,
    /// Connections that stopped carrying data.
    pub half_open: AtomicU64,
    /// ACKs that were not forwarded unchanged.
    pub acks: AtomicU64,
}

/// A proxy in front of a collector. Dropping it ends its threads.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    upstream: Mutex<SocketAddr>,
    network: Mutex<NetworkFaults>,
    rng: Mutex<Rng>,
    counts: Counts,
    /// Connections of an older generation are closed.
    generation: AtomicU64,
    stops: AtomicBool,
}

/// The faults of a connection.
#[derive(Debug)]
struct Fate {
    /// Bytes until the fault happens; both directions count it down.
    bytes_left: AtomicU64,
    is_cut: bool,
    generation: u64,
    has_ended: AtomicBool,
    is_dead: AtomicBool,
}

impl Proxy {
    /// Listens on a free port and forwards connections to `upstream`.
    ///
    /// # Errors
    ///
    /// Errors of listening.
    pub fn start(upstream: SocketAddr, network: NetworkFaults, rng: Rng) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream: Mutex::new(upstream),
            network: Mutex::new(network),
            rng: Mutex::new(rng),
            counts: Counts::default(),
            generation: AtomicU64::new(0),
            stops: AtomicBool::new(false),
        });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Ok(Self { address, shared, acceptor: Some(acceptor) })
    }

    /// The address for sensors to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Counts of what the network has done.
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Sets the faults of future connections.
    pub fn set_faults(&self, network: NetworkFaults) {
        *lock(&self.shared.network) = network;
    }

    /// Sets the collector for future connections.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        *lock(&self.shared.upstream) = upstream;
    }

    /// Closes all current connections.
    pub fn cut_all(&self) {
        self.shared.generation.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stops.store(true, Ordering::Relaxed);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    while !shared.stops.load(Ordering::Relaxed) {
        let Ok((sensor, _)) = listener.accept() else {
            thread::sleep(TICK);
            continue;
        };
        shared.counts.connections.fetch_add(1, Ordering::Relaxed);
        threads.retain(|thread| !thread.is_finished());
        let upstream = *lock(&shared.upstream);
        // If the collector is down, the connection ends at once, as a refused one would.
        let Ok(collector) = TcpStream::connect_timeout(&upstream, Duration::from_secs(2)) else { continue };
        if let Ok(both) = forward(shared, &sensor, &collector) {
            threads.extend(both);
        }
    }
    for thread in threads {
        let _ = thread.join();
    }
}

fn forward(
    shared: &Arc<Shared>,
    sensor: &TcpStream,
    collector: &TcpStream,
) -> io::Result<[JoinHandle<()>; 2]> {
    let network = *lock(&shared.network);
    let mut rng = lock(&shared.rng).fork();
    let (is_cut, is_dead) = (rng.chance(network.cut), rng.chance(network.half_open));
    let budget = if is_cut || is_dead { rng.within(1..network.within_bytes.max(2)) } else { u64::MAX };
    let fate = Arc::new(Fate {
        bytes_left: AtomicU64::new(budget),
        is_cut,
        generation: shared.generation.load(Ordering::Relaxed),
        has_ended: AtomicBool::new(false),
        is_dead: AtomicBool::new(false),
    });
    for stream in [sensor, collector] {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TICK))?;
        stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    }
    let spawn = |from: &TcpStream, to: &TcpStream, mangler: Option<Mangler>, rng: Rng| -> io::Result<_> {
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        let (shared, fate) = (Arc::clone(shared), Arc::clone(&fate));
        Ok(thread::spawn(move || {
            let mut pump = Pump { from, to, mangler, rng, delay_ms_max: network.delay_ms_max };
            let _ = pump.run(&shared, &fate);
            fate.has_ended.store(true, Ordering::Relaxed);
            let _ = pump.from.shutdown(Shutdown::Both);
            let _ = pump.to.shutdown(Shutdown::Both);
        }))
    };
    let mangler = (!network.acks.are_whole()).then(|| Mangler::new(network.acks, rng.fork()));
    let up = spawn(sensor, collector, None, rng.fork())?;
    let down = spawn(collector, sensor, mangler, rng.fork())?;
    Ok([up, down])
}

/// One direction of a connection.
struct Pump {
    from: TcpStream,
    to: TcpStream,
    mangler: Option<Mangler>,
    rng: Rng,
    delay_ms_max: u64,
}

impl Pump {
    fn run(&mut self, shared: &Shared, fate: &Fate) -> io::Result<()> {
        let mut buffer = vec![0; PART_LEN];
        loop {
            let is_over = shared.stops.load(Ordering::Relaxed) || fate.has_ended.load(Ordering::Relaxed);
            if is_over || fate.generation != shared.generation.load(Ordering::Relaxed) {
                return Ok(());
            }
            if fate.is_dead.load(Ordering::Relaxed) {
                // Nothing is read any more; both ends have to detect it.
                thread::sleep(TICK);
                continue;
            }
            let len = match self.from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(len) => len,
                Err(error) if is_timeout(&error) => 0,
                Err(error) => return Err(error),
            };
            if self.delay_ms_max > 0 && len > 0 {
                thread::sleep(Duration::from_millis(self.rng.within(0..self.delay_ms_max)));
            }
            let mut part = buffer[..len].to_vec();
            if let Some(mangler) = &mut self.mangler {
                part = mangler.pass(&part, &shared.counts);
            }
            let left = fate.bytes_left.load(Ordering::Relaxed);
            if (part.len() as u64) < left {
                if left != u64::MAX {
                    fate.bytes_left.fetch_sub(part.len() as u64, Ordering::Relaxed);
                }
                self.to.write_all(&part)?;
                continue;
            }
            self.to.write_all(&part[..left as usize])?;
            fate.bytes_left.store(0, Ordering::Relaxed);
            if fate.is_cut {
                shared.counts.cut.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            if !fate.is_dead.swap(true, Ordering::Relaxed) {
                shared.counts.half_open.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
