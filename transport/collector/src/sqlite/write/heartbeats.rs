//! Writes STATUS frames.

use super::isolation::is_of_entry;
use crate::backend::Heartbeat;
use rusqlite::{Connection, Error};

const UPSERT_STATUS: &str = "INSERT INTO sensors
    (name, first_seen, last_seen, status_received, status_time, uptime_seconds, counts)
    VALUES (?1, ?2, ?2, ?2, ?3, ?4, ?5)
    ON CONFLICT (name) DO UPDATE SET last_seen = ?2, status_received = ?2, status_time = ?3, uptime_seconds = ?4,
        counts = ?5";

/// Writes STATUS frames within a transaction of the caller. One that cannot be stored is skipped.
///
/// # Errors
///
/// The store failed.
pub(super) fn write(connection: &Connection, heartbeats: &[Heartbeat], now: i64) -> Result<(), Error> {
    let mut upsert = connection.prepare_cached(UPSERT_STATUS)?;
    for Heartbeat { sensor, status } in heartbeats {
        let counts: serde_json::Map<String, serde_json::Value> =
            status.counts.iter().map(|count| (count.name.clone(), count.value.into())).collect();
        let counts = serde_json::Value::from(counts).to_string();
        let [time, uptime] =
            [status.time, status.uptime_seconds].map(|number| i64::try_from(number).unwrap_or(i64::MAX));
        // A failed statement rolls back only itself.
        match upsert.execute((&**sensor, now, time, uptime, counts)) {
            Err(error) if is_of_entry(&error) => {
                tracing::debug!(%sensor, "cannot store a STATUS: {error}");
            }
            written => {
                written?;
            }
        }
    }
    Ok(())
}
