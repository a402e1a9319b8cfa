//! Errors of the spool. Damage is not an error: a damaged spool is replaced, and the sensor continues.

use rusqlite::ErrorCode;
use std::io;
use std::path::{Path, PathBuf};

/// A spool cannot be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process uses the spool.
    #[error("the spool {} is in use by another process; name another one with --spool", path.display())]
    InUse {
        /// Path of the spool.
        path: PathBuf,
    },
    /// The file is something else. It is unchanged.
    #[error("{} is not a spool: {detail}; name another file", path.display())]
    NotASpool {
        /// Path of the file.
        path: PathBuf,
        /// Description of what was found.
        detail: String,
    },
    /// A later release created the spool. It is unchanged.
    #[error("{} has spool version {found}, but this release supports only {supported}; update etwsieve", path.display())]
    Newer {
        /// Path of the spool.
        path: PathBuf,
        /// Version of the spool.
        found: i32,
        /// The newest version that this release supports.
        supported: i32,
    },
    /// A file beside the spool cannot be created or opened.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// Path of the file or folder.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The disk is full. Hits stay in memory, up to a limit, and writing is tried again.
    #[error("no room left for the spool {}", path.display())]
    Full {
        /// Path of the spool.
        path: PathBuf,
    },
    /// The spool was damaged. It was renamed, and its readable contents are in a new one. Start reading again.
    #[error("the spool {} was damaged and has been replaced", path.display())]
    Repaired {
        /// Path of the spool.
        path: PathBuf,
    },
    /// The random number generator of the system failed.
    #[error("cannot get random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// Another error of SQLite.
    #[error("cannot use the spool {}: {source}", path.display())]
    Sqlite {
        /// Path of the spool.
        path: PathBuf,
        /// The error of SQLite.
        source: rusqlite::Error,
    },
}

impl SpoolError {
    pub(super) fn of(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full { path },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse { path },
            _ => Self::Sqlite { path, source },
        }
    }
}

/// Returns true if the file is damaged, and false if the disk or another process is the cause.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        Some(code) => matches!(
            code,
            ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                // "SQL logic error": the statements are valid, so the tables must be wrong.
                | ErrorCode::Unknown
        ),
        // Errors of rusqlite: a value of another type than in the schema, or a required row is missing.
        None => !matches!(error, rusqlite::Error::InvalidPath(_)),
    }
}
