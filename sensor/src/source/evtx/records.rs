//! Finds the records of a chunk, one behind the other.
//!
//! A chunk's header says where its records end. In a log that was copied while it was in use, the header may lag
//! behind the records: it may even say that the chunk is empty. The space behind the end, on the other hand, may still
//! have records of an earlier use of the chunk, in logs that were exported even with similar numbers. So records are
//! read there if they follow the last one, and behind damage if the header names higher numbers, or if the log was in use,
//! the number fits and the record is not older.

use super::{CHUNK_HEADER_LEN, CHUNK_LEN, RECORD_HEADER_LEN, RECORD_MAGIC, SIZE_LEN};
use etwsieve_budget::{Budget, Exhausted};
use etwsieve_event::FileTime;
use evtx::{EvtxChunkHeader, EvtxRecordHeader};
use std::fmt;
use std::ops::Range;

/// Bytes of the smallest record.
const RECORD_LEN_MIN: usize = RECORD_HEADER_LEN + SIZE_LEN;
/// Steps that finding the records of a chunk may cost for each of its bytes. By far not reached: each byte is looked
/// at once, and each place that looks like a record costs [`CANDIDATE_STEPS`].
pub(super) const FIND_STEPS_PER_BYTE_MAX: u64 = 16;
/// Steps of checking a place that looks like a record.
const CANDIDATE_STEPS: usize = 32;
/// What a log that has no records says instead of a number.
const NO_NUMBER: u64 = u64::MAX;

/// A record, whole or not.
pub(super) struct Found {
    /// Where it is in the chunk.
    pub(super) at: usize,
    /// Where its BinXML may be read.
    pub(super) body: Option<Range<usize>>,
    /// When the event log wrote it.
    pub(super) written: FileTime,
    /// What is wrong with it.
    pub(super) damage: Option<Unwhole>,
}

/// Why there is no whole record at a place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unwhole {
    /// It does not begin like one.
    Header,
    /// Its size does not fit the chunk.
    Size { left: usize, found: usize },
    /// It does not end with its size.
    End { size: usize, found: [u8; SIZE_LEN] },
    /// The records end before the last one that the chunk's header names.
    Missing { last: u64, found: Option<u64> },
}

impl fmt::Display for Unwhole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("expected the header of a record, found something else"),
            Self::Size { left, found } => {
                write!(f, "expected a record of {RECORD_LEN_MIN} to {left} bytes, found {found}")
            }
            Self::End { size, found } => {
                write!(f, "expected a record that ends with its size, {size}, found {found:02x?}")
            }
            Self::Missing { last, found: Some(found) } => {
                write!(f, "expected records up to number {last}, found none after {found}")
            }
            Self::Missing { last, found: None } => {
                write!(f, "expected records up to number {last}, found none")
            }
        }
    }
}

/// The records of one chunk.
pub(super) struct Records<'c> {
    chunk: &'c [u8],
    /// Where the next record should be.
    at: usize,
    /// End of the records according to the chunk's header.
    free: usize,
    has_header: bool,
    /// The log was in use when it was copied.
    is_dirty: bool,
    /// Number of the last record according to the chunk's header.
    last: Option<u64>,
    /// Number of the record before.
    number: Option<u64>,
    /// Number that the next record should have, if anything is known about it.
    expected: Option<u64>,
    /// When the youngest record so far was written.
    latest: FileTime,
    /// Something of this chunk was reported as damaged.
    is_damaged: bool,
}

impl<'c> Records<'c> {
    /// The records of `chunk`. `is_dirty` unless the file's header says that the log was closed.
    pub(super) fn new(chunk: &'c [u8], header: Option<&EvtxChunkHeader>, is_dirty: bool) -> Self {
        let free = header.map_or(chunk.len(), |header| header.free_space_offset as usize);
        let known = |number: u64| Some(number).filter(|number| *number != NO_NUMBER);
        let last = header.and_then(|header| known(header.last_event_record_id));
        // A header that knows no last record knows no first one either.
        let first = last.and(header).and_then(|header| known(header.first_event_record_id));
        Self {
            chunk,
            at: CHUNK_HEADER_LEN,
            free: free.min(chunk.len()),
            has_header: header.is_some(),
            is_dirty,
            last,
            number: None,
            expected: first,
            latest: FileTime(0),
            is_damaged: chunk.len() < CHUNK_LEN,
        }
    }

    /// Number of the last record so far.
    pub(super) fn number(&self) -> Option<u64> {
        self.number
    }

