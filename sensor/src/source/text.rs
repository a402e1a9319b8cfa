//! Parses values that are stored as text, in forwarded .evtx records and in JSON Lines.

use etwsieve_event::FileTime;
use etwsieve_event::time::TICKS_PER_SECOND;
use uuid::Uuid;

/// Parses an RFC 3339 time; without an offset it is UTC. Ignores decimals after the seventh, because forwarded records
/// have nine.
pub(crate) fn parse_time(text: &str) -> Option<FileTime> {
    let text = text.trim();
    // A sign after the seconds starts an offset.
    let sign = text.rfind(['+', '-']).filter(|at| *at >= "2026-11-30T10:00:00".len());
    let Some(at) = sign else { return parse_utc(text) };
    let (local, offset) = (&text[..at], parse_offset(&text[at + 1..])?);
    if local.ends_with('Z') {
        return None;
    }
    let local = parse_utc(local)?.0;
    // A positive offset means that the local time is ahead of UTC.
    let utc = if text[at..].starts_with('+') { local.checked_sub(offset) } else { local.checked_add(offset) };
    utc.map(FileTime)
}

fn parse_utc(text: &str) -> Option<FileTime> {
    let text = text.trim_end_matches('Z');
    let Some((whole, decimals)) = text.split_once('.') else {
        return FileTime::parse_iso(text);
    };
    if decimals.len() <= 7 || !decimals.bytes().all(|b| b.is_ascii_digit()) {
        return FileTime::parse_iso(text);
    }
    FileTime::parse_iso(&text[..whole.len() + 1 + 7])
}

/// Parses hours and minutes. Returns ticks of 100 ns.
fn parse_offset(text: &str) -> Option<u64> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |part: &str, max: u64| {
        let is_number = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        part.parse::<u64>().ok().filter(|number| is_number && *number <= max)
    };
    Some((number(hours, 23)? * 60 + number(minutes, 59)?) * 60 * TICKS_PER_SECOND)
}

/// Parses an integer: decimal with an optional sign, or hexadecimal with the prefix `0x`.
///
/// Negative numbers are returned as their 64-bit two's complement.
pub(crate) fn parse_integer(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok();
    }
    text.parse::<u64>().ok().or_else(|| text.parse::<i64>().ok().map(|value| value as u64))
}

/// Parses a GUID with or without braces.
pub(crate) fn parse_guid(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::{parse_guid, parse_integer, parse_time};
    use crate::event::POWERSHELL;

    #[test]
    fn times_are_parsed_or_rejected() {
        let rows = [
            ("2021-06-10T14:12:46.058429500Z", Some("2021-06-10T14:12:46.0584295Z")),
            ("2021-06-10T14:12:46.0584295Z", Some("2021-06-10T14:12:46.0584295Z")),
            ("2020-07-22 00:02:31", Some("2020-07-22T00:02:31.0000000Z")),
            ("2022-08-04T08:21:24.727Z", Some("2022-08-04T08:21:24.7270000Z")),
            ("2021-06-10T14:12:46.05842950xZ", None),
            ("2026-11-30T10:00:00+01:00", Some("2026-11-30T09:00:00.0000000Z")),
            ("2026-11-30 10:00:00.123456789-00:30", Some("2026-11-30T10:30:00.1234567Z")),
            ("1601-01-01T01:00:00+01:00", Some("1601-01-01T00:00:00.0000000Z")),
            ("1601-01-01T00:00:00+01:00", None),
            ("2026-11-30T10:00:00+24:00", None),
            ("2026-11-30T10:00:00+1:00", None),
            ("2026-11-30T10:00:00Z+01:00", None),
            ("2026-11-30T10:00:00+01:00é", None),
            ("2026-11-30T10:00:60Z", None),
            ("20261130T100000Z", None),
            ("yesterday", None),
            ("é.12345678", None),
        ];
        for (text, expected) in rows {
            assert_eq!(parse_time(text).map(|time| time.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn integers_and_guids_are_parsed_or_rejected() {
        let rows = [
            ("0", Some(0)),
            (" 42 ", Some(42)),
            ("-1", Some(u64::MAX)),
            ("0x8000000000000000", Some(1 << 63)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("0x", None),
        ];
        for (text, expected) in rows {
            assert_eq!(parse_integer(text), expected, "{text}");
        }
        assert_eq!(parse_guid("{A0C1853B-5C40-4B15-8766-3CF1C58F985A}"), Some(POWERSHELL));
        assert_eq!(parse_guid("a0c1853b-5c40-4b15-8766-3cf1c58f985a"), Some(POWERSHELL));
        assert_eq!(parse_guid("{a0c1853b}"), None);
    }
}
