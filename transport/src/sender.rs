//! Delivery of hits to a collector, through a bounded queue, the spool and one connection at a time.
//!
//! ```text
//! offer/send ── queue ──► feeder thread ──► spool ──► sender thread ──► connection ──► collector
//!                                             ▲             │                              │
//!                                             └── acknowledged ◄── reader thread ◄─────────┘
//! ```
//!
//! Everything runs on plain threads. [`HitSender::offer`] waits neither for the disk nor for the network: if the queue
//! is full, the hit is dropped and becomes part of a GAP. [`protocol::sensor`](crate::protocol::sensor) implements the
//! protocol and [`route`] chooses the collector, both without sockets and clocks. [`link`] is the network connection.

pub mod address;
mod counts;
mod feeder;
mod link;
pub mod route;
mod run;

pub use address::{Address, AddressError, COLLECTORS_MAX};
pub use counts::SenderCounts;
pub use feeder::{QUEUE_BYTES_MAX, QUEUE_HITS_MAX};
pub use route::Order;

use crate::hit::HitV1;
use crate::identity::IdentityError;
use crate::spool::{Spool, SpoolCounts};
use crate::wire::codec::encode_hit;
use crate::wire::message::{CountV1, GapReason};
use counts::Counters;
use feeder::Queue;
use link::{Inbox, Security};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Maximum time that stopping each thread may take.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);
/// Polling interval of waiting callers.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Returns further counts for each STATUS.
pub type MoreCounts = Box<dyn Fn() -> Vec<CountV1> + Send>;

/// The collectors, and how to connect to them.
pub struct SenderSettings {
    /// Addresses of collectors; 1 to [`COLLECTORS_MAX`].
    pub collectors: Vec<Address>,
    /// The order in which they are tried.
    pub order: Order,
    /// Path of the bundle file. `None`: plain TCP, which is allowed to loopback addresses only.
    pub bundle: Option<PathBuf>,
    /// Program and version; informational.
    pub software: String,
    /// The machine's own name; informational.
    pub computer: String,
    /// Further counts for each STATUS.
    pub more_counts: MoreCounts,
}

/// A sender cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    /// Wrong number of collectors.
    #[error("{0} collectors configured, expected 1 to {COLLECTORS_MAX}")]
    Collectors(usize),
    /// Plain TCP to another machine.
    #[error(
        "{0} is not a loopback address; configure a bundle for TLS (without TLS only 127.0.0.1, [::1] and localhost are allowed)"
    )]
    NotLoopback(Address),
    /// The bundle cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The system cannot start a thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// State shared by the threads of a sender.
struct Shared {
    spool: Mutex<Spool>,
    queue: Queue,
    inbox: Inbox,
    counters: Counters,
    stop: AtomicBool,
}

impl Shared {
    /// A panic of another thread leaves the spool usable, because none of its methods can panic half-way through a
    /// change.
    fn spool(&self) -> MutexGuard<'_, Spool> {
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running sender.
pub struct HitSender {
    shared: Arc<Shared>,
    feeder: Option<JoinHandle<()>>,
    runner: Option<JoinHandle<()>>,
}

impl HitSender {
    /// Starts to send the contents of the spool and new hits.
    ///
    /// # Errors
    ///
    /// [`SenderError`]. An unreachable collector is not an error here.
    pub fn start(mut settings: SenderSettings, spool: Spool) -> Result<Self, SenderError> {
        let count = settings.collectors.len();
        if !(1..=COLLECTORS_MAX).contains(&count) {
            return Err(SenderError::Collectors(count));
        }
        if settings.bundle.is_none()
            && let Some(address) = settings.collectors.iter().find(|address| !address.is_loopback())
        {
            return Err(SenderError::NotLoopback(address.clone()));
        }
        settings.order.sort(&mut settings.collectors, &spool.instance());
        let security = Security::new(settings.bundle.clone())?;
        let shared = Arc::new(Shared {
            spool: Mutex::new(spool),
            queue: Queue::default(),
            inbox: Inbox::default(),
            counters: Counters::default(),
            stop: AtomicBool::new(false),
        });
        shared.counters.certificate(security.expires_unix());
        let mut sender = Self { shared: Arc::clone(&shared), feeder: None, runner: None };
        let feeder = thread::Builder::new().name("etwsieve-spool".into()).spawn({
            let shared = Arc::clone(&shared);
            move || feeder::run(&shared)
        });
        sender.feeder = Some(feeder.map_err(SenderError::Thread)?);
        let runner = thread::Builder::new()
            .name("etwsieve-sender".into())
            .spawn(move || run::run(&settings, security, &shared));
        sender.runner = Some(runner.map_err(SenderError::Thread)?);
        Ok(sender)
    }