    /// True when something was reported as damaged.
    pub(super) fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// The next record; `None` behind the last one.
    pub(super) fn next(&mut self, budget: &mut Budget<'_>) -> Result<Option<Found>, Exhausted> {
        budget.charge(CANDIDATE_STEPS)?;
        let (at, is_inside) = (self.at, self.at < self.free);
        match self.whole(at) {
            Ok((number, end)) => {
                let is_of_this_use = match (self.has_header, is_inside) {
                    (true, true) => true,
                    (true, false) => self.may_follow(number, at, 0),
                    (false, _) => self.is_later(number),
                };
                if !is_of_this_use {
                    return Ok(self.end());
                }
                self.number = Some(number);
                self.latest = self.latest.max(self.written(at));
                self.expected = number.checked_add(1);
                self.at = end;
                let body = Some(at + RECORD_HEADER_LEN..end - SIZE_LEN);
                Ok(Some(Found { at, body, written: self.written(at), damage: None }))
            }
            Err(error) => {
                let next = self.find(at, budget)?;
                let rest = self.chunk.get(at..).unwrap_or_default();
                let is_blank = rest.iter().take(RECORD_HEADER_LEN).all(|&byte| byte == 0);
                let is_end = match (self.has_header, is_inside) {
                    // All records were there, only the free space is not known.
                    (false, _) => true,
                    (true, true) => is_blank && self.last.is_some_and(|last| self.number >= Some(last)),
                    // A record that is damaged itself, or what an earlier use has left.
                    (true, false) => !self.number_at(at).is_some_and(|number| self.may_follow(number, at, 0)),
                };
                if next.is_none() && is_end {
                    return Ok(self.end());
                }
                let end = next.map_or(self.chunk.len(), |(next, _)| next);
                self.expected = next.map_or(self.expected, |(_, number)| Some(number));
                self.at = end;
                self.is_damaged = true;
                // If only its sizes are wrong, the event itself can be read.
                let body = rest.starts_with(RECORD_MAGIC).then(|| end.min(at + RECORD_HEADER_LEN)..end);
                Ok(Some(Found { at, body, written: self.written(at), damage: Some(error) }))
            }
        }
    }

    /// Ends the chunk; reports records that its header knows but that are not there.
    fn end(&mut self) -> Option<Found> {
        let at = self.at.min(self.chunk.len());
        self.at = self.chunk.len();
        let last = self.last.filter(|last| !self.is_damaged && self.number < Some(*last))?;
        self.is_damaged = true;
        let damage = Some(Unwhole::Missing { last, found: self.number });
        Some(Found { at, body: None, written: FileTime(0), damage })
    }

    /// Number and end of the record at `at`, which begins and ends with its size.
    fn whole(&self, at: usize) -> Result<(u64, usize), Unwhole> {
        let rest = self.chunk.get(at..).unwrap_or_default();
        if !rest.starts_with(RECORD_MAGIC) {
            return Err(Unwhole::Header);
        }
        let header = EvtxRecordHeader::from_bytes_at(self.chunk, at).map_err(|_| Unwhole::Header)?;
        let (size, left) = (header.data_size as usize, rest.len());
        if size < RECORD_LEN_MIN || size > left {
            return Err(Unwhole::Size { left, found: size });
        }
        let found = rest[size - SIZE_LEN..].first_chunk().copied().unwrap_or_default();
        if found != header.data_size.to_le_bytes() {
            return Err(Unwhole::End { size, found });
        }
        Ok((header.event_record_id, at + size))
    }

    /// The next whole record behind `at` that belongs to this use of the chunk, and its number.
    ///
    /// # Complexity
    ///
    /// Linear in the bytes up to it. The walk continues there, so a chunk is searched once.
    fn find(&self, at: usize, budget: &mut Budget<'_>) -> Result<Option<(usize, u64)>, Exhausted> {
        for next in at + 1..self.chunk.len() {
            budget.charge(1)?;
            if !self.chunk[next..].starts_with(RECORD_MAGIC) {
                continue;
            }
            budget.charge(CANDIDATE_STEPS)?;
            let Ok((number, _)) = self.whole(next) else { continue };
            let is_of_this_use = if next < self.free {
                self.is_later(number)
            } else {
                self.may_follow(number, next, next - at)
            };
            if is_of_this_use {
                return Ok(Some((next, number)));
            }
        }
        Ok(None)
    }

    fn is_later(&self, number: u64) -> bool {
        self.number.is_none_or(|before| number > before)
    }

    /// True when the record at `at`, behind the known end of the records and behind `skipped` unreadable bytes, may have
    /// this number.
    fn may_follow(&self, number: u64, at: usize, skipped: usize) -> bool {
        let Some(expected) = self.expected else { return true };
        let may_be_of_a_log_in_use = self.is_dirty && self.written(at) >= self.latest;
        let lost = if may_be_of_a_log_in_use { skipped / RECORD_LEN_MIN } else { 0 };
        let highest = expected.saturating_add(lost as u64).max(self.last.unwrap_or(0));
        (expected..=highest).contains(&number)
    }

    /// The number of a record that begins at `at` but is not whole.
    fn number_at(&self, at: usize) -> Option<u64> {
        let header = self.chunk.get(at..at + RECORD_HEADER_LEN)?;
        let number = header.strip_prefix(RECORD_MAGIC)?.get(4..)?.first_chunk()?;
        Some(u64::from_le_bytes(*number))
    }

    fn written(&self, at: usize) -> FileTime {
        let bytes = self.chunk.get(at + 16..).and_then(|bytes| bytes.first_chunk());
        FileTime(bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes)))
    }
}
