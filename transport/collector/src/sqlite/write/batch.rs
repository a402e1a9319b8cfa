//! Writes a batch of hits and gaps in one transaction.
//!
//! The entries of one epoch form a group. An isolated group has a savepoint, and each of its entries another one, so an
//! entry that fails because of its contents is rolled back and reported alone. Savepoints copy every page that is
//! written, so only groups of sensors whose entries failed recently are isolated, and all groups of a batch that
//! failed.

use super::Stream;
use super::isolation::{isolated, refusal_of, would_succeed};
use crate::backend::{Appended, BackendError, EntryError, Id, SEQUENCE_MAX};
use crate::sqlite::prepare::{Prepared, PreparedHit, PreparedItem};
use etwsieve_transport::hit::{EventContent, EventIdentity, HitV1, RuleRefV1, Scope, View};
use etwsieve_transport::store::HitInserter;
use etwsieve_transport::wire::codec;
use etwsieve_transport::wire::message::{GapReason, GapV1};
use rusqlite::{CachedStatement, Error, Transaction};
use std::collections::HashMap;
use std::sync::Arc;

/// Maximum number of rows that are counted to find how much of a gap is stored: the largest window, which is how many
/// of its hits an honest sensor may have sent.
const GAP_ROWS_MAX: u64 = 65_536;
/// Maximum number of other gaps that are compared with a new one.
const GAPS_COMPARED_MAX: i64 = 1000;

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
    ORDER BY first LIMIT ?4";
const UPDATE_STREAM: &str = "UPDATE streams SET highest = max(highest, ?2), last_seen = ?3 WHERE id = ?1";
/// The sum of losses saturates, because SQLite would turn a larger sum into a floating-point number, which the column
/// refuses.
const UPDATE_SENSOR: &str = "UPDATE sensors SET last_seen = ?2, hits = hits + ?3, repeated = repeated + ?4,
    conflicts = conflicts + ?5, lost = min(lost, 9223372036854775807 - ?6) + ?6 WHERE id = ?1";

/// Counts of one sensor's entries.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    hits: u64,
    repeated: u64,
    conflicts: u64,
    gaps: u64,
    lost: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.hits += other.hits;
        self.repeated += other.repeated;
        self.conflicts += other.conflicts;
        self.gaps += other.gaps;
        self.lost = self.lost.saturating_add(other.lost);
    }
}

/// The entries of one epoch, as indices into the batch.
type Group = Vec<usize>;

/// The outcome of an entry: its highest sequence number and its counts.
type Done = (u64, Tally);

/// Writes one batch in a transaction.
pub(super) struct BatchWriter<'t, 's> {
    transaction: &'t Transaction<'t>,
    streams: &'s mut HashMap<(Arc<str>, Id), Stream>,
    appended: Appended,
    /// As FILETIME.
    now: i64,
}

/// Prepared statements for hits.
struct Statements<'t> {
    writer: HitInserter<'t>,
    select: CachedStatement<'t>,
    insert: CachedStatement<'t>,
}

impl<'t, 's> BatchWriter<'t, 's> {
    /// Creates a writer. `streams` are the cached epochs, which must be cleared if the transaction is rolled back.
    pub(super) fn new(
        transaction: &'t Transaction<'t>,
        streams: &'s mut HashMap<(Arc<str>, Id), Stream>,
        now: i64,
    ) -> Self {
        Self { transaction, streams, appended: Appended::default(), now }
    }

    /// Writes the batch; nothing is durable before the transaction is committed. Sensors for which `is_isolated`
    /// returns true are isolated: an entry of theirs that cannot be stored is reported in the outcome and does not
    /// affect others.
    ///
    /// # Errors
    ///
    /// The store failed, or an entry of a sensor that is not isolated cannot be stored. In the latter case, roll back
    /// and write the batch again with all sensors isolated.
    pub(super) fn append(
        mut self,
        batch: &[Prepared],
        is_isolated: impl Fn(&Arc<str>) -> bool,
    ) -> Result<Appended, Error> {
        let transaction = self.transaction;
        let mut statements = Statements {
            writer: HitInserter::new(transaction)?,
            select: transaction.prepare_cached(SELECT_RECEIVED)?,
            insert: transaction.prepare_cached(INSERT_RECEIVED)?,
        };
        for group in groups(batch) {
            let Some(first) = group.first().and_then(|index| batch.get(*index)) else { continue };
            if !is_isolated(&first.sensor) {
                self.group(batch, &group, &mut statements, false)?;
                continue;
            }
            let written = isolated(transaction, || self.group(batch, &group, &mut statements, true))?;
            if let Err(error) = written {
                // The failure concerns the sensor's own rows, so all of its entries must be sent again.
                self.streams.remove(&(Arc::clone(&first.sensor), first.epoch));
                let failed = EntryError::Failed(BackendError::Failed(error.to_string()));
                self.appended.errors.extend(group.iter().map(|index| (*index, failed.clone())));
            }
        }
        self.appended.errors.sort_by_key(|(index, _)| *index);
        Ok(self.appended)
    }

