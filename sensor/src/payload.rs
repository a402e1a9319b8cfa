//! Rebuilds payloads in the layout of the event's template.
//!
//! An ETW payload has no names, lengths or padding: the fields follow each other in the order of the manifest. Sources
//! that have separate fields (.evtx, JSON Lines) convert them to this layout, so that one matcher serves all sources.
//!
//! | event | fields |
//! |---|---|
//! | 4104 | i32 `MessageNumber`, i32 `MessageTotal`, strings `ScriptBlockText`, `ScriptBlockId`, `Path` |
//! | 4103 | strings `ContextInfo`, `UserData`, `Payload` |
//! | 1101 | [`crate::amsi`] |
//!
//! Numbers are little-endian, strings are UTF-16LE with a final NUL. Some hosts write 4104 without the last field,
//! under the same version: a missing `Path` is omitted, an empty one is a single NUL.
//!
//! Source: the `template` elements of the provider's manifest, `PowerShell-Instrumentation.man`.

use crate::amsi::Scan;
use crate::event::{MODULE_LOGGING, PAYLOAD_LEN_MAX, SCRIPT_BLOCK_LOGGING};
use etwsieve_matcher::EventKind;

/// Returns whether a payload may have the layout of its template: an even length, room for the numbers and two strings,
/// and a final NUL. Takes constant time; the strings are not read.
pub fn has_template_layout(kind: EventKind, payload: &[u8]) -> bool {
    // AMSI events have been decoded before.
    kind == EventKind::Amsi
        || payload.len().is_multiple_of(2)
            && payload.len() >= kind.text_offset() + 2 * 2
            && payload.ends_with(&[0, 0])
}

/// Type of a field in the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// `i32`, little-endian.
    Number,
    /// UTF-16LE with a final NUL.
    Text,
}

/// Treatment of a field that the event lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// The event is rejected, because it cannot be searched without the field.
    Refused,
    /// The field gets the value of an unfragmented event: 1, or the empty string.
    Filled,
    /// The payload ends before the field.
    Omitted,
}

/// A field of a template.
#[derive(Clone, Copy, Debug)]
pub struct TemplateField {
    /// Name in the manifest and in the `Name` attribute of the `Data` element.
    pub name: &'static str,
    /// Type of the field.
    pub kind: FieldKind,
    /// Treatment of an event that lacks the field.
    pub absence: Absence,
}

const fn field(name: &'static str, kind: FieldKind, absence: Absence) -> TemplateField {
    TemplateField { name, kind, absence }
}

/// The fields of event 4104 in order.
pub const SCRIPT_BLOCK_FIELDS: [TemplateField; 5] = [
    field("MessageNumber", FieldKind::Number, Absence::Filled),
    field("MessageTotal", FieldKind::Number, Absence::Filled),
    field("ScriptBlockText", FieldKind::Text, Absence::Refused),
    field("ScriptBlockId", FieldKind::Text, Absence::Filled),
    field("Path", FieldKind::Text, Absence::Omitted),
];

/// The fields of event 4103 in order.
pub const MODULE_FIELDS: [TemplateField; 3] = [
    field("ContextInfo", FieldKind::Text, Absence::Filled),
    field("UserData", FieldKind::Text, Absence::Filled),
    field("Payload", FieldKind::Text, Absence::Refused),
];

/// Returns the template of a PowerShell event, or `None` for an event that cannot be rebuilt.
pub fn fields(event_id: u16) -> Option<&'static [TemplateField]> {
    match event_id {
        SCRIPT_BLOCK_LOGGING => Some(&SCRIPT_BLOCK_FIELDS),
        MODULE_LOGGING => Some(&MODULE_FIELDS),
        _ => None,
    }
}

/// Why a payload cannot be rebuilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The payload is longer than [`PAYLOAD_LEN_MAX`].
    #[error("expected a payload of at most {PAYLOAD_LEN_MAX} bytes, found more")]
    TooLong,
    /// A field without which the event cannot be searched is missing.
    #[error("expected a field {name}, found none")]
    Missing {
        /// Name of the field.
        name: &'static str,
    },
    /// A number of the template is not a 32-bit integer in the event.
    #[error("expected a 32-bit integer in {name}, found something else")]
    NoNumber {
        /// Name of the field.
        name: &'static str,
    },
    /// A binary value of the template is neither binary nor hexadecimal text in the event.
    #[error("expected bytes or hexadecimal text in {name}, found something else")]
    NoBytes {
        /// Name of the field.
        name: &'static str,
    },
}

/// Names and positions of the fields of event 1101 that are used.
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

/// Writes the payload of event 1101 into `bytes` in the layout of [`crate::amsi`].
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

/// Writes a payload field by field into a buffer that the caller reuses.
///
/// A string ends at its first NUL, because a reader of the payload would interpret the rest as the next field. The
/// exception is [`keep_nul`](Self::keep_nul).
#[derive(Debug)]
pub struct PayloadWriter<'b> {
    bytes: &'b mut Vec<u8>,
    ended: bool,
    keeps_nul: bool,
}

impl<'b> PayloadWriter<'b> {
    /// Clears `bytes` and starts a payload in it. The capacity never exceeds twice [`PAYLOAD_LEN_MAX`].
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

    /// Allows NULs in the current string. For script text, which may contain NULs in ETW payloads too: the matcher
    /// finds the fields after it from the end of the payload.
    pub fn keep_nul(&mut self) {
        self.keeps_nul = true;
    }

    /// Adds UTF-16LE code units to the current string; an odd last byte is ignored.
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
    fn fields_are_written_in_the_layout_of_the_template() {
        let mut bytes = vec![9; 3];
        let mut writer = PayloadWriter::new(&mut bytes);
        writer.number(-2).expect("room");
        writer.text("aé").expect("room");
        writer.units(&[0x3D, 0xD8]).expect("room"); // A lone surrogate is kept.
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
    fn payloads_never_exceed_the_maximum() {
        let mut bytes = Vec::new();
        let mut writer = PayloadWriter::new(&mut bytes);
        writer.units(&vec![1; PAYLOAD_LEN_MAX - 2]).expect("room");
        assert_eq!(writer.units(&[1; 4]), Err(PayloadError::TooLong));
        assert_eq!(writer.end_string(), Ok(()));
        assert_eq!(writer.number(1), Err(PayloadError::TooLong));
        assert_eq!(bytes.len(), PAYLOAD_LEN_MAX);
    }
}
