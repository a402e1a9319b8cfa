//! The embedded backend: the store of [`etwsieve_transport::store`], with tables for who sent what.
//!
//! Two threads work behind two queues: one decodes and hashes the next batch while the other writes the last. A batch is
//! one transaction with `synchronous=FULL`, so it is durable as a whole or not stored at all. After any error the
//! database is opened anew, its log made durable first ([`Store::open`](etwsieve_transport::store::Store::open)): a sync that failed is
//! never believed later.
//!
//! The same event under two numbers or epochs is one row of `hits`, as ever; `received` says which numbers it came under.

mod feed;
mod open;
mod prepare;
mod retention;
mod write;

pub use feed::SqliteFeed;
pub use open::{LOCK_SUFFIX, OpenError};

use crate::backend::{Appended, Backend, BackendError, Entry, Heartbeat, Id, Note};
use crate::counters::Counters;
use futures_util::future::BoxFuture;
use prepare::Prepared;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::oneshot;
use write::Writing;

/// What bounds the store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Hits older than this, by when they came, are removed; zero: never.
    pub retention_age: Duration,
    /// When the database has more bytes than this, the oldest hits are removed; 0: never.
    pub retention_bytes: u64,
    /// Names of the sinks whose hits are not removed before they have taken them; `None`: of every sink that has ever
    /// been given something.
    pub sinks: Option<Vec<String>>,
    /// Pages of the log after which it is written into the database.
    pub checkpoint_pages: u32,
    /// Most pages of the database, as if the disk ended there; 0: no limit. For tests.
    pub pages_max: u32,
}

impl Default for Options {
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

type Reply<T> = oneshot::Sender<Result<T, BackendError>>;

/// What the preparing thread is given.
struct Batch {
    entries: Vec<Entry>,
    reply: Reply<Appended>,
}

/// What the writing thread is given.
enum Request {
    Append { batch: Vec<Prepared>, reply: Reply<Appended> },
    Heartbeats { heartbeats: Vec<Heartbeat>, reply: Reply<()> },
    Durable { sensor: Arc<str>, epoch: Id, reply: Reply<u64> },
    Note(Note),
    Stop { reply: oneshot::Sender<()> },
}

/// The embedded backend. Dropping it finishes what was given.
#[derive(Debug)]
pub struct SqliteBackend {
    batches: Mutex<Option<Sender<Batch>>>,
    requests: Sender<Request>,
    path: PathBuf,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl SqliteBackend {
    /// Opens the store, or creates it, and starts the threads.
    ///
    /// A damaged store is set aside under another name and a new one begun, with a word in the log: what was stored
    /// stays where it can be looked at, and nobody needs to come and delete a file.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: the file is somebody else's, another collector has it, or the system refuses.
    pub fn start(path: &Path, options: Options, counters: Arc<Counters>) -> Result<Self, OpenError> {
        let writing = Writing::open(path, options, counters)?;
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

    /// The database.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A reply that never comes is that of a backend which has stopped.
fn answer<T: Send + 'static>(
    reply: oneshot::Receiver<Result<T, BackendError>>,
) -> BoxFuture<'static, Result<T, BackendError>> {
    Box::pin(async move { reply.await.unwrap_or(Err(BackendError::Stopped)) })
}

impl Backend for SqliteBackend {
    fn append(&self, entries: Vec<Entry>) -> BoxFuture<'static, Result<Appended, BackendError>> {
        let (reply, answered) = oneshot::channel();
        if let Some(batches) = &*self.batches.lock().unwrap_or_else(PoisonError::into_inner) {
            // If the thread has gone, so has the reply.
            let _ = batches.send(Batch { entries, reply });
        }
        answer(answered)
    }

    fn record_heartbeats(&self, heartbeats: Vec<Heartbeat>) -> BoxFuture<'static, Result<(), BackendError>> {
        let (reply, answered) = oneshot::channel();
        let _ = self.requests.send(Request::Heartbeats { heartbeats, reply });
        answer(answered)
    }

    fn durable(&self, sensor: Arc<str>, epoch: Id) -> BoxFuture<'static, Result<u64, BackendError>> {
        let (reply, answered) = oneshot::channel();
        let _ = self.requests.send(Request::Durable { sensor, epoch, reply });
        answer(answered)
    }

    fn note(&self, note: Note) {
        let _ = self.requests.send(Request::Note(note));
    }

    fn stop(&self) -> BoxFuture<'static, ()> {
        // The preparing thread ends when it has passed on what it has; the stop comes behind that.
        drop(self.batches.lock().unwrap_or_else(PoisonError::into_inner).take());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let requests = self.requests.clone();
        Box::pin(async move {
            let stopped = tokio::task::spawn_blocking(move || {
                let mut threads = threads.into_iter();
                let Some(preparing) = threads.next() else { return };
                let _ = preparing.join();
                let (reply, answered) = oneshot::channel();
                let _ = requests.send(Request::Stop { reply });
                let _ = answered.blocking_recv();
                threads.for_each(|thread| {
                    let _ = thread.join();
                });
            });
            let _ = stopped.await;
        })
    }
}

/// Takes the next request, or says that it is time for what else there is to do.
fn next(requests: &Receiver<Request>, tick: Duration) -> Option<Result<Request, ()>> {
    use std::sync::mpsc::RecvTimeoutError;
    match requests.recv_timeout(tick) {
        Ok(request) => Some(Ok(request)),
        Err(RecvTimeoutError::Timeout) => Some(Err(())),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}
