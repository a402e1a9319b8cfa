//! The fields of a payload. Nothing is decoded: a field is a range of UTF-16LE code units.
//!
//! | event | user data, little-endian, strings NUL-terminated and not aligned |
//! |---|---|
//! | 4104 | i32 MessageNumber, i32 MessageTotal, str ScriptBlockText, str ScriptBlockId, \[str Path\] |
//! | 4103 | str ContextInfo, str UserData, str Payload |
//! | 1101 | as laid out by [`amsi`](crate::amsi) |
//!
//! Source: the manifest of PowerShell (`PowerShell.Core.Instrumentation.man`). Recordings show that events of task 102
//! lack the path; the version of the event does not say so. Text may contain U+0000, which tools that decode by the
//! manifest take as its end. [`Fields::split`] therefore locates the fields after the text from the end of the payload.

use crate::amsi;
use std::ops::Range;

/// A kind of event that rules can be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// 4104, script block logging (`ps_script`).
    ScriptBlock,
    /// 4103, module logging (`ps_module`).
    Module,
    /// 1101 of Microsoft-Antimalware-Scan-Interface: content that PowerShell submitted to the scanner, searched with
    /// the rules of `ps_script`. The payload is laid out by [`amsi`](crate::amsi) before it is searched.
    Amsi,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::ScriptBlock, Self::Module, Self::Amsi];
    /// The kinds that PowerShell itself writes.
    pub const POWERSHELL: [Self; 2] = [Self::ScriptBlock, Self::Module];

    /// Returns the kind with this event id, whichever provider writes it.
    pub fn from_event_id(id: u16) -> Option<Self> {
        match id {
            4104 => Some(Self::ScriptBlock),
            4103 => Some(Self::Module),
            1101 => Some(Self::Amsi),
            _ => None,
        }
    }

    /// Returns the kind whose rules apply to events of this one.
    #[must_use]
    pub const fn rules_of(self) -> Self {
        match self {
            Self::ScriptBlock | Self::Amsi => Self::ScriptBlock,
            Self::Module => Self::Module,
        }
    }

    /// Returns the event id of this kind.
    pub fn event_id(self) -> u16 {
        match self {
            Self::ScriptBlock => 4104,
            Self::Module => 4103,
            Self::Amsi => 1101,
        }
    }

    /// Returns the offset in bytes at which the text of a payload begins.
    pub fn text_offset(self) -> usize {
        match self {
            Self::ScriptBlock => 8,
            Self::Module => 0,
            Self::Amsi => amsi::HEADER_LEN,
        }
    }

    /// Returns the text fields of this kind, in the order of the payload.
    pub fn text_fields(self) -> &'static [Field] {
        match self {
            Self::ScriptBlock => &[Field::ScriptBlockText, Field::ScriptBlockId, Field::Path],
            Self::Module => &[Field::ContextInfo, Field::UserData, Field::Payload],
            Self::Amsi => &[Field::ScriptBlockText, Field::Path],
        }
    }
}

/// A set of event kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct EventKinds(u8);

impl EventKinds {
    /// All kinds.
    pub const ALL: Self = Self(3);

    /// Returns the set of one kind, and of the kinds to which its rules apply.
    pub const fn only(kind: EventKind) -> Self {
        Self(1 << kind.rules_of() as u8)
    }

    /// Returns true if the set contains the kind, or the kind whose rules apply to it.
    pub fn contains(self, kind: EventKind) -> bool {
        self.0 & Self::only(kind).0 != 0
    }

    /// Returns true if all kinds of the other set are in this one.
    pub fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the kinds that are in both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns true if no kind is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A field that rules can test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// 4104: the text of the script block or fragment; 1101: the content.
    ScriptBlockText,
    /// 4104: the id that the fragments of a block share.
    ScriptBlockId,
    /// 4104: the path of the script; 1101: the name of the content.
    Path,
    /// 4103: host, command and user of the call.
    ContextInfo,
    /// 4103: user data.
    UserData,
    /// 4103: the command and its parameter bindings.
    Payload,
    /// 4104: number of the fragment, from 1.
    MessageNumber,
    /// 4104: number of fragments.
    MessageTotal,
    /// The event's id.
    EventId,
}

impl Field {
    /// Number of fields.
    pub(crate) const COUNT: usize = 9;

