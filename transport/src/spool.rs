//! The spool: hits wait here, on disk, until a collector has acknowledged them.
//!
//! One SQLite file with a write-ahead log and `synchronous=FULL`: what [`Spool::flush`] has written survives a crash
//! and a loss of power. Every hit gets the next number of the present epoch, and every number is that of a hit or lies
//! in a run that was given up, with its reason: for want of room, or because the file was damaged. The spool is bounded
//! in bytes. Where the disk takes nothing, the newest hits are kept in memory, up to a bound, and can be sent from there.
//!
//! Nothing here knows a network or a clock. A spool belongs to one process; a lock file beside it sees to that. A
//! damaged spool is renamed, what can be read of it is saved into a new one, and the rest is told as lost.

mod db;
mod error;
mod read;
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
use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use tail::Tail;

/// Bytes that a spool may hold unless set otherwise.
pub const BYTES_MAX: u64 = 256 << 20;
/// Least bytes that a spool can be bounded by: a few of the longest hits.
pub const BYTES_MAX_LEAST: u64 = 4 << 20;

/// What is kept when the spool is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// What came first: the first evidence of an intrusion.
    #[default]
    Oldest,
    /// What came last.
    Newest,
}

/// Where a spool is, and how much it may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolSettings {
    /// The file.
    pub path: PathBuf,
    /// Most bytes of frames and their rows. The file itself may be larger by its log and by free pages.
    pub bytes_max: u64,
    /// What is kept when it is full.
    pub keep: Keep,
}

/// What became of hits, since the spool was opened unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolCounts {
    /// Hits handed to the spool.
    pub offered: u64,
    /// Hits given up, in the order of [`GapReason::ALL`]. Those of damage may be of earlier processes.
    pub dropped: [u64; GapReason::ALL.len()],
    /// Hits and given up ones that were acknowledged, of all epochs.
    pub acknowledged: u64,
    /// Hits that wait now, of all epochs.
    pub hits: u64,
    /// Bytes of the frames that wait now, and of their rows.
    pub bytes: u64,
    /// When the oldest of what waits was spooled, in milliseconds since 1970.
    pub oldest_ms: Option<u64>,
    /// Damaged spools set aside.
    pub repairs: u64,
    /// Writes that failed and were, or will be, tried again.
    pub write_failures: u64,
}

/// An epoch and where in it to go on sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Front {
    /// The epoch.
    pub epoch: [u8; 16],
    /// The lowest number without an acknowledgement.
    pub first_unacknowledged: u64,
}

/// An epoch as far as it matters here.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "the number that the protocol calls epoch")]
struct Epoch {
    id: u32,
    epoch: [u8; 16],
    /// Acknowledged up to this number.
    acked: u64,
    /// Acknowledged up to this number according to the file.
    acked_stored: u64,
    /// The last number given.
    last: u64,
    /// Whether the file knows this epoch.
    is_stored: bool,
}

/// An open spool.
#[derive(Debug)]
pub struct Spool {
    settings: SpoolSettings,
    /// `None` after the file had to be given up; tried again with each write.
    db: Option<Db>,
    instance: [u8; 16],
    /// In the order of sending; the last one is the present one.
    epochs: VecDeque<Epoch>,
    tail: Tail,
    totals: Totals,
    /// Whether the last write failed, so that the tail has to be sent from memory.
    is_stuck: bool,
    /// Key of the last number that was read since [`Spool::rewind`]: it may be on its way.
    handed: i64,
    counts: SpoolCounts,
    /// Held until the process ends.
    _lock: File,
}

impl Spool {
    /// Opens a spool and creates it where there is none, with its folder; begins a new epoch. `now_ms` is the time in
    /// milliseconds since 1970.
    ///
    /// A damaged spool is set aside under another name. Reads all of the file once.
    ///
    /// # Errors
    ///
    /// [`SpoolError`]; a file that is no spool is not touched.
    pub fn open(settings: SpoolSettings, now_ms: u64) -> Result<Self, SpoolError> {
        repair::open(settings, now_ms)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.settings.path
    }

