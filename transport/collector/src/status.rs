//! `etwsieve-collector status`: the state of sensors and sinks, read from the store whether or not a collector is
//! running.

use crate::nats::StreamLevel;
use crate::pki::Register;
use crate::sink::SinkCounts;
use etwsieve_transport::printable::Printable;
use etwsieve_transport::store::{Action, At, Store, StoreError};
use rusqlite::{Connection, OptionalExtension};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds without a heartbeat after which a collector is not running.
const ALIVE_SECONDS: i64 = 20;
/// Certificates that expire within this many days are reported.
const EXPIRY_DAYS: i64 = 30;
const SECONDS_PER_DAY: i64 = 86_400;
/// FILETIME: ticks of 100 ns, and seconds from 1601 to 1970.
const TICKS_PER_SECOND: i64 = 10_000_000;
const SECONDS_TO_1970: i64 = 11_644_473_600;
/// Prefixes of the names of counts that report losses.
const LOSSES: [&str; 3] = ["hits_dropped_", "events_dropped_", "etw_events_lost"];
/// Maximum number of sinks that are listed.
const SINKS_MAX: i64 = 1000;
/// Maximum number of sensors that are listed.
const SENSORS_MAX: i64 = 100_000;
const SELECT_SENSORS: &str = "
    SELECT name, connections, last_seen, address, computer, software, certificate_expires, hits, repeated, conflicts,
        lost, status_received, counts, (SELECT count(*) FROM gaps JOIN streams ON streams.id = stream_id
            WHERE sensor_id = sensors.id)
    FROM sensors ORDER BY name LIMIT ?1";

/// Seconds without a report after which a sink is shown as not running. A request may take a minute, and so may its
/// answer.
const SINK_SILENT_SECONDS: i64 = 180;
/// The age of pending hits is known only for hits that sensors sent.
const SELECT_SINKS: &str = "
    SELECT sink, max((SELECT coalesce(max(id), 0) FROM hit_rules) - position, 0),
        (SELECT min(time) FROM received WHERE hit_id = (SELECT hit_id FROM hit_rules WHERE id > position
            ORDER BY id LIMIT 1)),
        skipped, updated
    FROM sink_cursors ORDER BY sink LIMIT ?1";
const HAS_STATES: &str = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'sink_states')";
const SELECT_STATE: &str = "SELECT delivered, refused, dropped, retries, last_delivery, error, updated
    FROM sink_states WHERE sink = ?1";

/// A snapshot of the collector, its sensors and its sinks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether a collector writes to the store; `None` for a cluster, which does not know its collectors.
    pub is_running: Option<bool>,
    /// Hits removed by retention since the store was created.
    pub expired: u64,
    /// Damaged stores that were quarantined.
    pub quarantined: u64,
    /// The sensors, by name.
    pub sensors: Vec<SensorStatus>,
    /// The sinks, by name.
    pub sinks: Vec<SinkStatus>,
    /// The streams of a cluster.
    pub streams: Vec<StreamLevel>,
}

/// The state of a sink. Times are seconds since 1970; counts are since the start of its process, as in its metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SinkStatus {
    /// Its name.
    pub sink: String,
    /// Number of pending hits if the store is a cluster, else an upper bound of the pending pairs of hit and rule.
    pub waiting: u64,
    /// Arrival time of the oldest of them; `None` if there are none or it is not known.
    pub oldest: Option<i64>,
    /// Hits that retention removed before the sink received them.
    pub skipped: u64,
    /// Time of the last delivery; 0: never.
    pub delivered: i64,
    /// Hits delivered.
    pub delivered_hits: u64,
    /// Refused hits written to the dead-letter file.
    pub refused: u64,
    /// Refused hits dropped because the dead-letter file was full.
    pub dropped: u64,
    /// Failed attempts to deliver.
    pub retries: u64,
    /// Why delivery fails; `None` if it does not.
    pub error: Option<String>,
    /// Time of the last report; 0: never.
    pub reported: i64,
}

/// The state of a sensor. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SensorStatus {
    /// The name in its certificate.
    pub sensor: String,
    /// Whether it is connected to a running collector.
    pub connected: bool,
    /// When it last connected or something of it was stored; 0: never.
    pub last_seen: i64,
    /// Address of its last connection.
    pub address: Option<String>,
    /// Name of its computer.
    pub computer: Option<String>,
    /// Program and version.
    pub software: Option<String>,
    /// Hits stored.
    pub hits: u64,
    /// Hits in its spool, from its last status.
    pub spool_hits: Option<u64>,
    /// Age of the oldest of them in seconds, at the time of that status.
    pub spool_oldest_seconds: Option<u64>,
    /// Gaps it declared.
    pub gaps: u64,
    /// Hits lost in them.
    pub lost: u64,
    /// Hits that it dropped and events that it lost since the start of its process, from its last status.
    pub dropped: u64,
    /// Frames that were already stored.
    pub repeated: u64,
    /// Sequence numbers reused with different contents: a copy of it is running.
    pub conflicts: u64,
    /// When its certificate expires.
    pub certificate_expires: Option<i64>,
    /// Whether all of its certificates are revoked; false if the list of sensors was not read.
    pub revoked: bool,
    /// Problems of the sensor.
    pub alarms: Vec<String>,
}

