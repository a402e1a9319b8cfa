//! Payloads written anew, in the layout of the event's template.
//!
//! An ETW payload has no names, lengths or padding: the fields stand one behind the other, as the manifest
//! orders them. Sources that hold an event field by field (.evtx, JSON Lines) write it back into this form,
//! so that one matcher serves all of them.
//!
//! | event | fields |
//! |---|---|
//! | 4104 | i32 `MessageNumber`, i32 `MessageTotal`, strings `ScriptBlockText`, `ScriptBlockId`, `Path` |
//! | 4103 | strings `ContextInfo`, `UserData`, `Payload` |
//! | 1101 | [`crate::amsi`] |
//!
//! Numbers are little-endian, strings UTF-16LE up to a NUL. Some hosts write 4104 without the last field, and
//! the version does not tell: a missing `Path` is left out, an empty one is a lone NUL.
//!
//! Source: the `template` elements of the provider's manifest, `PowerShell-Instrumentation.man`.

use crate::amsi::Scan;
use crate::event::{MODULE_LOGGING, PAYLOAD_LEN_MAX, SCRIPT_BLOCK_LOGGING};
use etwsieve_matcher::EventKind;

/// Whether a payload may have the layout of its template: an even length, room for the numbers and for two
/// strings, and a NUL at the end. A constant number of looks; the strings are not read.
pub fn looks_whole(kind: EventKind, payload: &[u8]) -> bool {
    // Content of the scanner has been decoded and laid out before.
    kind == EventKind::Amsi
        || payload.len().is_multiple_of(2)
            && payload.len() >= kind.text_offset() + 2 * 2
            && payload.ends_with(&[0, 0])
}

/// How a field stands in the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// `i32`, little-endian.
    Number,
    /// UTF-16LE up to and including a NUL.
    Text,
}

/// What a payload holds when its event has no such field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// The event cannot be searched without it.
    Refused,
    /// The field gets the value that an event without fragments has: 1, or the empty string.
    Filled,
    /// The payload ends before it.
    Omitted,
}

/// One field of a template.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name in the manifest, which is the `Name` of its `Data` element too.
    pub name: &'static str,
    /// How it is written.
    pub kind: FieldKind,
    /// What stands for it when the event lacks it.
    pub absence: Absence,
}

const fn field(name: &'static str, kind: FieldKind, absence: Absence) -> Field {
    Field { name, kind, absence }
}

/// The fields of a 4104, in order.
pub const SCRIPT_BLOCK_FIELDS: [Field; 5] = [
    field("MessageNumber", FieldKind::Number, Absence::Filled),
    field("MessageTotal", FieldKind::Number, Absence::Filled),
    field("ScriptBlockText", FieldKind::Text, Absence::Refused),
    field("ScriptBlockId", FieldKind::Text, Absence::Filled),
    field("Path", FieldKind::Text, Absence::Omitted),
];

/// The fields of a 4103, in order.
pub const MODULE_FIELDS: [Field; 3] = [
    field("ContextInfo", FieldKind::Text, Absence::Filled),
    field("UserData", FieldKind::Text, Absence::Filled),
    field("Payload", FieldKind::Text, Absence::Refused),
];

/// The template of an event of PowerShell's own, or `None` for an event that cannot be rebuilt from one.
pub fn fields(event_id: u16) -> Option<&'static [Field]> {
    match event_id {
        SCRIPT_BLOCK_LOGGING => Some(&SCRIPT_BLOCK_FIELDS),
        MODULE_LOGGING => Some(&MODULE_FIELDS),
        _ => None,
    }
}

/// Why a payload could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// It would be longer than the pipeline takes.
    #[error("expected a payload of at most {PAYLOAD_LEN_MAX} bytes, found more")]
    TooLong,
    /// A field without which the event says nothing is missing.
    #[error("expected a field {name}, found none")]
    Missing {
        /// The field's name.
        name: &'static str,
    },
    /// A number of the template is no 32-bit integer in the event.
    #[error("expected a 32-bit integer as {name}, found something else")]
    NoNumber {
        /// The field's name.
        name: &'static str,
    },
    /// A binary value of the template is none in the event, nor hexadecimal digits.
    #[error("expected bytes, or two hexadecimal digits for each, as {name}, found something else")]
    NoBytes {
        /// The field's name.
        name: &'static str,
    },
}

/// The names of the fields of a 1101 that are used, and their places among all of them.
pub mod amsi_field {
    /// `scanResult`.
    pub const SCAN_RESULT: (&str, usize) = ("scanResult", 2);
    /// `appname`.
    pub const APP_NAME: (&str, usize) = ("appname", 3);
    /// `contentname`.
    pub const CONTENT_NAME: (&str, usize) = ("contentname", 4);
    /// `content`.
    pub const CONTENT: (&str, usize) = ("content", 7);
}

