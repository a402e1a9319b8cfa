//! The SQL of the spool, and nothing of its policy.
//!
//! A row's key is the epoch's number and the first sequence number in one integer, so that one tree holds everything
//! in the order of sending. The locking mode is exclusive: there is no shared memory, whose mapped file would end the
//! process where the disk is full.

mod writer;

pub(super) use writer::Writer;

use crate::private_file;
use crate::wire::frame::FRAME_LEN_MAX;
use crate::wire::message::GapReason;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, OpenFlags, OptionalExtension, TransactionBehavior};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

/// `PRAGMA application_id` of a spool: `ETWQ` as a big-endian number.
pub const APPLICATION_ID: i32 = i32::from_be_bytes(*b"ETWQ");
/// `PRAGMA user_version` of a spool that this release writes.
pub const SCHEMA_VERSION: i32 = 1;
/// Sequence numbers of an epoch lie below 2 to this power; then another epoch begins.
pub(super) const SEQUENCE_BITS: u32 = 40;
/// The highest sequence number.
pub(super) const SEQUENCE_MAX: u64 = (1 << SEQUENCE_BITS) - 1;
/// What a row takes beside its frame, in bytes, roughly; and what a run that was given up takes.
pub(super) const ROW_LEN: u64 = 64;
/// Pages that are free beyond which the file is made shorter, and by how many at a time.
const FREE_PAGES_MAX: u64 = 2048;
const VACUUM_PAGES: u64 = 512;
/// Bytes that the write-ahead log keeps when it begins anew.
const WAL_LEN_MAX: u64 = 8 << 20;
const SCHEMA: &str = include_str!("schema.sql");

/// An open spool file.
#[derive(Debug)]
pub(super) struct Db {
    connection: Connection,
}

/// What an epoch of an earlier process has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EpochRow {
    pub(super) id: u32,
    pub(super) epoch: [u8; 16],
    pub(super) acked: u64,
    /// The highest number of any row.
    pub(super) last: u64,
}

/// Rows and what they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) hits: u64,
    pub(super) gaps: u64,
    pub(super) bytes: u64,
}

/// A row as it is read; nothing of it has been checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowRef<'a> {
    pub(super) key: i64,
    pub(super) last: u64,
    pub(super) reason: Option<GapReason>,
    pub(super) time: u64,
    /// `None` for a run that was given up, and where the length is that of no frame.
    pub(super) frame: Option<&'a [u8]>,
}

/// The key of a number.
pub(super) fn key(id: u32, sequence: u64) -> i64 {
    (i64::from(id) << SEQUENCE_BITS) | (sequence.min(SEQUENCE_MAX) as i64)
}

/// The epoch and the number of a key.
pub(super) fn split_key(key: i64) -> (u32, u64) {
    ((key >> SEQUENCE_BITS) as u32, key as u64 & SEQUENCE_MAX)
}

impl RowRef<'_> {
    pub(super) fn first(&self) -> u64 {
        split_key(self.key).1
    }
}

