//! What can go wrong with a spool. Damage is no error: a damaged spool is set aside and the work goes on.

use rusqlite::ErrorCode;
use std::io;
use std::path::{Path, PathBuf};

/// Why a spool cannot be opened, written or read at this moment.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process uses it: a spool belongs to one.
    #[error("the spool {} is in use by another process; name another one with --spool", path.display())]
    InUse {
        /// The spool.
        path: PathBuf,
    },
    /// The file is something else; it was not touched.
    #[error("{} is no spool: {detail}; name another file", path.display())]
    NotASpool {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// A later release made it; it was not touched.
    #[error("{} is a spool of version {found}, this release knows {supported}: update it", path.display())]
    Newer {
        /// The spool.
        path: PathBuf,
        /// Its version.
        found: i32,
        /// The newest version known here.
        supported: i32,
    },
    /// A file beside it cannot be made or opened.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The disk is full. What waits is kept in memory, up to a bound, and tried again.
    #[error("no room left for the spool {}", path.display())]
    Full {
        /// The spool.
        path: PathBuf,
    },
    /// It was damaged and has been set aside; what could be read of it is in a new one. Start over.
    #[error("the spool {} was damaged and has been set aside", path.display())]
    Repaired {
        /// The spool.
        path: PathBuf,
    },
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// Anything else that SQLite reports.
    #[error("the spool {} fails: {source}", path.display())]
    Sqlite {
        /// The spool.
        path: PathBuf,
        /// SQLite's word.
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

/// Whether the file itself is wrong, rather than the disk or the moment.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        Some(code) => matches!(
            code,
            ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                // «SQL logic error»: the statements are ours and right, so the tables are not.
                | ErrorCode::Unknown
        ),
        // No word of SQLite: a value of another type than the schema says, or a row that must be there is not.
        None => !matches!(error, rusqlite::Error::InvalidPath(_)),
    }
}
