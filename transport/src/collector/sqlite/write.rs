//! The writing thread: one transaction a batch, and what else is due between them.

use super::open::{Lock, OpenError, is_damage, open};
use super::prepare::{Prepared, PreparedHit, PreparedItem};
use super::{Options, Request, next, retention};
use crate::collector::backend::{Appended, BackendError, Id, Note};
use crate::collector::counters::Counters;
use crate::store::{Action, At, Store, StoreError, Writer};
use crate::wire::message::{GapV1, StatusV1};
use rusqlite::{Connection, Error, OptionalExtension, Transaction, TransactionBehavior};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How soon notes are written, and retention is looked at, when no batch comes.
const TICK: Duration = Duration::from_millis(250);
/// Time between two signs of life in the database.
const ALIVE_TIME: Duration = Duration::from_secs(5);
/// Epochs whose numbers are kept in memory.
const STREAMS_MAX: usize = 50_000;
/// Notes that wait while the store cannot be written; more are forgotten.
const NOTES_MAX: usize = 100_000;
/// Most rows that are counted to find what of a gap is stored.
const GAP_ROWS_MAX: i64 = 100_000;
/// 1601 to 1970, in ticks of 100 ns.
const FILETIME_OF_1970: u64 = 116_444_736_000_000_000;

const FIND_SENSOR: &str = "INSERT INTO sensors (name, first_seen, last_seen) VALUES (?1, ?2, ?2)
    ON CONFLICT (name) DO UPDATE SET last_seen = ?2 RETURNING id";
const FIND_STREAM: &str = "INSERT INTO streams (sensor_id, epoch, first_seen, last_seen, highest)
    VALUES (?1, ?2, ?3, ?3, 0)
    ON CONFLICT (sensor_id, epoch) DO UPDATE SET last_seen = ?3 RETURNING id, highest";
const SELECT_HIGHEST: &str = "SELECT highest FROM streams JOIN sensors ON sensors.id = sensor_id
    WHERE name = ?1 AND epoch = ?2";
const SELECT_RECEIVED: &str = "SELECT hash = ?3 FROM received WHERE stream_id = ?1 AND sequence = ?2";
const INSERT_RECEIVED: &str =
    "INSERT INTO received (stream_id, sequence, hash, hit_id, time) VALUES (?1, ?2, ?3, ?4, ?5)";
const INSERT_GAP: &str = "INSERT INTO gaps (stream_id, first, last, count, reason, lost, time)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING";
const HAS_GAP: &str = "SELECT EXISTS (SELECT 1 FROM gaps
    WHERE stream_id = ?1 AND first = ?2 AND last = ?3 AND count = ?4 AND reason = ?5)";
const COUNT_STORED: &str = "SELECT count(DISTINCT sequence) FROM (
    SELECT sequence FROM received WHERE stream_id = ?1 AND sequence BETWEEN ?2 AND ?3 LIMIT ?4)";
const SELECT_GAPS: &str = "SELECT first, last FROM gaps WHERE stream_id = ?1 AND first <= ?3 AND last >= ?2
    ORDER BY first LIMIT 10000";
const UPDATE_STREAM: &str = "UPDATE streams SET highest = max(highest, ?2), last_seen = ?3 WHERE id = ?1";
const UPDATE_SENSOR: &str = "UPDATE sensors SET last_seen = ?2, hits = hits + ?3, repeated = repeated + ?4,
    conflicts = conflicts + ?5, lost = lost + ?6 WHERE id = ?1";
const UPDATE_STATUS: &str = "UPDATE sensors SET last_seen = ?2, status_received = ?2, status_time = ?3,
    uptime_seconds = ?4, counts = ?5 WHERE id = ?1";
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
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_nanos() as u64 / 100 + FILETIME_OF_1970).cast_signed()
}

/// What is known of an epoch without asking the database.
#[derive(Clone, Copy, Debug)]
struct Stream {
    id: i64,
    sensor_id: i64,
    /// Highest number stored.
    highest: u64,
}

/// What a batch did for one sensor.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    hits: u64,
    repeated: u64,
    conflicts: u64,
    lost: u64,
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
    notes: Vec<Note>,
    connections: Connections,
    alive: Instant,
    retention: retention::Schedule,
}

