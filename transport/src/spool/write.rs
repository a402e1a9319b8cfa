//! Writing: new rows, deletions after acknowledgements, and evictions from a full spool, in one transaction.

use super::db::{Totals, key};
use super::tail::Body;
use super::{Keep, Spool, SpoolError, is_damage};
use crate::wire::message::GapReason;

impl Spool {
    /// Writes new hits and deletes acknowledged ones. The changes are durable on return.
    ///
    /// Hits that do not fit are dropped according to [`Keep`], and counted. `now_ms` is the time in milliseconds since
    /// 1970.
    ///
    /// # Errors
    ///
    /// Errors of the disk or the system. The file is unchanged then. New hits stay in memory, up to
    /// [`TAIL_BYTES_MAX`](super::TAIL_BYTES_MAX), and the next successful call writes them. Damage is repaired and is
    /// not an error.
    pub fn flush(&mut self, now_ms: u64) -> Result<(), SpoolError> {
        if !self.has_unwritten() {
            return Ok(());
        }
        let mut result = self.write(now_ms);
        if let Err(error) = &result
            && is_damage(error)
        {
            tracing::error!("the spool {} is damaged: {error}", self.path().display());
            self.repair(now_ms);
            result = self.write(now_ms);
        }
        self.is_stuck = result.is_err();
        result.map_err(|error| {
            self.counts.write_failures += 1;
            if let Some(db) = &self.db {
                db.checkpoint();
            }
            self.counts.dropped[GapReason::SpoolFull as usize] += self.tail.limit(self.read_through);
            self.failed(error)
        })
    }

    fn write(&mut self, now_ms: u64) -> Result<(), rusqlite::Error> {
        if self.db.is_none() {
            self.reopen()?;
        }
        let Some(db) = &mut self.db else { return Ok(()) };
        let (epochs, tail, settings, read_through) =
            (&self.epochs, &self.tail, &self.settings, self.read_through);
        let current = epochs.back().map(|epoch| epoch.id);
        let mut totals = self.totals;
        let dropped = db.write(|writer| {
            for epoch in epochs {
                let is_over = epoch.acked >= epoch.last && Some(epoch.id) != current;
                if epoch.acked > epoch.acked_stored {
                    writer.forget(epoch.id, epoch.acked, &mut totals)?;
                }
                if is_over {
                    writer.forget_epoch(epoch.id)?;
                } else if epoch.acked > epoch.acked_stored || !epoch.is_stored && epoch.last > 0 {
                    writer.set_epoch(epoch.id, &epoch.epoch, epoch.acked)?;
                }
            }
            let mut dropped = 0;
            // Size of the hits that are still to be written.
            let mut cost: u64 =
                tail.rows().iter().filter(|row| row.is_hit()).map(super::tail::Row::cost).sum();
            if settings.keep == Keep::Newest {
                let over = (totals.bytes + cost).saturating_sub(settings.bytes_max);
                if over > 0 {
                    dropped += writer.evict(read_through, over, now_ms, &mut totals)?;
                }
            }
            for row in tail.rows() {
                let range = (row.first, row.last);
                match &row.body {
                    Body::Gap(reason) => writer.add_gap(row.id, range, *reason, row.time, &mut totals)?,
                    Body::Hit(frame) => {
                        // With [`Keep::Newest`] the later hits have precedence.
                        let others = if settings.keep == Keep::Newest { cost - row.cost() } else { 0 };
                        cost -= row.cost();
                        let fits = totals.bytes + others + row.cost() <= settings.bytes_max;
                        if fits || row.last_key() <= read_through {
                            writer.add_hit(key(row.id, row.first), row.time, frame, &mut totals)?;
                        } else {
                            dropped += 1;
                            writer.add_gap(row.id, range, GapReason::SpoolFull, row.time, &mut totals)?;
                        }
                    }
                }
            }
            Ok(dropped)
        })?;
        db.shrink();
        self.wrote(totals, dropped);
        Ok(())
    }

    fn wrote(&mut self, totals: Totals, dropped: u64) {
        self.totals = totals;
        self.counts.dropped[GapReason::SpoolFull as usize] += dropped;
        self.tail.clear();
        for epoch in &mut self.epochs {
            epoch.acked_stored = epoch.acked;
            epoch.is_stored |= epoch.last > 0;
        }
        let current = self.epochs.back().map(|epoch| epoch.id);
        self.epochs.retain(|epoch| epoch.acked < epoch.last || Some(epoch.id) == current);
    }
}
