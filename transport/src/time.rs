//! Times as ISO 8601 text in UTC, from FILETIME and from seconds since 1970.

/// Ticks of 100 ns in a second, the unit of FILETIME.
pub const TICKS_PER_SECOND: u64 = 10_000_000;
/// Seconds from 1601-01-01, the start of FILETIME, to 1970-01-01.
pub const UNIX_EPOCH_SECONDS: u64 = 11_644_473_600;

const SECONDS_PER_DAY: u64 = 86_400;
/// Days from 0000-03-01 to 1601-01-01 in the proleptic Gregorian calendar.
const DAYS_TO_1601: u64 = 584_694;

/// The last FILETIME that RFC 3339 can express, at the end of the year 9999. Damaged traces contain later ones.
pub const FILETIME_TEXT_MAX: u64 = 2_650_467_743_999_999_999;

/// Formats a FILETIME with seven decimals, `2024-05-14T09:12:00.0008656Z` (RFC 3339). Times above [`FILETIME_TEXT_MAX`]
/// are shown as that maximum, because parsers reject years of five digits.
pub fn filetime_text(ticks: u64) -> String {
    let ticks = ticks.min(FILETIME_TEXT_MAX);
    format!("{}.{:07}Z", seconds_text(ticks / TICKS_PER_SECOND), ticks % TICKS_PER_SECOND)
}

/// Formats a FILETIME as seconds since 1970 with seven decimals, `1715677920.0008656`; times before 1970 are negative,
/// `-0.0000001`. Times above [`FILETIME_TEXT_MAX`] are shown as that maximum.
pub fn filetime_unix_text(ticks: u64) -> String {
    let ticks = i128::from(ticks.min(FILETIME_TEXT_MAX)) - i128::from(UNIX_EPOCH_SECONDS * TICKS_PER_SECOND);
    let sign = if ticks < 0 { "-" } else { "" };
    let magnitude = ticks.unsigned_abs();
    let per_second = u128::from(TICKS_PER_SECOND);
    format!("{sign}{}.{:07}", magnitude / per_second, magnitude % per_second)
}

/// Formats seconds since 1970 without decimals, `2024-05-14T09:12:00Z` (RFC 3339).
pub fn unix_text(seconds: u64) -> String {
    format!("{}Z", seconds_text(seconds.saturating_add(UNIX_EPOCH_SECONDS)))
}

/// Parses the format of [`unix_text`]; returns `None` for any other text.
pub fn parse_unix(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>().ok())?
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let seconds = number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
    if year < 1970 || !(1..=12).contains(&month) {
        return None;
    }
    let days = days_from_civil(year, month, day);
    let unix = (days * SECONDS_PER_DAY + seconds).checked_sub(UNIX_EPOCH_SECONDS)?;
    // A text that is not a valid time (February 31st, hour 25) prints as something else.
    (unix_text(unix) == text).then_some(unix)
}

/// Returns the system time in seconds since 1970.
pub fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Formats seconds since 1601, without decimals and without a time zone.
fn seconds_text(seconds: u64) -> String {
    let (days, second) = (seconds / SECONDS_PER_DAY, seconds % SECONDS_PER_DAY);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// Converts days since 1601-01-01 to year, month and day. The computation starts years in March, so that the leap day
/// comes last.
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

/// The inverse of [`civil_from_days`], for years from 1601. Day 0 is treated as day 1.
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day.saturating_sub(1);
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - DAYS_TO_1601
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filetimes() {
        let rows = [
            (0, "1601-01-01T00:00:00.0000000Z"),
            (116_444_736_000_000_000, "1970-01-01T00:00:00.0000000Z"),
            (133_245_763_580_175_449, "2023-03-29T15:12:38.0175449Z"),
            (125_963_423_999_999_999, "2000-02-29T23:59:59.9999999Z"),
            (FILETIME_TEXT_MAX, "9999-12-31T23:59:59.9999999Z"),
            (FILETIME_TEXT_MAX + 1, "9999-12-31T23:59:59.9999999Z"),
            (u64::MAX, "9999-12-31T23:59:59.9999999Z"),
        ];
        for (ticks, text) in rows {
            assert_eq!(filetime_text(ticks), text);
        }
    }

    #[test]
    fn filetimes_as_unix_seconds() {
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
    fn unix_times_there_and_back() {
        let rows = [
            (0, "1970-01-01T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_732_559_400, "2024-11-25T18:30:00Z"),
        ];
        for (seconds, text) in rows {
            assert_eq!(unix_text(seconds), text);
            assert_eq!(parse_unix(text), Some(seconds), "{text}");
        }
        for text in [
            "",
            "1969-12-31T23:59:59Z",
            "2023-02-30T00:00:00Z",
            "2023-01-00T00:00:00Z",
            "2023-01-01T24:00:00Z",
            "2023-01-01 00:00:00Z",
            "2023-13-01T00:00:00Z",
            "２023-01-01T00:00",
        ] {
            assert_eq!(parse_unix(text), None, "{text}");
        }
    }
}
