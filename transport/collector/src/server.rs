//! The server: accepts connections, learns who is there, and stops in an orderly way.

mod connected;
mod guest;
mod lobby;

use crate::backend::Backend;
use crate::committer::{self, Bounds};
use crate::connection::Shared;
use crate::counters::Counters;
use crate::heartbeats::Heartbeats;
use crate::identity::Allowed;
use crate::pki::{Entry, PkiError, REGISTER_LEN_MAX, Register, SENSORS_FILE, fingerprint};
use crate::quota::Quota;
use crate::tls::{TlsError, server_config};
use connected::Connected;
pub(super) use connected::SensorState;
use etwsieve_transport::files::open_regular;
use etwsieve_transport::wire::message::BusyReason;
use guest::{Guest, Quotas};
use lobby::{Lobby, LobbyBounds};
use rustls::ServerConfig;
use std::collections::HashMap;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Connections that are told BUSY at a time instead of being served. More are closed without it.
const REFUSED_MAX: u64 = 64;
/// Pause after a failed accept, which may mean that handles have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long [`Server::stop`] waits for the connections.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);

/// How sensors are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS, with the files that `etwsieve-collector pki` keeps in this folder.
    Pki(PathBuf),
    /// Neither TLS nor names, on the loopback interface only.
    InsecureLoopback,
}

/// Certificates of sensors from elsewhere than `sensors.toml`, at any moment.
pub type Issued = watch::Receiver<Arc<Vec<Entry>>>;

/// What the server is told. Every time and bound has a default.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Most frames that a sensor may have unacknowledged.
    pub window: u32,
    /// Milliseconds of silence after which a connection is closed.
    pub quiet_ms: u32,
    /// Time for the TLS handshake.
    pub handshake_time: Duration,
    /// Time for the first HELLO.
    pub hello_time: Duration,
    /// Most connections whose sensor is not known yet.
    pub handshakes_max: usize,
    /// Most of them from one address.
    pub handshakes_per_address_max: usize,
    /// Most connections of known sensors.
    pub connections_max: u64,
    /// Most connections of one sensor.
    pub connections_per_sensor_max: usize,
    /// Frames that one sensor may send in a second; 0: no limit.
    pub frames_per_second: u64,
    /// Bytes that one sensor may send in a second; 0: no limit.
    pub bytes_per_second: u64,
    /// Most frames of all connections that wait for the store.
    pub queue_frames: usize,
    /// Most bytes of them.
    pub queue_bytes: usize,
    /// Most frames in one transaction.
    pub batch_frames: usize,
    /// Time between two looks at the list of sensors and the certificates.
    pub reload_time: Duration,
    /// Certificates that count beside those of `sensors.toml`, which may be missing then. What either of them says is
    /// revoked, is revoked.
    pub issued: Option<Issued>,
    /// Acknowledge before the store has synced, on the loopback interface only: for proving that a fault campaign
    /// finds what is lost that way.
    pub ack_before_sync: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            window: 512,
            quiet_ms: 60_000,
            handshake_time: Duration::from_secs(10),
            hello_time: Duration::from_secs(10),
            handshakes_max: 4096,
            handshakes_per_address_max: 1024,
            connections_max: 20_000,
            connections_per_sensor_max: 8,
            frames_per_second: 0,
            bytes_per_second: 0,
            queue_frames: 8192,
            queue_bytes: 64 << 20,
            batch_frames: 256,
            reload_time: Duration::from_secs(5),
            issued: None,
            ack_before_sync: false,
        }
    }
}

impl Settings {
    /// When to try again.
    pub(super) const fn retry_after_ms(reason: BusyReason) -> u32 {
        match reason {
            BusyReason::Stopping | BusyReason::Overload => 1_000,
            BusyReason::DiskFull | BusyReason::StoreFailed | BusyReason::Connections => 5_000,
            BusyReason::NotAllowed | BusyReason::Version => 60_000,
        }
    }
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Without TLS only the loopback interface is served.
    #[error(
        "{addr} can be reached from other machines, so it needs certificates: give --pki DIR (see `etwsieve-collector pki init`)"
    )]
    Insecure {
        /// Where it should listen.
        addr: SocketAddr,
    },
    /// Acknowledging before the sync loses hits.
    #[error(
        "acknowledging before the sync loses hits: it is for tests on the loopback interface, not for {addr}"
    )]
    Unsafe {
        /// Where it should listen.
        addr: SocketAddr,
    },
    /// The address cannot be had.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The list of sensors.
    #[error(transparent)]
    Sensors(#[from] PkiError),
}

