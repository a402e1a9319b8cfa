//! The SQL statements of the spool. Its policies are in other modules.
//!
//! The key of a row combines the epoch's number with the first sequence number in one integer, so that the rows of one
//! table are in the order of sending. The locking mode is exclusive, so SQLite needs no shared memory. A memory-mapped
//! file would kill the process when the disk is full.

mod writer;

pub(super) use writer::SpoolWriter;

use crate::private_file;
use crate::wire::frame::FRAME_LEN_MAX;
use crate::wire::message::GapReason;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, OpenFlags, OptionalExtension, TransactionBehavior};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

/// `PRAGMA application_id` of a spool: `ETWQ` as a big-endian integer.
pub const APPLICATION_ID: i32 = i32::from_be_bytes(*b"ETWQ");
/// `PRAGMA user_version` of the spools that this release writes.
pub const SCHEMA_VERSION: i32 = 1;
/// Number of bits of a sequence number. When they are used up, another epoch starts.
pub(super) const SEQUENCE_BITS: u32 = 40;
/// The highest sequence number of an epoch.
pub(super) const SEQUENCE_MAX: u64 = (1 << SEQUENCE_BITS) - 1;
/// Approximate size of a row without its frame, in bytes. A gap has the same size.
pub(super) const ROW_LEN: u64 = 64;
/// The file is shortened when it has more free pages than this.
const FREE_PAGES_MAX: u64 = 2048;
const VACUUM_PAGES: u64 = 512;
/// Maximum size of an empty write-ahead log, in bytes.
const WAL_LEN_MAX: u64 = 8 << 20;
const SCHEMA: &str = include_str!("schema.sql");

/// An open spool file.
#[derive(Debug)]
pub(super) struct Db {
    connection: Connection,
}

/// An epoch of an earlier process that still has rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EpochRow {
    pub(super) id: u32,
    pub(super) epoch: [u8; 16],
    pub(super) acked: u64,
    /// The highest number of its rows.
    pub(super) last: u64,
}

/// Number and size of the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) hits: u64,
    pub(super) gaps: u64,
    pub(super) bytes: u64,
}

/// A row as read from the file, without any checks.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowRef<'a> {
    pub(super) key: i64,
    pub(super) last: u64,
    pub(super) reason: Option<GapReason>,
    pub(super) time: u64,
    /// `None` for a gap, and if the length cannot be that of a frame.
    pub(super) frame: Option<&'a [u8]>,
}

/// Returns the key of a number.
pub(super) fn key(id: u32, sequence: u64) -> i64 {
    (i64::from(id) << SEQUENCE_BITS) | (sequence.min(SEQUENCE_MAX) as i64)
}

/// Returns the epoch and the number of a key.
pub(super) fn split_key(key: i64) -> (u32, u64) {
    ((key >> SEQUENCE_BITS) as u32, key as u64 & SEQUENCE_MAX)
}

impl RowRef<'_> {
    pub(super) fn first(&self) -> u64 {
        split_key(self.key).1
    }
}

impl Db {
    /// Opens a spool, and creates the tables if the file is new.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // SQLite would give a new file the default permissions. Problems with the path are reported by SQLite below.
        let _ = private_file::ensure(path);
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_secs(1))?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        // These settings must precede the first table and the first lock.
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

    /// Returns `PRAGMA application_id`, `PRAGMA user_version`, and the number of tables.
    pub(super) fn marks(&self) -> Result<(i32, i32, u64), Error> {
        let mark = |name| self.connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        Ok((
            mark("application_id")?,
            mark("user_version")?,
            self.number("SELECT count(*) FROM sqlite_schema")?,
        ))
    }

    /// Returns true if the structure of the file is intact. Reads the whole file.
    pub(super) fn is_sound(&self) -> Result<bool, Error> {
        let verdict: String = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        Ok(verdict == "ok")
    }

    pub(super) fn instance(&self) -> Result<Option<[u8; 16]>, Error> {
        self.connection
            .query_row("SELECT value FROM meta WHERE name = 'instance'", [], |row| row.get(0))
            .optional()
    }

    /// Returns the epochs that have rows, in order.
    pub(super) fn epochs(&self) -> Result<Vec<EpochRow>, Error> {
        self.epochs_by(|id| self.last_of(id))
    }

    /// Like [`epochs`](Self::epochs), for a damaged file: if the last row is unreadable, the last readable row counts.
    pub(super) fn readable_epochs(&self) -> Result<Vec<EpochRow>, Error> {
        self.epochs_by(|id| {
            let mut readable = None;
            Ok(self.last_of(id).unwrap_or_else(|_| {
                // An error ends the walk. The rows before it count.
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

    /// Returns the highest number of the rows of an epoch.
    fn last_of(&self, id: u32) -> Result<Option<u64>, Error> {
        let sql = "SELECT last FROM frames WHERE key BETWEEN ?1 AND ?2 ORDER BY key DESC LIMIT 1";
        let range = (key(id, 0), key(id, SEQUENCE_MAX));
        self.connection.prepare_cached(sql)?.query_row(range, |row| row.get(0)).optional()
    }

    /// Opens a file that is shorter than its header says, which SQLite would reject by default.
    pub(super) fn open_damaged(path: &Path) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "writable_schema", true)?;
        connection
            .pragma_update_and_check(None, "locking_mode", "exclusive", |row| row.get::<_, String>(0))?;
        Ok(Self { connection })
    }

    /// Returns the highest number of an epoch, with or without rows.
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

    /// Returns when the first row was added, in milliseconds since 1970.
    pub(super) fn oldest(&self) -> Result<Option<u64>, Error> {
        self.connection
            .prepare_cached("SELECT time FROM frames ORDER BY key LIMIT 1")?
            .query_row([], |row| row.get(0))
            .optional()
    }

    /// Passes the rows with keys `from` to `to` to `each`, in ascending or descending order, until it breaks.
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

    /// Returns the key at which to start reading for `sequence`: that of the gap which contains it, or its own.
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

    /// Runs `change` in a transaction, which is durable on return. On an error the file is unchanged.
    pub(super) fn write<T>(
        &mut self,
        work: impl FnOnce(&mut SpoolWriter<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut writer = SpoolWriter { transaction };
        let done = work(&mut writer)?;
        writer.transaction.commit()?;
        Ok(done)
    }

    /// Moves the contents of the log to the file, which may free space. Errors are ignored.
    pub(super) fn checkpoint(&self) {
        let _ = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }

    /// Shortens the file if it has many free pages. Errors are ignored.
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
