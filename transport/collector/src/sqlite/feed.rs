//! Feeds sinks from the embedded store, with a cursor that is stored in it.
//!
//! The cursor is an id of `hit_rules`, not of `hits`, so a rule that is added to an event later is delivered too,
//! together with the event, and no rule is delivered twice. A rule occurs at most once in a batch.

use crate::counters::Counters;
use crate::sink::{BATCH_HITS_MAX, BatchLimits, Feed, FeedError, Lag, SinkCounts, SinkItem};
use etwsieve_transport::hit::HitV1;
use etwsieve_transport::store::{Action, At, Store, StoreError, decode};
use etwsieve_transport::time::unix_now;
use rusqlite::{Error, OptionalExtension};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Interval at which new hits are looked for.
const LOOK_TIME: Duration = Duration::from_millis(200);
const SCHEMA: &str = include_str!("schema.sql");
const SELECT_NEXT: &str = "SELECT id, hit_id FROM hit_rules WHERE id > ?1 ORDER BY id LIMIT ?2";
const SELECT_EVENT: &str = "SELECT hit_version, event FROM hits WHERE id = ?1";
const SELECT_SENDER: &str = "SELECT sensors.name, streams.epoch, received.sequence
    FROM received JOIN streams ON streams.id = stream_id JOIN sensors ON sensors.id = sensor_id
    WHERE hit_id = ?1 ORDER BY received.time, stream_id, sequence LIMIT 1";
const SELECT_OLDEST: &str = "SELECT (SELECT min(time) FROM received WHERE received.hit_id = hit_rules.hit_id)
    FROM hit_rules WHERE id > ?1 ORDER BY id LIMIT 1";
/// Counts the rules of a hit in earlier batches, up to a number above which it makes no difference.
const COUNT_BEFORE: &str =
    "SELECT count(*) FROM (SELECT 1 FROM hit_rules WHERE hit_id = ?1 AND id <= ?2 LIMIT 10000)";
/// Creates the cursor when the sink starts, so that hits are counted that retention removes before the first delivery.
const BEGIN: &str =
    "INSERT INTO sink_cursors (sink, position, updated) VALUES (?1, 0, 0) ON CONFLICT DO NOTHING";
const SET_STATE: &str = "INSERT INTO sink_states
        (sink, delivered, refused, dropped, retries, last_delivery, error, updated)
    VALUES (?1, ?2, ?3, ?4, ?5, coalesce(?6, 0), ?7, ?8)
    ON CONFLICT (sink) DO UPDATE SET delivered = ?2, refused = ?3, dropped = ?4, retries = ?5,
        last_delivery = coalesce(?6, last_delivery), error = ?7, updated = ?8";
const SET_POSITION: &str = "INSERT INTO sink_cursors (sink, position, updated) VALUES (?1, ?2, ?3)
    ON CONFLICT (sink) DO UPDATE SET position = max(position, ?2), updated = ?3";

/// The hits for one sink, each with the rules that were not delivered yet. A hit that was not sent by a sensor has an
/// empty sensor name, an epoch of zeros and its id in the store as its sequence number.
#[derive(Debug)]
pub struct SqliteFeed {
    path: PathBuf,
    sink: String,
    /// `None` after an error; it is reopened by the next call.
    store: Option<Store>,
    position: i64,
    /// The position after the current batch.
    delivered: Option<i64>,
    /// Hits in the current batch that cannot be decoded; counted when the cursor passes them.
    damaged: u64,
    counters: Arc<Counters>,
    /// [`Counters::replaced`] when the store was opened.
    opened_at: u64,
}

impl SqliteFeed {
    /// Opens the feed of a sink. A new sink starts with the oldest hit.
    ///
    /// # Errors
    ///
    /// The store cannot be opened for writing, which the cursor needs.
    pub fn open(path: &Path, sink: &str, counters: Arc<Counters>) -> Result<Self, StoreError> {
        let mut feed = Self {
            path: path.into(),
            sink: sink.into(),
            store: None,
            position: 0,
            delivered: None,
            damaged: 0,
            opened_at: counters.replaced.get(),
            counters,
        };
        feed.attempt(|store, _| store.connection().execute(BEGIN, [sink]))?;
        Ok(feed)
    }

    /// Runs `action` on the store, which is reopened after an error.
    fn attempt<T>(&mut self, action: impl FnOnce(&Store, i64) -> Result<T, Error>) -> Result<T, StoreError> {
        let replaced = self.counters.replaced.get();
        if replaced != self.opened_at {
            // Ids start again in the new store, so a batch of the old one is not acknowledged there.
            (self.store, self.delivered, self.opened_at) = (None, None, replaced);
        }
        let store = if let Some(store) = self.store.take() {
            store
        } else {
            let store = Store::open(&self.path)?;
            store.connection().execute_batch(SCHEMA).at(&self.path, Action::Open)?;
            self.position = store
                .connection()
                .query_row("SELECT position FROM sink_cursors WHERE sink = ?1", [&self.sink], |row| {
                    row.get(0)
                })
                .optional()
                .at(&self.path, Action::Read)?
                .unwrap_or(0);
            store
        };
        let done = action(&store, self.position).at(&self.path, Action::Read)?;
        self.store = Some(store);
        Ok(done)
    }
}