impl Status {
    /// Reads the store at `path`; `now` is in seconds since 1970.
    ///
    /// # Errors
    ///
    /// The store cannot be read. A store without the tables of a collector has no sensors and is not an error.
    pub fn read(path: &Path, now: i64) -> Result<Self, StoreError> {
        let store = Store::open_read_only(path)?;
        let has_tables: bool = store
            .connection()
            .query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'collector')", [], |row| {
                row.get(0)
            })
            .at(path, Action::Read)?;
        if !has_tables {
            return Ok(Self { is_running: Some(false), ..Self::default() });
        }
        Self::select(&store, now).at(path, Action::Read)
    }

    fn select(store: &Store, now: i64) -> Result<Self, rusqlite::Error> {
        let transaction = store.connection().unchecked_transaction()?;
        let value = |name: &str| {
            let mut select = transaction.prepare_cached("SELECT value FROM collector WHERE name = ?1")?;
            select.query_row([name], |row| row.get::<_, i64>(0)).optional().map(Option::unwrap_or_default)
        };
        let is_running = (now - unix(value("alive")?)).abs() <= ALIVE_SECONDS;
        let mut select = transaction.prepare_cached(SELECT_SENSORS)?;
        let sensors = select.query_map([SENSORS_MAX], |row| {
            let counts: Option<String> = row.get(12)?;
            let counts: serde_json::Map<String, serde_json::Value> =
                counts.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            let mut sensor = SensorStatus {
                sensor: row.get(0)?,
                connected: is_running && row.get::<_, i64>(1)? > 0,
                last_seen: unix(row.get(2)?),
                address: row.get(3)?,
                computer: row.get(4)?,
                software: row.get(5)?,
                certificate_expires: row.get(6)?,
                hits: row.get(7)?,
                repeated: row.get(8)?,
                conflicts: row.get(9)?,
                lost: row.get(10)?,
                gaps: row.get(13)?,
                ..SensorStatus::default()
            };
            sensor.take_counts(counts.into_iter().filter_map(|(name, value)| Some((name, value.as_u64()?))));
            sensor.alarms = sensor.judge(now);
            Ok(sensor)
        })?;
        Ok(Self {
            is_running: Some(is_running),
            expired: value("expired")?.cast_unsigned(),
            quarantined: value("set_aside")?.cast_unsigned(),
            sensors: sensors.collect::<Result<_, _>>()?,
            sinks: Self::sinks(&transaction)?,
            streams: Vec::new(),
        })
    }

    fn sinks(connection: &Connection) -> Result<Vec<SinkStatus>, rusqlite::Error> {
        let mut select = connection.prepare(SELECT_SINKS)?;
        let has_states: bool = connection.query_row(HAS_STATES, [], |row| row.get(0))?;
        let sinks = select.query_map([SINKS_MAX], |row| {
            let updated: i64 = row.get(4)?;
            Ok(SinkStatus {
                sink: row.get(0)?,
                waiting: row.get(1)?,
                oldest: row.get::<_, Option<i64>>(2)?.map(unix),
                skipped: row.get(3)?,
                // The cursor also moves past refused hits; the report of the sink, if any, is more precise.
                delivered: if updated == 0 { 0 } else { unix(updated) },
                ..SinkStatus::default()
            })
        })?;
        let mut sinks = sinks.collect::<Result<Vec<_>, _>>()?;
        if has_states {
            let mut select = connection.prepare(SELECT_STATE)?;
            for sink in &mut sinks {
                let state = select.query_row([sink.sink.clone()], |row| {
                    Ok(SinkStatus {
                        delivered_hits: row.get(0)?,
                        refused: row.get(1)?,
                        dropped: row.get(2)?,
                        retries: row.get(3)?,
                        delivered: row.get(4)?,
                        error: row.get(5)?,
                        reported: row.get(6)?,
                        ..sink.clone()
                    })
                });
                if let Some(state) = state.optional()? {
                    *sink = state;
                }
            }
        }
        Ok(sinks)
    }

    /// Adds the sensors on the list that never connected, and updates the expiry and revocation of certificates. The
    /// last valid certificate of a sensor counts, whether it is in use or not.
    pub fn compare(&mut self, register: &Register, now: i64) {
        let mut expires: BTreeMap<String, u64> = BTreeMap::new();
        for entry in register.entries().iter().filter(|entry| !entry.revoked) {
            let last = expires.entry(entry.name.to_ascii_lowercase()).or_default();
            *last = entry.expires_unix().max(*last);
        }
        let mut revoked: BTreeSet<String> = register
            .entries()
            .iter()
            .filter(|entry| entry.revoked)
            .map(|entry| entry.name.to_ascii_lowercase())
            .collect();
        revoked.retain(|name| !expires.contains_key(name));
        for sensor in &mut self.sensors {
            if revoked.contains(&sensor.sensor) {
                sensor.revoked = true;
                sensor.alarms = sensor.judge(now);
            }
            // A renewed certificate counts even if it is not in use yet.
            if let Some(last) = expires.remove(&sensor.sensor) {
                sensor.certificate_expires = i64::try_from(last).ok();
                sensor.alarms = sensor.judge(now);
            }
        }
        for (sensor, expires) in expires {
            let mut never = SensorStatus {
                sensor,
                certificate_expires: i64::try_from(expires).ok(),
                ..SensorStatus::default()
            };
            never.alarms = never.judge(now);
            self.sensors.push(never);
        }
        self.sensors.sort_by(|left, right| left.sensor.cmp(&right.sensor));
    }

    /// Writes a table.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_table(&self, out: &mut dyn Write, now: i64) -> io::Result<()> {
        let connected = self.sensors.iter().filter(|sensor| sensor.connected).count();
        let state = match self.is_running {
            Some(true) => "collector running",
            Some(false) => "collector not running",
            None => "cluster",
        };
        writeln!(out, "{state}, {} sensors, {connected} connected", self.sensors.len())?;
        if self.expired > 0 {
            writeln!(out, "{} hits removed by retention", self.expired)?;
        }
        if self.quarantined > 0 {
            writeln!(out, "{} damaged stores quarantined", self.quarantined)?;
        }
        for stream in &self.streams {
            writeln!(out, "stream {stream}")?;
        }
        for sink in &self.sinks {
            writeln!(out, "{}", sink.line(now))?;
        }
        if self.sensors.is_empty() {
            return Ok(());
        }
        let width =
            self.sensors.iter().map(|sensor| sensor.sensor.chars().count()).max().unwrap_or(0).clamp(6, 48);
        writeln!(
            out,
            "{:width$}  {:9}  {:>9}  {:>10}  {:>8}  {:>6}  {:>8}  {:>8}  alarms",
            "sensor", "connected", "last seen", "hits", "waiting", "gaps", "lost", "dropped"
        )?;
        for sensor in &self.sensors {
            let waiting = sensor.spool_hits.map_or_else(|| "-".into(), |hits| hits.to_string());
            writeln!(
                out,
                "{:width$}  {:9}  {:>9}  {:>10}  {waiting:>8}  {:>6}  {:>8}  {:>8}  {}",
                Printable(&sensor.sensor),
                if sensor.connected { "yes" } else { "no" },
                if sensor.last_seen == 0 { "never".into() } else { ago(now - sensor.last_seen) },
                sensor.hits,
                sensor.gaps,
                sensor.lost,
                sensor.dropped,
                Printable(sensor.alarms.join("; "))
            )?;
        }
        Ok(())
    }

    /// Writes JSON Lines: one line for each sensor, sink and stream.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_jsonl(&self, out: &mut dyn Write) -> io::Result<()> {
        for sensor in &self.sensors {
            serde_json::to_writer(&mut *out, sensor)?;
            writeln!(out)?;
        }
        for sink in &self.sinks {
            serde_json::to_writer(&mut *out, sink)?;
            writeln!(out)?;
        }
        for stream in &self.streams {
            serde_json::to_writer(&mut *out, stream)?;
            writeln!(out)?;
        }
        Ok(())
    }
}

