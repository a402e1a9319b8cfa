//! One batch of hits, gaps and reports of sensors, written in one transaction.

use super::Stream;
use crate::collector::backend::{Appended, Id};
use crate::collector::sqlite::prepare::{Prepared, PreparedHit, PreparedItem};
use crate::store::Writer;
use crate::wire::message::{GapV1, StatusV1};
use rusqlite::{Error, Transaction};
use std::collections::HashMap;
use std::sync::Arc;

/// Most rows that are counted to find what of a gap is stored.
const GAP_ROWS_MAX: i64 = 100_000;

const FIND_SENSOR: &str = "INSERT INTO sensors (name, first_seen, last_seen) VALUES (?1, ?2, ?2)
    ON CONFLICT (name) DO UPDATE SET last_seen = ?2 RETURNING id";
const FIND_STREAM: &str = "INSERT INTO streams (sensor_id, epoch, first_seen, last_seen, highest)
    VALUES (?1, ?2, ?3, ?3, 0)
    ON CONFLICT (sensor_id, epoch) DO UPDATE SET last_seen = ?3 RETURNING id, highest";
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

/// What a batch did for one sensor.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    hits: u64,
    repeated: u64,
    conflicts: u64,
    lost: u64,
}

/// One batch in its transaction.
pub(super) struct Batch<'t, 's> {
    transaction: &'t Transaction<'t>,
    streams: &'s mut HashMap<(Arc<str>, Id), Stream>,
    tallies: HashMap<i64, Tally>,
    /// Of each sensor the last STATUS.
    statuses: HashMap<i64, StatusV1>,
    appended: Appended,
    /// As FILETIME.
    now: i64,
}

impl<'t, 's> Batch<'t, 's> {
    /// `streams`: what is known of epochs; it learns of others.
    pub(super) fn new(
        transaction: &'t Transaction<'t>,
        streams: &'s mut HashMap<(Arc<str>, Id), Stream>,
        now: i64,
    ) -> Self {
        let (tallies, statuses) = (HashMap::new(), HashMap::new());
        Self { transaction, streams, tallies, statuses, appended: Appended::default(), now }
    }

    /// Writes it; nothing is durable before the transaction is committed.
    pub(super) fn append(mut self, batch: &[Prepared]) -> Result<Appended, Error> {
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
        let (hit_id, _) = writer.insert(&prepared.hit, &prepared.event, prepared.identity)?;
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
