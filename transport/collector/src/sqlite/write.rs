//! The writing thread: one transaction per batch, and housekeeping in between.

mod batch;
mod heartbeats;
mod isolation;

use super::open::{DatabaseLock, OpenError, is_damage, open};
use super::prepare::Prepared;
use super::{SqliteOptions, StoreRequest, next, retention};
use crate::backend::{Appended, BackendError, ConnectionEvent, Heartbeat, Id};
use crate::counters::Counters;
use crate::log_limit::LogLimit;
use batch::BatchWriter;
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

/// Interval of housekeeping while no batch arrives.
const TICK: Duration = Duration::from_millis(250);
/// Interval between two writes of connection events while batches arrive.
const EVENT_TIME: Duration = Duration::from_secs(1);
/// Interval between two heartbeats in the database.
const ALIVE_TIME: Duration = Duration::from_secs(5);
/// Maximum number of epochs that are cached in memory.
const STREAMS_MAX: usize = 50_000;
/// Maximum number of connection events that are queued while the store cannot be written; others are dropped.
const EVENTS_MAX: usize = 100_000;

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

/// Returns the current time as FILETIME.
pub(super) fn now() -> i64 {
    etwsieve_transport::time::FileTime::now().0.cast_signed()
}

/// A cached epoch of a sensor.
#[derive(Clone, Copy, Debug)]
struct Stream {
    id: i64,
    sensor_id: i64,
    /// Highest stored sequence number.
    highest: u64,
}

/// The number of connections of each sensor.
type Connections = HashMap<Arc<str>, i64>;

/// The state of the writing thread.
pub(super) struct StoreWriter {
    path: PathBuf,
    options: SqliteOptions,
    lock: DatabaseLock,
    counters: Arc<Counters>,
    /// `None` after an error; it is reopened for the next batch.
    store: Option<Store>,
    streams: HashMap<(Arc<str>, Id), Stream>,
    suspects: Suspects,
    events: Vec<ConnectionEvent>,
    connections: Connections,
    alive: Instant,
    /// When connection events were last written.
    events_written: Option<Instant>,
    retention: retention::Schedule,
    /// Limits the warnings that hits are kept for a sink.
    held: LogLimit,
}

