//! The rows that are not on disk yet. Normally these are the hits of the next transaction.

use super::db::{ROW_LEN, key};
use crate::wire::frame::{FrameType, encode_frame};
use crate::wire::message::GapReason;
use std::collections::VecDeque;

/// Maximum size of the rows in memory while the disk cannot be written, in bytes. Beyond it the oldest hits are
/// dropped.
pub const TAIL_BYTES_MAX: u64 = 8 << 20;
/// With more rows than this in memory, neighbouring gaps are merged even if their reasons differ.
const TAIL_GAPS_MAX: usize = 256;

/// A hit or a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: u32,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) time: u64,
    pub(super) body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// The complete DATA frame.
    Hit(Vec<u8>),
    Gap(GapReason),
}

impl Row {
    /// Returns the size of the row, in bytes.
    pub(super) fn cost(&self) -> u64 {
        match &self.body {
            Body::Hit(frame) => frame.len() as u64 + ROW_LEN,
            Body::Gap(_) => ROW_LEN,
        }
    }

    pub(super) fn is_hit(&self) -> bool {
        matches!(self.body, Body::Hit(_))
    }

    /// Returns the key of the last number.
    pub(super) fn last_key(&self) -> i64 {
        key(self.id, self.last)
    }
}

/// Rows in the order of their numbers.
#[derive(Debug, Default)]
pub(super) struct Tail {
    rows: VecDeque<Row>,
    hits: u64,
    bytes: u64,
}

impl Tail {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn rows(&self) -> &VecDeque<Row> {
        &self.rows
    }

    pub(super) fn hits(&self) -> u64 {
        self.hits
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn oldest_ms(&self) -> Option<u64> {
        self.rows.front().map(|row| row.time)
    }

    /// Adds an encoded hit. A hit that is too long for a frame becomes a gap.
    pub(super) fn push_hit(
        &mut self,
        id: u32,
        sequence: u64,
        hit: &[u8],
        time: u64,
        dropped: &mut [u64; GapReason::ALL.len()],
    ) {
        // A `DataV1` is the number followed by the hit (docs/wire.md).
        let mut payload = Vec::with_capacity(size_of::<u64>() + hit.len());
        payload.extend_from_slice(&sequence.to_le_bytes());
        payload.extend_from_slice(hit);
        let mut frame = Vec::new();
        if encode_frame(FrameType::Data, &payload, &mut frame).is_err() {
            dropped[GapReason::TooLong as usize] += 1;
            return self.push_gap(id, (sequence, sequence), GapReason::TooLong, time);
        }
        self.push(Row { id, first: sequence, last: sequence, time, body: Body::Hit(frame) });
    }

    pub(super) fn push_gap(&mut self, id: u32, (first, last): (u64, u64), reason: GapReason, time: u64) {
        let many = self.rows.len() > TAIL_GAPS_MAX;
        if let Some(Row { id: before, last: end, body: Body::Gap(known), .. }) = self.rows.back_mut()
            && *before == id
            && *end + 1 == first
            && (*known == reason || many)
        {
            *end = last;
            return;
        }
        self.push(Row { id, first, last, time, body: Body::Gap(reason) });
    }

    fn push(&mut self, row: Row) {
        self.hits += u64::from(row.is_hit());
        self.bytes += row.cost();
        self.rows.push_back(row);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Removes all rows of an epoch up to and including a number.
    pub(super) fn forget(&mut self, id: u32, through: u64) {
        while let Some(row) = self.rows.front_mut()
            && row.id == id
            && row.first <= through
        {
            if row.last > through {
                row.first = through + 1;
                return;
            }
            self.pop();
        }
    }

    fn pop(&mut self) -> Option<Row> {
        let row = self.rows.pop_front()?;
        self.hits -= u64::from(row.is_hit());
        self.bytes -= row.cost();
        Some(row)
    }

    /// Drops the oldest hits above the key `protected` until at most [`TAIL_BYTES_MAX`] remain, and returns their
    /// number. Hits up to `protected` are kept, whatever their size.
    pub(super) fn limit(&mut self, protected: i64) -> u64 {
        if self.bytes <= TAIL_BYTES_MAX {
            return 0;
        }
        let (mut kept, mut dropped) = (Self::default(), 0);
        while let Some(row) = self.pop() {
            let is_over = kept.bytes + row.cost() + self.bytes > TAIL_BYTES_MAX;
            match row.body {
                Body::Hit(_) if is_over && row.last_key() > protected => {
                    dropped += 1;
                    kept.push_gap(row.id, (row.first, row.last), GapReason::SpoolFull, row.time);
                }
                Body::Gap(reason) => kept.push_gap(row.id, (row.first, row.last), reason, row.time),
                Body::Hit(_) => kept.push(row),
            }
        }
        *self = kept;
        dropped
    }
}
