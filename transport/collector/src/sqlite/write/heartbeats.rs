//! The last STATUS of each sensor, written in transactions of their own.

use super::isolation::is_of_entry;
use crate::backend::Heartbeat;
use rusqlite::{Connection, Error};

const UPSERT_STATUS: &str = "INSERT INTO sensors
    (name, first_seen, last_seen, status_received, status_time, uptime_seconds, counts)
    VALUES (?1, ?2, ?2, ?2, ?3, ?4, ?5)
    ON CONFLICT (name) DO UPDATE SET last_seen = ?2, status_received = ?2, status_time = ?3, uptime_seconds = ?4,
        counts = ?5";

/// Writes them within a transaction. One that cannot be stored is skipped.
///
/// # Errors
///
/// Those of the store.
pub(super) fn write(connection: &Connection, heartbeats: &[Heartbeat], now: i64) -> Result<(), Error> {
    let mut upsert = connection.prepare_cached(UPSERT_STATUS)?;
    for Heartbeat { sensor, status } in heartbeats {
        let counts: serde_json::Map<String, serde_json::Value> =
            status.counts.iter().map(|count| (count.name.clone(), count.value.into())).collect();
        let counts = serde_json::Value::from(counts).to_string();
        let [time, uptime] =
            [status.time, status.uptime_seconds].map(|number| i64::try_from(number).unwrap_or(i64::MAX));
        // A statement that fails undoes itself and nothing else.
        match upsert.execute((&**sensor, now, time, uptime, counts)) {
            Err(error) if is_of_entry(&error) => {
                tracing::debug!(%sensor, "a STATUS is not stored: {error}");
            }
            written => {
                written?;
            }
        }
    }
    Ok(())
}
