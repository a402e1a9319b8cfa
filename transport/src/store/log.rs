//! What a process before this one left in SQLite's log.

use rusqlite::{Connection, TransactionBehavior};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Bytes that are read and written at a time.
const CHUNK_LEN: usize = 256 << 10;

/// Why the log is not known to be on disk.
#[derive(Debug)]
pub(super) enum LogError {
    /// SQLite's word.
    Sqlite(rusqlite::Error),
    /// That of the system.
    File(io::Error),
}

/// Writes a log that was left behind once more, and syncs it.
///
/// SQLite takes every whole transaction in the log for done, also one whose sync has failed: its pages may be in the
/// system's memory only, marked as written. Written again they must be synced again, and an error shows. Nobody else
/// appends meanwhile: the lock for writing is held.
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
