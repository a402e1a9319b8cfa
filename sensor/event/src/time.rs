//! FILETIME, the unit of time in Windows event data, Unix time, and their text forms.
//!
//! Text is ISO 8601 in UTC. [`FileTime`] formats every value, including the years beyond 9999 that damaged traces
//! contain. Output for other programs uses [`filetime_text`], which stays within RFC 3339.

use jiff::Timestamp;
use jiff::civil::{DateTime, date};
use jiff::tz::Offset;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// 100 ns ticks per second, the unit of FILETIME.
pub const TICKS_PER_SECOND: u64 = 10_000_000;
/// Seconds from 1601-01-01, where FILETIME begins, to 1970-01-01.
pub const UNIX_EPOCH_SECONDS: u64 = 11_644_473_600;
/// The last FILETIME that RFC 3339 can express, at the end of the year 9999.
pub const FILETIME_TEXT_MAX: u64 = 2_650_467_743_999_999_999;

/// Nanoseconds of one tick.
const TICK_NANOS: u64 = 1_000_000_000 / TICKS_PER_SECOND;
/// The first moment of FILETIME.
const START: DateTime = date(1601, 1, 1).at(0, 0, 0, 0);
/// The Gregorian calendar repeats after this many years, which are this many seconds long.
const CYCLE_YEARS: u64 = 400;
const CYCLE_SECONDS: u64 = 146_097 * 86_400;

/// A point in time: 100 ns ticks since 1601-01-01T00:00:00Z.
///
/// Displays as ISO 8601 in UTC with seven decimals, `2024-05-14T09:12:00.0008656Z`. Years above 9999 have as many
/// digits as they need.
///
/// Source of the unit: `FILETIME` in `minwinbase.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileTime(pub u64);

impl FileTime {
    /// 1970-01-01T00:00:00Z.
    pub const UNIX_EPOCH: Self = Self(UNIX_EPOCH_SECONDS * TICKS_PER_SECOND);

    /// Returns the system time; [`UNIX_EPOCH`](Self::UNIX_EPOCH) if the clock is set before 1970.
    pub fn now() -> Self {
        Self::from_unix(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// Converts a time since 1970, rounded down to 100 ns.
    pub fn from_unix(since: Duration) -> Self {
        let ticks = u64::try_from(since.as_nanos() / u128::from(TICK_NANOS)).unwrap_or(u64::MAX);
        Self(Self::UNIX_EPOCH.0.saturating_add(ticks))
    }

    /// Parses what [`Display`](fmt::Display) writes, with zero to seven decimals and an optional `Z`.
    ///
    /// A space may replace the `T`. Returns `None` for anything else, and for years before 1601 or after 9999.
    pub fn parse_iso(text: &str) -> Option<Self> {
        let bytes = text.trim().trim_end_matches('Z').as_bytes();
        let (whole, decimals) = match bytes.iter().position(|&b| b == b'.') {
            Some(dot) => (&bytes[..dot], &bytes[dot + 1..]),
            None => (bytes, &[][..]),
        };
        let separators = [(4, b"-".as_slice()), (7, b"-"), (10, b"T "), (13, b":"), (16, b":")];
        if whole.len() != 19
            || decimals.len() > 7
            || separators.iter().any(|(at, of)| !of.contains(&whole[*at]))
        {
            return None;
        }
        let number = |digits: &[u8]| {
            digits.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + i16::from(b - b'0')))
        };
        let two_digits = |at: usize| number(&whole[at..at + 2]).map(|n| n as i8);
        let civil = DateTime::new(
            number(&whole[..4])?,
            two_digits(5)?,
            two_digits(8)?,
            two_digits(11)?,
            two_digits(14)?,
            two_digits(17)?,
            0,
        );
        let seconds = u64::try_from(civil.ok()?.duration_since(START).as_secs()).ok()?;
        let mut ticks = 0;
        for at in 0..7 {
            let digit = decimals.get(at).copied().unwrap_or(b'0');
            ticks = ticks * 10 + u64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
        }
        Some(Self(seconds * TICKS_PER_SECOND + ticks))
    }
}

impl fmt::Display for FileTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:07}Z", CivilSeconds(self.0 / TICKS_PER_SECOND), self.0 % TICKS_PER_SECOND)
    }
}

/// Seconds since 1601, displayed without decimals and without a zone.
struct CivilSeconds(u64);

impl fmt::Display for CivilSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // jiff ends with the year 9999, so it computes the date in the first 400 years.
        let (cycles, seconds) = (self.0 / CYCLE_SECONDS, self.0 % CYCLE_SECONDS);
        let timestamp = Timestamp::from_second(seconds as i64 - UNIX_EPOCH_SECONDS as i64)
            .expect("the years 1601 to 2000 are within the range of jiff");
        let civil = Offset::UTC.to_datetime(timestamp);
        let year = u64::from(civil.year().unsigned_abs()) + CYCLE_YEARS * cycles;
        let (month, day) = (civil.month(), civil.day());
        let (hour, minute, second) = (civil.hour(), civil.minute(), civil.second());
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
    }
}

/// Formats a FILETIME with seven decimals, `2024-05-14T09:12:00.0008656Z` (RFC 3339). Times above [`FILETIME_TEXT_MAX`]
/// become that one, because parsers reject years of five digits.
pub fn filetime_text(ticks: u64) -> String {
    FileTime(ticks.min(FILETIME_TEXT_MAX)).to_string()
}

