//! Removes the oldest hits, a few at a time between batches, unless a sink has not received them. A clock that jumps
//! does not cause early removal.

use super::SqliteOptions;
use rusqlite::{Connection, Error, OptionalExtension, TransactionBehavior};
use std::time::{Duration, Instant};

/// Maximum number of hits removed per transaction, which takes some milliseconds.
const STEP_HITS: i64 = 128;
/// Pause after a step that removed nothing.
const CHECK_TIME: Duration = Duration::from_secs(10);
/// Pause after a step that removed hits, during which batches are written.
const STEP_TIME: Duration = Duration::from_millis(20);
const TICKS_PER_SECOND: i64 = 10_000_000;
/// Maximum speed at which the retention clock follows the system's clock, relative to real time. It takes five months
/// to follow a jump of ten years; after the collector was off for a month, hits are removed a day and a quarter late.
const CATCH_UP: i64 = 24;
/// Name of the retention clock in the table `collector`.
pub(super) const CLOCK_NAME: &str = "retention_clock";

/// Selects the oldest hits with their arrival times (the event's time for hits that no sensor sent) and last ids in
/// `hit_rules`.
const SELECT_OLDEST: &str = "SELECT hits.id,
        coalesce((SELECT max(time) FROM received WHERE hit_id = hits.id), hits.time),
        coalesce((SELECT max(id) FROM hit_rules WHERE hit_id = hits.id), 0)
    FROM hits ORDER BY hits.id LIMIT ?1";
const SELECT_NEWEST_TIME: &str = "SELECT
        coalesce((SELECT max(time) FROM received WHERE hit_id = hits.id), hits.time)
    FROM hits ORDER BY hits.id DESC LIMIT 1";
const COUNT_UNDELIVERED: &str = "UPDATE sink_cursors SET skipped = skipped + (
    SELECT count(*) FROM hit_rules WHERE hit_id <= ?1 AND hit_rules.id > position)";
const FORGET_EPOCHS: &str = "DELETE FROM streams WHERE last_seen < ?1
    AND NOT EXISTS (SELECT 1 FROM received WHERE stream_id = streams.id)
    AND NOT EXISTS (SELECT 1 FROM gaps WHERE stream_id = streams.id)";

/// The clock that determines the age of hits. It follows the system's clock at most [`CATCH_UP`] times as fast as time
/// passes.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// FILETIME.
    time: i64,
    read: Instant,
}

impl Clock {
    /// Returns the time; `wall` is the system's time as FILETIME. A clock that is set back takes effect at once,
    /// because then fewer hits expire.
    fn read(&mut self, wall: i64, now: Instant) -> i64 {
        let elapsed = now.saturating_duration_since(self.read);
        self.read = now;
        let ticks = i64::try_from(elapsed.as_nanos() / 100).unwrap_or(i64::MAX);
        let step = ticks.saturating_mul(CATCH_UP);
        self.time = self.time.saturating_add(wall.saturating_sub(self.time).clamp(-step, step));
        self.time.min(wall)
    }
}

/// The outcome of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// Hits removed.
    pub(super) expired: u64,
    /// Whether expired hits were kept because a sink has not received them.
    pub(super) is_held: bool,
}

/// Schedules retention and keeps its clock.
#[derive(Debug)]
pub(super) struct Schedule {
    is_on: bool,
    next: Instant,
    /// `None` before the first step.
    clock: Option<Clock>,
}

impl Schedule {
    pub(super) fn new(options: &SqliteOptions) -> Self {
        let is_on = !options.retention_age.is_zero() || options.retention_bytes > 0;
        Self { is_on, next: Instant::now(), clock: None }
    }

    pub(super) fn is_due(&self) -> bool {
        self.is_on && Instant::now() >= self.next
    }

    /// Returns the time of the clock, to be stored for the next process; `None` before the first step.
    pub(super) fn clock(&self) -> Option<i64> {
        self.clock.map(|clock| clock.time)
    }

