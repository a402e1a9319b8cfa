//! Changes to a spool within a transaction.

use super::{ROW_LEN, Totals, key, split_key};
use crate::wire::message::GapReason;
use rusqlite::{Error, OptionalExtension, Transaction};

/// With more gap rows than this, neighbouring gaps are merged even if their reasons differ.
const GAP_ROWS_MAX: u64 = 4096;

/// An open transaction.
pub(in crate::spool) struct SpoolWriter<'c> {
    pub(super) transaction: Transaction<'c>,
}

impl SpoolWriter<'_> {
    pub(in crate::spool) fn set_instance(&self, instance: &[u8; 16]) -> Result<(), Error> {
        let sql = "INSERT OR REPLACE INTO meta (name, value) VALUES ('instance', ?1)";
        self.transaction.execute(sql, [instance]).map(drop)
    }

    pub(in crate::spool) fn set_epoch(&self, id: u32, epoch: &[u8; 16], acked: u64) -> Result<(), Error> {
        let sql = "INSERT OR REPLACE INTO epochs (id, epoch, acked) VALUES (?1, ?2, ?3)";
        self.transaction.prepare_cached(sql)?.execute((id, epoch, acked)).map(drop)
    }

    pub(in crate::spool) fn forget_epoch(&self, id: u32) -> Result<(), Error> {
        self.transaction.execute("DELETE FROM epochs WHERE id = ?1", [id]).map(drop)
    }

    pub(in crate::spool) fn add_hit(
        &self,
        key: i64,
        time: u64,
        frame: &[u8],
        totals: &mut Totals,
    ) -> Result<(), Error> {
        let last = split_key(key).1;
        self.insert(key, last, None, time, Some(frame))?;
        totals.hits += 1;
        totals.bytes += frame.len() as u64 + ROW_LEN;
        Ok(())
    }

    /// Adds a gap. Extends the preceding gap if that has the same reason.
    pub(in crate::spool) fn add_gap(
        &self,
        id: u32,
        (first, last): (u64, u64),
        reason: GapReason,
        time: u64,
        totals: &mut Totals,
    ) -> Result<(), Error> {
        let sql = "SELECT key, last, reason, time FROM frames WHERE key BETWEEN ?1 AND ?2 ORDER BY key DESC LIMIT 1";
        let before: Option<(i64, u64, Option<u32>, u64)> = self
            .transaction
            .prepare_cached(sql)?
            .query_row((key(id, 0), key(id, first)), |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })
            .optional()?;
        if let Some((before, before_last, Some(before_reason), before_time)) = before
            && before_last.saturating_add(1) >= first
            && (before_reason == reason as u32 || totals.gaps >= GAP_ROWS_MAX)
        {
            let sql = "UPDATE frames SET last = max(last, ?2), time = ?3 WHERE key = ?1";
            return self.transaction.prepare_cached(sql)?.execute((before, last, before_time)).map(drop);
        }
        self.insert(key(id, first), last, Some(reason), time, None)?;
        totals.gaps += 1;
        totals.bytes += ROW_LEN;
        Ok(())
    }

    /// Deletes all rows of an epoch up to and including a number.
    pub(in crate::spool) fn forget(&self, id: u32, through: u64, totals: &mut Totals) -> Result<(), Error> {
        let straddling = "SELECT key, last, reason, time FROM frames
            WHERE key BETWEEN ?1 AND ?2 AND last > ?3 AND reason IS NOT NULL ORDER BY key DESC LIMIT 1";
        let range = (key(id, 0), key(id, through));
        let rest: Option<(i64, u64, usize, u64)> = self
            .transaction
            .prepare_cached(straddling)?
            .query_row((range.0, range.1, through), |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })
            .optional()?;
        self.delete(range.0, range.1, totals)?;
        if let Some((_, last, reason, time)) = rest {
            let reason = GapReason::ALL.get(reason).copied().unwrap_or(GapReason::SpoolDamaged);
            self.insert(key(id, through + 1), last, Some(reason), time, None)?;
            totals.gaps += 1;
            totals.bytes += ROW_LEN;
        }
        Ok(())
    }

    /// Evicts the oldest hits above `protected` until `bytes` are free, and returns their number.
    pub(in crate::spool) fn evict(
        &self,
        protected: i64,
        bytes: u64,
        time: u64,
        totals: &mut Totals,
    ) -> Result<u64, Error> {
        let sql = "SELECT key, length(frame) FROM frames WHERE key > ?1 AND reason IS NULL ORDER BY key";
        // Ranges of neighbouring rows: first key, last key.
        let (mut runs, mut freed, mut hits) = (Vec::<(i64, i64)>::new(), 0, 0);
        {
            let mut statement = self.transaction.prepare_cached(sql)?;
            let mut rows = statement.query([protected])?;
            while freed < bytes
                && let Some(row) = rows.next()?
            {
                let key: i64 = row.get(0)?;
                freed += row.get::<_, u64>(1)? + ROW_LEN;
                hits += 1;
                match runs.last_mut() {
                    Some((_, last)) if *last + 1 == key => *last = key,
                    _ => runs.push((key, key)),
                }
            }
        }
        for (first, last) in runs {
            self.delete(first, last, totals)?;
            let ((id, first), (_, last)) = (split_key(first), split_key(last));
            self.add_gap(id, (first, last), GapReason::SpoolFull, time, totals)?;
        }
        Ok(hits)
    }

    /// Replaces the rows of these numbers by a gap.
    pub(in crate::spool) fn replace_by_gap(
        &self,
        id: u32,
        (first, last): (u64, u64),
        reason: GapReason,
        time: u64,
        totals: &mut Totals,
    ) -> Result<(), Error> {
        self.delete(key(id, first), key(id, last), totals)?;
        self.add_gap(id, (first, last), reason, time, totals)
    }

    /// Deletes the rows with keys `from` to `to`.
    fn delete(&self, from: i64, to: i64, totals: &mut Totals) -> Result<(), Error> {
        let sql = "SELECT count(*) FILTER (WHERE reason IS NULL), count(*) FILTER (WHERE reason IS NOT NULL),
                coalesce(sum(coalesce(length(frame), 0) + ?3), 0) FROM frames WHERE key BETWEEN ?1 AND ?2";
        let gone: Totals = self.transaction.prepare_cached(sql)?.query_row((from, to, ROW_LEN), |row| {
            Ok(Totals { hits: row.get(0)?, gaps: row.get(1)?, bytes: row.get(2)? })
        })?;
        let sql = "DELETE FROM frames WHERE key BETWEEN ?1 AND ?2";
        self.transaction.prepare_cached(sql)?.execute((from, to))?;
        totals.hits = totals.hits.saturating_sub(gone.hits);
        totals.gaps = totals.gaps.saturating_sub(gone.gaps);
        totals.bytes = totals.bytes.saturating_sub(gone.bytes);
        Ok(())
    }

    fn insert(
        &self,
        key: i64,
        last: u64,
        reason: Option<GapReason>,
        time: u64,
        frame: Option<&[u8]>,
    ) -> Result<(), Error> {
        // Replaces a row that is written again after a commit that failed half-way.
        let sql =
            "INSERT OR REPLACE INTO frames (key, last, reason, time, frame) VALUES (?1, ?2, ?3, ?4, ?5)";
        let reason = reason.map(|reason| reason as u32);
        self.transaction.prepare_cached(sql)?.execute((key, last, reason, time, frame)).map(drop)
    }
}