    fn group(
        &mut self,
        batch: &[Prepared],
        group: &Group,
        statements: &mut Statements<'_>,
        is_isolated: bool,
    ) -> Result<(), Error> {
        let Some(first) = group.first().and_then(|index| batch.get(*index)) else { return Ok(()) };
        let mut stream = self.stream(&first.sensor, first.epoch)?;
        let (mut tally, mut errors) = (Tally::default(), Vec::new());
        for (index, entry) in group.iter().filter_map(|index| Some((*index, batch.get(*index)?))) {
            let done = if is_isolated {
                isolated(self.transaction, || self.entry(stream, &entry.item, statements))?
            } else {
                Ok(self.entry(stream, &entry.item, statements)?)
            };
            let refused = match (&done, &entry.item) {
                (Err(error), _) => Some(refusal_of(error)),
                (Ok(_), PreparedItem::Refused(_, refusal)) => Some(refusal.clone()),
                (Ok(_), _) => None,
            };
            let (highest, counted) = match done {
                Ok(done) => done,
                // If the store accepts no hits at all, sensors must not discard theirs.
                Err(error) if !self.takes_hits(stream, statements)? => return Err(error),
                Err(_) => self.record_refusal(stream, &entry.item)?,
            };
            stream.highest = stream.highest.max(highest);
            tally.add(counted);
            errors.extend(refused.map(|refusal| (index, EntryError::Refused(refusal))));
        }
        self.transaction.prepare_cached(UPDATE_STREAM)?.execute((stream.id, stream.highest, self.now))?;
        let Tally { hits, repeated, conflicts, gaps, lost } = tally;
        self.transaction.prepare_cached(UPDATE_SENSOR)?.execute((
            stream.sensor_id,
            self.now,
            hits,
            repeated,
            conflicts,
            lost,
        ))?;
        self.streams.insert((Arc::clone(&first.sensor), first.epoch), stream);
        self.appended.new += hits;
        self.appended.repeated += repeated;
        self.appended.conflicts += conflicts;
        self.appended.gaps += gaps;
        self.appended.lost = self.appended.lost.saturating_add(lost);
        self.appended.errors.extend(errors);
        Ok(())
    }

    fn entry(
        &self,
        stream: Stream,
        item: &PreparedItem,
        statements: &mut Statements<'_>,
    ) -> Result<Done, Error> {
        match item {
            PreparedItem::Hit(hit) => self.hit(stream, hit, statements),
            PreparedItem::Gap(gap) => self.gap(stream, gap),
            PreparedItem::Refused(sequence, _) => self.gap(stream, &refused_gap(*sequence)),
        }
    }

    /// Returns whether the store accepts an ordinary hit, which is rolled back.
    fn takes_hits(&self, stream: Stream, statements: &mut Statements<'_>) -> Result<bool, Error> {
        let hit = ordinary_hit();
        let Ok(event) = codec::encode_event(&hit) else { return Ok(false) };
        let hash = [0xFF; 32];
        would_succeed(self.transaction, || {
            let (hit_id, _) = statements.writer.insert(&hit, &event, EventIdentity::default())?;
            statements.insert.execute((stream.id, SEQUENCE_MAX, hash, hit_id, self.now))
        })
    }

    /// Records a refused hit as a gap. If the store refuses that as well, only the log and the sensor's count show it.
    fn record_refusal(&self, stream: Stream, item: &PreparedItem) -> Result<Done, Error> {
        let sequence = match item {
            PreparedItem::Hit(hit) => hit.sequence,
            PreparedItem::Refused(sequence, _) => *sequence,
            PreparedItem::Gap(_) => return Ok((0, Tally::default())),
        };
        let recorded = isolated(self.transaction, || self.gap(stream, &refused_gap(sequence)))?;
        Ok(recorded.unwrap_or_default())
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
        Ok(Stream { id, sensor_id, highest })
    }