    /// Removes at most [`STEP_HITS`] hits. `wall` is the system's time as FILETIME.
    pub(super) fn step(
        &mut self,
        connection: &mut Connection,
        options: &SqliteOptions,
        (wall, now): (i64, Instant),
    ) -> Result<Step, Error> {
        // Also after an error, so that a full disk does not make this a busy loop.
        self.next = now + CHECK_TIME;
        let mut clock = match self.clock {
            Some(clock) => clock,
            None => Clock { time: kept_time(connection)?.unwrap_or(wall), read: now },
        };
        let today = clock.read(wall, now);
        self.clock = Some(clock);
        let cutoff = if options.retention_age.is_zero() {
            i64::MIN
        } else {
            let seconds = i64::try_from(options.retention_age.as_secs()).unwrap_or(i64::MAX);
            today.saturating_sub(seconds.saturating_mul(TICKS_PER_SECOND))
        };
        let is_too_large = options.retention_bytes > 0 && used_bytes(connection)? > options.retention_bytes;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let delivered = delivered(&transaction, options.sinks.as_deref())?;
        let oldest = oldest(&transaction)?;
        // In the order of ids, so that the remaining ids have no holes.
        let due = oldest.iter().take_while(|hit| is_too_large || hit.time < cutoff).count();
        let expired = oldest.iter().take(due).take_while(|hit| hit.last_rule <= delivered).count();
        let is_held = expired < due;
        let Some(last) = expired.checked_sub(1).and_then(|index| oldest.get(index)).map(|hit| hit.id) else {
            let gaps = transaction.execute("DELETE FROM gaps WHERE time < ?1", [cutoff])?;
            let streams = transaction.execute(FORGET_EPOCHS, [cutoff])?;
            if gaps + streams > 0 {
                transaction.commit()?;
            }
            return Ok(Step { expired: 0, is_held });
        };
        // For sinks that are no longer configured.
        transaction.prepare_cached(COUNT_UNDELIVERED)?.execute([last])?;
        transaction.prepare_cached("DELETE FROM received WHERE hit_id <= ?1")?.execute([last])?;
        transaction.prepare_cached("DELETE FROM hit_rules WHERE hit_id <= ?1")?.execute([last])?;
        transaction.prepare_cached("DELETE FROM hits WHERE id <= ?1")?.execute([last])?;
        transaction
            .prepare_cached(
                "INSERT INTO collector (name, value) VALUES ('expired', ?1)
             ON CONFLICT (name) DO UPDATE SET value = value + ?1",
            )?
            .execute([expired as i64])?;
        transaction.commit()?;
        self.next = now + STEP_TIME;
        Ok(Step { expired: expired as u64, is_held })
    }
}

/// One of the oldest hits.
#[derive(Clone, Copy, Debug)]
struct Oldest {
    id: i64,
    /// An upper bound of its arrival time.
    time: i64,
    last_rule: i64,
}

/// Returns the oldest hits. Hits arrive in the order of their ids, so a hit whose time is later than that of its
/// successors arrived while the clock was wrong; it must not delay the removal of the others.
fn oldest(connection: &Connection) -> Result<Vec<Oldest>, Error> {
    let mut latest: i64 = connection
        .prepare_cached(SELECT_NEWEST_TIME)?
        .query_row([], |row| row.get(0))
        .optional()?
        .unwrap_or(i64::MAX);
    let mut oldest: Vec<Oldest> = connection
        .prepare_cached(SELECT_OLDEST)?
        .query_map([STEP_HITS], |row| {
            Ok(Oldest { id: row.get(0)?, time: row.get(1)?, last_rule: row.get(2)? })
        })?
        .collect::<Result<_, _>>()?;
    for hit in oldest.iter_mut().rev() {
        latest = latest.min(hit.time);
        hit.time = latest;
    }
    Ok(oldest)
}

/// Returns the id of `hit_rules` up to which all sinks have received everything. `sinks` are the configured ones;
/// `None`: all that have ever received something.
fn delivered(connection: &Connection, sinks: Option<&[String]>) -> Result<i64, Error> {
    let mut least = i64::MAX;
    match sinks {
        None => {
            let mut select =
                connection.prepare_cached("SELECT coalesce(min(position), ?1) FROM sink_cursors")?;
            least = select.query_row([least], |row| row.get(0))?;
        }
        Some(sinks) => {
            let mut select =
                connection.prepare_cached("SELECT position FROM sink_cursors WHERE sink = ?1")?;
            for sink in sinks {
                let position: Option<i64> = select.query_row([sink], |row| row.get(0)).optional()?;
                least = least.min(position.unwrap_or(0));
            }
        }
    }
    Ok(least)
}

/// Returns the time that the previous process stored, or else the arrival time of the newest hit.
fn kept_time(connection: &Connection) -> Result<Option<i64>, Error> {
    let kept = connection
        .query_row("SELECT value FROM collector WHERE name = ?1", [CLOCK_NAME], |row| row.get(0))
        .optional()?;
    match kept {
        Some(kept) => Ok(Some(kept)),
        None => connection.query_row(SELECT_NEWEST_TIME, [], |row| row.get(0)).optional(),
    }
}

