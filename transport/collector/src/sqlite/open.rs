//! Opens the database: locks it for one collector, and quarantines a damaged one.

use super::SqliteOptions;
use crate::counters::Counters;
use etwsieve_transport::lock;
use etwsieve_transport::private_file;
use etwsieve_transport::store::{Action, At, Store, StoreError};
use rusqlite::ErrorCode;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Suffix of the lock file beside the database.
pub const LOCK_SUFFIX: &str = ".lock";
/// Contents of the lock file once the database is known to belong to a collector.
const MARK: &[u8] = b"The database beside this file belongs to etwsieve-collector.\n";
/// Maximum size of a database that is checked for damage when it is opened, in bytes.
const CHECK_BYTES_MAX: u64 = 256 << 20;
/// Maximum size of the log after a checkpoint, in bytes.
const LOG_BYTES_KEPT: i64 = 64 << 20;
const SCHEMA: &str = include_str!("schema.sql");

/// Why the embedded store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another collector uses the database.
    #[error("{} is in use by another collector", path.display())]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// The system refuses access to the database or a file beside it.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system refused to start a thread.
    #[error("cannot start a thread for the store: {source}")]
    Thread {
        /// The error of the system.
        source: io::Error,
    },
}

/// The exclusive right to write to a database: a lock on a file beside the resolved path, and on Linux also on the
/// database itself, whose inode is the same for all hard links.
#[derive(Debug)]
pub(super) struct DatabaseLock {
    file: File,
    /// Whether the database is known to belong to a collector.
    is_marked: bool,
    /// The database, locked.
    inode: Option<File>,
}

impl DatabaseLock {
    pub(super) fn take(database: &Path) -> Result<Self, OpenError> {
        let resolved =
            lock::resolve(database).map_err(|source| OpenError::File { path: database.into(), source })?;
        let path = beside(&resolved, LOCK_SUFFIX);
        let failed = |source| OpenError::File { path: path.clone(), source };
        let mut file = private_file::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path: database.into() }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let mut mark = Vec::new();
        Read::by_ref(&mut file).take(MARK.len() as u64).read_to_end(&mut mark).map_err(failed)?;
        let mut lock = Self { file, is_marked: mark == MARK, inode: None };
        lock.hold(database)?;
        Ok(lock)
    }

    /// Locks the database itself, if it exists. On other systems than Linux this lock would conflict with SQLite's.
    fn hold(&mut self, database: &Path) -> Result<(), OpenError> {
        if !cfg!(target_os = "linux") || self.inode.is_some() {
            return Ok(());
        }
        // It does not exist yet, or SQLite will report the error.
        let Ok(file) = File::open(database) else { return Ok(()) };
        let locked = file.try_lock();
        if let Err(TryLockError::WouldBlock) = locked {
            std::mem::forget(file);
            return Err(OpenError::InUse { path: database.into() });
        }
        // On a file system without such locks the lock file must do.
        self.inode = Some(file);
        Ok(())
    }

    /// Releases a database that is being quarantined.
    fn release(&mut self) {
        if let Some(file) = self.inode.take() {
            let _ = file.unlock();
            // Never closed: that would release all locks of SQLite in this process (sqlite.org/howtocorrupt.html,
            // "Posix advisory locks canceled by a separate thread doing close()").
            std::mem::forget(file);
        }
    }

    fn mark(&mut self) {
        if !self.is_marked {
            let marked = self
                .file
                .rewind()
                .and_then(|()| self.file.write_all(MARK))
                .and_then(|()| self.file.sync_all());
            self.is_marked = marked.is_ok();
        }
    }
}

impl Drop for DatabaseLock {
    fn drop(&mut self) {
        self.release();
    }
}

/// Opens the database. Returns `true` if a damaged one was quarantined.
pub(super) fn open(
    path: &Path,
    options: &SqliteOptions,
    lock: &mut DatabaseLock,
    counters: &Counters,
) -> Result<(Store, bool), OpenError> {
    let opened = match try_open(path, options) {
        Err(OpenError::Store(error)) if is_damage(&error) || is_foreign(&error) && lock.is_marked => {
            counters.replaced.add(1);
            lock.release();
            let name = quarantine(path)?;
            // Again, because a feed may have opened the old file in between.
            counters.replaced.add(1);
            tracing::error!("store damaged ({error}), renamed to {}; a new one was created", name.display());
            try_open(path, options).map(|store| (store, true))
        }
        other => other.map(|store| (store, false)),
    }?;
    lock.hold(path)?;
    lock.mark();
    Ok(opened)
}

fn try_open(path: &Path, options: &SqliteOptions) -> Result<Store, OpenError> {
    let is_small = fs::metadata(path).is_ok_and(|metadata| metadata.len() <= CHECK_BYTES_MAX);
    let store = Store::open(path)?;
    let sqlite = |result: Result<(), rusqlite::Error>| result.at(path, Action::Open);
    if is_small {
        let found: String = store
            .connection()
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .at(path, Action::Open)?;
        if found != "ok" {
            return Err(StoreError::NotAStore { path: path.into(), detail: found }.into());
        }
    }
    sqlite(store.connection().execute_batch(SCHEMA))?;
    sqlite(store.connection().pragma_update(None, "wal_autocheckpoint", options.checkpoint_pages))?;
    sqlite(store.connection().pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT))?;
    // 64 MB, because indexes by hash are read at random.
    sqlite(store.connection().pragma_update(None, "cache_size", -65_536))?;
    if options.pages_max > 0 {
        store
            .connection()
            .pragma_update_and_check(None, "max_page_count", options.pages_max, |row| row.get::<_, i64>(0))
            .at(path, Action::Open)?;
    }
    store.connection().set_prepared_statement_cache_capacity(64);
    Ok(store)
}

/// Returns whether SQLite reports that the database is damaged.
pub(super) fn is_damage(error: &StoreError) -> bool {
    match error {
        StoreError::Sqlite { source, .. } => source.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt),
        _ => false,
    }
}

fn is_foreign(error: &StoreError) -> bool {
    matches!(error, StoreError::NotAStore { .. })
}

/// Renames the database and its log. The log comes first: a database without its log is consistent, if older, but a log
/// without its database would be applied to the next one.
fn quarantine(path: &Path) -> Result<PathBuf, OpenError> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut name = beside(path, &format!(".damaged-{seconds}"));
    for number in 1..1000 {
        if !name.exists() {
            break;
        }
        name = beside(path, &format!(".damaged-{seconds}-{number}"));
    }
    for suffix in ["-wal", "-shm", ""] {
        let (from, to) = (beside(path, suffix), beside(&name, suffix));
        match fs::rename(&from, to) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(OpenError::File { path: from, source }),
        }
    }
    Ok(name)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