impl Feed for SqliteFeed {
    fn next(&mut self, limits: BatchLimits, wait: Duration) -> Result<Vec<SinkItem>, FeedError> {
        let deadline = Instant::now() + wait;
        loop {
            let (items, until, damaged) =
                self.attempt(|store, position| batch(store, position, limits)).map_err(failed)?;
            if let Some(until) = until {
                self.delivered = Some(until);
                self.damaged = damaged;
                if !items.is_empty() {
                    return Ok(items);
                }
                self.acknowledge()?;
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Vec::new());
            }
            thread::sleep(left.min(LOOK_TIME));
        }
    }

    fn acknowledge(&mut self) -> Result<(), FeedError> {
        let Some(until) = self.delivered else { return Ok(()) };
        let sink = self.sink.clone();
        let is_replaced = self.counters.replaced.get() != self.opened_at;
        self.attempt(|store, _| {
            if !is_replaced {
                store.connection().prepare_cached(SET_POSITION)?.execute((&sink, until, filetime_now()))?;
            }
            Ok(())
        })
        .map_err(failed)?;
        if !is_replaced {
            self.position = until;
            self.counters.damaged.add(self.damaged);
        }
        self.delivered = None;
        Ok(())
    }

    fn report(&mut self, counts: &SinkCounts) {
        let sink = self.sink.clone();
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let written = self.attempt(|store, _| {
            store.connection().prepare_cached(SET_STATE)?.execute((
                &sink,
                number(counts.delivered),
                number(counts.refused),
                number(counts.dropped),
                number(counts.retries),
                counts.last_delivery.map(number),
                &counts.error,
                number(unix_now()),
            ))
        });
        if let Err(error) = written {
            tracing::debug!(sink, %error, "cannot store the state of the sink");
        }
    }

    fn lag(&mut self) -> Result<Lag, FeedError> {
        let lag = self.attempt(|store, position| {
            let last: i64 = store
                .connection()
                .prepare_cached("SELECT coalesce(max(id), 0) FROM hit_rules")?
                .query_row([], |row| row.get(0))?;
            let oldest: Option<Option<i64>> = store
                .connection()
                .prepare_cached(SELECT_OLDEST)?
                .query_row([position], |row| row.get(0))
                .optional()?;
            let seconds = |ticks: i64| u64::try_from(ticks / 10_000_000 - 11_644_473_600).ok();
            // An upper bound of the pairs of hit and rule: ids of removed pairs are included.
            Ok(Lag {
                hits: u64::try_from(last - position).unwrap_or(0),
                oldest: oldest.flatten().and_then(seconds),
            })
        });
        lag.map_err(failed)
    }
}

fn failed(error: impl std::fmt::Display) -> FeedError {
    FeedError(error.to_string())
}

/// A batch of hits, the position after it (`None` if there are none), and the number of hits that cannot be decoded.
type Found = (Vec<SinkItem>, Option<i64>, u64);

/// Reads the next hits within the limits, but at least one.
fn batch(store: &Store, position: i64, limits: BatchLimits) -> Result<Found, Error> {
    let rows_max = limits.hits.clamp(1, BATCH_HITS_MAX) as i64;
    // One snapshot of the store, so that retention cannot remove hits while they are read.
    let _view = store.connection().unchecked_transaction()?;
    let rows: Vec<(i64, i64)> = store
        .connection()
        .prepare_cached(SELECT_NEXT)?
        .query_map([position, rows_max], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    // The rules of a hit were written together, so their ids are adjacent.
    let (mut items, mut bytes, mut damaged) = (Vec::new(), 0, 0);
    let mut until = None;
    let mut after = position;
    for rules in rows.chunk_by(|left, right| left.1 == right.1) {
        let Some((last, hit_id)) = rules.last().copied() else { continue };
        let (version, event): (i64, Vec<u8>) = store
            .connection()
            .prepare_cached(SELECT_EVENT)?
            .query_row([hit_id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        bytes += event.len();
        if bytes > limits.bytes && !items.is_empty() {
            break;
        }
        match decode(version, Some(&event)) {
            Ok(hit) => {
                let rules = store.rules_between(hit_id, after, last)?;
                let sender = store
                    .connection()
                    .prepare_cached(SELECT_SENDER)?
                    .query_row([hit_id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                    .optional()?;
                let (sensor, epoch, sequence) =
                    sender.unwrap_or_else(|| (String::new(), [0; 16], hit_id.cast_unsigned()));
                let before: u32 = store
                    .connection()
                    .prepare_cached(COUNT_BEFORE)?
                    .query_row((hit_id, after), |row| row.get(0))?;
                items.push(SinkItem {
                    sensor,
                    epoch,
                    sequence,
                    hit: HitV1 { rules, ..hit },
                    rules_before: before as usize,
                });
            }
            Err(detail) => {
                tracing::error!(hit = hit_id, "stored hit is damaged and skipped: {detail}");
                damaged += 1;
            }
        }
        after = last;
        until = Some(last);
    }
    Ok((items, until, damaged))
}

fn filetime_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_nanos() / 100) as i64 + 116_444_736_000_000_000
}
