//! The metrics server: `GET /metrics` over HTTP/1.1 on the loopback interface.
//!
//! Each connection has a thread, a deadline and a size limit. There are at most [`CONNECTIONS_MAX`] connections; a
//! further one closes the oldest, so that clients that send nothing do not lock out others. The accepting thread blocks
//! in `accept` between requests.

use crate::stop::Stop;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Maximum number of connections.
const CONNECTIONS_MAX: usize = 8;
/// Maximum number of connection threads. Threads whose connections were just closed still count for a moment.
const THREADS_MAX: usize = 2 * CONNECTIONS_MAX;
/// Maximum length of a request head, in bytes.
pub const HEAD_LEN_MAX: usize = 8 << 10;
/// Maximum time for a client to send its request, and again to read the response.
const TRANSFER_TIME: Duration = Duration::from_secs(2);
/// Interval at which a transfer checks for a stop.
const STOP_CHECK: Duration = Duration::from_millis(200);
/// Maximum number of bytes to read from a client whose request was rejected early. Closing the connection over unread
/// bytes could cut off the response.
const DRAIN_LEN_MAX: usize = 256 << 10;
/// Pause to let threads of closed connections end.
const ENDING_PAUSE: Duration = Duration::from_millis(2);
/// Pause after a failed accept, whose cause may be a lack of file handles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Content type of the text format, version 0.0.4.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Renders the text of a scrape.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `addr`; port 0 chooses a free port. `render` is called on a thread of the server for each scrape.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if `addr` is not a loopback address, because there is neither encryption nor authentication; and
    /// errors of the system.
    pub fn start(addr: SocketAddr, render: Render) -> io::Result<Self> {
        if !addr.ip().to_canonical().is_loopback() {
            let text = format!("metrics are served on the loopback interface only, not on {addr}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let listener = TcpListener::bind(addr)?;
        let addr = listener.local_addr()?;
        let stop = Stop::default();
        let seen = stop.clone();
        let thread =
            thread::Builder::new().name("metrics".into()).spawn(move || serve(&listener, &*render, &seen))?;
        Ok(Self { addr, stop, thread: Some(thread) })
    }

    /// Returns the address on which the server listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.request();
        // A connection from here ends the blocking `accept`.
        let woken = TcpStream::connect_timeout(&self.addr, TRANSFER_TIME).is_ok();
        if let Some(thread) = self.thread.take()
            && (woken || thread.is_finished())
        {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, render: &(dyn Fn() -> String + Send + Sync), stop: &Stop) {
    let open = Open::default();
    thread::scope(|scope| {
        loop {
            let accepted = listener.accept();
            if stop.requested() {
                // The scope waits for the connections, which notice the stop.
                return;
            }
            match accepted {
                Ok((stream, peer)) => {
                    let Some(place) = open.enter(&stream, stop) else { continue };
                    let serve = move || {
                        if let Err(error) = answer(stream, render, stop) {
                            tracing::debug!(%peer, %error, "a scrape failed");
                        }
                        drop(place);
                    };
                    if let Err(error) =
                        thread::Builder::new().name("scrape".into()).spawn_scoped(scope, serve)
                    {
                        tracing::debug!(%error, "cannot start a thread for a scrape");
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the metrics server cannot accept a connection");
                    thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    });
}

/// The open connections, oldest first.
#[derive(Debug, Default)]
struct Open {
    streams: Mutex<VecDeque<(usize, TcpStream)>>,
    next: AtomicUsize,
    threads: AtomicUsize,
}

/// The registration of a connection; dropping it removes the connection.
struct Place<'o> {
    open: &'o Open,
    number: usize,
}

impl Open {
    /// Registers a connection and closes the oldest if there are too many. Returns `None` on a stop, or if the system
    /// has no handle for the connection.
    fn enter(&self, stream: &TcpStream, stop: &Stop) -> Option<Place<'_>> {
        let copy = stream.try_clone().ok()?;
        // Most of these threads belong to closed connections and end in a moment.
        while self.threads.load(Ordering::Relaxed) >= THREADS_MAX {
            if stop.requested() {
                return None;
            }
            thread::sleep(ENDING_PAUSE);
        }
        self.threads.fetch_add(1, Ordering::Relaxed);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut streams = self.streams();
        if streams.len() >= CONNECTIONS_MAX
            && let Some((_, oldest)) = streams.pop_front()
        {
            // This wakes its thread, which then ends. The connection may be closed already.
            let _ = oldest.shutdown(Shutdown::Both);
        }
        streams.push_back((number, copy));
        Some(Place { open: self, number })
    }

    fn streams(&self) -> MutexGuard<'_, VecDeque<(usize, TcpStream)>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.open.streams().retain(|(number, _)| *number != self.number);
        self.open.threads.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The reason why a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Malformed,
    NotFound,
    OtherMethod,
    TimedOut,
    HeadTooLong,
    NotRendered,
}

impl Refusal {
    fn status(self) -> &'static str {
        match self {
            Self::Malformed => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::OtherMethod => "405 Method Not Allowed",
            Self::TimedOut => "408 Request Timeout",
            Self::HeadTooLong => "431 Request Header Fields Too Large",
            Self::NotRendered => "500 Internal Server Error",
        }
    }
}

fn answer(mut stream: TcpStream, render: &(dyn Fn() -> String + Send + Sync), stop: &Stop) -> io::Result<()> {
    let body = read_head(&mut stream, stop)?.and_then(|head| route(&head)).and_then(|()| {
        // If rendering panics, the scraper gets an error and the server continues.
        catch_unwind(AssertUnwindSafe(render)).map_err(|_| Refusal::NotRendered)
    });
    let (status, kind, extra, body) = match body {
        Ok(body) => ("200 OK", CONTENT_TYPE, "", body),
        Err(refusal) => {
            let extra = if refusal == Refusal::OtherMethod { "Allow: GET\r\n" } else { "" };
            (refusal.status(), "text/plain; charset=utf-8", extra, format!("{}\n", refusal.status()))
        }
    };
    let mut response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{extra}Connection: close\r\n\r\n",
        body.len()
    );
    response.push_str(&body);
    write_all(&mut stream, response.as_bytes(), stop)?;
    stream.shutdown(Shutdown::Write)?;
    drain(&mut stream, stop);
    Ok(())
}

/// Reads up to the empty line that ends the head. `Err`: the connection is closed, or the server is stopping.
fn read_head(stream: &mut TcpStream, stop: &Stop) -> io::Result<Result<Vec<u8>, Refusal>> {
    let deadline = Instant::now() + TRANSFER_TIME;
    let mut head = Vec::with_capacity(1024);
    let mut chunk = [0; 1024];
    while head.len() <= HEAD_LEN_MAX {
        let Some(len) = in_slices(stream, deadline, stop, |stream| stream.read(&mut chunk))? else {
            return Ok(Err(Refusal::TimedOut));
        };
        if len == 0 {
            return Ok(Err(Refusal::Malformed));
        }
        // The empty line may be split between two reads.
        let from = head.len().saturating_sub(3);
        head.extend_from_slice(&chunk[..len]);
        if let Some(at) = head[from..].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            head.truncate(from + at);
            return Ok(if head.len() <= HEAD_LEN_MAX { Ok(head) } else { Err(Refusal::HeadTooLong) });
        }
    }
    Ok(Err(Refusal::HeadTooLong))
}

/// Accepts requests for the metrics. The request line is defined in RFC 9112, section 3.
fn route(head: &[u8]) -> Result<(), Refusal> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = str::from_utf8(line).map_err(|_| Refusal::Malformed)?;
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::Malformed);
    };
    let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
    if !is_method || !target.starts_with('/') || !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
        return Err(Refusal::Malformed);
    }
    match (method, target.split('?').next()) {
        ("GET", Some("/metrics")) => Ok(()),
        (_, Some("/metrics")) => Err(Refusal::OtherMethod),
        _ => Err(Refusal::NotFound),
    }
}

