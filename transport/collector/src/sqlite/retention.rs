//! Removing the oldest hits, a few at a time, between batches: none that a sink has not taken, and none because a clock
//! has jumped.

use super::Options;
use rusqlite::{Connection, Error, OptionalExtension, TransactionBehavior};
use std::time::{Duration, Instant};

/// Hits removed in one transaction: some milliseconds of work.
const STEP_HITS: i64 = 128;
/// Time between two looks when nothing was removed.
const CHECK_TIME: Duration = Duration::from_secs(10);
/// Pause between two steps, in which batches are served.
const STEP_TIME: Duration = Duration::from_millis(20);
const TICKS_PER_SECOND: i64 = etwsieve_transport::time::TICKS_PER_SECOND as i64;
/// How fast the clock of retention may run after the system's, at most. A jump of ten years forward takes five months to
/// be believed; after a month in which the collector did not run, hits go a day and a quarter late.
const CATCH_UP: i64 = 24;
/// Under this name the collector's table has the clock of retention.
pub(super) const CLOCK_NAME: &str = "retention_clock";

/// The oldest hits, by when they came (those that no sensor sent, by the event's time), and their last ids in `hit_rules`.
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

/// The time by which hits grow old. It follows the system's clock, but never faster than [`CATCH_UP`] times as fast as
/// time passes.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// FILETIME.
    time: i64,
    read: Instant,
}

impl Clock {
    /// Reads it; `wall` is what the system's clock says, as FILETIME. A clock that was set back is believed at once:
    /// then fewer hits are old.
    fn read(&mut self, wall: i64, now: Instant) -> i64 {
        let elapsed = now.saturating_duration_since(self.read);
        self.read = now;
        let ticks = i64::try_from(elapsed.as_nanos() / 100).unwrap_or(i64::MAX);
        let step = ticks.saturating_mul(CATCH_UP);
        self.time = self.time.saturating_add(wall.saturating_sub(self.time).clamp(-step, step));
        self.time.min(wall)
    }
}

/// What a step has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// Hits removed.
    pub(super) expired: u64,
    /// Hits are due that a sink has not taken: they stay.
    pub(super) is_held: bool,
}

/// When to look next.
#[derive(Debug)]
pub(super) struct Schedule {
    is_on: bool,
    next: Instant,
    /// `None` before the first step.
    clock: Option<Clock>,
}

impl Schedule {
    pub(super) fn new(options: &Options) -> Self {
        let is_on = !options.retention_age.is_zero() || options.retention_bytes > 0;
        Self { is_on, next: Instant::now(), clock: None }
    }

    pub(super) fn is_due(&self) -> bool {
        self.is_on && Instant::now() >= self.next
    }

    /// The clock, to be kept for the next process; `None`: there is none yet.
    pub(super) fn clock(&self) -> Option<i64> {
        self.clock.map(|clock| clock.time)
    }