impl Db {
    /// Opens a spool and makes the tables of a new one.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // SQLite would give a new file the default permissions, and reports what is wrong with the path itself.
        let _ = private_file::ensure(path);
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_secs(1))?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        // Both before the first table and the first lock.
        connection.pragma_update(None, "auto_vacuum", "incremental")?;
        connection
            .pragma_update_and_check(None, "locking_mode", "exclusive", |row| row.get::<_, String>(0))?;
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update_and_check(None, "journal_size_limit", WAL_LEN_MAX as i64, |row| {
            row.get::<_, i64>(0)
        })?;
        let mut db = Self { connection };
        if db.number("SELECT count(*) FROM sqlite_schema")? == 0 {
            db.write(|writer| {
                writer.transaction.execute_batch(SCHEMA)?;
                writer.transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
                writer.transaction.pragma_update(None, "user_version", SCHEMA_VERSION)
            })?;
        }
        Ok(db)
    }

    /// `PRAGMA application_id`, `PRAGMA user_version`, and the number of tables.
    pub(super) fn marks(&self) -> Result<(i32, i32, u64), Error> {
        let mark = |name| self.connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        Ok((
            mark("application_id")?,
            mark("user_version")?,
            self.number("SELECT count(*) FROM sqlite_schema")?,
        ))
    }

    /// Whether the trees are sound. Reads all of the file.
    pub(super) fn is_sound(&self) -> Result<bool, Error> {
        let verdict: String = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        Ok(verdict == "ok")
    }

    pub(super) fn instance(&self) -> Result<Option<[u8; 16]>, Error> {
        self.connection
            .query_row("SELECT value FROM meta WHERE name = 'instance'", [], |row| row.get(0))
            .optional()
    }

    /// The epochs that have rows, in their order.
    pub(super) fn epochs(&self) -> Result<Vec<EpochRow>, Error> {
        self.epochs_by(|id| self.last_of(id))
    }

    /// As [`epochs`](Self::epochs), of a damaged file: where the last row cannot be read, the last one that can.
    pub(super) fn readable_epochs(&self) -> Result<Vec<EpochRow>, Error> {
        self.epochs_by(|id| {
            let mut readable = None;
            Ok(self.last_of(id).unwrap_or_else(|_| {
                // The walk ends in an error; what it saw before is what there is.
                let _ = self.rows(key(id, 0), key(id, SEQUENCE_MAX), true, |row| {
                    readable = Some(row.last);
                    ControlFlow::Continue(())
                });
                readable
            }))
        })
    }

    fn epochs_by(&self, last_of: impl Fn(u32) -> Result<Option<u64>, Error>) -> Result<Vec<EpochRow>, Error> {
        let mut statement = self.connection.prepare("SELECT id, epoch, acked FROM epochs ORDER BY id")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let mut epochs = Vec::new();
        for row in rows {
            let (id, epoch, acked) = row?;
            if let Some(last) = last_of(id)? {
                epochs.push(EpochRow { id, epoch, acked, last });
            }
        }
        Ok(epochs)
    }

    /// The highest number of any row of an epoch.
    fn last_of(&self, id: u32) -> Result<Option<u64>, Error> {
        let sql = "SELECT last FROM frames WHERE key BETWEEN ?1 AND ?2 ORDER BY key DESC LIMIT 1";
        let range = (key(id, 0), key(id, SEQUENCE_MAX));
        self.connection.prepare_cached(sql)?.query_row(range, |row| row.get(0)).optional()
    }

    /// Reads on where SQLite would refuse the whole file, since it is shorter than it says.
    pub(super) fn open_damaged(path: &Path) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "writable_schema", true)?;
        connection
            .pragma_update_and_check(None, "locking_mode", "exclusive", |row| row.get::<_, String>(0))?;
        Ok(Self { connection })
    }

    /// The highest number of an epoch, with or without rows.
    pub(super) fn last_epoch_id(&self) -> Result<u32, Error> {
        let sql = "SELECT max(coalesce((SELECT max(id) FROM epochs), 0), coalesce((SELECT max(key) >> 40 FROM frames), 0))";
        self.connection.query_row(sql, [], |row| row.get(0))
    }

    pub(super) fn totals(&self) -> Result<Totals, Error> {
        let sql = "SELECT count(*) FILTER (WHERE reason IS NULL), count(*) FILTER (WHERE reason IS NOT NULL),
                coalesce(sum(coalesce(length(frame), 0) + ?1), 0) FROM frames";
        self.connection.query_row(sql, [ROW_LEN], |row| {
            Ok(Totals { hits: row.get(0)?, gaps: row.get(1)?, bytes: row.get(2)? })
        })
    }

    /// When the first row was spooled, in milliseconds since 1970.
    pub(super) fn oldest(&self) -> Result<Option<u64>, Error> {
        self.connection
            .prepare_cached("SELECT time FROM frames ORDER BY key LIMIT 1")?
            .query_row([], |row| row.get(0))
            .optional()
    }

    /// Hands out the rows from `from` to `to` (keys), upwards or downwards, until `each` breaks.
    pub(super) fn rows(
        &self,
        from: i64,
        to: i64,
        upwards: bool,
        mut each: impl FnMut(RowRef<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let sql = if upwards {
            "SELECT key, last, reason, time, iif(length(frame) <= ?3, frame, NULL) FROM frames
             WHERE key BETWEEN ?1 AND ?2 ORDER BY key"
        } else {
            "SELECT key, last, reason, time, iif(length(frame) <= ?3, frame, NULL) FROM frames
             WHERE key BETWEEN ?1 AND ?2 ORDER BY key DESC"
        };
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query((from, to, FRAME_LEN_MAX))?;
        while let Some(row) = rows.next()? {
            let reason: Option<usize> = row.get(2)?;
            let frame = match row.get_ref(4)? {
                ValueRef::Blob(frame) => Some(frame),
                _ => None,
            };
            let row = RowRef {
                key: row.get(0)?,
                last: row.get(1)?,
                reason: reason
                    .map(|number| GapReason::ALL.get(number).copied().unwrap_or(GapReason::SpoolDamaged)),
                time: row.get(3)?,
                frame,
            };
            if each(row).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Where to begin to read for `sequence`: at the run that it lies in, or at itself.
    pub(super) fn start_for(&self, id: u32, sequence: u64) -> Result<i64, Error> {
        let wanted = key(id, sequence);
        let sql = "SELECT key, last FROM frames WHERE key BETWEEN ?1 AND ?2 ORDER BY key DESC LIMIT 1";
        let before: Option<(i64, u64)> = self
            .connection
            .prepare_cached(sql)?
            .query_row((key(id, 0), wanted), |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        Ok(before.filter(|(_, last)| *last >= sequence).map_or(wanted, |(key, _)| key))
    }

    /// One transaction, durable when it returns. On an error nothing of it has happened.
    pub(super) fn write<T>(
        &mut self,
        work: impl FnOnce(&mut Writer<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut writer = Writer { transaction };
        let done = work(&mut writer)?;
        writer.transaction.commit()?;
        Ok(done)
    }

    /// Moves what the log holds into the file, which may make room. Failing changes nothing.
    pub(super) fn checkpoint(&self) {
        let _ = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }

    /// Makes the file shorter where much of it is free. Failing changes nothing.
    pub(super) fn shrink(&self) {
        let free = self.number("PRAGMA freelist_count").unwrap_or(0);
        if free > FREE_PAGES_MAX {
            let _ = self.connection.execute_batch(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"));
        }
    }

    fn number(&self, sql: &str) -> Result<u64, Error> {
        self.connection.query_row(sql, [], |row| row.get(0))
    }
}