fn write_all(stream: &mut TcpStream, mut bytes: &[u8], stop: &Stop) -> io::Result<()> {
    let deadline = Instant::now() + TRANSFER_TIME;
    while !bytes.is_empty() {
        match in_slices(stream, deadline, stop, |stream| stream.write(bytes))? {
            Some(0) => return Err(io::ErrorKind::WriteZero.into()),
            Some(len) => bytes = bytes.get(len..).unwrap_or_default(),
            None => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
    Ok(())
}

/// Reads and discards what the client still sends, for a limited time.
fn drain(stream: &mut TcpStream, stop: &Stop) {
    let deadline = Instant::now() + STOP_CHECK;
    let mut chunk = [0; 4096];
    let mut drained = 0;
    while drained < DRAIN_LEN_MAX {
        match in_slices(stream, deadline, stop, |stream| stream.read(&mut chunk)) {
            Ok(Some(len)) if len > 0 => drained += len,
            _ => return,
        }
    }
}

/// Performs a read or write, checking for a stop at intervals. Returns `None` after the deadline.
fn in_slices(
    stream: &mut TcpStream,
    deadline: Instant,
    stop: &Stop,
    mut transfer: impl FnMut(&mut TcpStream) -> io::Result<usize>,
) -> io::Result<Option<usize>> {
    loop {
        if stop.requested() {
            return Err(io::Error::other("the server is stopping"));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        // Windows counts in milliseconds and treats 0 as no timeout.
        let slice = left.clamp(Duration::from_millis(1), STOP_CHECK);
        stream.set_read_timeout(Some(slice))?;
        stream.set_write_timeout(Some(slice))?;
        match transfer(stream) {
            Ok(len) => return Ok(Some(len)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
