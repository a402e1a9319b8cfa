//! Extracts the fields of a record from `Event/System` and `Event/EventData`.

use super::binxml::Visitor;
use super::input::{BinXmlError, Name, Value, kind, units_are};
use super::value::{bytes, guid, integer, push_units, sid, text_steps, time, until_nul, write_text};
use crate::amsi::Scan;
use crate::event::{AMSI, EventHeader, PAYLOAD_LEN_MAX, POWERSHELL, POWERSHELL_CORE};
use crate::payload::{
    Absence, FieldKind, PayloadError, PayloadWriter, TemplateField, amsi_field, write_scan,
};
use etwsieve_budget::{Budget, Exhausted};
use etwsieve_event::FileTime;
use etwsieve_event::Sid;
use std::ops::{ControlFlow, Range};

/// Channel number of the log that PowerShell events are written to.
const CHANNEL_OPERATIONAL: u8 = 16;

/// Maximum length of `Computer` in UTF-16 units; a DNS name has at most 253.
const COMPUTER_LEN_MAX: usize = 256;
/// Steps of comparing a `Data` element with a field.
const DATUM_STEPS: usize = 4;

/// Why a record does not contain an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    /// The BinXML is invalid.
    #[error(transparent)]
    BinXml(#[from] BinXmlError),
    /// The record has no event id.
    #[error("expected an EventID in System, found none")]
    NoEventId,
    /// The event does not have the fields of its template.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The record exceeds its work limit.
    #[error("the record exceeds the work limit for its length: {0}")]
    Exhausted(#[from] Exhausted),
}

/// The sections of an event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Other,
    System,
    EventData,
}

/// The field that the next value belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    Nothing,
    ProviderName,
    ProviderGuid,
    EventId,
    Version,
    Level,
    Task,
    Opcode,
    Keywords,
    Time,
    EventRecordId,
    ActivityId,
    ProcessId,
    ThreadId,
    Channel,
    Computer,
    UserId,
    DataName,
    DataText,
}

/// Elements of `System` whose content is a field of the header.
const ELEMENTS: [(&str, Slot); 9] = [
    ("EventID", Slot::EventId),
    ("Version", Slot::Version),
    ("Level", Slot::Level),
    ("Task", Slot::Task),
    ("Opcode", Slot::Opcode),
    ("Keywords", Slot::Keywords),
    ("EventRecordID", Slot::EventRecordId),
    ("Channel", Slot::Channel),
    ("Computer", Slot::Computer),
];

/// Attributes in `System` whose value is a field of the header. The element need not be checked, because each name
/// occurs in one element only.
const ATTRIBUTES: [(&str, Slot); 7] = [
    ("Name", Slot::ProviderName),
    ("Guid", Slot::ProviderGuid),
    ("SystemTime", Slot::Time),
    ("ActivityID", Slot::ActivityId),
    ("ProcessID", Slot::ProcessId),
    ("ThreadID", Slot::ThreadId),
    ("UserID", Slot::UserId),
];

/// A `Data` element.
struct Datum<'c> {
    /// The attribute `Name`, UTF-16LE.
    name: Option<&'c [u8]>,
    /// The content in pieces: text of forwarded records is split at every entity.
    pieces: Range<usize>,
}

/// The fields of a record that have been read so far. Reused for the next record to keep its memory.
pub(super) struct Record<'c> {
    /// Header fields so far.
    pub(super) header: EventHeader,
    /// True if a valid `EventID` was found.
    pub(super) has_event_id: bool,
    /// True if the sink needs the payload; `None` before the end of `System`.
    pub(super) wanted: Option<bool>,
    /// `Security/UserID`.
    pub(super) user_sid: Option<Sid>,
    /// `Computer`, with lone surrogates replaced.
    pub(super) computer: String,
    pieces: Vec<Value<'c>>,
    data: Vec<Datum<'c>>,
}

