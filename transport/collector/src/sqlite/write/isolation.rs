//! Distinguishes an entry that cannot be stored from a store that fails, and isolates such entries.

use crate::backend::Refusal;
use etwsieve_transport::wire::message::RefusalReason;
use rusqlite::{Connection, Error, ErrorCode};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time for which a sensor is isolated after one of its entries could not be stored.
const SUSPECT_TIME: Duration = Duration::from_mins(1);
/// Maximum number of isolated sensors. A failing entry of any other sensor makes the batch be written twice.
const SUSPECTS_MAX: usize = 1000;

/// Returns whether an error is caused by the contents of an entry. All other errors (no space, an I/O error, a damaged
/// or locked file, no memory) concern the store and would affect other entries, too.
pub(super) fn is_of_entry(error: &Error) -> bool {
    match error {
        Error::SqliteFailure(failure, _) => matches!(
            failure.code,
            ErrorCode::ConstraintViolation
                | ErrorCode::TooBig
                | ErrorCode::TypeMismatch
                | ErrorCode::ParameterOutOfRange
                // SQLITE_ERROR: a function rejects its argument, for example because a sum overflows.
                | ErrorCode::Unknown
        ),
        Error::SqliteSingleThreadedMode | Error::InvalidPath(_) => false,
        // A value does not fit its type in either direction.
        _ => true,
    }
}

pub(super) fn refusal_of(error: &Error) -> Refusal {
    let reason = match error.sqlite_error_code() {
        Some(ErrorCode::TooBig) => RefusalReason::TooLarge,
        _ => RefusalReason::NotStorable,
    };
    Refusal { reason, detail: error.to_string() }
}

/// Runs `action` in a savepoint and rolls it back if it fails because of the contents of an entry, which is the inner
/// error. The outer error is one of the store.
pub(super) fn isolated<T>(
    connection: &Connection,
    action: impl FnOnce() -> Result<T, Error>,
) -> Result<Result<T, Error>, Error> {
    let run = |sql| connection.prepare_cached(sql)?.execute([]).map(drop);
    run("SAVEPOINT apart")?;
    let done = match action() {
        Err(error) if is_of_entry(&error) => {
            run("ROLLBACK TO apart")?;
            Err(error)
        }
        other => Ok(other?),
    };
    run("RELEASE apart")?;
    Ok(done)
}

/// Returns whether `action` would succeed; it is always rolled back.
pub(super) fn would_succeed<T>(
    connection: &Connection,
    action: impl FnOnce() -> Result<T, Error>,
) -> Result<bool, Error> {
    let run = |sql| connection.prepare_cached(sql)?.execute([]).map(drop);
    run("SAVEPOINT trial")?;
    let done = match action() {
        Ok(_) => true,
        Err(error) if is_of_entry(&error) => false,
        Err(error) => return Err(error),
    };
    run("ROLLBACK TO trial")?;
    run("RELEASE trial")?;
    Ok(done)
}

/// Sensors whose entries are isolated.
#[derive(Debug, Default)]
pub(super) struct Suspects(HashMap<Arc<str>, Instant>);

impl Suspects {
    pub(super) fn add(&mut self, sensor: &Arc<str>, now: Instant) {
        if self.0.len() >= SUSPECTS_MAX {
            self.0.retain(|_, since| now.saturating_duration_since(*since) < SUSPECT_TIME);
        }
        if self.0.len() < SUSPECTS_MAX {
            self.0.insert(Arc::clone(sensor), now);
        }
    }

    pub(super) fn contains(&self, sensor: &Arc<str>, now: Instant) -> bool {
        self.0.get(sensor).is_some_and(|since| now.saturating_duration_since(*since) < SUSPECT_TIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;

    #[test]
    fn errors_of_entries_are_distinguished_from_those_of_the_store() {
        // SQLite's result code, whether the entry causes it.
        let rows = [
            (ffi::SQLITE_CONSTRAINT_TRIGGER, true),
            (ffi::SQLITE_CONSTRAINT_DATATYPE, true),
            (ffi::SQLITE_TOOBIG, true),
            (ffi::SQLITE_MISMATCH, true),
            (ffi::SQLITE_ERROR, true),
            (ffi::SQLITE_FULL, false),
            (ffi::SQLITE_IOERR_FSYNC, false),
            (ffi::SQLITE_CORRUPT, false),
            (ffi::SQLITE_BUSY, false),
            (ffi::SQLITE_LOCKED, false),
            (ffi::SQLITE_NOMEM, false),
            (ffi::SQLITE_READONLY, false),
            (ffi::SQLITE_CANTOPEN, false),
            (ffi::SQLITE_NOTADB, false),
        ];
        for (code, expected) in rows {
            let error = Error::SqliteFailure(ffi::Error::new(code), None);
            assert_eq!(is_of_entry(&error), expected, "{code}: {error}");
        }
    }

    #[test]
    fn only_the_failing_entry_is_rolled_back() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (n INTEGER CHECK (n < 10)) STRICT; BEGIN").unwrap();
        let insert = |number: i64| connection.execute("INSERT INTO t VALUES (?1)", [number]).map(drop);
        isolated(&connection, || insert(1)).unwrap().unwrap();
        let refused = isolated(&connection, || {
            insert(2)?;
            isolated(&connection, || insert(3))?.unwrap();
            insert(10)
        });
        assert!(refused.unwrap().is_err());
        assert!(would_succeed(&connection, || insert(5)).unwrap());
        assert!(!would_succeed(&connection, || insert(11)).unwrap());
        isolated(&connection, || insert(4)).unwrap().unwrap();
        connection.execute_batch("COMMIT").unwrap();
        let mut select = connection.prepare("SELECT n FROM t ORDER BY n").unwrap();
        let found: Vec<i64> = select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(found, [1, 4]);
    }

    #[test]
    fn isolation_expires_and_is_bounded() {
        let (mut suspects, now) = (Suspects::default(), Instant::now());
        let sensor: Arc<str> = "a".into();
        suspects.add(&sensor, now);
        assert!(suspects.contains(&sensor, now));
        assert!(!suspects.contains(&sensor, now + SUSPECT_TIME));
        for number in 0..2 * SUSPECTS_MAX {
            suspects.add(&number.to_string().into(), now);
        }
        assert_eq!(suspects.0.len(), SUSPECTS_MAX);
        suspects.add(&sensor, now + SUSPECT_TIME);
        assert_eq!(suspects.0.len(), 1);
    }
}
