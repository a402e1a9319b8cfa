//! The spool: stores hits on disk until a collector has acknowledged them.
//!
//! The spool is a SQLite file with a write-ahead log and `synchronous=FULL`: everything that [`Spool::flush`] has
//! written survives a crash and a loss of power. Each hit gets the next sequence number of the current epoch. Every
//! number belongs to a hit or to a gap, which has a reason: there was no room, or the file was damaged. The size of the
//! spool is limited. While the disk cannot be written, the newest hits stay in memory, up to a limit, and can be sent
//! from there.
//!
//! This module uses neither network nor clock. A lock file beside the spool ensures that only one process uses it. A
//! damaged spool is renamed; its readable contents are copied to a new one, and the rest becomes gaps.

mod db;
mod error;
mod read;
mod refused;
mod repair;
mod tail;
mod write;

pub use db::{APPLICATION_ID, SCHEMA_VERSION};
pub use error::SpoolError;
pub use read::ReadLimits;
pub use repair::DAMAGED_KEPT_MAX;
pub use tail::TAIL_BYTES_MAX;

use crate::wire::message::GapReason;
use db::{Db, SEQUENCE_MAX, Totals};
use error::is_damage;
use refused::RefusedNumbers;
use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use tail::Tail;

/// Default for the maximum size of a spool, in bytes.
pub const BYTES_MAX: u64 = 256 << 20;
/// Lower bound for the maximum size, in bytes; a few hits of maximum length.
pub const BYTES_MAX_LEAST: u64 = 4 << 20;

/// Which hits to keep when the spool is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// The first hits: they show how an intrusion began.
    #[default]
    Oldest,
    /// The last hits.
    Newest,
}

/// Path and limits of a spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolSettings {
    /// Path of the file.
    pub path: PathBuf,
    /// Maximum size of frames and their rows, in bytes. The file can be larger because of its log and free pages.
    pub bytes_max: u64,
    /// Which hits to keep when the spool is full.
    pub keep: Keep,
}

/// Counts since the spool was opened, unless stated otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolCounts {
    /// Hits passed to the spool.
    pub offered: u64,
    /// Dropped hits, in the order of [`GapReason::ALL`]. Those lost by damage may be of earlier processes.
    pub dropped: [u64; GapReason::ALL.len()],
    /// Acknowledged hits and acknowledged dropped hits, of all epochs.
    pub acknowledged: u64,
    /// Hits in the spool, of all epochs.
    pub hits: u64,
    /// Size of the frames in the spool and of their rows, in bytes.
    pub bytes: u64,
    /// When the oldest hit in the spool was added, in milliseconds since 1970.
    pub oldest_ms: Option<u64>,
    /// Damaged spools that were renamed.
    pub repairs: u64,
    /// Failed writes. They are repeated.
    pub write_failures: u64,
}

/// The epoch to send next, and where to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Front {
    /// The epoch.
    pub epoch: [u8; 16],
    /// The lowest number that is not acknowledged.
    pub first_unacknowledged: u64,
}

/// The state of an epoch.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "the protocol calls the random number epoch")]
struct Epoch {
    id: u32,
    epoch: [u8; 16],
    /// Everything up to this number is acknowledged.
    acked: u64,
    /// The value of `acked` in the file.
    acked_stored: u64,
    /// The last number assigned.
    last: u64,
    /// True if the file has a row for this epoch.
    is_stored: bool,
}

/// An open spool.
#[derive(Debug)]
pub struct Spool {
    settings: SpoolSettings,
    /// `None` if the file could not be opened. Every write tries again.
    db: Option<Db>,
    instance: [u8; 16],
    /// In the order of sending. The last one is the current epoch.
    epochs: VecDeque<Epoch>,
    tail: Tail,
    totals: Totals,
    /// True if the last write failed. The rows in memory are sent from there then.
    is_stuck: bool,
    /// Key of the last number read since [`Spool::rewind`]; everything up to it may be in flight.
    read_through: i64,
    /// Numbers counted as refused, as long as they are not acknowledged.
    refused: RefusedNumbers,
    counts: SpoolCounts,
    /// Held as long as the spool is open.
    _lock: File,
}

impl Spool {
    /// Opens a spool and starts a new epoch. Creates the file and its folder if necessary. `now_ms` is the time in
    /// milliseconds since 1970.
    ///
    /// Reads the whole file once. A damaged spool is renamed and replaced.
    ///
    /// # Errors
    ///
    /// [`SpoolError`]. A file that is not a spool is left unchanged.
    pub fn open(settings: SpoolSettings, now_ms: u64) -> Result<Self, SpoolError> {
        repair::open(settings, now_ms)
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.settings.path
    }

    /// Returns the random number of this spool.
    pub fn instance(&self) -> [u8; 16] {
        self.instance
    }

