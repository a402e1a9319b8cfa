//! The writing thread: one transaction a batch, and what else is due between them.

mod batch;
mod heartbeats;
mod isolation;

use super::open::{Lock, OpenError, is_damage, open};
use super::prepare::Prepared;
use super::{Options, Request, next, retention};
use crate::backend::{Appended, BackendError, Heartbeat, Id, Note};
use crate::counters::Counters;
use crate::quota::Quota;
use batch::Batch;
use etwsieve_transport::lock;
use etwsieve_transport::store::{Action, At, Store, StoreError, sql_text};
use isolation::{Suspects, is_of_entry};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, Error, OptionalExtension, TransactionBehavior};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// How soon notes are written, and retention is looked at, when no batch comes.
const TICK: Duration = Duration::from_millis(250);
/// Time between two writes of notes while batches come: connections come and go in crowds.
const NOTE_TIME: Duration = Duration::from_secs(1);
/// Time between two signs of life in the database.
const ALIVE_TIME: Duration = Duration::from_secs(5);
/// Epochs whose numbers are kept in memory.
const STREAMS_MAX: usize = 50_000;
/// Notes that wait while the store cannot be written; more are forgotten.
const NOTES_MAX: usize = 100_000;

const SELECT_HIGHEST: &str = "SELECT highest FROM streams JOIN sensors ON sensors.id = sensor_id
    WHERE name = ?1 AND epoch = ?2";
