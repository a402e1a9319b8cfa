//! The embedded back end: the store of [`etwsieve_transport::store`], with additional tables that record which sensor
//! sent what.
//!
//! One thread decodes and hashes a batch while another writes the previous one. A batch is one transaction with
//! `synchronous=FULL`, so it is durable as a whole or not stored at all. After any error the database is reopened, and
//! its log made durable first ([`Store::open`](etwsieve_transport::store::Store::open)), because data of a failed sync
//! may never reach the disk.
//!
//! An event that arrives under two sequence numbers or epochs is one row of `hits`; `received` lists its sequence
//! numbers.

mod feed;
mod open;
mod prepare;
mod retention;
mod write;

pub use feed::SqliteFeed;
pub use open::{LOCK_SUFFIX, OpenError};

use crate::backend::{Appended, Backend, BackendError, ConnectionEvent, Entry, Heartbeat, Id};
use crate::counters::Counters;
use futures_util::future::BoxFuture;
use prepare::Prepared;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::oneshot;
use write::StoreWriter;

/// Options of the embedded store.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// Age, counted from their arrival, after which hits are removed; zero: never.
    pub retention_age: Duration,
    /// Size of the database in bytes above which the oldest hits are removed; 0: no limit.
    pub retention_bytes: u64,
    /// Sinks that must have received a hit before it is removed; `None`: all sinks that have ever received one.
    pub sinks: Option<Vec<String>>,
    /// Length of the write-ahead log in pages after which it is checkpointed.
    pub checkpoint_pages: u32,
    /// Maximum number of pages of the database, to simulate a full disk in tests; 0: no limit.
    pub pages_max: u32,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            retention_age: Duration::ZERO,
            retention_bytes: 0,
            sinks: None,
            checkpoint_pages: 4000,
            pages_max: 0,
        }
    }
}

type ReplySender<T> = oneshot::Sender<Result<T, BackendError>>;

/// A batch for the preparing thread.
struct AppendRequest {
    entries: Vec<Entry>,
    reply: ReplySender<Appended>,
}

/// A request to the writing thread.
enum StoreRequest {
    Append { batch: Vec<Prepared>, reply: ReplySender<Appended> },
    Heartbeats { heartbeats: Vec<Heartbeat>, reply: ReplySender<()> },
    Durable { sensor: Arc<str>, epoch: Id, reply: ReplySender<u64> },
    ConnectionEvent(ConnectionEvent),
    Stop { reply: oneshot::Sender<()> },
}

/// The embedded back end. Dropping it finishes pending batches.
#[derive(Debug)]
pub struct SqliteBackend {
    batches: Mutex<Option<Sender<AppendRequest>>>,
    requests: Sender<StoreRequest>,
    path: PathBuf,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl SqliteBackend {
    /// Opens or creates the store and starts the threads.
    ///
    /// A damaged store is quarantined: it is renamed, a new one is created, and an error is logged. So its contents can
    /// still be inspected, and the collector needs no manual repair.
    ///
    /// # Errors
    ///
    /// The file is not a store, another collector uses it, or the system refuses to open it.
    pub fn start(path: &Path, options: SqliteOptions, counters: Arc<Counters>) -> Result<Self, OpenError> {
        let writing = StoreWriter::open(path, options, counters)?;
        let (batches, to_prepare) = channel();
        let (requests, to_do) = channel();
        let prepared = requests.clone();
        let failed = |source| OpenError::Thread { source };
        let preparing = thread::Builder::new()
            .name("prepare".into())
            .spawn(move || prepare::run(&to_prepare, &prepared))
            .map_err(failed)?;
        let writer =
            thread::Builder::new().name("store".into()).spawn(move || writing.run(&to_do)).map_err(failed)?;
        Ok(Self {
            batches: Mutex::new(Some(batches)),
            requests,
            path: path.to_owned(),
            threads: Mutex::new(vec![preparing, writer]),
        })
    }

    /// Returns the path of the database.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Waits for the reply of a thread. A thread that is gone has stopped.
fn answer<T: Send + 'static>(
    reply: oneshot::Receiver<Result<T, BackendError>>,
) -> BoxFuture<'static, Result<T, BackendError>> {
    Box::pin(async move { reply.await.unwrap_or(Err(BackendError::Stopped)) })
}

impl Backend for SqliteBackend {
    fn append(&self, entries: Vec<Entry>) -> BoxFuture<'static, Result<Appended, BackendError>> {
        let (reply, answered) = oneshot::channel();
        if let Some(batches) = &*self.batches.lock().unwrap_or_else(PoisonError::into_inner) {
            // If the thread is gone, the reply is dropped, too.
            let _ = batches.send(AppendRequest { entries, reply });
        }
        answer(answered)
    }

    fn record_heartbeats(&self, heartbeats: Vec<Heartbeat>) -> BoxFuture<'static, Result<(), BackendError>> {
        let (reply, answered) = oneshot::channel();
        let _ = self.requests.send(StoreRequest::Heartbeats { heartbeats, reply });
        answer(answered)
    }

    fn durable(&self, sensor: Arc<str>, epoch: Id) -> BoxFuture<'static, Result<u64, BackendError>> {
        let (reply, answered) = oneshot::channel();
        let _ = self.requests.send(StoreRequest::Durable { sensor, epoch, reply });
        answer(answered)
    }

    fn record_connection_event(&self, event: ConnectionEvent) {
        let _ = self.requests.send(StoreRequest::ConnectionEvent(event));
    }

    fn stop(&self) -> BoxFuture<'static, ()> {
        // The preparing thread passes on its last batches and ends; the stop is queued behind them.
        drop(self.batches.lock().unwrap_or_else(PoisonError::into_inner).take());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let requests = self.requests.clone();
        Box::pin(async move {
            let stopped = tokio::task::spawn_blocking(move || {
                let mut threads = threads.into_iter();
                let Some(preparing) = threads.next() else { return };
                let _ = preparing.join();
                let (reply, answered) = oneshot::channel();
                let _ = requests.send(StoreRequest::Stop { reply });
                let _ = answered.blocking_recv();
                threads.for_each(|thread| {
                    let _ = thread.join();
                });
            });
            let _ = stopped.await;
        })
    }
}

/// Returns the next request, `Some(Err(()))` if none arrives within `tick`, or `None` after the last one.
fn next(requests: &Receiver<StoreRequest>, tick: Duration) -> Option<Result<StoreRequest, ()>> {
    use std::sync::mpsc::RecvTimeoutError;
    match requests.recv_timeout(tick) {
        Ok(request) => Some(Ok(request)),
        Err(RecvTimeoutError::Timeout) => Some(Err(())),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}
