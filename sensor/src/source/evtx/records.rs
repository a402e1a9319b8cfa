//! Finds the records of a chunk.
//!
//! The header of a chunk states where its records end. If the log was copied while it was in use, the header may be
//! outdated and may even state that the chunk is empty. On the other hand, the space after the end may still contain
//! records of an earlier use of the chunk, in exported logs even with similar numbers. Records after the end are
//! therefore read if they follow the last one. After damage they are read if the header states higher numbers, or if
//! the log was in use, the number fits and the record is not older.

use super::{CHUNK_HEADER_LEN, CHUNK_LEN, RECORD_HEADER_LEN, RECORD_MAGIC, SIZE_LEN};
use etwsieve_budget::{Budget, Exhausted};
use etwsieve_event::FileTime;
use evtx::{EvtxChunkHeader, EvtxRecordHeader};
use std::fmt;
use std::ops::Range;

/// Minimum length of a record.
const RECORD_LEN_MIN: usize = RECORD_HEADER_LEN + SIZE_LEN;
/// Maximum steps per byte of finding the records of a chunk. Never reached: each byte is read once, and each possible
/// record costs [`CANDIDATE_STEPS`].
pub(super) const FIND_STEPS_PER_BYTE_MAX: u64 = 16;
/// Steps of checking a possible record.
const CANDIDATE_STEPS: usize = 32;
/// The value that means "no record" in a header.
const NO_NUMBER: u64 = u64::MAX;

/// A record, intact or damaged.
pub(super) struct FoundRecord {
    /// Offset in the chunk.
    pub(super) at: usize,
    /// Range of the BinXML, if it may be readable.
    pub(super) body: Option<Range<usize>>,
    /// When the event log wrote the record.
    pub(super) written: FileTime,
    /// Damage of the record.
    pub(super) damage: Option<RecordDamage>,
}

/// Kinds of damage of a record.
#[derive(Clone, Copy, Debug)]
pub(super) enum RecordDamage {
    /// The header is invalid.
    Header,
    /// The size does not fit the chunk.
    Size { left: usize, found: usize },
    /// The record does not end with its size.
    End { size: usize, found: [u8; SIZE_LEN] },
    /// The records end before the last one that the header of the chunk states.
    Missing { last: u64, found: Option<u64> },
}

impl fmt::Display for RecordDamage {
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
    /// Offset of the next record.
    at: usize,
    /// End of the records according to the header of the chunk.
    free: usize,
    has_header: bool,
    /// The log was in use when it was copied.
    is_dirty: bool,
    /// Number of the last record according to the header of the chunk.
    last: Option<u64>,
    /// Number of the previous record.
    number: Option<u64>,
    /// Expected number of the next record, if known.
    expected: Option<u64>,
    /// When the newest record so far was written.
    latest: FileTime,
    /// Damage of this chunk was reported.
    is_damaged: bool,
}

