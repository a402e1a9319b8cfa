//! The embedded store: hits in a SQLite file, in a form that people can query.
//!
//! The store uses a write-ahead log and `synchronous=FULL`: a batch for which [`Store::insert_batch`] has returned
//! survives a crash and a loss of power, and a process killed in the middle of a batch leaves all of it or nothing. An
//! event is stored once and a rule counts once per event, so replaying a trace again, also from another path or a copy,
//! adds only what further rules find. [`EventIdentity`](crate::hit::EventIdentity) identifies an event; equal events in
//! one source are all stored.
//!
//! Tables, columns and the view `detections` are defined in `store/schema.sql` and `store/view.sql`.

mod error;
mod insert;
mod log;
mod migrate;
mod occurrence;
mod query;
mod read_only;
mod schema;
mod sql_text;

pub use error::{Action, At, StoreError};
pub use insert::{HitInserter, Inserted};
pub use query::{
    ComputerStats, Detection, HitFilter, Hits, RuleStats, STATS_ROWS_MAX, StoreStats, StoredHit, decode,
};
pub use schema::{APPLICATION_ID, SCHEMA_VERSION};
pub use sql_text::sql_text;

use crate::private_file;
use occurrence::Occurrences;
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Maximum time to wait for another process that is writing.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// An open store. Several processes may read it while one writes.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
    occurrences: Occurrences,
}

impl Store {
    /// Opens a store for writing. Creates it if the file does not exist or is empty.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotAStore`] and [`StoreError::Newer`], which leave the file unchanged; other errors of SQLite.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        // SQLite would give a new file the default permissions. Problems with the path are reported by SQLite below.
        let _ = private_file::ensure(path.as_ref());
        let mut store = Self::connect(path.as_ref(), flags)?;
        // Checked before anything is written, because the file may belong to another program.
        if schema::identify(&store.connection, &store.path)? != schema::Identity::Empty {
            store.trust_log()?;
        }
        if schema::prepare(&mut store.connection, &store.path)? != schema::Identity::Current {
            migrate::to_current(&mut store.connection, &store.path).at(&store.path, Action::Write)?;
        }
        Ok(store)
    }

    /// Opens an existing store for reading.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`], and the same as for [`open`](Self::open). If no files can be written beside the store,
    /// its present contents are read, including those of a log beside it.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        // On Windows checking whether a device exists would open it.
        schema::check_header(path)?;
        if !path.exists() {
            return Err(StoreError::NotFound { path: path.to_owned() });
        }
        match Self::connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY).and_then(Self::if_store) {
            Err(error) if read_only::is_unwritable(&error) => {
                tracing::debug!("opening {} without writing files beside it: {error}", path.display());
                read_only::open(path).and_then(Self::if_store)
            }
            other => other,
        }
    }

    /// Returns the store, or an error if the file is empty or something else.
    fn if_store(store: Self) -> Result<Self, StoreError> {
        let path = store.path.as_path();
        match schema::identify(&store.connection, path)? {
            schema::Identity::Current | schema::Identity::Older => Ok(store),
            schema::Identity::Empty => {
                Err(StoreError::NotAStore { path: path.to_owned(), detail: "the file is empty".to_owned() })
            }
        }
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the connection, for tables that another crate keeps in the same file.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Returns the connection for transactions that insert hits with a [`HitInserter`].
    pub fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    fn trust_log(&mut self) -> Result<(), StoreError> {
        match log::make_durable(&mut self.connection, &self.path) {
            Ok(()) => Ok(()),
            Err(log::LogError::Sqlite(error)) => Err(error).at(&self.path, Action::Open),
            Err(log::LogError::File(source)) if source.kind() == std::io::ErrorKind::StorageFull => {
                tracing::debug!(%source, "the log of the store cannot be synced");
                Err(StoreError::Full { path: self.path.clone() })
            }
            Err(log::LogError::File(source)) => Err(StoreError::Log { path: self.path.clone(), source }),
        }
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Self, StoreError> {
        schema::check_header(path)?;
        // Without the URI flag, because a file can be named `file:x`.
        let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .at(path, Action::Open)?;
        Self::set_up(connection, path)
    }

    fn set_up(connection: Connection, path: &Path) -> Result<Self, StoreError> {
        connection.busy_timeout(BUSY_TIMEOUT).at(path, Action::Open)?;
        // A store may be of any origin: its views and triggers can use nothing but plain SQL.
        connection.pragma_update(None, "trusted_schema", false).at(path, Action::Open)?;
        connection.pragma_update(None, "cell_size_check", true).at(path, Action::Open)?;
        connection.pragma_update(None, "foreign_keys", true).at(path, Action::Open)?;
        Ok(Self { connection, path: path.to_owned(), occurrences: Occurrences::default() })
    }
}