impl Writing {
    pub(super) fn open(path: &Path, options: Options, counters: Arc<Counters>) -> Result<Self, OpenError> {
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
            notes: Vec::new(),
            connections: HashMap::new(),
            alive: Instant::now(),
            retention,
        };
        writing.begun(was_damaged).at(path, Action::Write)?;
        Ok(writing)
    }

    /// Writes into a database that has just been opened what holds at the start of a process.
    fn begun(&mut self, was_damaged: bool) -> Result<(), Error> {
        let Some(store) = &mut self.store else { return Ok(()) };
        let transaction = store.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
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
            if (self.alive.elapsed() >= ALIVE_TIME || is_idle && !self.notes.is_empty())
                && let Err(error) = self.attempt(|writing| writing.idle(false))
            {
                // Also when the store cannot be opened, let alone written.
                self.alive = Instant::now();
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
            self.store = None;
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
            .connection
            .prepare_cached(SELECT_HIGHEST)
            .and_then(|mut select| select.query_row((&**sensor, epoch), |row| row.get(0)).optional())
            .at(&self.path, Action::Read)?;
        Ok(highest.unwrap_or(0))
    }

    fn append(&mut self, batch: &[Prepared]) -> Result<Appended, StoreError> {
        let path = self.path.clone();
        let Some(store) = &mut self.store else { return Ok(Appended::default()) };
        if self.streams.len() > STREAMS_MAX {
            self.streams.clear();
        }
        let transaction = store
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .at(&path, Action::Write)?;
        let appended = Batch {
            transaction: &transaction,
            streams: &mut self.streams,
            tallies: HashMap::new(),
            statuses: HashMap::new(),
            appended: Appended::default(),
            now: now(),
        }
        .append(batch)
        .and_then(|appended| {
            let connections = write_notes(&transaction, &self.notes, &self.connections)?;
            transaction.commit()?;
            Ok((appended, connections))
        })
        .at(&path, Action::Write)?;
        let (appended, connections) = appended;
        self.written(connections);
        Ok(appended)
    }

    /// Writes notes and the sign of life. `is_last`: the collector stops in an orderly way.
    fn idle(&mut self, is_last: bool) -> Result<(), StoreError> {
        let path = self.path.clone();
        let Some(store) = &mut self.store else { return Ok(()) };
        let written = (|| {
            let transaction = store.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let connections = write_notes(&transaction, &self.notes, &self.connections)?;
            if is_last {
                transaction.execute("UPDATE sensors SET connections = 0 WHERE connections > 0", [])?;
            }
            transaction.execute(SET_VALUE, ("alive", if is_last { 0 } else { now() }))?;
            transaction.commit()?;
            Ok(connections)
        })();
        self.alive = Instant::now();
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
        let expired = self.retention.step(&mut store.connection, &self.options).at(&path, Action::Write)?;
        self.counters.expired.add(expired);
        Ok(())
    }
}

/// One batch in its transaction.
struct Batch<'t, 's> {
    transaction: &'t Transaction<'t>,
    streams: &'s mut HashMap<(Arc<str>, Id), Stream>,
    tallies: HashMap<i64, Tally>,
    /// Of each sensor the last STATUS.
    statuses: HashMap<i64, StatusV1>,
    appended: Appended,
    now: i64,
}

impl Batch<'_, '_> {
    fn append(mut self, batch: &[Prepared]) -> Result<Appended, Error> {
        let transaction = self.transaction;
        let mut writer = Writer::new(transaction)?;
        let mut select = transaction.prepare_cached(SELECT_RECEIVED)?;
        let mut insert = transaction.prepare_cached(INSERT_RECEIVED)?;
        let mut touched: HashMap<i64, u64> = HashMap::new();
        for entry in batch {
            let mut stream = self.stream(&entry.sensor, entry.epoch)?;
            let highest = match &entry.item {
                PreparedItem::Hit(hit) => self.hit(stream, hit, &mut writer, &mut select, &mut insert)?,
                PreparedItem::Gap(gap) => self.gap(stream, gap)?,
                PreparedItem::Status(status) => {
                    self.statuses.insert(stream.sensor_id, status.clone());
                    0
                }
            };
            if highest > stream.highest {
                stream.highest = highest;
                self.streams.insert((Arc::clone(&entry.sensor), entry.epoch), stream);
            }
            touched.insert(stream.id, stream.highest);
            self.tallies.entry(stream.sensor_id).or_default();
        }
        let mut update = transaction.prepare_cached(UPDATE_STREAM)?;
        for (id, highest) in touched {
            update.execute((id, highest, self.now))?;
        }
        let mut update = transaction.prepare_cached(UPDATE_SENSOR)?;
        for (id, tally) in &self.tallies {
            update.execute((id, self.now, tally.hits, tally.repeated, tally.conflicts, tally.lost))?;
        }
        let mut update = transaction.prepare_cached(UPDATE_STATUS)?;
        for (id, status) in &self.statuses {
            let counts: serde_json::Map<String, serde_json::Value> =
                status.counts.iter().map(|count| (count.name.clone(), count.value.into())).collect();
            let counts = serde_json::Value::from(counts).to_string();
            let saturated =
                [status.time, status.uptime_seconds].map(|number| i64::try_from(number).unwrap_or(i64::MAX));
            update.execute((id, self.now, saturated[0], saturated[1], counts))?;
        }
        Ok(self.appended)
    }

