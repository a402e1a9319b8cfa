//! Telling an entry that cannot be stored from a store that does not work.

use crate::backend::Refusal;
use etwsieve_transport::wire::message::RefusalReason;
use rusqlite::{Connection, Error, ErrorCode};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the entries of a sensor are written apart after one of them could not be stored.
const SUSPECT_TIME: Duration = Duration::from_mins(1);
/// Sensors that are written apart at a time. Beyond it the others cost a second attempt at a batch.
const SUSPECTS_MAX: usize = 1000;

/// Whether an error comes from the contents of what was written. Everything else (no room, an I/O error, a damaged or
/// locked file, no memory) concerns the store, and would meet the other entries as well.
pub(super) fn is_of_entry(error: &Error) -> bool {
    match error {
        Error::SqliteFailure(failure, _) => matches!(
            failure.code,
            ErrorCode::ConstraintViolation
                | ErrorCode::TooBig
                | ErrorCode::TypeMismatch
                | ErrorCode::ParameterOutOfRange
                // SQLITE_ERROR: a function that refuses its argument, such as a sum that overflows.
                | ErrorCode::Unknown
        ),
        Error::SqliteSingleThreadedMode | Error::InvalidPath(_) => false,
        // A value that does not fit its type, on the way in or out.
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

/// Does something within a savepoint, and undoes it if it fails because of its contents: the inner error. The outer one is
/// of the store.
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

/// Whether something would succeed: it is undone in any case.
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

/// Sensors whose entries are written apart.
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
    fn errors_of_entries_are_told_from_those_of_the_store() {
        // SQLite's result code, whether it comes from the contents.
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
    fn what_fails_is_undone_alone() {
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
    fn suspicion_ends_and_is_bounded() {
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
