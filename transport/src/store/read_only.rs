//! Reads a store when no files can be written beside it, such as evidence on a read-only disk.
//!
//! A store has a write-ahead log, and even a reader keeps an index of the log in a file beside the store. If that file
//! cannot be written,
//!
//! * a store without a log is opened as `immutable`, because its file has all of its contents;
//! * a store with a log, left by a crash or copied while in use, is opened without locks and with the index in memory.
//!   This process cannot create locks there, so nobody could respect them.

use super::Store;
use super::error::{Action, At, StoreError};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Name of SQLite's file system without locks.
const VFS_WITHOUT_LOCKS: &str = if cfg!(windows) { "win32-none" } else { "unix-none" };
const FLAGS: OpenFlags = OpenFlags::SQLITE_OPEN_READ_ONLY.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// Returns true if SQLite could not create or write a file beside the store.
pub(super) fn is_unwritable(error: &StoreError) -> bool {
    let StoreError::Sqlite { source, .. } = error else { return false };
    matches!(source.sqlite_error_code(), Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen))
}

/// Opens the store at `path` without writing any file.
pub(super) fn open(path: &Path) -> Result<Store, StoreError> {
    let has_bytes = |suffix| fs::metadata(beside(path, suffix)).is_ok_and(|metadata| metadata.len() > 0);
    if has_bytes("-wal") {
        let connection = Connection::open_with_flags_and_vfs(path, FLAGS, VFS_WITHOUT_LOCKS);
        let connection = connection.at(path, Action::Open)?;
        // In exclusive mode the index of the log needs no file.
        let exclusive = connection
            .query_row("PRAGMA locking_mode = exclusive", [], |row| row.get::<_, String>(0))
            .at(path, Action::Open)?;
        debug_assert_eq!(exclusive, "exclusive");
        return Store::set_up(connection, path);
    }
    let immutable = FLAGS | OpenFlags::SQLITE_OPEN_URI;
    Store::set_up(Connection::open_with_flags(uri(path), immutable).at(path, Action::Open)?, path)
}

/// Returns the URI of the store (sqlite.org/uri.html), with every special byte escaped.
fn uri(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut uri = "file:".to_owned();
    let bytes = path.as_os_str().as_encoded_bytes();
    if cfg!(windows) {
        // As in file:///C:/folder.
        uri.push_str("///");
    }
    for byte in bytes {
        match byte {
            b'\\' if cfg!(windows) => uri.push('/'),
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                uri.push(char::from(*byte));
            }
            b':' if cfg!(windows) => uri.push(':'),
            _ => _ = write!(uri, "%{byte:02X}"),
        }
    }
    uri.push_str("?mode=ro&immutable=1");
    uri
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