const UPSERT_CONNECTED: &str = "INSERT INTO sensors
    (name, first_seen, last_seen, connections, address, instance, software, computer, certificate_expires)
    VALUES (?1, ?2, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
    ON CONFLICT (name) DO UPDATE SET last_seen = ?2, connections = ?3, address = ?4, instance = ?5, software = ?6,
        computer = ?7, certificate_expires = ?8";
const UPDATE_CONNECTIONS: &str = "UPDATE sensors SET connections = ?2, last_seen = ?3 WHERE name = ?1";
const SET_VALUE: &str = "INSERT INTO collector (name, value) VALUES (?1, ?2)
    ON CONFLICT (name) DO UPDATE SET value = ?2";
const ADD_VALUE: &str = "INSERT INTO collector (name, value) VALUES (?1, ?2)
    ON CONFLICT (name) DO UPDATE SET value = value + ?2";

/// Now, as FILETIME.
pub(super) fn now() -> i64 {
    etwsieve_transport::time::FileTime::now().0.cast_signed()
}

/// What is known of an epoch without asking the database.
#[derive(Clone, Copy, Debug)]
struct Stream {
    id: i64,
    sensor_id: i64,
    /// Highest number stored.
    highest: u64,
}

/// How many connections each sensor has.
type Connections = HashMap<Arc<str>, i64>;

/// The state of the writing thread.
pub(super) struct Writing {
    path: PathBuf,
    options: Options,
    lock: Lock,
    counters: Arc<Counters>,
    /// `None` after an error: it is opened anew for the next batch.
    store: Option<Store>,
    streams: HashMap<(Arc<str>, Id), Stream>,
    suspects: Suspects,
    notes: Vec<Note>,
    connections: Connections,
    alive: Instant,
    /// When notes were written last.
    noted: Option<Instant>,
    retention: retention::Schedule,
    /// Of the warning that hits are held for a sink.
    held: Quota,
}

impl Writing {
    pub(super) fn open(path: &Path, options: Options, counters: Arc<Counters>) -> Result<Self, OpenError> {
        // By the target of a link, so that its log and a damaged one set aside are beside the database and not the link.
        let path = &lock::follow(path).map_err(|source| OpenError::File { path: path.into(), source })?;
        let mut lock = Lock::take(path)?;
        let (store, was_damaged) = open(path, &options, &mut lock, &counters)?;
        let retention = retention::Schedule::new(&options);
        let mut writing = Self {
            path: path.into(),
            options,
            lock,
            counters,
            store: Some(store),
            streams: HashMap::new(),
            suspects: Suspects::default(),
            notes: Vec::new(),
            connections: HashMap::new(),
            alive: Instant::now(),
            noted: None,
            retention,
            held: Quota::default(),
        };
        writing.begun(was_damaged).at(path, Action::Write)?;
        Ok(writing)
    }

    /// Writes into a database that has just been opened what holds at the start of a process.
    fn begun(&mut self, was_damaged: bool) -> Result<(), Error> {
        let Some(store) = &mut self.store else { return Ok(()) };
        let transaction = store.connection_mut().transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute("UPDATE sensors SET connections = 0 WHERE connections > 0", [])?;
        for name in ["started", "alive"] {
            transaction.execute(SET_VALUE, (name, now()))?;
        }
        if was_damaged {
            self.counters.set_aside.add(1);
            transaction.execute(ADD_VALUE, ("set_aside", 1))?;
        }
        transaction.commit()
    }

    /// Serves requests until it is told to stop.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        while let Some(request) = next(requests, TICK) {
            let mut is_idle = false;
            match request {
                Ok(Request::Append { batch, reply }) => {
                    let appended = self.attempt(|writing| writing.append(&batch));
                    let _ = reply.send(appended);
                }
                Ok(Request::Heartbeats { heartbeats, reply }) => {
                    let recorded = self.attempt(|writing| writing.record(&heartbeats));
                    let _ = reply.send(recorded);
                }
                Ok(Request::Durable { sensor, epoch, reply }) => {
                    let durable = self.attempt(|writing| writing.durable(&sensor, epoch));
                    let _ = reply.send(durable);
                }
                Ok(Request::Note(note)) => {
                    if self.notes.len() < NOTES_MAX {
                        self.notes.push(note);
                    }
                }
                Ok(Request::Stop { reply }) => {
                    let _ = self.attempt(|writing| writing.idle(true));
                    self.store = None;
                    let _ = reply.send(());
                    return;
                }
                Err(()) => is_idle = true,
            }
            // A store that has just failed is left to the next batch or an idle moment.
            let has_rested =
                self.store.is_some() && self.noted.is_none_or(|noted| noted.elapsed() >= NOTE_TIME);
            if (self.alive.elapsed() >= ALIVE_TIME || !self.notes.is_empty() && (is_idle || has_rested))
                && let Err(error) = self.attempt(|writing| writing.idle(false))
            {
                // Also when the store cannot be opened, let alone written.
                self.alive = Instant::now();
                self.noted = Some(self.alive);
                tracing::warn!("notes for `status` are not written: {error}");
            }
            if self.retention.is_due()
                && let Err(error) = self.attempt(Self::expire)
            {
                tracing::warn!("old hits are not removed: {error}");
            }
        }
    }

    /// Does something with the database, opening it if need be. After any error it is closed, and nothing that is
    /// remembered of it is believed.
    fn attempt<T>(
        &mut self,
        action: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, BackendError> {
        let done = match self.reopen() {
            Ok(()) => action(self),
            Err(OpenError::Store(error)) => Err(error),
            Err(error) => return Err(BackendError::Failed(error.to_string())),
        };
        done.map_err(|error| {
            if let Some(store) = self.store.take() {
                // Without the checkpoint that closing brings: on a full disk it would take the room that somebody has just
                // made, which the next batch needs.
                let _ = store.connection().set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            }
            self.streams.clear();
            if is_damage(&error) {
                // The next attempt sets it aside.
                tracing::error!("the store is damaged: {error}");
            }
            match error {
                StoreError::Full { .. } => BackendError::Full(error.to_string()),
                StoreError::Locked { .. } => BackendError::Overload(error.to_string()),
                _ => BackendError::Failed(error.to_string()),
            }
        })
    }

    fn reopen(&mut self) -> Result<(), OpenError> {
        if self.store.is_some() {
            return Ok(());
        }
        let (store, was_damaged) = open(&self.path, &self.options, &mut self.lock, &self.counters)?;
        self.store = Some(store);
        if was_damaged {
            self.begun(true).at(&self.path, Action::Write)?;
        }
        Ok(())
    }

    fn durable(&mut self, sensor: &Arc<str>, epoch: Id) -> Result<u64, StoreError> {
        if let Some(stream) = self.streams.get(&(Arc::clone(sensor), epoch)) {
            return Ok(stream.highest);
        }
        let Some(store) = &self.store else { return Ok(0) };
        let highest = store
            .connection()
            .prepare_cached(SELECT_HIGHEST)
            .and_then(|mut select| select.query_row((&**sensor, epoch), |row| row.get(0)).optional())
            .at(&self.path, Action::Read)?;
        Ok(highest.unwrap_or(0))
    }

    /// Writes a batch as a whole; if one of its entries prevents that, every sensor's entries apart.
    fn append(&mut self, batch: &[Prepared]) -> Result<Appended, StoreError> {
        let path = self.path.clone();
        if self.streams.len() > STREAMS_MAX {
            self.streams.clear();
        }
        let appended = match self.try_append(batch, false) {
            Err(error) if is_of_entry(&error) => {
                // What was learned of epochs has been rolled back.
                self.streams.clear();
                tracing::debug!("a batch is written again, each sensor's entries apart: {error}");
                self.try_append(batch, true)
            }
            other => other,
        };
        let appended = appended.at(&path, Action::Write)?;
        let now = Instant::now();
        for entry in appended.errors.iter().filter_map(|(index, _)| batch.get(*index)) {
            self.suspects.add(&entry.sensor, now);
        }
        Ok(appended)
    }

    fn try_append(&mut self, batch: &[Prepared], all_apart: bool) -> Result<Appended, Error> {
        let Some(store) = &mut self.store else { return Ok(Appended::default()) };
        let at = Instant::now();
        let transaction = store.connection_mut().transaction_with_behavior(TransactionBehavior::Immediate)?;
        let suspects = &self.suspects;
        let appended = Batch::new(&transaction, &mut self.streams, now())
            .append(batch, |sensor| all_apart || suspects.contains(sensor, at))?;
        transaction.commit()?;
        Ok(appended)
    }

    fn record(&mut self, heartbeats: &[Heartbeat]) -> Result<(), StoreError> {
        let path = self.path.clone();
        let Some(store) = &mut self.store else { return Ok(()) };
        store
            .connection_mut()
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .and_then(|transaction| {
                heartbeats::write(&transaction, heartbeats, now())?;
                transaction.commit()
            })
            .at(&path, Action::Write)
    }

    /// Writes notes and the sign of life. `is_last`: the collector stops in an orderly way.
    fn idle(&mut self, is_last: bool) -> Result<(), StoreError> {
        let path = self.path.clone();
        let Some(store) = &mut self.store else { return Ok(()) };
        let written = (|| {
            let transaction =
                store.connection_mut().transaction_with_behavior(TransactionBehavior::Immediate)?;
            let connections = write_notes(&transaction, &self.notes, &self.connections)?;
            if is_last {
                transaction.execute("UPDATE sensors SET connections = 0 WHERE connections > 0", [])?;
            }
            transaction.execute(SET_VALUE, ("alive", if is_last { 0 } else { now() }))?;
            if let Some(clock) = self.retention.clock() {
                transaction.execute(SET_VALUE, (retention::CLOCK_NAME, clock))?;
            }
            transaction.commit()?;
            Ok(connections)
        })();
        self.alive = Instant::now();
        self.noted = Some(self.alive);
        let connections = written.at(&path, Action::Write)?;
        self.written(connections);
        Ok(())
    }

    /// The notes are durable, and so are the numbers of connections.
    fn written(&mut self, connections: Option<Connections>) {
        self.notes.clear();
        if let Some(connections) = connections {
            self.connections = connections;
        }
    }

    /// Removes some of the oldest hits if they are too old or too many.
    fn expire(&mut self) -> Result<(), StoreError> {
        let path = self.path.clone();
        let Some(store) = &mut self.store else { return Ok(()) };
        let time = (now(), Instant::now());
        let step =
            self.retention.step(store.connection_mut(), &self.options, time).at(&path, Action::Write)?;
        self.counters.expired.add(step.expired);
        self.counters.retention_held.set(step.is_held);
        if step.is_held
            && let Some(suppressed) = self.held.admit()
        {
            tracing::warn!(suppressed, "hits that are due to be removed stay: a sink has not taken them");
        }
        Ok(())
    }
}