    /// Returns the field of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "ScriptBlockText" => Self::ScriptBlockText,
            "ScriptBlockId" | "ScriptBlockID" => Self::ScriptBlockId,
            "Path" => Self::Path,
            "ContextInfo" => Self::ContextInfo,
            "UserData" => Self::UserData,
            "Payload" => Self::Payload,
            "MessageNumber" => Self::MessageNumber,
            "MessageTotal" => Self::MessageTotal,
            "EventID" | "EventId" => Self::EventId,
            _ => return None,
        })
    }

    /// Returns true if the field's values are numbers.
    pub fn is_number(self) -> bool {
        matches!(self, Self::MessageNumber | Self::MessageTotal | Self::EventId)
    }

    /// Returns the kinds of events that have this field.
    pub fn kinds(self) -> EventKinds {
        match self {
            Self::EventId => EventKinds::ALL,
            Self::ContextInfo | Self::UserData | Self::Payload => EventKinds::only(EventKind::Module),
            _ => EventKinds::only(EventKind::ScriptBlock),
        }
    }

    /// Returns the index among the text fields of its kind.
    pub(crate) fn slot(self) -> Option<usize> {
        match self {
            Self::ScriptBlockText | Self::ContextInfo => Some(0),
            Self::ScriptBlockId | Self::UserData => Some(1),
            Self::Path | Self::Payload => Some(2),
            _ => None,
        }
    }
}

/// UTF-16 code units of a GUID in its usual text form.
const GUID_UNITS: usize = 36;

/// The fields of one payload.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    kind: EventKind,
    payload: &'a [u8],
    /// Ranges of code units, counted from the text offset.
    text: [Option<Range<usize>>; 3],
}

impl<'a> Fields<'a> {
    /// Locates the fields. Never fails: missing fields are absent, and a field without its NUL extends to the end.
    pub fn split(kind: EventKind, payload: &'a [u8]) -> Self {
        let units = text_units(kind, payload);
        let end = units.len() - usize::from(units.last() == Some(&[0, 0]));
        let units = &units[..end];
        let text = match kind {
            EventKind::ScriptBlock => split_script_block(units),
            EventKind::Module => split_module(units),
            EventKind::Amsi => {
                let [text, name] = amsi::ranges(payload);
                [text, None, name]
            }
        };
        Self { kind, payload, text }
    }

    /// Creates fields at known ranges, in units from the text offset.
    pub(crate) fn of_ranges(kind: EventKind, payload: &'a [u8], text: [Option<Range<usize>>; 3]) -> Self {
        Self { kind, payload, text }
    }

    /// Returns the fields of a payload that differs from this one only in its script, which has `units` units there.
    pub(crate) fn with_script<'b>(&self, payload: &'b [u8], units: usize) -> Fields<'b> {
        let own = self.text[0].clone().unwrap_or(0..0);
        let moved = |range: &Range<usize>| range.start - own.end + units..range.end - own.end + units;
        let [_, second, third] = &self.text;
        let text = [Some(0..units), second.as_ref().map(moved), third.as_ref().map(moved)];
        Fields { kind: self.kind, payload, text }
    }

    /// Returns the kind of event.
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// Returns the range of a text field, in code units from the text offset. `None` if the event does not have it.
    pub fn range(&self, field: Field) -> Option<Range<usize>> {
        if !field.kinds().contains(self.kind) {
            return None;
        }
        self.text[field.slot()?].clone()
    }

    /// Returns the UTF-16LE bytes of a text field, without the NUL.
    pub fn text(&self, field: Field) -> Option<&'a [u8]> {
        let range = self.range(field)?;
        let offset = self.kind.text_offset();
        self.payload.get(offset + 2 * range.start..offset + 2 * range.end)
    }

    /// Returns the value of a number field. `None` if the event does not have it.
    pub fn number(&self, field: Field) -> Option<i64> {
        let at = match field {
            Field::EventId => return Some(i64::from(self.kind.event_id())),
            Field::MessageNumber => 0,
            Field::MessageTotal => 4,
            _ => return None,
        };
        if self.kind != EventKind::ScriptBlock {
            return None;
        }
        let bytes = self.payload.get(at..)?.first_chunk()?;
        Some(i64::from(i32::from_le_bytes(*bytes)))
    }
}

/// Returns the code units after the numbers of a payload. An odd last byte is dropped.
pub(crate) fn text_units(kind: EventKind, payload: &[u8]) -> &[[u8; 2]] {
    if kind == EventKind::Amsi {
        return amsi::searched(payload);
    }
    payload.get(kind.text_offset()..).unwrap_or_default().as_chunks::<2>().0
}

fn split_script_block(units: &[[u8; 2]]) -> [Option<Range<usize>>; 3] {
    let nul_before = |end: usize| units[..end].iter().rposition(|unit| *unit == [0, 0]);
    if units.is_empty() {
        return [None, None, None];
    }
    let Some(last) = nul_before(units.len()) else {
        return [Some(0..units.len()), None, None];
    };
    let tail = last + 1..units.len();
    // Only block ids look like GUIDs. If the last string does, this is the layout without a path.
    if is_guid(&units[tail.clone()]) {
        return [Some(0..last), Some(tail), None];
    }
    match nul_before(last) {
        None => [Some(0..last), Some(tail), None],
        Some(first) => [Some(0..first), Some(first + 1..last), Some(tail)],
    }
}

