//! FILETIME: the one time of Windows event data.

use std::fmt;

/// 100 ns ticks per second.
pub const TICKS_PER_SECOND: u64 = 10_000_000;

const SECONDS_PER_DAY: u64 = 86_400;
/// Days from 0000-03-01 to 1601-01-01 in the proleptic Gregorian calendar.
const DAYS_TO_1601: u64 = 584_694;

/// A point in time: 100 ns ticks since 1601-01-01T00:00:00Z.
///
/// Displays as ISO 8601 in UTC with seven decimals, `2024-05-14T09:12:00.0008656Z`. Years above 9999 print
/// with as many digits as they need; damaged traces can hold them.
///
/// Source of the unit: `FILETIME` in `minwinbase.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileTime(pub u64);

impl FileTime {
    /// Parses what [`Display`](fmt::Display) writes, with zero to seven decimals and an optional `Z`.
    ///
    /// Accepts a space in the place of the `T`. `None` for anything else, and for dates before 1601.
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
        let number = |range: std::ops::Range<usize>| {
            whole[range]
                .iter()
                .try_fold(0u64, |n, b| b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0')))
        };
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
        if year < 1601
            || !(1..=12).contains(&month)
            || !(1..=31).contains(&day)
            || hour > 23
            || minute > 59
            || second > 59
        {
            return None;
        }
        let mut ticks = 0;
        for at in 0..7 {
            let digit = decimals.get(at).copied().unwrap_or(b'0');
            ticks = ticks * 10 + u64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
        }
        let time = Self(
            (days_from_civil(year, month, day) * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second)
                * TICKS_PER_SECOND
                + ticks,
        );
        // A 31st of a shorter month would print as another day.
        (civil_from_days(time.0 / TICKS_PER_SECOND / SECONDS_PER_DAY) == (year, month, day)).then_some(time)
    }
}

impl fmt::Display for FileTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ticks) = (self.0 / TICKS_PER_SECOND, self.0 % TICKS_PER_SECOND);
        let (days, second) = (seconds / SECONDS_PER_DAY, seconds % SECONDS_PER_DAY);
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ticks:07}Z")
    }
}

/// Days since 1601-01-01 to year, month, day. Years are counted from March, so that the leap day comes last.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_TO_1601;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil_from_days`], for years from 1601.
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - DAYS_TO_1601
}

#[cfg(test)]
mod tests {
    use super::FileTime;

    #[test]
    fn prints_and_parses_known_times() {
        let rows = [
            (0, "1601-01-01T00:00:00.0000000Z"),
            (116_444_736_000_000_000, "1970-01-01T00:00:00.0000000Z"),
            (133_245_763_580_175_449, "2023-03-29T15:12:38.0175449Z"),
            (125_963_423_999_999_999, "2000-02-29T23:59:59.9999999Z"),
        ];
        for (ticks, text) in rows {
            assert_eq!(FileTime(ticks).to_string(), text);
            assert_eq!(FileTime::parse_iso(text), Some(FileTime(ticks)), "{text}");
        }
        assert_eq!(FileTime::parse_iso("1970-01-01 00:00:00"), Some(FileTime(116_444_736_000_000_000)));
        assert_eq!(FileTime(u64::MAX).to_string(), "60056-05-28T05:36:10.9551615Z");
    }

    #[test]
    fn refuses_what_is_no_time() {
        for text in [
            "",
            "1600-12-31T23:59:59Z",
            "2023-02-30T00:00:00Z",
            "2023-01-01T24:00:00Z",
            "2023-01-01T00:00:00.12345678Z",
            "2023-01-01T00:00:00.12a",
            "2023/01/01T00:00:00Z",
            "２023-01-01T00:00",
        ] {
            assert_eq!(FileTime::parse_iso(text), None, "{text}");
        }
    }
}
