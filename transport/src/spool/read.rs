//! Reading frames in the order of sending, and recording acknowledgements.
//!
//! Every number is sent. If its row is missing or damaged, the number becomes part of a gap.

use super::db::{RowRef, key};
use super::tail::Body;
use super::{Epoch, Front, Spool, SpoolError};
use crate::wire::encode_message;
use crate::wire::frame::{FrameType, split_frame};
use crate::wire::message::{GapReason, GapV1};
use std::ops::ControlFlow;

/// Limits of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimits {
    /// Maximum number of frames.
    pub frames: usize,
    /// No frame is added once this size is reached, in bytes.
    pub bytes: usize,
}

/// Collects frames for sending.
struct Frames<'a> {
    out: &'a mut Vec<u8>,
    lasts: &'a mut Vec<u64>,
    start: usize,
    first: usize,
    limits: ReadLimits,
    /// The next number to send.
    next: u64,
    /// Ranges of numbers without a valid row.
    missing: Vec<(u64, u64)>,
}

impl Frames<'_> {
    fn is_full(&self) -> bool {
        self.lasts.len() - self.first >= self.limits.frames
            || self.out.len() - self.start >= self.limits.bytes
    }

    fn hit(&mut self, sequence: u64, frame: &[u8]) {
        self.out.extend_from_slice(frame);
        self.lasts.push(sequence);
        self.next = sequence + 1;
    }

    fn gap(&mut self, last: u64, reason: GapReason) {
        let from = self.next;
        let gap = GapV1 { from, to: last, count: last - from + 1, reason };
        // Cannot fail, because the numbers ascend.
        if encode_message(&gap, self.out).is_ok() {
            self.lasts.push(last);
            self.next = last + 1;
        }
    }

    /// Adds a gap for the missing numbers before `first`.
    fn missing_before(&mut self, first: u64) {
        if first > self.next {
            self.missing.push((self.next, first - 1));
            self.gap(first - 1, GapReason::SpoolDamaged);
        }
    }

    fn row(&mut self, row: RowRef<'_>, last_known: u64) -> ControlFlow<()> {
        let first = row.first();
        if row.last < self.next || row.last < first || row.last > last_known {
            // The row is invalid. The numbers that it should contain are treated as missing.
            return ControlFlow::Continue(());
        }
        self.missing_before(first);
        if self.is_full() {
            return ControlFlow::Break(());
        }
        match (row.reason, row.frame) {
            (Some(reason), _) => self.gap(row.last, reason),
            (None, Some(frame)) if row.last == first && is_data(frame, first) => self.hit(first, frame),
            _ => self.missing_before(first + 1),
        }
        if self.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Returns true if the bytes are the DATA frame with this number. The receiver validates the hit.
pub(super) fn is_data(frame: &[u8], sequence: u64) -> bool {
    matches!(split_frame(frame), Ok(Some(split)) if split.frame_type == FrameType::Data
        && split.rest.is_empty()
        && split.payload.starts_with(&sequence.to_le_bytes()))
}

impl Spool {
    /// Returns the oldest epoch that is not completely acknowledged, or the current one if there is none.
    pub fn front(&self) -> Front {
        let front = self.epochs.iter().find(|epoch| epoch.acked < epoch.last).copied();
        let Epoch { epoch, acked, .. } = front.unwrap_or_else(|| self.current_epoch());
        Front { epoch, first_unacknowledged: acked + 1 }
    }

    /// Records that a connection has ended and nothing is in flight any more.
    pub fn rewind(&mut self) {
        self.read_through = 0;
    }

    /// Appends frames of an epoch to `out`, starting at number `first`, and the last number of each frame to `lasts`.
    /// The frames stay in the spool, and from now on they are not evicted.
    ///
    /// # Errors
    ///
    /// `out` and `lasts` are unchanged then. After [`SpoolError::Repaired`] start again at the [`front`](Self::front).
    pub fn read(
        &mut self,
        epoch: &[u8; 16],
        first: u64,
        limits: ReadLimits,
        now_ms: u64,
        out: &mut Vec<u8>,
        lasts: &mut Vec<u64>,
    ) -> Result<(), SpoolError> {
        let Some(epoch) = self.epochs.iter().find(|known| known.epoch == *epoch).copied() else {
            return Ok(());
        };
        let before = (out.len(), lasts.len());
        let mut frames =
            Frames { start: before.0, first: before.1, out, lasts, limits, next: first, missing: Vec::new() };
        let mut result = Ok(());
        if let Some(db) = &self.db {
            let in_memory = self.tail.rows().iter().find(|row| row.id == epoch.id).map(|row| row.first - 1);
            let known = in_memory.unwrap_or(epoch.last);
            result = db
                .start_for(epoch.id, first)
                .and_then(|start| db.rows(start, key(epoch.id, known), true, |row| frames.row(row, known)));
            if result.is_ok() && !frames.is_full() {
                frames.missing_before(known + 1);
            }
        }
        if result.is_ok() && self.is_stuck {
            for row in self.tail.rows().iter().filter(|row| row.id == epoch.id) {
                if frames.is_full() {
                    break;
                }
                match &row.body {
                    _ if row.last < frames.next => {}
                    Body::Hit(frame) => frames.hit(row.first, frame),
                    Body::Gap(reason) => frames.gap(row.last, *reason),
                }
            }
        }
        let (missing, next) = (std::mem::take(&mut frames.missing), frames.next);
        if result.is_ok() && !missing.is_empty() {
            result = self.replace_missing(epoch.id, &missing, now_ms);
        }
        if let Err(error) = result {
            out.truncate(before.0);
            lasts.truncate(before.1);
            return Err(self.after(error, now_ms));
        }
        if next > first {
            self.read_through = self.read_through.max(key(epoch.id, next - 1));
        }
        Ok(())
    }

    /// Records that the numbers of an epoch up to `through` are acknowledged. Returns how many of them are new. The
    /// next [`flush`](Self::flush) deletes them.
    pub fn acknowledge(&mut self, epoch: &[u8; 16], through: u64) -> u64 {
        let Some(epoch) = self.epochs.iter_mut().find(|known| known.epoch == *epoch) else { return 0 };
        let through = through.min(epoch.last);
        let new = through.saturating_sub(epoch.acked);
        epoch.acked += new;
        self.tail.forget(epoch.id, through);
        self.refused.forget(epoch.id, through);
        self.counts.acknowledged += new;
        new
    }

    /// Permanently replaces ranges without a valid row by gaps.
    fn replace_missing(
        &mut self,
        id: u32,
        missing: &[(u64, u64)],
        now_ms: u64,
    ) -> Result<(), rusqlite::Error> {
        let Some(db) = &mut self.db else { return Ok(()) };
        let mut totals = self.totals;
        db.write(|writer| {
            missing.iter().try_for_each(|range| {
                writer.replace_by_gap(id, *range, GapReason::SpoolDamaged, now_ms, &mut totals)
            })
        })?;
        self.totals = totals;
        let lost: u64 = missing.iter().map(|(first, last)| last - first + 1).sum();
        self.counts.dropped[GapReason::SpoolDamaged as usize] += lost;
        tracing::error!(lost, "hits in the spool {} are damaged and lost", self.path().display());
        Ok(())
    }
}
