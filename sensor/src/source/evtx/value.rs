//! Converts the values of a record: typed as templates store them, or text as forwarders store them.

use super::input::{Value, kind};
use crate::payload::{PayloadError, PayloadWriter};
use crate::source::text::{parse_guid, parse_integer, parse_time};
use etwsieve_event::FileTime;
use etwsieve_event::Sid;
use uuid::Uuid;

/// Maximum length of a number, a GUID, a SID or a time as text, in UTF-16 units.
const SHORT_TEXT_LEN_MAX: usize = 256;

pub(super) fn until_nul(utf16le: &[u8]) -> &[u8] {
    let units = utf16le.as_chunks::<2>().0;
    let len = units.iter().position(|unit| *unit == [0, 0]).unwrap_or(units.len());
    &utf16le[..2 * len]
}

pub(super) fn push_units(text: &mut String, utf16le: &[u8]) {
    let units = until_nul(utf16le).as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
    text.extend(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
}

pub(super) fn short_text(value: &Value<'_>) -> Option<String> {
    if value.kind != kind::TEXT || value.bytes.len() > 2 * SHORT_TEXT_LEN_MAX {
        return None;
    }
    let mut text = String::new();
    push_units(&mut text, value.bytes);
    Some(text)
}

/// Reads an integer of any type or as text; negative numbers are returned as their two's complement.
pub(super) fn integer(value: &Value<'_>) -> Option<u64> {
    let signed = match value.kind {
        kind::I8 | kind::I16 | kind::I32 | kind::I64 => true,
        kind::U8 | kind::U16 | kind::U32 | kind::U64 | kind::BOOL | kind::HEX32 | kind::HEX64 => false,
        _ => return parse_integer(&short_text(value)?),
    };
    let last = *value.bytes.last()?;
    let mut bytes = [if signed && last >= 0x80 { 0xFF } else { 0 }; 8];
    bytes.get_mut(..value.bytes.len())?.copy_from_slice(value.bytes);
    Some(u64::from_le_bytes(bytes))
}

pub(super) fn guid(value: &Value<'_>) -> Option<Uuid> {
    match value.kind {
        kind::GUID => Some(Uuid::from_bytes_le(value.bytes.try_into().ok()?)),
        _ => parse_guid(&short_text(value)?),
    }
}

pub(super) fn sid(value: &Value<'_>) -> Option<Sid> {
    match value.kind {
        kind::SID => Sid::from_bytes(value.bytes),
        _ => Sid::parse(short_text(value)?.trim()),
    }
}

pub(super) fn time(value: &Value<'_>) -> Option<FileTime> {
    match value.kind {
        kind::FILETIME => Some(FileTime(u64::from_le_bytes(value.bytes.try_into().ok()?))),
        kind::SYSTEMTIME => {
            let bytes: &[u8; 16] = value.bytes.try_into().ok()?;
            let part = |at: usize| u16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]);
            let date = format!("{:04}-{:02}-{:02}", part(0), part(1), part(3));
            let clock = format!("{:02}:{:02}:{:02}.{:03}", part(4), part(5), part(6), part(7));
            FileTime::parse_iso(&format!("{date}T{clock}"))
        }
        _ => parse_time(&short_text(value)?),
    }
}

/// Appends a binary value, or the bytes of hexadecimal text; returns `None` for other values.
pub(super) fn bytes(value: &Value<'_>, out: &mut Vec<u8>) -> Option<()> {
    match value.kind {
        kind::BINARY => out.extend_from_slice(value.bytes),
        kind::TEXT => {
            let units = until_nul(value.bytes).as_chunks::<2>().0;
            let digit = |unit: &[u8; 2]| match unit {
                [digit, 0] => char::from(*digit).to_digit(16),
                _ => None,
            };
            let units = units.strip_prefix(&[[b'0', 0], [b'x', 0]]).unwrap_or(units);
            let (pairs, rest) = units.as_chunks::<2>();
            for [high, low] in pairs {
                // Two digits fit a byte.
                out.push((digit(high)? << 4 | digit(low)?) as u8);
            }
            if !rest.is_empty() {
                return None;
            }
        }
        _ => return None,
    }
    Some(())
}

/// Steps of writing a value into a string field.
pub(super) fn text_steps(value: &Value<'_>) -> usize {
    let per_byte = match value.kind {
        kind::TEXT => 1,
        kind::ANSI => 4,
        // Two hexadecimal digits per byte.
        _ => 8,
    };
    64 + per_byte * value.bytes.len()
}

/// Writes a value into a string field in the form that Windows shows.
pub(super) fn write_text(writer: &mut PayloadWriter<'_>, value: &Value<'_>) -> Result<(), PayloadError> {
    match value.kind {
        kind::TEXT => writer.units(value.bytes),
        // The code page is not recorded. Latin-1 is correct for ASCII under every code page.
        kind::ANSI => value.bytes.iter().try_for_each(|&byte| writer.units(&[byte, 0])),
        kind::I8 | kind::I16 | kind::I32 | kind::I64 => {
            integer(value).map_or(Ok(()), |number| writer.text(&(number as i64).to_string()))
        }
        kind::HEX32 | kind::HEX64 => {
            integer(value).map_or(Ok(()), |number| writer.text(&format!("{number:#x}")))
        }
        kind::GUID => guid(value).map_or(Ok(()), |guid| writer.text(&format!("{{{guid:X}}}"))),
        kind::SID => sid(value).map_or(Ok(()), |sid| writer.text(&sid.to_string())),
        kind::FILETIME | kind::SYSTEMTIME => {
            time(value).map_or(Ok(()), |time| writer.text(&time.to_string()))
        }
        _ if integer(value).is_some() => {
            integer(value).map_or(Ok(()), |number| writer.text(&number.to_string()))
        }
        // Other types only occur in forged records, and are written as hexadecimal bytes.
        _ => value.bytes.iter().try_for_each(|byte| {
            let digit = |digit: u8| if digit < 10 { b'0' + digit } else { b'A' - 10 + digit };
            writer.units(&[digit(byte >> 4), 0, digit(byte & 15), 0])
        }),
    }
}
