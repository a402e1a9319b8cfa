//! The connection: TCP, TLS 1.3 on it, and a thread that reads.
//!
//! Whoever sends writes; the reader thread hands bytes over through the [`Inbox`], whose room is bounded: a collector that
//! talks more than is read finds its own connection full. Nothing here waits without an end.

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

/// How long to wait for the connection to one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one write may wait for the other end to take bytes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// Bytes that have arrived and wait to be looked at, beyond which no more are read.
const INBOX_LEN_MAX: usize = 256 << 10;
/// Bytes read at a time.
const READ_LEN: usize = 16 << 10;

/// How connections are protected.
pub(super) struct Security {
    bundle: Option<PathBuf>,
    /// Of the bundle as it was read last.
    tls: Option<(Subject, Arc<ClientConfig>)>,
}

impl Security {
    pub(super) fn new(bundle: Option<PathBuf>) -> Result<Self, IdentityError> {
        let mut security = Self { bundle, tls: None };
        security.reload()?;
        Ok(security)
    }

    /// Reads the bundle again: a certificate may have been renewed.
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

/// What has arrived, and whatever else the sender's thread waits for.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<Arrived>,
    changed: Condvar,
    has_room: Condvar,
}

#[derive(Debug, Default)]
struct Arrived {
    /// Which connection the bytes are of.
    connection: u64,
    bytes: Vec<u8>,
    /// Why the connection has ended.
    closed: Option<String>,
    /// The reader has left something to be written: TLS answers.
    wants_write: bool,
    is_notified: bool,
    is_stopped: bool,
    /// To end a write that waits.
    stream: Option<TcpStream>,
}

/// What the sender's thread finds.
pub(super) struct Found {
    pub(super) bytes: Vec<u8>,
    pub(super) closed: Option<String>,
    pub(super) wants_write: bool,
}

impl Inbox {
    fn state(&self) -> MutexGuard<'_, Arrived> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The spool has grown.
    pub(super) fn notify(&self) {
        self.state().is_notified = true;
        self.changed.notify_one();
    }

    /// The sender shall end.
    pub(super) fn stop(&self) {
        let mut state = self.state();
        state.is_stopped = true;
        if let Some(stream) = &state.stream {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.changed.notify_one();
        self.has_room.notify_all();
    }

    /// Waits until the time has come, or the sender shall end.
    pub(super) fn sleep(&self, until: Instant) {
        let mut state = self.state();
        while !state.is_stopped && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for bytes, the end of the connection, a notification, or the time.
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

    /// A new connection: what is left of the one before is forgotten. Returns its number.
    fn begin(&self, stream: &TcpStream) -> io::Result<u64> {
        let stream = stream.try_clone()?;
        let mut state = self.state();
        let connection = state.connection + 1;
        let is_stopped = state.is_stopped;
        *state =
            Arrived { connection, is_stopped, is_notified: true, stream: Some(stream), ..Arrived::default() };
        if is_stopped {
            state.stream = None;
            return Err(io::Error::other("the sender ends"));
        }
        Ok(connection)
    }

    /// Hands bytes over, and waits while there is no room. Returns whether to go on.
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
    /// Connects, and shakes hands.
    pub(super) fn connect(
        address: &Address,
        security: &Security,
        shared: &'i Arc<super::Shared>,
    ) -> io::Result<Self> {
        let stream = dial(address, security.bundle.is_none())?;
        let connection = shared.inbox.begin(&stream)?;
        let link = Self::open(stream, connection, address, security, shared);
        if link.is_err() {
            // It holds the socket, too.
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
                    Ok(()) => "the collector has closed the connection".to_owned(),
                    Err(error) => error.to_string(),
                };
                shared.inbox.close(connection, reason);
            }
        })?;
        Ok(Self { stream, tls, shared, reader: Some(reader) })
    }

    /// Sends bytes, and what TLS has to say.
    pub(super) fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &self.tls else { return self.stream.write_all(bytes) };
        loop {
            let mut records = Vec::new();
            {
                // The lock is not held while the socket is written: the reader needs it.
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
            // For courtesy; a connection that is stuck is cut all the same.
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

/// Frames are small and answered, so none is held back; and no write waits without an end.
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
                // The other end learns why.
                let _ = tls.write_tls(stream);
                return Err(io::Error::other(error));
            }
        }
    }
    Ok(())
}

/// Reads until the end of the connection.
fn read(stream: &mut TcpStream, tls: Option<&Tls>, inbox: &Inbox, connection: u64) -> io::Result<()> {
    let mut buffer = vec![0; READ_LEN];
    let mut plain = Vec::new();
    // TLS may hold plaintext that came with the last bytes of the handshake.
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