    fn stream(&mut self, sensor: &Arc<str>, epoch: Id) -> Result<Stream, Error> {
        let key = (Arc::clone(sensor), epoch);
        if let Some(stream) = self.streams.get(&key) {
            return Ok(*stream);
        }
        let sensor_id: i64 = self
            .transaction
            .prepare_cached(FIND_SENSOR)?
            .query_row((&**sensor, self.now), |row| row.get(0))?;
        let (id, highest) = self
            .transaction
            .prepare_cached(FIND_STREAM)?
            .query_row((sensor_id, epoch, self.now), |row| Ok((row.get(0)?, row.get(1)?)))?;
        let stream = Stream { id, sensor_id, highest };
        self.streams.insert(key, stream);
        Ok(stream)
    }

    /// Returns the number that is stored now.
    fn hit(
        &mut self,
        stream: Stream,
        prepared: &PreparedHit,
        writer: &mut Writer<'_>,
        select: &mut rusqlite::CachedStatement<'_>,
        insert: &mut rusqlite::CachedStatement<'_>,
    ) -> Result<u64, Error> {
        let (mut is_known, mut is_other) = (false, false);
        // Above the highest number there is nothing to look for.
        if prepared.sequence <= stream.highest {
            let mut rows = select.query((stream.id, prepared.sequence, prepared.hash))?;
            while let Some(row) = rows.next()? {
                if row.get(0)? { is_known = true } else { is_other = true }
            }
        }
        let tally = self.tallies.entry(stream.sensor_id).or_default();
        if is_known {
            self.appended.repeated += 1;
            tally.repeated += 1;
            return Ok(prepared.sequence);
        }
        let (hit_id, _) = writer.insert(&prepared.hit, &prepared.event, &prepared.identity)?;
        insert.execute((stream.id, prepared.sequence, prepared.hash, hit_id, self.now))?;
        if is_other {
            self.appended.conflicts += 1;
            tally.conflicts += 1;
        } else {
            self.appended.new += 1;
            tally.hits += 1;
        }
        Ok(prepared.sequence)
    }

    fn gap(&mut self, stream: Stream, gap: &GapV1) -> Result<u64, Error> {
        let reason = gap.reason.as_str();
        let tally = self.tallies.entry(stream.sensor_id).or_default();
        let is_known: bool = self
            .transaction
            .prepare_cached(HAS_GAP)?
            .query_row((stream.id, gap.from, gap.to, gap.count, reason), |row| row.get(0))?;
        if is_known {
            self.appended.repeated += 1;
            tally.repeated += 1;
            return Ok(gap.to);
        }
        // What no other gap has declared and what is not stored: range by range between the other gaps.
        let mut gaps = self.transaction.prepare_cached(SELECT_GAPS)?;
        let others = gaps
            .query_map((stream.id, gap.from, gap.to), |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<Vec<(u64, u64)>, _>>()?;
        let mut count = self.transaction.prepare_cached(COUNT_STORED)?;
        let (mut open, mut next) = (0_u64, gap.from);
        for (first, last) in others.into_iter().chain([(gap.to + 1, gap.to + 1)]) {
            if first > next {
                let stored: u64 =
                    count.query_row((stream.id, next, first - 1, GAP_ROWS_MAX), |row| row.get(0))?;
                open += (first - next).saturating_sub(stored);
            }
            next = next.max(last.saturating_add(1));
        }
        let lost = gap.count.min(open);
        self.transaction
            .prepare_cached(INSERT_GAP)?
            .execute((stream.id, gap.from, gap.to, gap.count, reason, lost, self.now))?;
        self.appended.gaps += 1;
        self.appended.lost += lost;
        tally.lost += lost;
        Ok(gap.to)
    }
}

/// Writes what connections have told, and returns how many there are of each sensor then, if that has changed.
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
                    software,
                    computer,
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
    }
    Ok(Some(counted))
}