impl SinkStatus {
    /// Updates the state with a report made at `time`.
    pub(super) fn take_report(&mut self, counts: SinkCounts, time: i64) {
        self.delivered_hits = counts.delivered;
        self.refused = counts.refused;
        self.dropped = counts.dropped;
        self.retries = counts.retries;
        self.delivered = counts.last_delivery.map_or(self.delivered, u64::cast_signed);
        self.error = counts.error;
        self.reported = time;
    }

    /// Returns the line for the table.
    fn line(&self, now: i64) -> String {
        let mut line = format!("sink {}: {} waiting", Printable(&self.sink), self.waiting);
        let mut add = |text: String| line.push_str(&text);
        if let Some(oldest) = self.oldest {
            add(format!(" since {}", ago(now - oldest)));
        }
        add(match self.delivered {
            0 => ", last delivery: never".to_owned(),
            delivered => format!(", last delivery: {}", ago(now - delivered)),
        });
        for (count, what) in [
            (self.skipped, "removed by retention before delivery"),
            (self.refused, "refused (see the dead-letter file)"),
            (self.dropped, "refused and dropped"),
        ] {
            if count > 0 {
                add(format!(", {count} {what}"));
            }
        }
        if self.reported > 0 && now - self.reported > SINK_SILENT_SECONDS {
            add(format!(", not running for {}", ago(now - self.reported)));
        }
        if let Some(error) = &self.error {
            add(format!(", failing: {}", Printable(error)));
        }
        line
    }
}