    /// The random number of this spool.
    pub fn instance(&self) -> [u8; 16] {
        self.instance
    }

    /// Takes a hit, as [`encode_hit`](crate::wire::codec::encode_hit) gives it, and its number. It is durable, or given
    /// up, after the next [`flush`](Self::flush).
    pub fn push(&mut self, hit: &[u8], now_ms: u64) {
        self.counts.offered += 1;
        let (id, sequence) = self.take_numbers(1);
        self.tail.push_hit(id, sequence, hit, now_ms, &mut self.counts.dropped);
    }

    /// Gives `count` numbers to hits that were given up before they came here.
    pub fn push_gap(&mut self, count: u64, reason: GapReason, now_ms: u64) {
        let mut left = count;
        while left > 0 {
            // All numbers of an epoch are more than a machine can count to; but then another one begins.
            let room = SEQUENCE_MAX - self.present().last;
            let now = left.min(if room == 0 { SEQUENCE_MAX } else { room });
            let (id, first) = self.take_numbers(now);
            self.tail.push_gap(id, (first, first + now - 1), reason, now_ms);
            left -= now;
        }
        self.counts.offered += count;
        self.counts.dropped[reason as usize] += count;
    }

    /// Whether [`flush`](Self::flush) has something to write.
    pub fn has_unwritten(&self) -> bool {
        !self.tail.is_empty() || self.epochs.iter().any(|epoch| epoch.acked > epoch.acked_stored)
    }

    /// Bytes that are in memory only.
    pub fn unwritten_bytes(&self) -> u64 {
        self.tail.bytes()
    }

    /// Gives up the oldest hits in memory beyond [`TAIL_BYTES_MAX`], while the disk takes nothing.
    pub fn limit_unwritten(&mut self) {
        self.counts.dropped[GapReason::SpoolFull as usize] += self.tail.limit(self.handed);
    }

    /// Counts hits that a collector cannot store. They stay until the acknowledgement that covers them.
    pub fn count_refused(&mut self, hits: u64) {
        let count = &mut self.counts.dropped[GapReason::Refused as usize];
        *count = count.saturating_add(hits);
    }

    /// Counts the hits in memory as given up, and returns how many: the process ends, and the disk takes nothing.
    pub fn give_up_unwritten(&mut self) -> u64 {
        let hits = self.tail.hits();
        self.counts.dropped[GapReason::SpoolFull as usize] += hits;
        self.tail.clear();
        hits
    }

    /// Whether everything was acknowledged.
    pub fn is_empty(&self) -> bool {
        self.epochs.iter().all(|epoch| epoch.acked >= epoch.last)
    }

    /// The counts at this moment.
    pub fn counts(&self) -> SpoolCounts {
        let stored = self.db.as_ref().and_then(|db| db.oldest().ok().flatten());
        SpoolCounts {
            hits: self.totals.hits + self.tail.hits(),
            bytes: self.totals.bytes + self.tail.bytes(),
            oldest_ms: stored.or_else(|| self.tail.oldest_ms()),
            ..self.counts
        }
    }

    fn present(&self) -> Epoch {
        self.epochs.back().copied().expect("there is always a present epoch")
    }

    /// The next `count` numbers: epoch and the first of them. All are of one epoch.
    fn take_numbers(&mut self, count: u64) -> (u32, u64) {
        if self.present().last + count > SEQUENCE_MAX {
            // Derived from the old one: random, and no system has to be asked.
            let Epoch { id, epoch, .. } = self.present();
            self.epochs
                .push_back(Epoch::new(id + 1, epoch.map(|byte| byte.wrapping_mul(167).wrapping_add(13))));
        }
        let present = self.epochs.back_mut().expect("there is always a present epoch");
        let first = present.last + 1;
        present.last += count;
        (present.id, first)
    }

    fn failed(&self, source: rusqlite::Error) -> SpoolError {
        SpoolError::of(&self.settings.path, source)
    }

    /// What to do about an error: a damaged file is set aside.
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