fn split_module(units: &[[u8; 2]]) -> [Option<Range<usize>>; 3] {
    let nul_from = |start: usize| units[start..].iter().position(|unit| *unit == [0, 0]).map(|at| start + at);
    if units.is_empty() {
        return [None, None, None];
    }
    let Some(first) = nul_from(0) else {
        return [Some(0..units.len()), None, None];
    };
    match nul_from(first + 1) {
        None => [Some(0..first), Some(first + 1..units.len()), None],
        Some(second) => [Some(0..first), Some(first + 1..second), Some(second + 1..units.len())],
    }
}

fn is_guid(units: &[[u8; 2]]) -> bool {
    units.len() == GUID_UNITS
        && units.iter().enumerate().all(|(at, [low, high])| {
            *high == 0 && if matches!(at, 8 | 13 | 18 | 23) { *low == b'-' } else { low.is_ascii_hexdigit() }
        })
}

#[cfg(test)]
mod tests {
    use super::{EventKind, Field, Fields};

    fn payload(kind: EventKind, text: &str) -> Vec<u8> {
        let mut bytes = vec![0; kind.text_offset()];
        bytes.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
        bytes
    }

    fn shown(kind: EventKind, bytes: &[u8]) -> [Option<String>; 3] {
        let fields = Fields::split(kind, bytes);
        std::array::from_fn(|at| {
            let raw = fields.text(kind.text_fields()[at])?;
            Some(
                String::from_utf16(
                    &raw.as_chunks().0.iter().map(|u| u16::from_le_bytes(*u)).collect::<Vec<_>>(),
                )
                .unwrap(),
            )
        })
    }

    const ID: &str = "339311ba-d4cc-4a10-b04e-417ef95bc8b6";

    #[test]
    fn splits_script_blocks() {
        let rows = [
            ("five fields", format!("a\0{ID}\0C:\\p\0"), ["a", ID, "C:\\p"].map(Some)),
            ("empty path", format!("a\0{ID}\0\0"), [Some("a"), Some(ID), Some("")]),
            ("no path", format!("a\0{ID}\0"), [Some("a"), Some(ID), None]),
            ("no final NUL", format!("a\0{ID}\0p"), [Some("a"), Some(ID), Some("p")]),
            ("NUL in text", format!("a\0b\0{ID}\0\0"), [Some("a\0b"), Some(ID), Some("")]),
            ("NUL in text, no path", format!("a\0b\0{ID}\0"), [Some("a\0b"), Some(ID), None]),
            ("NUL at end of text", format!("a\0\0{ID}\0"), [Some("a\0"), Some(ID), None]),
            ("other id", "a\0id\0p\0".into(), [Some("a"), Some("id"), Some("p")]),
            ("text only", "a\0".into(), [Some("a"), None, None]),
            ("text cut off", "ab".into(), [Some("ab"), None, None]),
            ("empty text", format!("\0{ID}\0\0"), [Some(""), Some(ID), Some("")]),
            ("nothing", String::new(), [None, None, None]),
        ];
        for (name, text, expected) in rows {
            let bytes = payload(EventKind::ScriptBlock, &text);
            assert_eq!(
                shown(EventKind::ScriptBlock, &bytes),
                expected.map(|s| s.map(str::to_owned)),
                "{name}"
            );
        }
    }

    #[test]
    fn splits_module_events() {
        let rows = [
            ("three", "c\0u\0p\0", [Some("c"), Some("u"), Some("p")]),
            ("NUL in the last", "c\0u\0p\0q\0", [Some("c"), Some("u"), Some("p\0q")]),
            ("empty middle", "c\0\0p\0", [Some("c"), Some(""), Some("p")]),
            ("cut", "c\0u", [Some("c"), Some("u"), None]),
        ];
        for (name, text, expected) in rows {
            let bytes = payload(EventKind::Module, text);
            assert_eq!(shown(EventKind::Module, &bytes), expected.map(|s| s.map(str::to_owned)), "{name}");
        }
    }

    #[test]
    fn short_payloads_have_no_fields() {
        for len in 0..10 {
            let fields = Fields::split(EventKind::ScriptBlock, &[1; 10][..len]);
            assert_eq!(fields.number(Field::MessageNumber).is_some(), len >= 4);
            assert_eq!(fields.number(Field::MessageTotal).is_some(), len >= 8);
            assert_eq!(fields.text(Field::ScriptBlockText), None);
        }
        assert_eq!(Fields::split(EventKind::Module, &[0; 8]).number(Field::MessageNumber), None);
    }
}