    /// One step: removes at most [`STEP_HITS`]. `wall` is what the system's clock says, as FILETIME.
    pub(super) fn step(
        &mut self,
        connection: &mut Connection,
        options: &Options,
        (wall, now): (i64, Instant),
    ) -> Result<Step, Error> {
        // Also after an error: a full disk must not make this a busy loop.
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
        // In the order of ids, so that what is kept has no holes.
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
        // Of sinks that are configured no longer.
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

/// A hit that may be old.
#[derive(Clone, Copy, Debug)]
struct Oldest {
    id: i64,
    /// When it came, at the latest.
    time: i64,
    last_rule: i64,
}

/// The oldest hits. A hit came before those with higher ids: one with a later time came while a clock was wrong, and must
/// not keep the others behind it from growing old.
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

/// The id of `hit_rules` up to which every sink has been given all. `sinks`: those that are configured; without a list
/// every one that ever had something.
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

/// The clock as the process before this one left it, or when the newest hit came.
fn kept_time(connection: &Connection) -> Result<Option<i64>, Error> {
    let kept = connection
        .query_row("SELECT value FROM collector WHERE name = ?1", [CLOCK_NAME], |row| row.get(0))
        .optional()?;
    match kept {
        Some(kept) => Ok(Some(kept)),
        None => connection.query_row(SELECT_NEWEST_TIME, [], |row| row.get(0)).optional(),
    }
}

/// Bytes of the database that hold something.
fn used_bytes(connection: &Connection) -> Result<u64, Error> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, u64>(0));
    Ok(number("page_count")?.saturating_sub(number("freelist_count")?).saturating_mul(number("page_size")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400 * TICKS_PER_SECOND;
    const START: i64 = 400 * 365 * DAY;

    /// A store's tables as far as retention looks at them, with hits that came on these days.
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

    fn options(sinks: Option<&[&str]>) -> Options {
        Options {
            retention_age: Duration::from_hours(30 * 24),
            sinks: sinks.map(|sinks| sinks.iter().map(|&sink| sink.to_owned()).collect()),
            ..Options::default()
        }
    }

    #[test]
    fn a_jump_of_the_clock_removes_nothing_until_it_has_lasted() {
        let mut connection = store(&[0, 1, 2]);
        let (options, start) = (options(None), Instant::now());
        let mut schedule = Schedule::new(&options);
        let mut at = |day: i64, hours: u64| {
            let now = start + Duration::from_hours(hours);
            schedule.step(&mut connection, &options, (START + day * DAY, now)).unwrap();
            left(&connection)
        };
        assert_eq!(at(2, 0), 3);
        // Ten years ahead, for a day and a bit.
        assert_eq!(at(3650, 0), 3);
        assert_eq!(at(3650, 24), 3, "24 of 28 days are believed");
        // The clock is right again.
        assert_eq!(at(3, 25), 3);
        // Back at 1601, and right again: nothing is removed, and nothing is forgotten for good.
        assert_eq!(at(-400 * 365, 26), 3);
        assert_eq!(at(4, 27), 3);
        // Time does pass in the end.
        assert_eq!(at(31, 27 * 24), 2);
        assert_eq!(at(33, 29 * 24), 0);
    }

    #[test]
    fn the_clock_outlives_the_process() {
        let mut connection = store(&[0]);
        let (options, now) = (options(None), Instant::now());
        // Without a kept clock the newest hit tells the time.
        Schedule::new(&options).step(&mut connection, &options, (START + 3650 * DAY, now)).unwrap();
        assert_eq!(left(&connection), 1);
        let kept = "INSERT INTO collector (name, value) VALUES (?1, ?2)";
        connection.execute(kept, (CLOCK_NAME, START + 31 * DAY)).unwrap();
        Schedule::new(&options).step(&mut connection, &options, (START + 3650 * DAY, now)).unwrap();
        assert_eq!(left(&connection), 0, "31 days were known to have passed");
    }

    #[test]
    fn hits_that_a_sink_has_not_taken_stay() {
        // Name, configured sinks, positions in the store, hits left of four.
        type Row = (&'static str, Option<&'static [&'static str]>, &'static [(&'static str, i64)], i64);
        let rows: [Row; 7] = [
            ("no sinks", Some(&[]), &[], 0),
            ("no list and no positions", None, &[], 0),
            ("no list", None, &[("a", 3), ("b", 1)], 3),
            ("a sink that never delivered", Some(&["a"]), &[], 4),
            ("the slowest one counts", Some(&["a", "b"]), &[("a", 4), ("b", 2)], 2),
            ("a sink that was removed does not", Some(&["a"]), &[("a", 4), ("b", 0)], 0),
            ("all were given all", Some(&["a"]), &[("a", 4)], 0),
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
    fn a_time_from_a_wrong_clock_holds_nobody_up() {
        let mut connection = store(&[0, 3650, 1, 2, 60]);
        let options = options(None);
        let mut schedule = Schedule::new(&options);
        let time = (START + 60 * DAY, Instant::now());
        let step = schedule.step(&mut connection, &options, time).unwrap();
        assert_eq!((step.expired, left(&connection)), (4, 1));
    }
}