/// Writes the payload of a 1101 into `bytes`, as [`crate::amsi`] lays it out.
///
/// # Errors
///
/// [`PayloadError::TooLong`].
pub fn write_scan(scan: &Scan<'_>, bytes: &mut Vec<u8>) -> Result<(), PayloadError> {
    if scan.encoded_len_max() > PAYLOAD_LEN_MAX {
        return Err(PayloadError::TooLong);
    }
    bytes.clear();
    scan.encode(bytes);
    Ok(())
}

/// Writes one payload, field by field, into a buffer that the caller recycles.
///
/// A string ends at its first NUL, as it would for whoever reads the payload: what stood behind it would
/// otherwise be read as the next field. The exception is [`keep_nul`](Self::keep_nul).
#[derive(Debug)]
pub struct PayloadWriter<'b> {
    bytes: &'b mut Vec<u8>,
    ended: bool,
    keeps_nul: bool,
}

impl<'b> PayloadWriter<'b> {
    /// Empties `bytes` and starts a payload in it. Its capacity never grows above [`PAYLOAD_LEN_MAX`] twice.
    pub fn new(bytes: &'b mut Vec<u8>) -> Self {
        bytes.clear();
        Self { bytes, ended: false, keeps_nul: false }
    }

    /// Writes a number.
    ///
    /// # Errors
    ///
    /// [`PayloadError::TooLong`].
    pub fn number(&mut self, value: i32) -> Result<(), PayloadError> {
        self.push(&value.to_le_bytes())
    }

    /// Lets the current string hold NULs: for script text, whose neighbours the matcher finds from the payload's
    /// end, and which holds them in ETW payloads too.
    pub fn keep_nul(&mut self) {
        self.keeps_nul = true;
    }

    /// Adds UTF-16LE code units to the current string; an odd last byte is left out.
    ///
    /// # Errors
    ///
    /// [`PayloadError::TooLong`].
    pub fn units(&mut self, utf16le: &[u8]) -> Result<(), PayloadError> {
        if self.ended {
            return Ok(());
        }
        let units = utf16le.as_chunks::<2>().0;
        let nul = if self.keeps_nul { None } else { units.iter().position(|unit| *unit == [0, 0]) };
        let len = nul.unwrap_or(units.len());
        self.ended = len < units.len();
        self.push(&utf16le[..2 * len])
    }

    /// Adds text to the current string.
    ///
    /// # Errors
    ///
    /// [`PayloadError::TooLong`].
    pub fn text(&mut self, text: &str) -> Result<(), PayloadError> {
        text.encode_utf16().try_for_each(|unit| self.units(&unit.to_le_bytes()))
    }

    /// Ends the current string.
    ///
    /// # Errors
    ///
    /// [`PayloadError::TooLong`].
    pub fn end_string(&mut self) -> Result<(), PayloadError> {
        self.ended = false;
        self.keeps_nul = false;
        self.push(&[0, 0])
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), PayloadError> {
        if bytes.len() > PAYLOAD_LEN_MAX - self.bytes.len() {
            return Err(PayloadError::TooLong);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{PayloadError, PayloadWriter};
    use crate::event::PAYLOAD_LEN_MAX;

    #[test]
    fn writes_the_layout() {
        let mut bytes = vec![9; 3];
        let mut writer = PayloadWriter::new(&mut bytes);
        writer.number(-2).expect("room");
        writer.text("aé").expect("room");
        writer.units(&[0x3D, 0xD8]).expect("room"); // Half a surrogate pair stays.
        writer.end_string().expect("room");
        writer.end_string().expect("room");
        assert_eq!(bytes, [0xFE, 0xFF, 0xFF, 0xFF, b'a', 0, 0xE9, 0, 0x3D, 0xD8, 0, 0, 0, 0]);
    }

    #[test]
    fn a_string_ends_at_its_first_nul() {
        type Row = (&'static str, &'static [&'static [u8]], &'static [u8]);
        let rows: [Row; 4] = [
            ("terminated", &[b"a\0\0\0"], b"a\0\0\0"),
            ("inside", &[b"a\0\0\0b\0"], b"a\0\0\0"),
            ("in an earlier piece", &[b"\0\0", b"b\0"], b"\0\0"),
            ("odd", &[b"a\0b"], b"a\0\0\0"),
        ];
        for (name, pieces, expected) in rows {
            let mut bytes = Vec::new();
            let mut writer = PayloadWriter::new(&mut bytes);
            for piece in pieces {
                writer.units(piece).expect("room");
            }
            writer.end_string().expect("room");
            assert_eq!(bytes, expected, "{name}");
        }
    }

    #[test]
    fn stays_below_its_bound() {
        let mut bytes = Vec::new();
        let mut writer = PayloadWriter::new(&mut bytes);
        writer.units(&vec![1; PAYLOAD_LEN_MAX - 2]).expect("room");
        assert_eq!(writer.units(&[1; 4]), Err(PayloadError::TooLong));
        assert_eq!(writer.end_string(), Ok(()));
        assert_eq!(writer.number(1), Err(PayloadError::TooLong));
        assert_eq!(bytes.len(), PAYLOAD_LEN_MAX);
    }
}