impl Record<'_> {
    /// Creates an empty record.
    pub(super) fn new() -> Self {
        Self {
            header: EventHeader::default(),
            has_event_id: false,
            wanted: None,
            user_sid: None,
            computer: String::new(),
            pieces: Vec::new(),
            data: Vec::new(),
        }
    }

    /// Clears the record. `written` is the time of the event unless `TimeCreated` has one.
    pub(super) fn reset(&mut self, written: FileTime) {
        self.header = EventHeader { time: written, ..EventHeader::default() };
        self.has_event_id = false;
        self.wanted = None;
        self.user_sid = None;
        self.computer.clear();
        self.pieces.clear();
        self.data.clear();
    }

    /// Writes the payload with these fields. Data elements are found by name or, if none has a name, by position.
    pub(super) fn write_payload(
        &self,
        fields: &[TemplateField],
        out: &mut Vec<u8>,
        budget: &mut Budget<'_>,
    ) -> Result<(), RecordError> {
        let mut writer = PayloadWriter::new(out);
        for (position, field) in fields.iter().enumerate() {
            let pieces = match (self.content_of((field.name, position), budget)?, field.absence) {
                (Some(pieces), _) => Some(pieces),
                (None, Absence::Filled) => None,
                (None, Absence::Omitted) => break,
                (None, Absence::Refused) => return Err(PayloadError::Missing { name: field.name }.into()),
            };
            match (field.kind, pieces) {
                (FieldKind::Number, None) => writer.number(1)?,
                (FieldKind::Number, Some(pieces)) => {
                    let number = match pieces {
                        [value] => integer(value).and_then(|value| i32::try_from(value as i64).ok()),
                        _ => None,
                    };
                    writer.number(number.ok_or(PayloadError::NoNumber { name: field.name })?)?;
                }
                (FieldKind::Text, pieces) => {
                    write_pieces(pieces.unwrap_or_default(), &mut writer, budget)?;
                    writer.end_string()?;
                }
            }
        }
        Ok(())
    }

    /// Returns the content of a data element, found by name or, if no element has a name, by position.
    fn content_of(
        &self,
        (name, position): (&str, usize),
        budget: &mut Budget<'_>,
    ) -> Result<Option<&[Value<'_>]>, Exhausted> {
        budget.charge(2 * DATUM_STEPS * self.data.len())?;
        let datum = if self.data.iter().any(|datum| datum.name.is_some()) {
            self.data.iter().find(|datum| datum.name.is_some_and(|own| units_are(own, name)))
        } else {
            self.data.get(position)
        };
        Ok(datum.map(|datum| &self.pieces[datum.pieces.clone()]))
    }

    /// Writes the payload of event 1101. Its content is binary, or hexadecimal text in forwarded records.
    pub(super) fn write_scan(&self, out: &mut Vec<u8>, budget: &mut Budget<'_>) -> Result<(), RecordError> {
        let missing = |(name, _)| PayloadError::Missing { name };
        let string = |field, budget: &mut Budget<'_>| -> Result<Vec<u8>, RecordError> {
            let mut text = Vec::new();
            let pieces = self.content_of(field, budget)?.unwrap_or_default();
            write_pieces(pieces, &mut PayloadWriter::new(&mut text), budget)?;
            Ok(text)
        };
        let pieces = self.content_of(amsi_field::CONTENT, budget)?.ok_or(missing(amsi_field::CONTENT))?;
        let mut content = Vec::new();
        for piece in pieces {
            budget.allocate(piece.bytes.len())?;
            bytes(piece, &mut content).ok_or(PayloadError::NoBytes { name: amsi_field::CONTENT.0 })?;
            if content.len() > PAYLOAD_LEN_MAX {
                return Err(PayloadError::TooLong.into());
            }
        }
        let result = match self.content_of(amsi_field::SCAN_RESULT, budget)? {
            Some([value]) => integer(value).and_then(|value| value.try_into().ok()),
            _ => Some(0),
        };
        let scan = Scan {
            result: result.ok_or(PayloadError::NoNumber { name: amsi_field::SCAN_RESULT.0 })?,
            app_name: &string(amsi_field::APP_NAME, budget)?,
            content_name: &string(amsi_field::CONTENT_NAME, budget)?,
            content: &content,
        };
        Ok(write_scan(&scan, out)?)
    }

    /// Stores a value of `System`.
    fn set_field(&mut self, slot: Slot, value: &Value<'_>) {
        let header = &mut self.header;
        // A value outside the range of its field is ignored.
        let narrow = || integer(value);
        match slot {
            Slot::ProviderName if header.provider.is_nil() && value.kind == kind::TEXT => {
                let text = until_nul(value.bytes);
                if units_are(text, "Microsoft-Windows-PowerShell") {
                    header.provider = POWERSHELL;
                } else if units_are(text, "PowerShellCore") {
                    header.provider = POWERSHELL_CORE;
                } else if units_are(text, "Microsoft-Antimalware-Scan-Interface") {
                    header.provider = AMSI;
                }
            }
            Slot::ProviderGuid => header.provider = guid(value).unwrap_or(header.provider),
            Slot::EventId => {
                if let Some(id) = narrow().and_then(|id| id.try_into().ok()) {
                    header.event_id = id;
                    self.has_event_id = true;
                }
            }
            Slot::Version => header.version = narrow().and_then(|v| v.try_into().ok()).unwrap_or(0),
            Slot::Level => header.level = narrow().and_then(|v| v.try_into().ok()).unwrap_or(0),
            Slot::Task => header.task = narrow().and_then(|v| v.try_into().ok()).unwrap_or(0),
            Slot::Opcode => header.opcode = narrow().and_then(|v| v.try_into().ok()).unwrap_or(0),
            Slot::Keywords => header.keywords = narrow().unwrap_or(0),
            Slot::Time => header.time = time(value).unwrap_or(header.time),
            Slot::EventRecordId => header.event_record_id = narrow(),
            Slot::ActivityId => header.activity_id = guid(value).filter(|id| !id.is_nil()),
            Slot::ProcessId => header.process_id = narrow().and_then(|v| v.try_into().ok()),
            Slot::ThreadId => header.thread_id = narrow().and_then(|v| v.try_into().ok()),
            Slot::Channel if value.kind == kind::TEXT => {
                let text = until_nul(value.bytes);
                let suffix = text.len().checked_sub(2 * "/Operational".len());
                if suffix.is_some_and(|at| units_are(&text[at..], "/Operational")) {
                    header.channel = CHANNEL_OPERATIONAL;
                }
            }
            Slot::Computer if value.kind == kind::TEXT => {
                let left = COMPUTER_LEN_MAX.saturating_sub(self.computer.len());
                push_units(&mut self.computer, &value.bytes[..value.bytes.len().min(2 * left)]);
            }
            Slot::UserId => self.user_sid = sid(value),
            _ => {}
        }
    }
}

