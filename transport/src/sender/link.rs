//! The network connection: TCP, TLS 1.3 and a thread that reads.
//!
//! The sender's thread writes. The reader's thread passes received bytes through the [`Inbox`], which is bounded: if a
//! collector sends faster than its bytes are processed, TCP flow control holds it back. All waits end after a timeout
//! or when the sender stops.

use super::address::Address;
use crate::identity::{Identity, IdentityError, Subject};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Maximum time for connecting to one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time that a write waits for the collector to read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of addresses that are tried for one name.
const ADDRESSES_MAX: usize = 8;
/// Maximum size of received, unprocessed bytes; reading pauses beyond it.
const INBOX_LEN_MAX: usize = 256 << 10;
/// Size of a read, in bytes.
const READ_LEN: usize = 16 << 10;

/// The TLS configuration.
pub(super) struct Security {
    bundle: Option<PathBuf>,
    /// Subject and configuration of the bundle when it was last read.
    tls: Option<(Subject, Arc<ClientConfig>)>,
}

impl Security {
    pub(super) fn new(bundle: Option<PathBuf>) -> Result<Self, IdentityError> {
        let mut security = Self { bundle, tls: None };
        security.reload()?;
        Ok(security)
    }

    /// Reads the bundle again, because the certificate may have been renewed.
    pub(super) fn reload(&mut self) -> Result<(), IdentityError> {
        if let Some(path) = &self.bundle {
            let identity = Identity::load(path)?;
            self.tls = Some((identity.subject().clone(), identity.client_config()?));
        }
        Ok(())
    }

    pub(super) fn expires_unix(&self) -> u64 {
        self.tls.as_ref().map_or(0, |(subject, _)| subject.expires_unix)
    }
}

/// Received bytes and other events for which the sender's thread waits.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<Arrived>,
    changed: Condvar,
    has_room: Condvar,
}

#[derive(Debug, Default)]
struct Arrived {
    /// Number of the connection that the bytes belong to.
    connection: u64,
    bytes: Vec<u8>,
    /// Why the connection was closed.
    closed: Option<String>,
    /// The reader's thread has left TLS records to be written.
    wants_write: bool,
    is_notified: bool,
    is_stopped: bool,
    /// Allows [`Inbox::stop`] to interrupt a blocked write.
    stream: Option<TcpStream>,
}

/// The events that the sender's thread found.
pub(super) struct Found {
    pub(super) bytes: Vec<u8>,
    pub(super) closed: Option<String>,
    pub(super) wants_write: bool,
}

impl Inbox {
    fn state(&self) -> MutexGuard<'_, Arrived> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports new hits in the spool.
    pub(super) fn notify(&self) {
        self.state().is_notified = true;
        self.changed.notify_one();
    }