/// Returns the size of the used pages of the database, in bytes.
fn used_bytes(connection: &Connection) -> Result<u64, Error> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, u64>(0));
    Ok(number("page_count")?.saturating_sub(number("freelist_count")?).saturating_mul(number("page_size")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400 * TICKS_PER_SECOND;
    const START: i64 = 400 * 365 * DAY;

    /// Creates the tables that retention uses, with hits that arrived on the given days.
    fn store(days: &[i64]) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("schema.sql")).unwrap();
        connection
            .execute_batch(
                "CREATE TABLE hits (id INTEGER PRIMARY KEY, time INTEGER NOT NULL);
                CREATE TABLE hit_rules (id INTEGER PRIMARY KEY, hit_id INTEGER NOT NULL);",
            )
            .unwrap();
        for day in days {
            connection.execute("INSERT INTO hits (time) VALUES (?1)", [START + day * DAY]).unwrap();
            connection.execute("INSERT INTO hit_rules (hit_id) SELECT max(id) FROM hits", []).unwrap();
        }
        connection
    }

    fn left(connection: &Connection) -> i64 {
        connection.query_row("SELECT count(*) FROM hits", [], |row| row.get(0)).unwrap()
    }

    fn options(sinks: Option<&[&str]>) -> SqliteOptions {
        SqliteOptions {
            retention_age: Duration::from_hours(30 * 24),
            sinks: sinks.map(|sinks| sinks.iter().map(|&sink| sink.to_owned()).collect()),
            ..SqliteOptions::default()
        }
    }

    #[test]
    fn a_clock_jump_removes_nothing_at_first() {
        let mut connection = store(&[0, 1, 2]);
        let (options, start) = (options(None), Instant::now());
        let mut schedule = Schedule::new(&options);
        let mut at = |day: i64, hours: u64| {
            let now = start + Duration::from_hours(hours);
            schedule.step(&mut connection, &options, (START + day * DAY, now)).unwrap();
            left(&connection)
        };
        assert_eq!(at(2, 0), 3);
        // Ten years ahead for more than a day.
        assert_eq!(at(3650, 0), 3);
        assert_eq!(at(3650, 24), 3, "the clock has followed by 24 of 28 days");
        // The clock is right again.
        assert_eq!(at(3, 25), 3);
        // In 1601 and then right again: nothing is removed.
        assert_eq!(at(-400 * 365, 26), 3);
        assert_eq!(at(4, 27), 3);
        // Hits expire when real time has passed.
        assert_eq!(at(31, 27 * 24), 2);
        assert_eq!(at(33, 29 * 24), 0);
    }

    #[test]
    fn the_clock_survives_a_restart() {
        let mut connection = store(&[0]);
        let (options, now) = (options(None), Instant::now());
        // Without a stored clock, the newest hit determines the time.
        Schedule::new(&options).step(&mut connection, &options, (START + 3650 * DAY, now)).unwrap();
        assert_eq!(left(&connection), 1);
        let kept = "INSERT INTO collector (name, value) VALUES (?1, ?2)";
        connection.execute(kept, (CLOCK_NAME, START + 31 * DAY)).unwrap();
        Schedule::new(&options).step(&mut connection, &options, (START + 3650 * DAY, now)).unwrap();
        assert_eq!(left(&connection), 0, "the stored clock shows that 31 days have passed");
    }

    #[test]
    fn hits_that_a_sink_has_not_received_are_kept() {
        // Name, configured sinks, positions in the store, hits left of four.
        type Row = (&'static str, Option<&'static [&'static str]>, &'static [(&'static str, i64)], i64);
        let rows: [Row; 7] = [
            ("no sinks", Some(&[]), &[], 0),
            ("no list and no positions", None, &[], 0),
            ("no list", None, &[("a", 3), ("b", 1)], 3),
            ("a sink that never delivered", Some(&["a"]), &[], 4),
            ("the slowest one counts", Some(&["a", "b"]), &[("a", 4), ("b", 2)], 2),
            ("a sink that was removed does not", Some(&["a"]), &[("a", 4), ("b", 0)], 0),
            ("all received everything", Some(&["a"]), &[("a", 4)], 0),
        ];
        for by_size in [false, true] {
            for (name, sinks, positions, expected) in rows {
                let mut connection = store(&[0, 0, 0, 0]);
                for (sink, position) in positions {
                    let insert = "INSERT INTO sink_cursors (sink, position, updated) VALUES (?1, ?2, 0)";
                    connection.execute(insert, (sink, position)).unwrap();
                }
                let mut options = options(sinks);
                if by_size {
                    (options.retention_age, options.retention_bytes) = (Duration::ZERO, 1);
                }
                let kept = "INSERT INTO collector (name, value) VALUES (?1, ?2)";
                connection.execute(kept, (CLOCK_NAME, START + 40 * DAY)).unwrap();
                let mut schedule = Schedule::new(&options);
                let time = (START + 40 * DAY, Instant::now());
                let step = schedule.step(&mut connection, &options, time).unwrap();
                assert_eq!(left(&connection), expected, "{name}");
                assert_eq!(step, Step { expired: 4 - expected as u64, is_held: expected > 0 }, "{name}");
            }
        }
    }

    #[test]
    fn a_hit_with_a_wrong_time_does_not_delay_the_others() {
        let mut connection = store(&[0, 3650, 1, 2, 60]);
        let options = options(None);
        let mut schedule = Schedule::new(&options);
        let time = (START + 60 * DAY, Instant::now());
        let step = schedule.step(&mut connection, &options, time).unwrap();
        assert_eq!((step.expired, left(&connection)), (4, 1));
    }
}