impl<'c> Records<'c> {
    /// Creates the search for the records of `chunk`. `is_dirty`: the file header does not state that the log was
    /// closed.
    pub(super) fn new(chunk: &'c [u8], header: Option<&EvtxChunkHeader>, is_dirty: bool) -> Self {
        let free = header.map_or(chunk.len(), |header| header.free_space_offset as usize);
        let known = |number: u64| Some(number).filter(|number| *number != NO_NUMBER);
        let last = header.and_then(|header| known(header.last_event_record_id));
        // Without a last record the number of the first one is invalid.
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

    /// Returns the number of the last record so far.
    pub(super) fn number(&self) -> Option<u64> {
        self.number
    }

    /// Returns whether damage was reported.
    pub(super) fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// Returns the next record; `None` after the last one.
    pub(super) fn next(&mut self, budget: &mut Budget<'_>) -> Result<Option<FoundRecord>, Exhausted> {
        budget.charge(CANDIDATE_STEPS)?;
        let (at, is_inside) = (self.at, self.at < self.free);
        match self.intact(at) {
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
                Ok(Some(FoundRecord { at, body, written: self.written(at), damage: None }))
            }
            Err(error) => {
                let next = self.find(at, budget)?;
                let rest = self.chunk.get(at..).unwrap_or_default();
                let is_blank = rest.iter().take(RECORD_HEADER_LEN).all(|&byte| byte == 0);
                let is_end = match (self.has_header, is_inside) {
                    // All records were found; only the free space is unknown.
                    (false, _) => true,
                    (true, true) => is_blank && self.last.is_some_and(|last| self.number >= Some(last)),
                    // A damaged record, or a remainder of an earlier use.
                    (true, false) => !self.number_at(at).is_some_and(|number| self.may_follow(number, at, 0)),
                };
                if next.is_none() && is_end {
                    return Ok(self.end());
                }
                let end = next.map_or(self.chunk.len(), |(next, _)| next);
                self.expected = next.map_or(self.expected, |(_, number)| Some(number));
                self.at = end;
                self.is_damaged = true;
                // If only the sizes are wrong, the event can still be read.
                let body = rest.starts_with(RECORD_MAGIC).then(|| end.min(at + RECORD_HEADER_LEN)..end);
                Ok(Some(FoundRecord { at, body, written: self.written(at), damage: Some(error) }))
            }
        }
    }

    /// Ends the chunk, and reports records that its header states but that are missing.
    fn end(&mut self) -> Option<FoundRecord> {
        let at = self.at.min(self.chunk.len());
        self.at = self.chunk.len();
        let last = self.last.filter(|last| !self.is_damaged && self.number < Some(*last))?;
        self.is_damaged = true;
        let damage = Some(RecordDamage::Missing { last, found: self.number });
        Some(FoundRecord { at, body: None, written: FileTime(0), damage })
    }

    /// Returns number and end of the record at `at` if it starts and ends with its size.
    fn intact(&self, at: usize) -> Result<(u64, usize), RecordDamage> {
        let rest = self.chunk.get(at..).unwrap_or_default();
        if !rest.starts_with(RECORD_MAGIC) {
            return Err(RecordDamage::Header);
        }
        let header = EvtxRecordHeader::from_bytes_at(self.chunk, at).map_err(|_| RecordDamage::Header)?;
        let (size, left) = (header.data_size as usize, rest.len());
        if size < RECORD_LEN_MIN || size > left {
            return Err(RecordDamage::Size { left, found: size });
        }
        let found = rest[size - SIZE_LEN..].first_chunk().copied().unwrap_or_default();
        if found != header.data_size.to_le_bytes() {
            return Err(RecordDamage::End { size, found });
        }
        Ok((header.event_record_id, at + size))
    }

    /// Returns the offset and number of the next intact record after `at` that belongs to this use of the chunk.
    ///
    /// # Complexity
    ///
    /// Linear in the bytes before that record. Reading continues there, so a chunk is searched once.
    fn find(&self, at: usize, budget: &mut Budget<'_>) -> Result<Option<(usize, u64)>, Exhausted> {
        for next in at + 1..self.chunk.len() {
            budget.charge(1)?;
            if !self.chunk[next..].starts_with(RECORD_MAGIC) {
                continue;
            }
            budget.charge(CANDIDATE_STEPS)?;
            let Ok((number, _)) = self.intact(next) else { continue };
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

    /// Returns whether the record at `at`, which is after the stated end of the records and after `skipped` unreadable
    /// bytes, may have this number.
    fn may_follow(&self, number: u64, at: usize, skipped: usize) -> bool {
        let Some(expected) = self.expected else { return true };
        let may_be_of_a_log_in_use = self.is_dirty && self.written(at) >= self.latest;
        let lost = if may_be_of_a_log_in_use { skipped / RECORD_LEN_MIN } else { 0 };
        let highest = expected.saturating_add(lost as u64).max(self.last.unwrap_or(0));
        (expected..=highest).contains(&number)
    }

    /// Returns the number of the damaged record at `at`.
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
