//! Makes a log durable that an earlier process left behind.

use rusqlite::{Connection, TransactionBehavior};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Size of a read or write, in bytes.
const CHUNK_LEN: usize = 256 << 10;

/// The log could not be made durable.
#[derive(Debug)]
pub(super) enum LogError {
    /// The error of SQLite.
    Sqlite(rusqlite::Error),
    /// The error of the system.
    File(io::Error),
}

/// Writes an existing log once more and syncs it.
///
/// SQLite accepts every complete transaction in the log, even if its sync failed. The pages of such a transaction may
/// exist only in the page cache, where they are marked as written. Writing them again forces another sync, which
/// reports errors. The write lock is held, so no other process appends to the log.
pub(super) fn make_durable(connection: &mut Connection, database: &Path) -> Result<(), LogError> {
    let mut name = OsString::from(database);
    name.push("-wal");
    let path = PathBuf::from(name);
    if std::fs::metadata(&path).map_or(true, |log| log.len() == 0) {
        return Ok(());
    }
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(LogError::Sqlite)?;
    match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(file) => rewrite(file).map_err(LogError::File)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(LogError::File(error)),
    }
    transaction.rollback().map_err(LogError::Sqlite)
}

fn rewrite(mut file: File) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_LEN];
    let mut at = 0;
    loop {
        file.seek(SeekFrom::Start(at))?;
        let len = file.read(&mut chunk)?;
        if len == 0 {
            return file.sync_all();
        }
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&chunk[..len])?;
        at += len as u64;
    }
}