impl SensorStatus {
    /// Updates the state with the counts of the sensor's last status.
    pub(super) fn take_counts(&mut self, counts: impl Iterator<Item = (String, u64)>) {
        for (name, value) in counts {
            match name.as_str() {
                "spool_hits" => self.spool_hits = Some(value),
                "spool_oldest_seconds" => self.spool_oldest_seconds = Some(value),
                name if LOSSES.iter().any(|loss| name.starts_with(loss)) => {
                    self.dropped = self.dropped.saturating_add(value);
                }
                _ => {}
            }
        }
    }

    pub(super) fn judge(&self, now: i64) -> Vec<String> {
        let mut alarms = Vec::new();
        if self.conflicts > 0 {
            alarms.push(format!("a copy of it is running: {} reused sequence numbers", self.conflicts));
        }
        if self.lost > 0 {
            alarms.push(format!("{} hits lost", self.lost));
        }
        if self.last_seen == 0 {
            alarms.push("never connected".into());
        }
        if self.revoked {
            alarms.push("certificate revoked".into());
        } else if let Some(left) = self.certificate_expires.map(|expires| expires - now) {
            if left <= 0 {
                alarms.push("certificate expired".into());
            } else if left < EXPIRY_DAYS * SECONDS_PER_DAY {
                alarms.push(format!("certificate expires in {} days", left / SECONDS_PER_DAY));
            }
        }
        alarms
    }
}

/// Returns the current time in seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

fn unix(filetime: i64) -> i64 {
    filetime / TICKS_PER_SECOND - SECONDS_TO_1970
}

fn ago(seconds: i64) -> String {
    match seconds {
        ..0 => "now".into(),
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / SECONDS_PER_DAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::CertificateEntry;

    const NOW: i64 = 1_795_633_200;

    fn entry(name: &str, expires: &str, revoked: bool) -> CertificateEntry {
        let [serial, fingerprint, issued] = ["01", "00", "2026-01-31T09:00:00Z"].map(str::to_owned);
        CertificateEntry { name: name.into(), serial, fingerprint, issued, expires: expires.into(), revoked }
    }

    #[test]
    fn unused_and_renewed_certificates_are_considered() {
        let known = SensorStatus {
            sensor: "b.test".into(),
            last_seen: NOW - 5,
            certificate_expires: Some(NOW + 60),
            ..SensorStatus::default()
        };
        let gone =
            SensorStatus { sensor: "gone.test".into(), last_seen: NOW - 500, ..SensorStatus::default() };
        let mut status = Status { sensors: vec![known, gone], ..Status::default() };
        let register = Register::new(
            "sensors.toml",
            vec![
                entry("b.test", "2026-11-25T19:01:00Z", false),
                entry("b.test", "2028-01-01T00:00:00Z", false),
                entry("A.test", "2026-12-05T19:00:00Z", false),
                entry("b.test", "2028-01-01T00:00:00Z", true),
                entry("Gone.test", "2028-01-01T00:00:00Z", true),
                entry("never.test", "2028-01-01T00:00:00Z", true),
            ],
        );
        status.compare(&register, NOW);
        let found: Vec<(&str, Vec<&str>)> = status
            .sensors
            .iter()
            .map(|it| (it.sensor.as_str(), it.alarms.iter().map(String::as_str).collect()))
            .collect();
        let never = vec!["never connected", "certificate expires in 10 days"];
        let revoked = vec!["certificate revoked"];
        assert_eq!(found, [("a.test", never), ("b.test", vec![]), ("gone.test", revoked)]);
        let mut text = Vec::new();
        let failing = SinkStatus {
            sink: "s".into(),
            waiting: 3,
            refused: 2,
            error: Some("delivery failed: no\nroute".into()),
            reported: NOW - 400,
            ..SinkStatus::default()
        };
        status.sinks = vec![failing];
        status.write_table(&mut text, NOW).unwrap();
        let text = String::from_utf8(text).unwrap();
        let line = "sink s: 3 waiting, last delivery: never, 2 refused (see the dead-letter file), not running for 6 min, \
                    failing: delivery failed: no\\nroute\n";
        assert!(text.contains(line), "{text}");
    }
}