impl StoreWriter {
    pub(super) fn open(
        path: &Path,
        options: SqliteOptions,
        counters: Arc<Counters>,
    ) -> Result<Self, OpenError> {
        // The target of a link, so that the log and a quarantined database are beside the database, not the link.
        let path = &lock::follow(path).map_err(|source| OpenError::File { path: path.into(), source })?;
        let mut lock = DatabaseLock::take(path)?;
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
            events: Vec::new(),
            connections: HashMap::new(),
            alive: Instant::now(),
            events_written: None,
            retention,
            held: LogLimit::default(),
        };
        writing.initialise(was_damaged).at(path, Action::Write)?;
        Ok(writing)
    }

    /// Initialises a newly opened database for this process.
    fn initialise(&mut self, was_damaged: bool) -> Result<(), Error> {
        let Some(store) = &mut self.store else { return Ok(()) };
        let transaction = store.connection_mut().transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute("UPDATE sensors SET connections = 0 WHERE connections > 0", [])?;
        for name in ["started", "alive"] {
            transaction.execute(SET_VALUE, (name, now()))?;
        }
        if was_damaged {
            self.counters.quarantined.add(1);
            transaction.execute(ADD_VALUE, ("set_aside", 1))?;
        }
        transaction.commit()
    }

    /// Serves requests until it is stopped.
    pub(super) fn run(mut self, requests: &Receiver<StoreRequest>) {
        while let Some(request) = next(requests, TICK) {
            let mut is_idle = false;
            match request {
                Ok(StoreRequest::Append { batch, reply }) => {
                    let appended = self.attempt(|writing| writing.append(&batch));
                    let _ = reply.send(appended);
                }
                Ok(StoreRequest::Heartbeats { heartbeats, reply }) => {
                    let recorded = self.attempt(|writing| writing.record(&heartbeats));
                    let _ = reply.send(recorded);
                }
                Ok(StoreRequest::Durable { sensor, epoch, reply }) => {
                    let durable = self.attempt(|writing| writing.durable(&sensor, epoch));
                    let _ = reply.send(durable);
                }
                Ok(StoreRequest::ConnectionEvent(event)) => {
                    if self.events.len() < EVENTS_MAX {
                        self.events.push(event);
                    }
                }
                Ok(StoreRequest::Stop { reply }) => {
                    let _ = self.attempt(|writing| writing.idle(true));
                    self.store = None;
                    let _ = reply.send(());
                    return;
                }
                Err(()) => is_idle = true,
            }
            // A store that has just failed is retried by the next batch or when the thread is idle.
            let has_rested = self.store.is_some()
                && self.events_written.is_none_or(|events_written| events_written.elapsed() >= EVENT_TIME);
            if (self.alive.elapsed() >= ALIVE_TIME || !self.events.is_empty() && (is_idle || has_rested))
                && let Err(error) = self.attempt(|writing| writing.idle(false))
            {
                // Also if the store cannot even be opened.
                self.alive = Instant::now();
                self.events_written = Some(self.alive);
                tracing::warn!("cannot write connection events for `status`: {error}");
            }
            if self.retention.is_due()
                && let Err(error) = self.attempt(Self::expire)
            {
                tracing::warn!("cannot remove expired hits: {error}");
            }
        }
    }

    /// Runs `action` on the database, which is reopened if necessary. After any error it is closed and all caches are
    /// cleared.
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
                // Without the checkpoint that closing implies: on a full disk it would use up the space that was just
                // freed and that the next batch needs.
                let _ = store.connection().set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            }
            self.streams.clear();
            if is_damage(&error) {
                // The next attempt quarantines it.
                tracing::error!("store damaged: {error}");
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
            self.initialise(true).at(&self.path, Action::Write)?;
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

    /// Writes a batch; if an entry prevents that, writes it again with the entries isolated from each other.
    fn append(&mut self, batch: &[Prepared]) -> Result<Appended, StoreError> {
        let path = self.path.clone();
        if self.streams.len() > STREAMS_MAX {
            self.streams.clear();
        }
        let appended = match self.try_append(batch, false) {
            Err(error) if is_of_entry(&error) => {
                // The changes of cached epochs were rolled back.
                self.streams.clear();
                tracing::debug!("batch failed, writing it again with isolated entries: {error}");
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

    fn try_append(&mut self, batch: &[Prepared], isolate_all: bool) -> Result<Appended, Error> {
        let Some(store) = &mut self.store else { return Ok(Appended::default()) };
        let at = Instant::now();
        let transaction = store.connection_mut().transaction_with_behavior(TransactionBehavior::Immediate)?;
        let suspects = &self.suspects;
        let appended = BatchWriter::new(&transaction, &mut self.streams, now())
            .append(batch, |sensor| isolate_all || suspects.contains(sensor, at))?;
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

    /// Writes connection events and the heartbeat. `is_last`: the collector stops.
    fn idle(&mut self, is_last: bool) -> Result<(), StoreError> {
        let path = self.path.clone();
        let Some(store) = &mut self.store else { return Ok(()) };
        let written = (|| {
            let transaction =
                store.connection_mut().transaction_with_behavior(TransactionBehavior::Immediate)?;
            let connections = write_events(&transaction, &self.events, &self.connections)?;
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
        self.events_written = Some(self.alive);
        let connections = written.at(&path, Action::Write)?;
        self.written(connections);
        Ok(())
    }

    /// Records that the connection events are durable.
    fn written(&mut self, connections: Option<Connections>) {
        self.events.clear();
        if let Some(connections) = connections {
            self.connections = connections;
        }
    }

    /// Runs a step of retention.
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
            tracing::warn!(suppressed, "expired hits are kept because a sink has not received them");
        }
        Ok(())
    }
}

/// Writes connection events and returns the new numbers of connections, if they changed. An event that cannot be stored
/// is skipped, so that it cannot prevent hits from being written.
fn write_events(
    connection: &Connection,
    events: &[ConnectionEvent],
    connections: &Connections,
) -> Result<Option<Connections>, Error> {
    if events.is_empty() {
        return Ok(None);
    }
    let now = now();
    let mut counted = connections.clone();
    for event in events {
        match write_event(connection, event, now, &mut counted) {
            Err(error) if is_of_entry(&error) => {
                tracing::debug!(?event, "cannot store a connection event: {error}");
            }
            written => written?,
        }
    }
    Ok(Some(counted))
}

fn write_event(
    connection: &Connection,
    event: &ConnectionEvent,
    now: i64,
    counted: &mut Connections,
) -> Result<(), Error> {
    match event {
        ConnectionEvent::Connected { sensor, address, instance, software, computer, certificate_expires } => {
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
        ConnectionEvent::Disconnected { sensor } => {
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
