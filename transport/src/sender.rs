//! The way of hits to a collector: a bounded queue, the spool, one connection at a time.
//!
//! ```text
//! offer/send ── queue ──► feeder thread ──► spool ──► sender thread ──► connection ──► collector
//!                                             ▲             │                              │
//!                                             └── acknowledged ◄── reader thread ◄─────────┘
//! ```
//!
//! Plain threads. [`Sender::offer`] waits neither for the disk nor for the network: where the queue is full it drops, and
//! the drop becomes a GAP. What the protocol demands is in [`session`], which collector is next in [`route`], both without
//! sockets and clocks; [`link`] is the connection.

pub mod address;
mod counts;
mod feeder;
mod link;
pub mod route;
mod run;
pub mod session;

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

/// How long the end of a sender may take, each of its threads.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);
/// How often somebody who waits looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Further counts for each STATUS.
pub type MoreCounts = Box<dyn Fn() -> Vec<CountV1> + Send>;

/// Where hits are sent, and how.
pub struct SenderSettings {
    /// Collectors; 1 to [`COLLECTORS_MAX`].
    pub collectors: Vec<Address>,
    /// The order in which they are tried.
    pub order: Order,
    /// The bundle file. `None`: plain TCP, which only loopback addresses may have.
    pub bundle: Option<PathBuf>,
    /// Program and version, for people.
    pub software: String,
    /// What the machine calls itself, for people.
    pub computer: String,
    /// Further counts for each STATUS.
    pub more_counts: MoreCounts,
}

/// Why a sender cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    /// The list of collectors.
    #[error("{0} collectors, expected 1 to {COLLECTORS_MAX}")]
    Collectors(usize),
    /// Plain TCP to another machine.
    #[error(
        "{0} is no address of this machine: without TLS hits go to 127.0.0.1, [::1] or localhost only; use a bundle"
    )]
    NotLoopback(Address),
    /// The bundle.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// What the threads share.
struct Shared {
    spool: Mutex<Spool>,
    queue: Queue,
    inbox: Inbox,
    counters: Counters,
    stop: AtomicBool,
}

impl Shared {
    /// The spool stays usable after a panic elsewhere: each of its steps is whole.
    fn spool(&self) -> MutexGuard<'_, Spool> {
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running sender.
pub struct Sender {
    shared: Arc<Shared>,
    feeder: Option<JoinHandle<()>>,
    runner: Option<JoinHandle<()>>,
}

impl Sender {
    /// Starts to send what the spool holds, and what comes.
    ///
    /// # Errors
    ///
    /// [`SenderError`]. Whether a collector can be reached is not asked here.
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

    /// Takes a hit without waiting. Where there is no room for it, it is dropped, and lies in a GAP.
    pub fn offer(&self, hit: &HitV1) {
        if let Some(bytes) = self.encode(hit)
            && self.shared.queue.offer(bytes).is_err()
        {
            self.shared.queue.drop_one(GapReason::QueueFull);
        }
    }

    /// Takes a hit, and waits for the disk where it has to, but never for the network. Returns early, with the hit
    /// dropped, once `is_stopped` says so.
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
                tracing::error!(source = hit.source, "a hit fits no frame: {error}");
                self.shared.queue.drop_one(GapReason::TooLong);
                None
            }
        }
    }

    /// The counts at this moment.
    pub fn counts(&self) -> SenderCounts {
        self.shared.counters.read(self.spool_counts())
    }

    /// The counts at any moment, also after the sender has gone.
    pub fn watch_counts(&self) -> impl Fn() -> SenderCounts + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.counters.read(shared.spool().counts())
    }

    fn spool_counts(&self) -> SpoolCounts {
        self.shared.spool().counts()
    }

    /// Waits until a collector has acknowledged everything, `is_stopped` says so, or nothing has been acknowledged for
    /// `patience`; and says whether everything was acknowledged.
    pub fn wait_sent(&self, patience: Duration, is_stopped: impl Fn() -> bool) -> bool {
        let (mut progress, mut since) = (self.spool_counts().acknowledged, Instant::now());
        loop {
            // In this order: what leaves the queue is in the spool first.
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

    /// Ends: what is in the queue goes to the spool, the connection is closed, and the counts are final. What was not
    /// acknowledged stays in the spool; hits for which the disk has no room are given up.
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
        // What the last acknowledgements allow to forget.
        if let Err(error) = self.shared.spool().flush(now_ms()) {
            tracing::error!("{error}");
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if self.feeder.is_some() || self.runner.is_some() {
            self.end();
        }
    }
}

/// Waits for a thread, but not for ever: a resolver may take its time.
fn join(handle: Option<JoinHandle<()>>) {
    let Some(handle) = handle else { return };
    let start = Instant::now();
    while !handle.is_finished() && start.elapsed() < FINISH_TIMEOUT {
        thread::sleep(LOOK_EVERY);
    }
    if handle.is_finished() && handle.join().is_err() {
        tracing::error!("a thread of the sender has panicked");
    }
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