    fn hit(
        &self,
        stream: Stream,
        prepared: &PreparedHit,
        statements: &mut Statements<'_>,
    ) -> Result<Done, Error> {
        let Statements { writer, select, insert } = statements;
        let (mut is_known, mut is_other) = (false, false);
        // No sequence number above the highest one is stored.
        if prepared.sequence <= stream.highest {
            let mut rows = select.query((stream.id, prepared.sequence, prepared.hash))?;
            while let Some(row) = rows.next()? {
                if row.get(0)? { is_known = true } else { is_other = true }
            }
        }
        if is_known {
            return Ok((prepared.sequence, Tally { repeated: 1, ..Tally::default() }));
        }
        let (hit_id, _) = writer.insert(&prepared.hit, &prepared.event, prepared.identity)?;
        insert.execute((stream.id, prepared.sequence, prepared.hash, hit_id, self.now))?;
        let tally = if is_other {
            Tally { conflicts: 1, ..Tally::default() }
        } else {
            Tally { hits: 1, ..Tally::default() }
        };
        Ok((prepared.sequence, tally))
    }

    fn gap(&self, stream: Stream, gap: &GapV1) -> Result<Done, Error> {
        let reason = gap.reason.as_str();
        let is_known: bool = self
            .transaction
            .prepare_cached(HAS_GAP)?
            .query_row((stream.id, gap.from, gap.to, gap.count, reason), |row| row.get(0))?;
        if is_known {
            return Ok((gap.to, Tally { repeated: 1, ..Tally::default() }));
        }
        // Count the sequence numbers that are neither stored nor part of another gap, range by range between the other
        // gaps.
        let mut gaps = self.transaction.prepare_cached(SELECT_GAPS)?;
        let others = gaps
            .query_map((stream.id, gap.from, gap.to, GAPS_COMPARED_MAX), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect::<Result<Vec<(u64, u64)>, _>>()?;
        let mut count = self.transaction.prepare_cached(COUNT_STORED)?;
        let (mut open, mut next, mut rows_left) = (0_u64, gap.from, GAP_ROWS_MAX);
        for (first, last) in others.into_iter().chain([(gap.to + 1, gap.to + 1)]) {
            if first > next {
                let stored: u64 =
                    count.query_row((stream.id, next, first - 1, rows_left), |row| row.get(0))?;
                rows_left = rows_left.saturating_sub(stored);
                open += (first - next).saturating_sub(stored);
            }
            next = next.max(last.saturating_add(1));
        }
        let lost = gap.count.min(open);
        self.transaction
            .prepare_cached(INSERT_GAP)?
            .execute((stream.id, gap.from, gap.to, gap.count, reason, lost, self.now))?;
        Ok((gap.to, Tally { gaps: 1, lost, ..Tally::default() }))
    }
}

fn ordinary_hit() -> HitV1 {
    HitV1 {
        time: 0,
        source: String::new(),
        source_sequence: 0,
        provider: [0; 16],
        event_id: 0,
        version: 0,
        channel: 0,
        level: 0,
        opcode: 0,
        task: 0,
        keywords: 0,
        computer: None,
        user_sid: None,
        process_id: None,
        thread_id: None,
        activity_id: None,
        event_record_id: None,
        scope: Scope::Event,
        view: View::Raw,
        partial: false,
        content: EventContent::Notice { detail: String::new() },
        cut: None,
        rules: vec![RuleRefV1::default()],
    }
}

fn refused_gap(sequence: u64) -> GapV1 {
    GapV1 { from: sequence, to: sequence, count: 1, reason: GapReason::Refused }
}

/// Groups the entries by epoch and keeps their order.
fn groups(batch: &[Prepared]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut known: HashMap<(&str, Id), usize> = HashMap::new();
    for (index, entry) in batch.iter().enumerate() {
        let at = *known.entry((&entry.sensor, entry.epoch)).or_insert_with(|| {
            groups.push(Group::new());
            groups.len() - 1
        });
        groups[at].push(index);
    }
    groups
}
