//! Identifies database files and creates the tables of new stores.

use super::error::{Action, At, StoreError};
use crate::files::FileKind;
use rusqlite::{Connection, TransactionBehavior};
use std::path::Path;

/// `PRAGMA application_id` of a store: `ETWS` as a big-endian integer, which `file` shows.
pub const APPLICATION_ID: i32 = i32::from_be_bytes(*b"ETWS");
/// `PRAGMA user_version` of the stores that this release writes.
pub const SCHEMA_VERSION: i32 = 2;
/// The first version; [`migrate`](super::migrate) updates it.
pub(super) const FIRST_VERSION: i32 = 1;

const SCHEMA: &str = include_str!("schema.sql");
const VIEW: &str = include_str!("view.sql");

/// State of a database that is not rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// No tables and no version: new, or creating it was interrupted.
    Empty,
    /// A store of this version.
    Current,
    /// A store of an earlier version, which can be read. It must be migrated before writing.
    Older,
}

/// Rejects a file of one byte, which SQLite would treat as an empty database and overwrite. SQLite rejects all other
/// files that are not databases.
///
/// The file is not opened: closing it would release every lock that SQLite holds on it in this process
/// (sqlite.org/howtocorrupt.html, section 2.2). Another program that then opens the store would believe that it is the
/// only one, and would delete the log that this process is writing.
pub(super) fn check_header(path: &Path) -> Result<(), StoreError> {
    let foreign = |detail: String| Err(StoreError::NotAStore { path: path.to_owned(), detail });
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() == 1 => {
            foreign("not a SQLite database".to_owned())
        }
        // Opening a named pipe would block.
        Ok(_) => match FileKind::of(path) {
            Ok(FileKind::Regular | FileKind::Folder) | Err(_) => Ok(()),
            Ok(kind) => foreign(format!("it is {kind}")),
        },
        Err(_) => Ok(()),
    }
}

/// Reads application id and version, and rejects files of other programs and later versions. Writes nothing.
pub(super) fn identify(connection: &Connection, path: &Path) -> Result<Identity, StoreError> {
    let number = |pragma| {
        connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0)).at(path, Action::Open)
    };
    let (application, version) = (number("application_id")?, number("user_version")?);
    let objects: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .at(path, Action::Open)?;
    let foreign = |detail| Err(StoreError::NotAStore { path: path.to_owned(), detail });
    match (application, version, objects) {
        (0, 0, 0) => Ok(Identity::Empty),
        (APPLICATION_ID, SCHEMA_VERSION, _) => Ok(Identity::Current),
        (APPLICATION_ID, FIRST_VERSION..SCHEMA_VERSION, _) => Ok(Identity::Older),
        (APPLICATION_ID, found, _) if found > SCHEMA_VERSION => {
            Err(StoreError::Newer { path: path.to_owned(), found, supported: SCHEMA_VERSION })
        }
        (APPLICATION_ID, found, _) => foreign(format!("store version {found} was never released")),
        (found, ..) => foreign(format!(
            "a SQLite database with application id {found:#010x}, expected {APPLICATION_ID:#010x}"
        )),
    }
}

/// Configures durability and creates the tables of a new store. Returns whether the store is current or must be
/// migrated.
pub(super) fn prepare(connection: &mut Connection, path: &Path) -> Result<Identity, StoreError> {
    // On a file system without shared memory SQLite keeps the rollback journal, which is as durable with FULL.
    connection
        .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))
        .at(path, Action::Open)?;
    connection.pragma_update(None, "synchronous", "full").at(path, Action::Open)?;
    // Check again under the lock: another process may be creating the same store.
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).at(path, Action::Open)?;
    let mut identity = identify(&transaction, path)?;
    if identity == Identity::Empty {
        transaction.execute_batch(SCHEMA).at(path, Action::Write)?;
        transaction.execute_batch(VIEW).at(path, Action::Write)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID).at(path, Action::Write)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION).at(path, Action::Write)?;
        identity = Identity::Current;
    }
    transaction.commit().at(path, Action::Write)?;
    Ok(identity)
}
