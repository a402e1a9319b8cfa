//! The server: accepts connections, authenticates sensors and stops gracefully.

mod handshake;
mod pending;
mod sensors;

use crate::backend::Backend;
use crate::committer::{self, QueueLimits};
use crate::connection::ServerContext;
use crate::counters::Counters;
use crate::heartbeats::Heartbeats;
use crate::identity::AllowList;
use crate::log_limit::LogLimit;
use crate::pki::{CertificateEntry, PkiError, REGISTER_LEN_MAX, Register, SENSORS_FILE, fingerprint};
use crate::tls::{TlsError, server_config};
use etwsieve_transport::files::open_regular;
use etwsieve_transport::wire::message::BusyReason;
use handshake::{Handshake, LogLimits};
use pending::{PendingConnections, PendingLimits};
use rustls::ServerConfig;
use sensors::ConnectedSensors;
pub(super) use sensors::SensorState;
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

/// Maximum number of refused connections that get BUSY at a time. Others are closed without it.
const REFUSED_MAX: u64 = 64;
/// Pause after a failed accept, which may mean that file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Time that [`Server::stop`] waits for the connections.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);

/// How sensors are authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// Mutual TLS, with the files of `etwsieve-collector pki` in this folder.
    Pki(PathBuf),
    /// No TLS and no authentication, on loopback addresses only.
    InsecureLoopback,
}

/// The current certificates of sensors from another source than `sensors.toml`.
pub type RegisterUpdates = watch::Receiver<Arc<Vec<CertificateEntry>>>;

/// Settings of the server.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Maximum number of unacknowledged frames per connection.
    pub window: u32,
    /// Idle timeout of a connection, in milliseconds.
    pub quiet_ms: u32,
    /// Timeout of the TLS handshake.
    pub handshake_time: Duration,
    /// Timeout of the first HELLO.
    pub hello_time: Duration,
    /// Maximum number of connections in their handshake.
    pub handshakes_max: usize,
    /// Maximum number of connections in their handshake per address.
    pub handshakes_per_address_max: usize,
    /// Maximum number of connections of known sensors.
    pub connections_max: u64,
    /// Maximum number of connections per sensor.
    pub connections_per_sensor_max: usize,
    /// Maximum number of frames per sensor and second; 0: no limit.
    pub frames_per_second: u64,
    /// Maximum number of bytes per sensor and second; 0: no limit.
    pub bytes_per_second: u64,
    /// Maximum number of queued frames.
    pub queue_frames: usize,
    /// Maximum size of the queued frames, in bytes.
    pub queue_bytes: usize,
    /// Maximum number of frames per transaction.
    pub batch_frames: usize,
    /// Interval at which the list of sensors and the certificates are checked for changes.
    pub reload_time: Duration,
    /// Certificates of sensors in addition to `sensors.toml`, which may then be missing. A certificate is revoked if
    /// either of the two says so.
    pub issued: Option<RegisterUpdates>,
    /// Acknowledge before the store has synced, on loopback addresses only, so that the fault campaign can prove that
    /// it finds the loss.
    pub ack_before_sync: bool,
}

impl Default for ServerSettings {
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

impl ServerSettings {
    /// Returns when the sensor should try again.
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
    /// An address other than loopback needs TLS.
    #[error(
        "{addr} is reachable from other machines and needs certificates; pass --pki DIR (see `etwsieve-collector pki init`)"
    )]
    Insecure {
        /// The address to listen on.
        addr: SocketAddr,
    },
    /// Acknowledging before the sync is only allowed on loopback addresses.
    #[error(
        "acknowledging before the sync loses hits and is only allowed on loopback addresses, not on {addr}"
    )]
    Unsafe {
        /// The address to listen on.
        addr: SocketAddr,
    },
    /// The system refused to listen on the address.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The list of sensors cannot be read.
    #[error(transparent)]
    Sensors(#[from] PkiError),
}

/// State that every connection watches.
#[derive(Clone, Debug)]
pub(super) struct Control {
    pub(super) is_stopping: bool,
    pub(super) allowed: Arc<AllowList>,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    control: watch::Sender<Control>,
    counters: Arc<Counters>,
    /// Closed when the last connection has ended.
    connections: mpsc::Receiver<()>,
    accepting: JoinHandle<()>,
    reloading: JoinHandle<()>,
    committing: JoinHandle<()>,
    heartbeats: Arc<Heartbeats>,
    beating: JoinHandle<()>,
    backend: BackendHandle,
}

/// The back end, which is stopped last.
struct BackendHandle(Arc<dyn Backend>);

impl std::fmt::Debug for BackendHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backend")
    }
}

