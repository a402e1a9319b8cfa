//! What can go wrong with a store, in terms of what to do about it.

use crate::wire::codec::CodecError;
use rusqlite::{Error, ErrorCode};
use std::fmt;
use std::path::{Path, PathBuf};

/// Why a store cannot be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such file.
    #[error("{} does not exist", path.display())]
    NotFound {
        /// The store.
        path: PathBuf,
    },
    /// The file is something else; it was not touched.
    #[error("{} is no etwsieve store: {detail}; name another file", path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// A later release made it; it was not touched.
    #[error("{} is a store of version {found}, this etwsieve knows {supported}: update it", path.display())]
    Newer {
        /// The store.
        path: PathBuf,
        /// Its version.
        found: i32,
        /// The newest version known here.
        supported: i32,
    },
    /// A hit of the batch cannot be stored; nothing of the batch was.
    #[error("hit {index} of the batch for {}: {source}", path.display())]
    Hit {
        /// The store.
        path: PathBuf,
        /// Position in the batch, from 0.
        index: usize,
        /// Why.
        source: CodecError,
    },
    /// The disk is full; nothing of the batch was stored. Make room and try again.
    #[error("no room left for {}", path.display())]
    Full {
        /// The store.
        path: PathBuf,
    },
    /// What an earlier process left in the log cannot be brought to the disk: nothing in it may be believed.
    #[error("cannot sync the log of {}: {source}", path.display())]
    Log {
        /// The store.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another process held the store for too long. Try again.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The store.
        path: PathBuf,
    },
    /// A stored hit cannot be read; the others can.
    #[error("hit {id} in {} is damaged: {detail}", path.display())]
    Damaged {
        /// The store.
        path: PathBuf,
        /// `hits.id`.
        id: i64,
        /// What is wrong with it.
        detail: String,
    },
    /// Anything else that SQLite reports.
    #[error("cannot {action} {}: {source}", path.display())]
    Sqlite {
        /// The store.
        path: PathBuf,
        /// What was tried.
        action: Action,
        /// SQLite's word.
        source: Error,
    },
}

/// What was tried when SQLite refused.
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
                    StoreError::NotAStore { path, detail: "it is no SQLite database".to_owned() }
                }
                Some(ErrorCode::DiskFull) => StoreError::Full { path },
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Locked { path },
                _ => StoreError::Sqlite { path, action, source },
            }
        })
    }
}
