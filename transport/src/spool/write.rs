//! Writing: what has come since the last time, what was acknowledged, and what a full spool gives up, in one transaction.

use super::db::{Totals, key};
use super::tail::Body;
use super::{Keep, Spool, SpoolError, is_damage};
use crate::wire::message::GapReason;

impl Spool {
    /// Writes what has been taken, and forgets what was acknowledged; durable when it returns.
    ///
    /// What does not fit is given up, as [`Keep`] says, and counted. `now_ms` is the time in milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// The disk or the system: everything stays as it was, is kept in memory up to
    /// [`TAIL_BYTES_MAX`](super::TAIL_BYTES_MAX), and is written with the next call that succeeds. Damage is repaired
    /// here and is no error.
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
            self.counts.dropped[GapReason::SpoolFull as usize] += self.tail.limit(self.handed);
            self.failed(error)
        })
    }

    fn write(&mut self, now_ms: u64) -> Result<(), rusqlite::Error> {
        if self.db.is_none() {
            self.reopen()?;
        }
        let Some(db) = &mut self.db else { return Ok(()) };
        let (epochs, tail, settings, handed) = (&self.epochs, &self.tail, &self.settings, self.handed);
        let present = epochs.back().map(|epoch| epoch.id);
        let mut totals = self.totals;
        let given_up = db.write(|writer| {
            for epoch in epochs {
                let is_over = epoch.acked >= epoch.last && Some(epoch.id) != present;
                if epoch.acked > epoch.acked_stored {
                    writer.forget(epoch.id, epoch.acked, &mut totals)?;
                }
                if is_over {
                    writer.forget_epoch(epoch.id)?;
                } else if epoch.acked > epoch.acked_stored || !epoch.is_stored && epoch.last > 0 {
                    writer.set_epoch(epoch.id, &epoch.epoch, epoch.acked)?;
                }
            }
            let mut given_up = 0;
            // Of the hits to come.
            let mut cost: u64 =
                tail.rows().iter().filter(|row| row.is_hit()).map(super::tail::Row::cost).sum();
            if settings.keep == Keep::Newest {
                let over = (totals.bytes + cost).saturating_sub(settings.bytes_max);
                if over > 0 {
                    given_up += writer.evict(handed, over, now_ms, &mut totals)?;
                }
            }
            for row in tail.rows() {
                let range = (row.first, row.last);
                match &row.body {
                    Body::Gap(reason) => writer.add_gap(row.id, range, *reason, row.time, &mut totals)?,
                    Body::Hit(frame) => {
                        // What those that are kept rather than this one need.
                        let others = if settings.keep == Keep::Newest { cost - row.cost() } else { 0 };
                        cost -= row.cost();
                        let fits = totals.bytes + others + row.cost() <= settings.bytes_max;
                        if fits || row.last_key() <= handed {
                            writer.add_hit(key(row.id, row.first), row.time, frame, &mut totals)?;
                        } else {
                            given_up += 1;
                            writer.add_gap(row.id, range, GapReason::SpoolFull, row.time, &mut totals)?;
                        }
                    }
                }
            }
            Ok(given_up)
        })?;
        db.shrink();
        self.wrote(totals, given_up);
        Ok(())
    }

    fn wrote(&mut self, totals: Totals, given_up: u64) {
        self.totals = totals;
        self.counts.dropped[GapReason::SpoolFull as usize] += given_up;
        self.tail.clear();
        for epoch in &mut self.epochs {
            epoch.acked_stored = epoch.acked;
            epoch.is_stored |= epoch.last > 0;
        }
        let present = self.epochs.back().map(|epoch| epoch.id);
        self.epochs.retain(|epoch| epoch.acked < epoch.last || Some(epoch.id) == present);
    }
}