/// Formats a FILETIME as seconds since 1970 with seven decimals, `1715677920.0008656`; times before 1970 are negative,
/// `-0.0000001`. Times above [`FILETIME_TEXT_MAX`] become that one.
pub fn filetime_unix_text(ticks: u64) -> String {
    let ticks = i128::from(ticks.min(FILETIME_TEXT_MAX)) - i128::from(FileTime::UNIX_EPOCH.0);
    let sign = if ticks < 0 { "-" } else { "" };
    let magnitude = ticks.unsigned_abs();
    let per_second = u128::from(TICKS_PER_SECOND);
    format!("{sign}{}.{:07}", magnitude / per_second, magnitude % per_second)
}

/// Formats seconds since 1970 without decimals, `2024-05-14T09:12:00Z` (RFC 3339).
pub fn unix_text(seconds: u64) -> String {
    format!("{}Z", CivilSeconds(seconds.saturating_add(UNIX_EPOCH_SECONDS)))
}

/// Parses what [`unix_text`] writes; `None` for anything else.
pub fn parse_unix(text: &str) -> Option<u64> {
    let seconds = FileTime::parse_iso(text)?.0 / TICKS_PER_SECOND;
    let unix = seconds.checked_sub(UNIX_EPOCH_SECONDS)?;
    (unix_text(unix) == text).then_some(unix)
}

/// Returns the system time in seconds since 1970.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_print_and_parse() {
        let rows = [
            (0, "1601-01-01T00:00:00.0000000Z"),
            (116_444_736_000_000_000, "1970-01-01T00:00:00.0000000Z"),
            (133_245_763_580_175_449, "2023-03-29T15:12:38.0175449Z"),
            (125_963_423_999_999_999, "2000-02-29T23:59:59.9999999Z"),
            (FILETIME_TEXT_MAX, "9999-12-31T23:59:59.9999999Z"),
        ];
        for (ticks, text) in rows {
            assert_eq!(FileTime(ticks).to_string(), text);
            assert_eq!(filetime_text(ticks), text);
            assert_eq!(FileTime::parse_iso(text), Some(FileTime(ticks)), "{text}");
        }
        assert_eq!(FileTime::parse_iso("1970-01-01 00:00:00"), Some(FileTime::UNIX_EPOCH));
        assert_eq!(
            FileTime::from_unix(Duration::from_nanos(1_000_000_250)).0,
            FileTime::UNIX_EPOCH.0 + 10_000_002
        );
    }

    #[test]
    fn years_beyond_9999_print_in_full_or_clamped() {
        assert_eq!(FileTime(FILETIME_TEXT_MAX + 1).to_string(), "10000-01-01T00:00:00.0000000Z");
        assert_eq!(FileTime(u64::MAX).to_string(), "60056-05-28T05:36:10.9551615Z");
        for ticks in [FILETIME_TEXT_MAX + 1, u64::MAX] {
            assert_eq!(filetime_text(ticks), "9999-12-31T23:59:59.9999999Z");
        }
    }

    #[test]
    fn text_that_is_not_a_time_is_rejected() {
        for text in [
            "",
            "1600-12-31T23:59:59Z",
            "2023-02-30T00:00:00Z",
            "2023-00-01T00:00:00Z",
            "2023-01-01T24:00:00Z",
            "2023-01-01T00:00:60Z",
            "2023-01-01T00:00:00.12345678Z",
            "2023-01-01T00:00:00.12a",
            "2023/01/01T00:00:00Z",
            "-023-01-01T00:00:00Z",
            "２023-01-01T00:00",
        ] {
            assert_eq!(FileTime::parse_iso(text), None, "{text}");
        }
    }

    #[test]
    fn filetimes_print_as_unix_seconds() {
        let rows = [
            (0, "-11644473600.0000000"),
            (1, "-11644473599.9999999"),
            (116_444_735_989_999_999, "-1.0000001"),
            (116_444_735_990_000_000, "-1.0000000"),
            (116_444_735_999_999_999, "-0.0000001"),
            (116_444_736_000_000_000, "0.0000000"),
            (116_444_736_000_000_001, "0.0000001"),
            (133_245_763_580_175_449, "1680102758.0175449"),
            (u64::MAX, "253402300799.9999999"),
        ];
        for (ticks, text) in rows {
            assert_eq!(filetime_unix_text(ticks), text);
        }
    }

    #[test]
    fn unix_times_round_trip() {
        let rows = [
            (0, "1970-01-01T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_732_559_400, "2024-11-25T18:30:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ];
        for (seconds, text) in rows {
            assert_eq!(unix_text(seconds), text);
            assert_eq!(parse_unix(text), Some(seconds), "{text}");
        }
        assert_eq!(unix_text(u64::MAX), unix_text(u64::MAX - UNIX_EPOCH_SECONDS), "saturates");
        for text in [
            "",
            "1969-12-31T23:59:59Z",
            "2023-02-30T00:00:00Z",
            "2023-01-00T00:00:00Z",
            "2023-01-01T24:00:00Z",
            "2023-01-01 00:00:00Z",
            "2023-01-01T00:00:00.0Z",
            "2023-01-01T00:00:00",
            "2023-13-01T00:00:00Z",
            "２023-01-01T00:00",
        ] {
            assert_eq!(parse_unix(text), None, "{text}");
        }
    }

    /// The calendar of `jiff` against a plain count of days, one day in 97 until well past the year 9999.
    #[test]
    fn dates_equal_a_count_of_days() {
        let is_leap =
            |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let (mut year, mut month, mut day) = (1601, 1, 1);
        for days in 0..4_000_000u64 {
            if days.is_multiple_of(97) {
                let text = FileTime(days * 86_400 * TICKS_PER_SECOND).to_string();
                assert_eq!(text, format!("{year:04}-{month:02}-{day:02}T00:00:00.0000000Z"));
            }
            let month_len = match month {
                2 => 28 + u64::from(is_leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > month_len {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }
}