/// Writes what connections have told, and returns how many each sensor has then, if that has changed. A note that cannot
/// be stored is skipped: it must not keep hits from being written.
fn write_notes(
    connection: &Connection,
    notes: &[Note],
    connections: &Connections,
) -> Result<Option<Connections>, Error> {
    if notes.is_empty() {
        return Ok(None);
    }
    let now = now();
    let mut counted = connections.clone();
    for note in notes {
        match write_note(connection, note, now, &mut counted) {
            Err(error) if is_of_entry(&error) => tracing::debug!(?note, "a note is not stored: {error}"),
            written => written?,
        }
    }
    Ok(Some(counted))
}

fn write_note(
    connection: &Connection,
    note: &Note,
    now: i64,
    counted: &mut Connections,
) -> Result<(), Error> {
    match note {
        Note::Connected { sensor, address, instance, software, computer, certificate_expires } => {
            let count = counted.entry(Arc::clone(sensor)).or_default();
            *count += 1;
            connection.prepare_cached(UPSERT_CONNECTED)?.execute((
                &**sensor,
                now,
                *count,
                address.to_string(),
                instance,
                sql_text(software),
                sql_text(computer),
                certificate_expires,
            ))?;
        }
        Note::Disconnected { sensor } => {
            let count = counted.entry(Arc::clone(sensor)).or_default();
            *count = (*count - 1).max(0);
            let left = *count;
            if left == 0 {
                counted.remove(sensor);
            }
            connection.prepare_cached(UPDATE_CONNECTIONS)?.execute((&**sensor, left, now))?;
        }
    }
    Ok(())
}