    /// Queues a hit without waiting. If the queue is full, the hit is dropped and becomes part of a GAP.
    pub fn offer(&self, hit: &HitV1) {
        if let Some(bytes) = self.encode(hit)
            && self.shared.queue.offer(bytes).is_err()
        {
            self.shared.queue.drop_one(GapReason::QueueFull);
        }
    }

    /// Queues a hit. Waits for the disk if necessary, but never for the network. Once `is_stopped` returns true, it
    /// stops waiting and drops the hit.
    pub fn send(&self, hit: &HitV1, is_stopped: impl Fn() -> bool) {
        let Some(mut bytes) = self.encode(hit) else { return };
        self.shared.queue.set_patient();
        while let Err(back) = self.shared.queue.offer(bytes) {
            if is_stopped() {
                return self.shared.queue.drop_one(GapReason::QueueFull);
            }
            bytes = back;
            thread::sleep(LOOK_EVERY);
        }
    }

    fn encode(&self, hit: &HitV1) -> Option<Vec<u8>> {
        match encode_hit(hit) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                tracing::error!(source = hit.source, "cannot encode a hit, it is dropped: {error}");
                self.shared.queue.drop_one(GapReason::TooLong);
                None
            }
        }
    }

    /// Returns the current counts.
    pub fn counts(&self) -> SenderCounts {
        self.shared.counters.read(self.spool_counts())
    }

    /// Returns a function that reads the counts, even after the sender has stopped.
    pub fn watch_counts(&self) -> impl Fn() -> SenderCounts + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.counters.read(shared.spool().counts())
    }

    fn spool_counts(&self) -> SpoolCounts {
        self.shared.spool().counts()
    }

    /// Waits until a collector has acknowledged everything. Gives up when `is_stopped` returns true, or when nothing
    /// was acknowledged for `patience`. Returns true if everything was acknowledged.
    pub fn wait_sent(&self, patience: Duration, is_stopped: impl Fn() -> bool) -> bool {
        let (mut progress, mut since) = (self.spool_counts().acknowledged, Instant::now());
        loop {
            // The order matters: a hit is in the spool before it leaves the queue.
            if self.shared.queue.is_idle() && self.shared.spool().is_empty() {
                return true;
            }
            if is_stopped() || since.elapsed() >= patience {
                return false;
            }
            thread::sleep(LOOK_EVERY);
            let now = self.spool_counts().acknowledged;
            if now != progress {
                (progress, since) = (now, Instant::now());
            }
        }
    }

    /// Stops the sender and returns the final counts. Queued hits are written to the spool, and the connection is
    /// closed. Hits without an acknowledgement stay in the spool; hits for which the disk has no room are dropped.
    pub fn finish(mut self) -> SenderCounts {
        self.end();
        self.counts()
    }

    fn end(&mut self) {
        self.shared.queue.close();
        join(self.feeder.take());
        self.shared.stop.store(true, Ordering::Release);
        self.shared.inbox.stop();
        join(self.runner.take());
        // Delete what the last acknowledgements covered.
        if let Err(error) = self.shared.spool().flush(now_ms()) {
            tracing::error!("{error}");
        }
    }
}

impl Drop for HitSender {
    fn drop(&mut self) {
        if self.feeder.is_some() || self.runner.is_some() {
            self.end();
        }
    }
}

/// Waits for a thread, but only for a limited time, because it may be stuck in a name resolver.
fn join(handle: Option<JoinHandle<()>>) {
    let Some(handle) = handle else { return };
    let start = Instant::now();
    while !handle.is_finished() && start.elapsed() < FINISH_TIMEOUT {
        thread::sleep(LOOK_EVERY);
    }
    if handle.is_finished() && handle.join().is_err() {
        tracing::error!("a thread of the sender panicked");
    }
}

/// Returns the time in milliseconds since 1970.
fn now_ms() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