    /// Asks the sender's thread to stop.
    pub(super) fn stop(&self) {
        let mut state = self.state();
        state.is_stopped = true;
        if let Some(stream) = &state.stream {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.changed.notify_one();
        self.has_room.notify_all();
    }

    /// Waits until `until`, or until the sender stops.
    pub(super) fn sleep(&self, until: Instant) {
        let mut state = self.state();
        while !state.is_stopped && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for bytes, the end of the connection, or a notification, until `until` at the latest.
    pub(super) fn wait(&self, until: Instant) -> Found {
        let mut state = self.state();
        loop {
            let is_over =
                Instant::now() >= until || state.is_stopped || state.is_notified || state.wants_write;
            if is_over || !state.bytes.is_empty() || state.closed.is_some() {
                break;
            }
            let left = until.saturating_duration_since(Instant::now());
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.is_notified = false;
        self.has_room.notify_all();
        Found {
            bytes: std::mem::take(&mut state.bytes),
            closed: state.closed.clone(),
            wants_write: std::mem::take(&mut state.wants_write),
        }
    }

    /// Starts a new connection and discards the remains of the previous one. Returns the number of the connection.
    fn begin(&self, stream: &TcpStream) -> io::Result<u64> {
        let stream = stream.try_clone()?;
        let mut state = self.state();
        let connection = state.connection + 1;
        let is_stopped = state.is_stopped;
        *state =
            Arrived { connection, is_stopped, is_notified: true, stream: Some(stream), ..Arrived::default() };
        if is_stopped {
            state.stream = None;
            return Err(io::Error::other("the sender is stopping"));
        }
        Ok(connection)
    }

    /// Adds received bytes; waits while there is no room for them. Returns false if the reader should stop.
    fn put(&self, connection: u64, bytes: &[u8], wants_write: bool) -> bool {
        let mut state = self.state();
        while state.connection == connection
            && !state.is_stopped
            && !state.bytes.is_empty()
            && state.bytes.len() + bytes.len() > INBOX_LEN_MAX
        {
            state = self.has_room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.connection != connection || state.is_stopped {
            return false;
        }
        state.bytes.extend_from_slice(bytes);
        state.wants_write |= wants_write;
        self.changed.notify_one();
        true
    }

    fn close(&self, connection: u64, reason: String) {
        let mut state = self.state();
        if state.connection == connection {
            state.closed = Some(reason);
            self.changed.notify_one();
        }
    }

    fn end(&self) {
        let mut state = self.state();
        state.connection += 1;
        state.stream = None;
        self.has_room.notify_all();
    }
}

type Tls = Arc<Mutex<ClientConnection>>;

/// An open connection.
pub(super) struct Link<'i> {
    stream: TcpStream,
    tls: Option<Tls>,
    shared: &'i super::Shared,
    reader: Option<JoinHandle<()>>,
}

impl<'i> Link<'i> {
    /// Connects and performs the TLS handshake.
    pub(super) fn connect(
        address: &Address,
        security: &Security,
        shared: &'i Arc<super::Shared>,
    ) -> io::Result<Self> {
        let stream = dial(address, security.bundle.is_none())?;
        let connection = shared.inbox.begin(&stream)?;
        let link = Self::open(stream, connection, address, security, shared);
        if link.is_err() {
            // The inbox holds a handle of the socket, too.
            shared.inbox.end();
        }
        link
    }

    fn open(
        mut stream: TcpStream,
        connection: u64,
        address: &Address,
        security: &Security,
        shared: &'i Arc<super::Shared>,
    ) -> io::Result<Self> {
        prepare(&stream)?;
        let tls = match &security.tls {
            None => None,
            Some((_, config)) => {
                let name = ServerName::try_from(address.host.clone()).map_err(io::Error::other)?;
                let mut tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                shake_hands(&mut tls, &mut stream)?;
                Some(Arc::new(Mutex::new(tls)))
            }
        };
        stream.set_read_timeout(None)?;
        let reader = std::thread::Builder::new().name("etwsieve-reader".into()).spawn({
            let (mut stream, tls, shared) = (stream.try_clone()?, tls.clone(), Arc::clone(shared));
            move || {
                let reason = match read(&mut stream, tls.as_ref(), &shared.inbox, connection) {
                    Ok(()) => "the collector closed the connection".to_owned(),
                    Err(error) => error.to_string(),
                };
                shared.inbox.close(connection, reason);
            }
        })?;
        Ok(Self { stream, tls, shared, reader: Some(reader) })
    }

    /// Sends bytes, and pending TLS records.
    pub(super) fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &self.tls else { return self.stream.write_all(bytes) };
        loop {
            let mut records = Vec::new();
            {
                // Release the lock before writing to the socket: the reader needs it.
                let mut tls = tls.lock().unwrap_or_else(PoisonError::into_inner);
                let taken = tls.writer().write(bytes)?;
                bytes = &bytes[taken..];
                while tls.wants_write() {
                    tls.write_tls(&mut records)?;
                }
            }
            self.stream.write_all(&records)?;
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }
}

impl Drop for Link<'_> {
    fn drop(&mut self) {
        if let Some(tls) = &self.tls {
            tls.lock().unwrap_or_else(PoisonError::into_inner).send_close_notify();
            // Closing TLS properly is optional, so it gets little time.
            let _ = self.stream.set_write_timeout(Some(Duration::from_millis(200)));
            let _ = self.send(&[]);
        }
        self.shared.inbox.end();
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Disables Nagle's algorithm, because frames are small and answered, and sets the write timeout.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))
}

fn dial(address: &Address, loopback_only: bool) -> io::Result<TcpStream> {
    let found = (address.host.as_str(), address.port).to_socket_addrs()?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{} has no address", address.host));
    let allowed = |found: &SocketAddr| !loopback_only || found.ip().to_canonical().is_loopback();
    for found in found.filter(allowed).take(ADDRESSES_MAX) {
        match TcpStream::connect_timeout(&found, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn shake_hands(tls: &mut ClientConnection, stream: &mut TcpStream) -> io::Result<()> {
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    while tls.is_handshaking() || tls.wants_write() {
        while tls.wants_write() {
            tls.write_tls(stream)?;
        }
        if tls.is_handshaking() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            stream.set_read_timeout(Some(left))?;
            if tls.read_tls(stream)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Err(error) = tls.process_new_packets() {
                // Tell the collector why.
                let _ = tls.write_tls(stream);
                return Err(io::Error::other(error));
            }
        }
    }
    Ok(())
}

/// Reads until the connection is closed.
fn read(stream: &mut TcpStream, tls: Option<&Tls>, inbox: &Inbox, connection: u64) -> io::Result<()> {
    let mut buffer = vec![0; READ_LEN];
    let mut plain = Vec::new();
    // TLS may hold plaintext that arrived together with the end of the handshake.
    if let Some(tls) = tls
        && !decrypt(tls, &[], &mut plain, inbox, connection)?
    {
        return Ok(());
    }
    loop {
        let len = match stream.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        if len == 0 {
            return Ok(());
        }
        let goes_on = match tls {
            None => inbox.put(connection, &buffer[..len], false),
            Some(tls) => decrypt(tls, &buffer[..len], &mut plain, inbox, connection)?,
        };
        if !goes_on {
            return Ok(());
        }
    }
}

fn decrypt(
    tls: &Tls,
    mut bytes: &[u8],
    plain: &mut Vec<u8>,
    inbox: &Inbox,
    connection: u64,
) -> io::Result<bool> {
    loop {
        plain.clear();
        let (wants_write, is_closed) = {
            let mut tls = tls.lock().unwrap_or_else(PoisonError::into_inner);
            if !bytes.is_empty() {
                tls.read_tls(&mut bytes)?;
            }
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            let waiting = state.plaintext_bytes_to_read().min(INBOX_LEN_MAX);
            let is_closed = state.peer_has_closed();
            plain.resize(waiting, 0);
            tls.reader().read_exact(plain)?;
            (tls.wants_write(), is_closed)
        };
        let goes_on = inbox.put(connection, plain, wants_write);
        if !goes_on || is_closed {
            return Ok(false);
        }
        if bytes.is_empty() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_not_held_back() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        prepare(&stream).unwrap();
        assert!(stream.nodelay().unwrap());
        assert_eq!(stream.write_timeout().unwrap(), Some(WRITE_TIMEOUT));
    }
}