/// What every connection is told while it lives.
#[derive(Clone, Debug)]
pub(super) struct Control {
    pub(super) is_stopping: bool,
    pub(super) allowed: Arc<Allowed>,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    control: watch::Sender<Control>,
    counters: Arc<Counters>,
    /// Ends when every connection has.
    connections: mpsc::Receiver<()>,
    accepting: JoinHandle<()>,
    reloading: JoinHandle<()>,
    committing: JoinHandle<()>,
    heartbeats: Arc<Heartbeats>,
    beating: JoinHandle<()>,
    backend: Stopping,
}

/// The backend, to be stopped last.
struct Stopping(Arc<dyn Backend>);

impl std::fmt::Debug for Stopping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backend")
    }
}

impl Server {
    /// Listens on `addr`; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// [`ServeError`].
    pub async fn start(
        addr: SocketAddr,
        security: &Security,
        settings: Settings,
        backend: Arc<dyn Backend>,
        counters: Arc<Counters>,
    ) -> Result<Self, ServeError> {
        let is_loopback = addr.ip().to_canonical().is_loopback();
        if settings.ack_before_sync && !is_loopback {
            return Err(ServeError::Unsafe { addr });
        }
        let (tls, allowed) = match security {
            Security::Pki(folder) => {
                let register = register(folder, settings.issued.as_ref())?;
                (Some(server_config(folder)?), Allowed::listed(&register))
            }
            Security::InsecureLoopback if is_loopback => (None, Allowed::Anybody),
            Security::InsecureLoopback => return Err(ServeError::Insecure { addr }),
        };
        let listener = TcpListener::bind(addr).await.map_err(|source| ServeError::Listen { addr, source })?;
        let addr = listener.local_addr().map_err(|source| ServeError::Listen { addr, source })?;
        let bounds = Bounds {
            entries: settings.queue_frames,
            bytes: settings.queue_bytes,
            batch: settings.batch_frames,
            ack_before_sync: settings.ack_before_sync,
        };
        let (queue, committing) = committer::start(Arc::clone(&backend), bounds, Arc::clone(&counters));
        let (control, seen) = watch::channel(Control { is_stopping: false, allowed: Arc::new(allowed) });
        let (tls_sender, tls) = watch::channel(tls);
        let reloading = match security {
            Security::Pki(folder) => {
                let reload = Reload {
                    folder: folder.clone(),
                    issued: settings.issued.clone(),
                    control: control.clone(),
                    tls: tls_sender,
                };
                tokio::spawn(reload.run(settings.reload_time))
            }
            Security::InsecureLoopback => tokio::spawn(async {}),
        };
        let heartbeats: Arc<Heartbeats> = Arc::default();
        let beating = heartbeats.start(Arc::clone(&backend), Arc::clone(&counters));
        let shared = Arc::new(Shared {
            settings,
            backend: Arc::clone(&backend),
            queue,
            heartbeats: Arc::clone(&heartbeats),
            refusals: Quota::default(),
            counters: Arc::clone(&counters),
        });
        let (alive, connections) = mpsc::channel(1);
        let lobby = Lobby::new(LobbyBounds {
            total: shared.settings.handshakes_max,
            per_address: shared.settings.handshakes_per_address_max,
            grace: shared.settings.handshake_time / 2,
        });
        let accepting = Accepting {
            listener,
            shared,
            tls,
            control: seen,
            connected: Arc::default(),
            lobby,
            quotas: Arc::default(),
            failures: Quota::default(),
            alive,
        };
        let accepting = tokio::spawn(accepting.run());
        Ok(Self {
            addr,
            control,
            counters,
            connections,
            accepting,
            reloading,
            committing,
            heartbeats,
            beating,
            backend: Stopping(backend),
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it has done.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Stops: accepts nobody more, has the store finish, acknowledges that, says BUSY to all, closes the store.
    /// Takes at most some 15 seconds.
    pub async fn stop(mut self) {
        self.reloading.abort();
        self.accepting.abort();
        let _ = self.accepting.await;
        self.control.send_modify(|control| control.is_stopping = true);
        // Nothing is ever sent: the channel ends with the last connection.
        if timeout(STOP_TIME_MAX, self.connections.recv()).await.is_err() {
            tracing::warn!("some connections did not end in time");
            self.committing.abort();
        }
        let _ = self.committing.await;
        self.heartbeats.stop();
        if timeout(STOP_TIME_MAX, &mut self.beating).await.is_err() {
            tracing::warn!("the last STATUS of sensors were not stored in time");
            self.beating.abort();
        }
        self.backend.0.stop().await;
    }
}

/// Looks at the list of sensors and at the certificates, and takes what has changed.
struct Reload {
    folder: PathBuf,
    issued: Option<Issued>,
    control: watch::Sender<Control>,
    tls: watch::Sender<Option<Arc<ServerConfig>>>,
}

impl Reload {
    async fn run(mut self, every: Duration) {
        let mut known = fingerprints(&self.folder);
        loop {
            let has_changed = tokio::select! {
                () = tokio::time::sleep(every) => false,
                () = changed(&mut self.issued) => true,
            };
            let found = fingerprints(&self.folder);
            if found == known && !has_changed {
                continue;
            }
            // A list that cannot be read changes nothing: it may be half written.
            let register = match register(&self.folder, self.issued.as_ref()) {
                Ok(register) => register,
                Err(error) => {
                    tracing::error!("the former list of sensors stays: {error}");
                    continue;
                }
            };
            match server_config(&self.folder) {
                Ok(config) => {
                    self.tls.send_replace(Some(config));
                }
                Err(error) => tracing::error!("the former certificate stays: {error}"),
            }
            tracing::info!(certificates = register.entries().len(), "the list of sensors has changed");
            let allowed = Arc::new(Allowed::listed(&register));
            self.control.send_modify(|control| control.allowed = allowed);
            known = found;
        }
    }
}

/// Waits for a change; without a source, or when that has ended, for ever.
async fn changed(issued: &mut Option<Issued>) {
    if let Some(issued) = issued
        && issued.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// The certificates of `sensors.toml` and of the other source.
fn register(folder: &Path, issued: Option<&Issued>) -> Result<Register, PkiError> {
    let path = folder.join(SENSORS_FILE);
    let Some(issued) = issued else { return Register::read(path) };
    let listed = match Register::read(&path) {
        Ok(register) => register.entries().to_vec(),
        Err(PkiError::Missing { .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    let issued = Arc::clone(&issued.borrow());
    let mut all: HashMap<String, Entry> = HashMap::new();
    for entry in listed.iter().chain(issued.iter()) {
        let known = all.entry(entry.fingerprint.clone()).or_insert_with(|| entry.clone());
        known.revoked |= entry.revoked;
    }
    Ok(Register::new(path, all.into_values().collect()))
}

/// Hashes of the files that are looked at; a file that cannot be read has none.
fn fingerprints(folder: &Path) -> Vec<Option<String>> {
    use crate::tls::{AUTHORITY_FILE, COLLECTOR_FILE};
    [SENSORS_FILE, AUTHORITY_FILE, COLLECTOR_FILE]
        .map(|name| {
            let mut bytes = Vec::new();
            let file = open_regular(&folder.join(name)).ok()?;
            file.take(REGISTER_LEN_MAX).read_to_end(&mut bytes).ok()?;
            Some(fingerprint(&bytes))
        })
        .to_vec()
}

struct Accepting {
    listener: TcpListener,
    shared: Arc<Shared>,
    tls: watch::Receiver<Option<Arc<ServerConfig>>>,
    control: watch::Receiver<Control>,
    connected: Arc<Connected>,
    lobby: Arc<Lobby>,
    quotas: Arc<Quotas>,
    /// Of the warning that accepting fails.
    failures: Quota,
    alive: mpsc::Sender<()>,
}

impl Accepting {
    async fn run(self) {
        loop {
            let (stream, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if let Some(suppressed) = self.failures.admit() {
                        tracing::warn!(suppressed, "a connection cannot be accepted: {error}");
                    }
                    // The handles may have run out: whoever has not even begun a handshake gives one back.
                    if !self.lobby.make_room(Instant::now()) {
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let counters = &self.shared.counters;
            counters.accepted.add(1);
            let Some((seat, has_evicted)) = self.lobby.enter(address.ip(), Instant::now()) else {
                counters.dropped.add(1);
                self.quotas.crowd(address, self.lobby.len());
                continue;
            };
            if has_evicted {
                counters.evicted.add(1);
                self.quotas.crowd(address, self.lobby.len());
            }
            let guest = Guest {
                shared: Arc::clone(&self.shared),
                address,
                control: self.control.clone(),
                connected: Arc::clone(&self.connected),
                quotas: Arc::clone(&self.quotas),
                _alive: self.alive.clone(),
            };
            let tls = self.tls.borrow().clone();
            tokio::spawn(guest.run(stream, tls, seat));
        }
    }
}