    /// Adds a hit, encoded by [`encode_hit`](crate::wire::codec::encode_hit), and assigns its number. After the next
    /// [`flush`](Self::flush) the hit is durable or dropped.
    pub fn push(&mut self, hit: &[u8], now_ms: u64) {
        self.counts.offered += 1;
        let (id, sequence) = self.take_numbers(1);
        self.tail.push_hit(id, sequence, hit, now_ms, &mut self.counts.dropped);
    }

    /// Assigns numbers to `count` hits that were dropped before they reached the spool.
    pub fn push_gap(&mut self, count: u64, reason: GapReason, now_ms: u64) {
        let mut left = count;
        while left > 0 {
            // An epoch has more numbers than a sensor ever uses. If they run out, another epoch starts.
            let room = SEQUENCE_MAX - self.current_epoch().last;
            let now = left.min(if room == 0 { SEQUENCE_MAX } else { room });
            let (id, first) = self.take_numbers(now);
            self.tail.push_gap(id, (first, first + now - 1), reason, now_ms);
            left -= now;
        }
        self.counts.offered += count;
        self.counts.dropped[reason as usize] += count;
    }

    /// Returns true if [`flush`](Self::flush) has something to write.
    pub fn has_unwritten(&self) -> bool {
        !self.tail.is_empty() || self.epochs.iter().any(|epoch| epoch.acked > epoch.acked_stored)
    }

    /// Returns the size of the rows that are only in memory, in bytes.
    pub fn unwritten_bytes(&self) -> u64 {
        self.tail.bytes()
    }

    /// Drops the oldest hits in memory beyond [`TAIL_BYTES_MAX`], because the disk cannot be written.
    pub fn limit_unwritten(&mut self) {
        self.counts.dropped[GapReason::SpoolFull as usize] += self.tail.limit(self.read_through);
    }

    /// Counts the numbers `from` to `to` of an epoch as hits that a collector cannot store. Returns how many are counted
    /// for the first time: a number is counted once, even if it is refused again on another connection. The hits stay in
    /// the spool until they are acknowledged.
    pub fn count_refused(&mut self, epoch: &[u8; 16], from: u64, to: u64) -> u64 {
        let Some(epoch) = self.epochs.iter().find(|known| known.epoch == *epoch) else { return 0 };
        let (from, to) = (from.max(epoch.acked + 1), to.min(epoch.last));
        if from > to {
            return 0;
        }
        let new = self.refused.add(epoch.id, from, to);
        self.counts.dropped[GapReason::Refused as usize] += new;
        new
    }

    /// Drops the hits in memory and returns their number. Called when the process exits and the disk cannot be written.
    pub fn drop_unwritten(&mut self) -> u64 {
        let hits = self.tail.hits();
        self.counts.dropped[GapReason::SpoolFull as usize] += hits;
        self.tail.clear();
        hits
    }

    /// Returns true if everything is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.epochs.iter().all(|epoch| epoch.acked >= epoch.last)
    }

    /// Returns the current counts.
    pub fn counts(&self) -> SpoolCounts {
        let stored = self.db.as_ref().and_then(|db| db.oldest().ok().flatten());
        SpoolCounts {
            hits: self.totals.hits + self.tail.hits(),
            bytes: self.totals.bytes + self.tail.bytes(),
            oldest_ms: stored.or_else(|| self.tail.oldest_ms()),
            ..self.counts
        }
    }

    fn current_epoch(&self) -> Epoch {
        self.epochs.back().copied().expect("there is always a current epoch")
    }

    /// Assigns the next `count` numbers, all in one epoch. Returns the epoch and the first number.
    fn take_numbers(&mut self, count: u64) -> (u32, u64) {
        if self.current_epoch().last + count > SEQUENCE_MAX {
            // Derived from the previous epoch, which is random, because the random number generator of the system may
            // fail.
            let Epoch { id, epoch, .. } = self.current_epoch();
            self.epochs
                .push_back(Epoch::new(id + 1, epoch.map(|byte| byte.wrapping_mul(167).wrapping_add(13))));
        }
        let current = self.epochs.back_mut().expect("there is always a current epoch");
        let first = current.last + 1;
        current.last += count;
        (current.id, first)
    }

    fn failed(&self, source: rusqlite::Error) -> SpoolError {
        SpoolError::of(&self.settings.path, source)
    }

    /// Converts an error. Replaces the file if it is damaged.
    fn after(&mut self, error: rusqlite::Error, now_ms: u64) -> SpoolError {
        if is_damage(&error) {
            tracing::error!("the spool {} is damaged: {error}", self.settings.path.display());
            self.repair(now_ms);
            return SpoolError::Repaired { path: self.settings.path.clone() };
        }
        self.failed(error)
    }
}

impl Epoch {
    fn new(id: u32, epoch: [u8; 16]) -> Self {
        Self { id, epoch, acked: 0, acked_stored: 0, last: 0, is_stored: false }
    }
}
