//! Removing the oldest hits, a few at a time, between batches.

use super::Options;
use super::write::now;
use rusqlite::{Connection, Error, TransactionBehavior};
use std::time::{Duration, Instant};

/// Hits removed in one transaction: some milliseconds of work.
const STEP_HITS: i64 = 128;
/// Time between two looks when nothing was removed.
const CHECK_TIME: Duration = Duration::from_secs(10);
/// Pause between two steps, in which batches are served.
const STEP_TIME: Duration = Duration::from_millis(20);
const TICKS_PER_SECOND: i64 = 10_000_000;

/// The oldest hits by when they came; those that no sensor sent, by the event's time.
const SELECT_OLDEST: &str = "SELECT hits.id,
        coalesce((SELECT max(time) FROM received WHERE hit_id = hits.id), hits.time)
    FROM hits ORDER BY hits.id LIMIT ?1";
const COUNT_UNDELIVERED: &str = "UPDATE sink_cursors SET skipped = skipped + (
    SELECT count(*) FROM hit_rules WHERE hit_id <= ?1 AND hit_rules.id > position)";
const FORGET_EPOCHS: &str = "DELETE FROM streams WHERE last_seen < ?1
    AND NOT EXISTS (SELECT 1 FROM received WHERE stream_id = streams.id)
    AND NOT EXISTS (SELECT 1 FROM gaps WHERE stream_id = streams.id)";

/// When to look next.
#[derive(Debug)]
pub(super) struct Schedule {
    is_on: bool,
    next: Instant,
}

impl Schedule {
    pub(super) fn new(options: &Options) -> Self {
        let is_on = !options.retention_age.is_zero() || options.retention_bytes > 0;
        Self { is_on, next: Instant::now() }
    }

    pub(super) fn is_due(&self) -> bool {
        self.is_on && Instant::now() >= self.next
    }

    /// One step: removes at most [`STEP_HITS`], and returns how many.
    pub(super) fn step(&mut self, connection: &mut Connection, options: &Options) -> Result<u64, Error> {
        // Also after an error: a full disk must not make this a busy loop.
        self.next = Instant::now() + CHECK_TIME;
        let cutoff = if options.retention_age.is_zero() {
            i64::MIN
        } else {
            let ticks = i64::try_from(options.retention_age.as_secs()).unwrap_or(i64::MAX);
            now().saturating_sub(ticks.saturating_mul(TICKS_PER_SECOND))
        };
        let is_too_large = options.retention_bytes > 0 && used_bytes(connection)? > options.retention_bytes;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let oldest: Vec<(i64, i64)> = transaction
            .prepare_cached(SELECT_OLDEST)?
            .query_map([STEP_HITS], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        // In the order of ids, so that what is kept has no holes.
        let expired = oldest.iter().take_while(|(_, time)| is_too_large || *time < cutoff).count();
        let Some((last, _)) = expired.checked_sub(1).and_then(|index| oldest.get(index)) else {
            let gaps = transaction.execute("DELETE FROM gaps WHERE time < ?1", [cutoff])?;
            let streams = transaction.execute(FORGET_EPOCHS, [cutoff])?;
            if gaps + streams > 0 {
                transaction.commit()?;
            }
            return Ok(0);
        };
        transaction.prepare_cached(COUNT_UNDELIVERED)?.execute([last])?;
        transaction.prepare_cached("DELETE FROM received WHERE hit_id <= ?1")?.execute([last])?;
        transaction.prepare_cached("DELETE FROM hit_rules WHERE hit_id <= ?1")?.execute([last])?;
        transaction.prepare_cached("DELETE FROM hits WHERE id <= ?1")?.execute([last])?;
        transaction
            .prepare_cached(
                "INSERT INTO collector (name, value) VALUES ('expired', ?1)
             ON CONFLICT (name) DO UPDATE SET value = value + ?1",
            )?
            .execute([expired as i64])?;
        transaction.commit()?;
        self.next = Instant::now() + STEP_TIME;
        Ok(expired as u64)
    }
}

/// Bytes of the database that hold something.
fn used_bytes(connection: &Connection) -> Result<u64, Error> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, u64>(0));
    Ok(number("page_count")?.saturating_sub(number("freelist_count")?).saturating_mul(number("page_size")?))
}