/// Fills a [`Record`] with what a walk reports.
pub(super) struct RecordBuilder<'r, 'c, W> {
    record: &'r mut Record<'c>,
    /// Returns whether the sink needs the payload, once the header is known.
    wants: W,
    depth: usize,
    section: Section,
    element: Slot,
    slot: Slot,
    is_data: bool,
    system_ended: bool,
    data_ended: bool,
}

impl<'r, 'c, W: Fn(&EventHeader) -> bool> RecordBuilder<'r, 'c, W> {
    /// Creates a builder for `record`, which has been reset.
    pub(super) fn new(record: &'r mut Record<'c>, wants: W) -> Self {
        Self {
            record,
            wants,
            depth: 0,
            section: Section::Other,
            element: Slot::Nothing,
            slot: Slot::Nothing,
            is_data: false,
            system_ended: false,
            data_ended: false,
        }
    }
}

impl<'c, W: Fn(&EventHeader) -> bool> Visitor<'c> for RecordBuilder<'_, 'c, W> {
    fn open(&mut self, name: Name<'c>) {
        self.depth += 1;
        self.slot = Slot::Nothing;
        self.is_data = false;
        match self.depth {
            2 if name.is("System") && !self.system_ended => self.section = Section::System,
            2 if name.is("EventData") && !self.data_ended => self.section = Section::EventData,
            1 | 2 => self.section = Section::Other,
            3 if self.section == Section::System => {
                self.element = ELEMENTS.iter().find(|(of, _)| name.is(of)).map_or(Slot::Nothing, |row| row.1);
            }
            3 if self.section == Section::EventData && name.is("Data") => {
                self.is_data = true;
                let at = self.record.pieces.len();
                self.record.data.push(Datum { name: None, pieces: at..at });
            }
            _ => {}
        }
    }

    fn attribute(&mut self, name: Name<'c>) {
        self.slot = match (self.depth, self.section) {
            (3, Section::System) => {
                ATTRIBUTES.iter().find(|(of, _)| name.is(of)).map_or(Slot::Nothing, |row| row.1)
            }
            (3, Section::EventData) if self.is_data && name.is("Name") => Slot::DataName,
            _ => Slot::Nothing,
        };
    }

    fn content(&mut self) {
        self.slot = match (self.depth, self.section) {
            (3, Section::System) => self.element,
            (3, Section::EventData) if self.is_data => Slot::DataText,
            _ => Slot::Nothing,
        };
    }

    fn value(&mut self, value: Value<'c>, budget: &mut Budget<'_>) -> Result<(), Exhausted> {
        match self.slot {
            Slot::Nothing => {}
            Slot::DataName => {
                budget.charge(value.bytes.len())?;
                if let Some(datum) = self.record.data.last_mut()
                    && value.kind == kind::TEXT
                {
                    datum.name = Some(until_nul(value.bytes));
                }
            }
            Slot::DataText => {
                budget.allocate(size_of::<Value<'_>>())?;
                self.record.pieces.push(value);
                if let Some(datum) = self.record.data.last_mut() {
                    datum.pieces.end = self.record.pieces.len();
                }
            }
            slot => {
                budget.charge(value.bytes.len())?;
                self.record.set_field(slot, &value);
            }
        }
        Ok(())
    }

    fn close(&mut self) -> ControlFlow<()> {
        let ended = if self.depth == 2 { self.section } else { Section::Other };
        self.depth = self.depth.saturating_sub(1);
        self.slot = Slot::Nothing;
        self.element = Slot::Nothing;
        match ended {
            Section::System => {
                self.system_ended = true;
                let wanted = (self.wants)(&self.record.header);
                self.record.wanted = Some(wanted);
                if !wanted || self.data_ended {
                    return ControlFlow::Break(());
                }
            }
            Section::EventData => {
                self.data_ended = true;
                if self.system_ended {
                    return ControlFlow::Break(());
                }
            }
            Section::Other => {}
        }
        ControlFlow::Continue(())
    }
}

/// Writes all pieces of a text.
fn write_pieces(
    pieces: &[Value<'_>],
    writer: &mut PayloadWriter<'_>,
    budget: &mut Budget<'_>,
) -> Result<(), RecordError> {
    for piece in pieces {
        budget.charge(text_steps(piece))?;
        write_text(writer, piece)?;
    }
    Ok(())
}