impl Server {
    /// Starts the server on `addr`; port 0 selects a free port.
    ///
    /// # Errors
    ///
    /// The address needs certificates or is not available, or the certificates or the list of sensors cannot be used.
    pub async fn start(
        addr: SocketAddr,
        security: &Security,
        settings: ServerSettings,
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
                (Some(server_config(folder)?), AllowList::listed(&register))
            }
            Security::InsecureLoopback if is_loopback => (None, AllowList::Anybody),
            Security::InsecureLoopback => return Err(ServeError::Insecure { addr }),
        };
        let listener = TcpListener::bind(addr).await.map_err(|source| ServeError::Listen { addr, source })?;
        let addr = listener.local_addr().map_err(|source| ServeError::Listen { addr, source })?;
        let limits = QueueLimits {
            entries: settings.queue_frames,
            bytes: settings.queue_bytes,
            batch: settings.batch_frames,
            ack_before_sync: settings.ack_before_sync,
        };
        let (queue, committing) = committer::start(Arc::clone(&backend), limits, Arc::clone(&counters));
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
        let server = Arc::new(ServerContext {
            settings,
            backend: Arc::clone(&backend),
            queue,
            heartbeats: Arc::clone(&heartbeats),
            refusals: LogLimit::default(),
            counters: Arc::clone(&counters),
        });
        let (alive, connections) = mpsc::channel(1);
        let pending = PendingConnections::new(PendingLimits {
            total: server.settings.handshakes_max,
            per_address: server.settings.handshakes_per_address_max,
            grace: server.settings.handshake_time / 2,
        });
        let accepting = Accepting {
            listener,
            server,
            tls,
            control: seen,
            sensors: Arc::default(),
            pending,
            log_limits: Arc::default(),
            failures: LogLimit::default(),
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
            backend: BackendHandle(backend),
        })
    }

    /// Returns the address on which the server listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the counters.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Stops the server: stops accepting connections, acknowledges what the store finishes, sends BUSY to all sensors
    /// and closes the store. Takes at most some 20 seconds.
    pub async fn stop(mut self) {
        self.reloading.abort();
        self.accepting.abort();
        let _ = self.accepting.await;
        self.control.send_modify(|control| control.is_stopping = true);
        // Nothing is ever sent: the channel ends with the last connection.
        if timeout(STOP_TIME_MAX, self.connections.recv()).await.is_err() {
            tracing::warn!("some connections did not end in time and are closed");
            self.committing.abort();
        }
        let _ = self.committing.await;
        self.heartbeats.stop();
        if timeout(STOP_TIME_MAX, &mut self.beating).await.is_err() {
            tracing::warn!("the last STATUS frames were not stored in time");
            self.beating.abort();
        }
        self.backend.0.stop().await;
    }
}

/// Reloads the list of sensors and the certificates when they change.
struct Reload {
    folder: PathBuf,
    issued: Option<RegisterUpdates>,
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
            // An unreadable list changes nothing, because it may be half written.
            let register = match register(&self.folder, self.issued.as_ref()) {
                Ok(register) => register,
                Err(error) => {
                    tracing::error!("cannot reload the list of sensors, keeping the old one: {error}");
                    continue;
                }
            };
            match server_config(&self.folder) {
                Ok(config) => {
                    self.tls.send_replace(Some(config));
                }
                Err(error) => {
                    tracing::error!("cannot reload the certificates, keeping the old ones: {error}");
                }
            }
            tracing::info!(certificates = register.entries().len(), "list of sensors reloaded");
            let allowed = Arc::new(AllowList::listed(&register));
            self.control.send_modify(|control| control.allowed = allowed);
            known = found;
        }
    }
}

/// Waits for a change; waits forever without a source, or after it has ended.
async fn changed(issued: &mut Option<RegisterUpdates>) {
    if let Some(issued) = issued
        && issued.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// Returns the certificates of `sensors.toml` and of the other source.
fn register(folder: &Path, issued: Option<&RegisterUpdates>) -> Result<Register, PkiError> {
    let path = folder.join(SENSORS_FILE);
    let Some(issued) = issued else { return Register::read(path) };
    let listed = match Register::read(&path) {
        Ok(register) => register.entries().to_vec(),
        Err(PkiError::Missing { .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    let issued = Arc::clone(&issued.borrow());
    let mut all: HashMap<String, CertificateEntry> = HashMap::new();
    for entry in listed.iter().chain(issued.iter()) {
        let known = all.entry(entry.fingerprint.clone()).or_insert_with(|| entry.clone());
        known.revoked |= entry.revoked;
    }
    Ok(Register::new(path, all.into_values().collect()))
}

/// Returns hashes of the watched files; `None` for a file that cannot be read.
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
    server: Arc<ServerContext>,
    tls: watch::Receiver<Option<Arc<ServerConfig>>>,
    control: watch::Receiver<Control>,
    sensors: Arc<ConnectedSensors>,
    pending: Arc<PendingConnections>,
    log_limits: Arc<LogLimits>,
    /// Limits the warnings about failed accepts.
    failures: LogLimit,
    alive: mpsc::Sender<()>,
}

impl Accepting {
    async fn run(self) {
        loop {
            let (stream, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if let Some(suppressed) = self.failures.admit() {
                        tracing::warn!(suppressed, "cannot accept a connection: {error}");
                    }
                    // File descriptors may have run out: close a connection that has not started its handshake.
                    if !self.pending.make_room(Instant::now()) {
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let counters = &self.server.counters;
            counters.accepted.add(1);
            let Some((seat, has_evicted)) = self.pending.enter(address.ip(), Instant::now()) else {
                counters.dropped.add(1);
                self.log_limits.crowd(address, self.pending.len());
                continue;
            };
            if has_evicted {
                counters.evicted.add(1);
                self.log_limits.crowd(address, self.pending.len());
            }
            let handshake = Handshake {
                server: Arc::clone(&self.server),
                address,
                control: self.control.clone(),
                sensors: Arc::clone(&self.sensors),
                log_limits: Arc::clone(&self.log_limits),
                _alive: self.alive.clone(),
            };
            let tls = self.tls.borrow().clone();
            tokio::spawn(handshake.run(stream, tls, seat));
        }
    }
}
