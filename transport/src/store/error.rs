//! Errors of the store, grouped by what the caller can do about them.

use crate::wire::codec::CodecError;
use rusqlite::{Error, ErrorCode};
use std::fmt;
use std::path::{Path, PathBuf};

/// A store cannot be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file does not exist.
    #[error("{} does not exist", path.display())]
    NotFound {
        /// Path of the store.
        path: PathBuf,
    },
    /// The file is something else. It is unchanged.
    #[error("{} is not an etwsieve store: {detail}; name another file", path.display())]
    NotAStore {
        /// Path of the file.
        path: PathBuf,
        /// Description of what was found.
        detail: String,
    },
    /// A later release created the store. It is unchanged.
    #[error("{} has store version {found}, but this etwsieve supports only {supported}; update etwsieve", path.display())]
    Newer {
        /// Path of the store.
        path: PathBuf,
        /// Version of the store.
        found: i32,
        /// The newest version that this release supports.
        supported: i32,
    },
    /// A hit of the batch cannot be stored. Nothing of the batch was stored.
    #[error("hit {index} of the batch for {}: {source}", path.display())]
    Hit {
        /// Path of the store.
        path: PathBuf,
        /// Index in the batch, starting at 0.
        index: usize,
        /// The reason.
        source: CodecError,
    },
    /// The disk is full. Nothing of the batch was stored. Free space and try again.
    #[error("no room left for {}", path.display())]
    Full {
        /// Path of the store.
        path: PathBuf,
    },
    /// The log of an earlier process cannot be written to disk, so its contents may be lost after a power failure.
    #[error("cannot sync the log of {}: {source}", path.display())]
    Log {
        /// Path of the store.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// Another process has locked the store for too long. Try again.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// Path of the store.
        path: PathBuf,
    },
    /// A stored hit cannot be read. Other hits can.
    #[error("hit {id} in {} is damaged: {detail}", path.display())]
    Damaged {
        /// Path of the store.
        path: PathBuf,
        /// `hits.id`.
        id: i64,
        /// Description of the problem.
        detail: String,
    },
    /// Another error of SQLite.
    #[error("cannot {action} {}: {source}", path.display())]
    Sqlite {
        /// Path of the store.
        path: PathBuf,
        /// The action that failed.
        action: Action,
        /// The error of SQLite.
        source: Error,
    },
}

/// The action during which SQLite failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Opening or creating.
    Open,
    /// Storing hits.
    Write,
    /// Querying.
    Read,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Write => "write to",
            Self::Read => "read",
        })
    }
}

/// Turns an error of SQLite into a [`StoreError`] that names the store and what was tried.
pub trait At<T> {
    /// Adds the path of the store and the action that failed.
    ///
    /// # Errors
    ///
    /// Returns the [`StoreError`] for an `Err`.
    fn at(self, path: &Path, action: Action) -> Result<T, StoreError>;
}

impl<T> At<T> for Result<T, Error> {
    fn at(self, path: &Path, action: Action) -> Result<T, StoreError> {
        self.map_err(|source| {
            let path = path.to_owned();
            match source.sqlite_error_code() {
                Some(ErrorCode::NotADatabase) => {
                    StoreError::NotAStore { path, detail: "not a SQLite database".to_owned() }
                }
                Some(ErrorCode::DiskFull) => StoreError::Full { path },
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Locked { path },
                _ => StoreError::Sqlite { path, action, source },
            }
        })
    }
}
