//! Reads events from JSON Lines: one object per line.
//!
//! Two sets of keys are supported, in any mixture: that of exported event collections, and that of the detections that
//! this program writes. Only the time and the text of the event are required.
//!
//! | meaning | key | key in detections |
//! |---|---|---|
//! | time, RFC 3339, UTC without an offset | `time_created` | `time` |
//! | GUID of the provider, by default Windows PowerShell | `provider_guid` | `provider` |
//! | 4103, 4104 or 1101, by default determined by the other keys | `event_id` | |
//! | version, level | `version`, `level` | `event_version`, `event_level` |
//! | task, opcode, keywords | `task`, `opcode`, `keywords` | |
//! | recording computer, user | `computer`, `user_sid` | |
//! | process, thread, activity | `process_id`, `thread_id`, `activity_id` | |
//! | `EventRecordID` | `record_id` | `event_record_id` |
//! | 4104 | `message_number`, `message_total`, `script_block_text`, `script_block_id`, `path` | |
//! | 4103 | `context_info`, `user_data`, `payload` | |
//! | 1101 | `script_block_text`, `path`, `app_name` (by default `PowerShell`), `scan_result` | |
//!
//! Numbers may be text, with the prefix `0x` for hexadecimal. A missing key and null mean the same: version, level,
//! task and opcode are then those of the provider's manifest, and a 4104 without `path` has four fields. Other keys are
//! ignored. A file of detections has one line per rule, so an event may be read several times. Text may contain escaped
//! lone surrogates, which are kept.
//!
//! Blank lines and a byte order mark are skipped. Memory is bounded by one line of at most [`LINE_LEN_MAX`] bytes and a
//! copy of its texts. Work is linear in the line: unneeded values are skipped without being stored, however deeply they
//! are nested.

#[cfg(test)]
mod tests;
mod values;

use crate::amsi::Scan;
use crate::event::{self, EventHeader, EventRef};
use crate::payload::{self, Absence, FieldKind, PayloadError, PayloadWriter, TemplateField};
use crate::source::text::{parse_guid, parse_time};
use crate::source::{Damage, Sink, SourceError};
use crate::stop::Stop;
use etwsieve_event::Sid;
use serde::Deserialize;
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::Path;
use uuid::Uuid;
use values::{Integer, Level, Wide};

/// Maximum length of a line in bytes without its line ending: the longest payload with every unit escaped, and the
/// other keys.
pub const LINE_LEN_MAX: usize = 1 << 20;
/// Number of bytes between two reports of progress.
const PROGRESS_STEP: u64 = 1 << 16;
/// Maximum number of characters of the input in a report.
const QUOTED_LEN_MAX: usize = 160;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Reads the file at `path` and passes its events to `sink`.
///
/// # Errors
///
/// [`SourceError`] if the file cannot be opened, does not start with an object, or the system fails to read it. Lines
/// that are not events are reported to [`Sink::damaged`].
pub fn read(path: &Path, sink: &mut dyn Sink) -> Result<(), SourceError> {
    let file = File::open(path).map_err(|source| SourceError::Open { path: path.into(), source })?;
    replay(file, path, sink)
}

/// Reads JSON Lines from `input`; errors contain `path`.
///
/// # Errors
///
/// See [`read`].
pub fn replay(input: impl Read, path: &Path, sink: &mut dyn Sink) -> Result<(), SourceError> {
    let mut input = BufReader::with_capacity(PROGRESS_STEP as usize, input);
    let (mut line, mut payload) = (Vec::new(), Vec::new());
    let (mut offset, mut reported) = (0u64, 0u64);
    let mut is_first = true;
    let stop = sink.stop();
    while !stop.requested() {
        let read = next_line(&mut input, &mut line, &stop);
        let read = read.map_err(|source| SourceError::Read { path: path.into(), offset, source })?;
        if read.len == 0 {
            break;
        }
        let text = line.strip_prefix(BYTE_ORDER_MARK).filter(|_| offset == 0).unwrap_or(&line).trim_ascii();
        if is_first && !text.is_empty() {
            is_first = false;
            if !text.starts_with(b"{") {
                let found = text[..text.len().min(8)].to_vec();
                return Err(SourceError::NotThisFormat {
                    path: path.into(),
                    expected: "a JSON object",
                    found,
                });
            }
        }
        let damaged = if read.is_too_long {
            Some(format!("expected a line of at most {LINE_LEN_MAX} bytes, found {}", read.len))
        } else if text.is_empty() {
            None
        } else {
            match offer(text, &mut payload, sink) {
                Ok(ControlFlow::Break(())) => return Ok(()),
                Ok(ControlFlow::Continue(())) => None,
                Err(detail) => Some(detail),
            }
        };
        if let Some(detail) = damaged {
            sink.damaged(&Damage { reason: "line", offset, detail });
        }
        offset += read.len;
        if offset - reported >= PROGRESS_STEP {
            reported = offset;
            sink.progress(offset);
        }
    }
    sink.progress(offset);
    Ok(())
}

/// The result of [`next_line`].
struct LineRead {
    /// Length of the line with its line ending; 0 at the end of the input.
    len: u64,
    /// Whether `line` contains only the start of the line.
    is_too_long: bool,
}

/// Reads a line, and stores at most [`LINE_LEN_MAX`] bytes of it.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>, stop: &Stop) -> io::Result<LineRead> {
    line.clear();
    let len = input.by_ref().take(LINE_LEN_MAX as u64 + 1).read_until(b'\n', line)? as u64;
    if line.len() <= LINE_LEN_MAX || line.ends_with(b"\n") {
        return Ok(LineRead { len, is_too_long: false });
    }
    Ok(LineRead { len: len + skip_line(input, stop)?, is_too_long: true })
}

/// Skips the rest of a line of any length, and returns its length.
fn skip_line(input: &mut impl BufRead, stop: &Stop) -> io::Result<u64> {
    let mut skipped = 0;
    while !stop.requested() {
        let buffered = match input.fill_buf() {
            Ok(buffered) => buffered,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let end = buffered.iter().position(|&byte| byte == b'\n');
        let len = end.map_or(buffered.len(), |end| end + 1);
        input.consume(len);
        skipped += len as u64;
        if end.is_some() || len == 0 {
            break;
        }
    }
    Ok(skipped)
}

/// Parses a line and passes the event to the sink.
fn offer(text: &[u8], payload: &mut Vec<u8>, sink: &mut dyn Sink) -> Result<ControlFlow<()>, String> {
    if !text.starts_with(b"{") {
        return Err("expected a JSON object, found something else".into()); // serde would accept an array as a struct.
    }
    let line: Line<'_> = serde_json::from_slice(text).map_err(|error| clipped(&error.to_string()))?;
    let header = line.header()?;
    let fields = payload::fields(header.event_id).filter(|_| event::is_powershell(&header.provider));
    let is_scan = (header.provider, header.event_id) == (event::AMSI, event::AMSI_SCAN);
    if !sink.wants(&header.provider, header.event_id) {
        return Ok(sink.unwanted());
    }
    let written = match fields {
        Some(fields) => line.write_payload(fields, payload),
        None if is_scan => line.write_scan(payload),
        None => return Ok(sink.unwanted()),
    };
    written.map_err(|error| error.to_string())?;
    let user_sid = match &line.user_sid {
        Some(text) => Some(Sid::parse(text).ok_or_else(|| expected("user_sid", "a SID", text))?),
        None => None,
    };
    let computer = line.computer.as_deref().filter(|name| !name.is_empty());
    Ok(sink.event(&EventRef { header, user_sid, computer, payload }))
}

fn expected(key: &str, what: &str, found: &str) -> String {
    format!("expected {what} in {key}, found {:?}", clipped(found))
}

/// Returns the start of a text for a report.
fn clipped(text: &str) -> String {
    text.chars().take(QUOTED_LEN_MAX).collect()
}

/// A line with the keys of both sets.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Line<'a> {
    #[serde(borrow, alias = "time")]
    time_created: Option<Cow<'a, str>>,
    #[serde(borrow, alias = "provider")]
    provider_guid: Option<Cow<'a, str>>,
    event_id: Option<Integer>,
    #[serde(alias = "event_version")]
    version: Option<Integer>,
    event_level: Option<Integer>,
    /// In detections this is the level of the rule, a word.
    level: Option<Level>,
    task: Option<Integer>,
    opcode: Option<Integer>,
    keywords: Option<Integer>,
    #[serde(borrow)]
    computer: Option<Cow<'a, str>>,
    #[serde(borrow)]
    user_sid: Option<Cow<'a, str>>,
    process_id: Option<Integer>,
    thread_id: Option<Integer>,
    #[serde(borrow)]
    activity_id: Option<Cow<'a, str>>,
    #[serde(alias = "event_record_id")]
    record_id: Option<Integer>,
    message_number: Option<Integer>,
    message_total: Option<Integer>,
    #[serde(borrow)]
    script_block_text: Option<Wide<'a>>,
    #[serde(borrow)]
    script_block_id: Option<Wide<'a>>,
    #[serde(borrow)]
    path: Option<Wide<'a>>,
    #[serde(borrow)]
    context_info: Option<Wide<'a>>,
    #[serde(borrow)]
    user_data: Option<Wide<'a>>,
    #[serde(borrow)]
    payload: Option<Wide<'a>>,
    #[serde(borrow)]
    app_name: Option<Wide<'a>>,
    scan_result: Option<Integer>,
}

impl Line<'_> {
    fn header(&self) -> Result<EventHeader, String> {
        let guid = |key, text: &Option<Cow<'_, str>>| match text {
            Some(text) => parse_guid(text).map(Some).ok_or_else(|| expected(key, "a GUID", text)),
            None => Ok(None),
        };
        let provider = guid("provider_guid", &self.provider_guid)?;
        let event_id = match (&self.event_id, &self.script_block_text, &self.payload) {
            (Some(id), ..) => id.narrow("event_id")?,
            (None, Some(_), _) if provider == Some(event::AMSI) => event::AMSI_SCAN,
            (None, Some(_), _) => event::SCRIPT_BLOCK_LOGGING,
            (None, None, Some(_)) => event::MODULE_LOGGING,
            (None, None, None) => return Err("expected an event_id, found none".into()),
        };
        let time = self.time_created.as_deref().ok_or("expected time_created or time, found neither")?;
        let time = parse_time(time).ok_or_else(|| expected("time", "an RFC 3339 time from 1601 on", time))?;
        let by_id = if event_id == event::AMSI_SCAN { event::AMSI } else { event::POWERSHELL };
        // Level, opcode, task and version are those of the manifests. Both PowerShell events belong to the channel
        // Operational.
        let (level, opcode, task, version, channel) = match event_id {
            event::MODULE_LOGGING => (4, 20, 106, 1, 16),
            event::AMSI_SCAN => (4, 0, 0, 0, 0),
            _ => (5, 15, 2, 1, 16),
        };
        Ok(EventHeader {
            time,
            provider: provider.unwrap_or(by_id),
            event_id,
            version: narrow("version", self.version.as_ref())?.unwrap_or(version),
            channel,
            level: self.level()?.unwrap_or(level),
            opcode: narrow("opcode", self.opcode.as_ref())?.unwrap_or(opcode),
            task: narrow("task", self.task.as_ref())?.unwrap_or(task),
            keywords: narrow("keywords", self.keywords.as_ref())?.unwrap_or(0),
            process_id: narrow("process_id", self.process_id.as_ref())?,
            thread_id: narrow("thread_id", self.thread_id.as_ref())?,
            activity_id: guid("activity_id", &self.activity_id)?.filter(|id: &Uuid| !id.is_nil()),
            event_record_id: narrow("record_id", self.record_id.as_ref())?,
        })
    }

    fn level(&self) -> Result<Option<u8>, String> {
        if let Some(level) = &self.event_level {
            return level.narrow("event_level").map(Some);
        }
        match &self.level {
            None => Ok(None),
            Some(Level::Number(number)) if u8::try_from(*number).is_ok() => Ok(Some(*number as u8)),
            Some(level) => Err(expected("level", "a number up to 255", &level.to_string())),
        }
    }

    fn write_scan(&self, out: &mut Vec<u8>) -> Result<(), PayloadError> {
        let string = |text: Option<&Wide<'_>>, absent: &str| {
            let mut bytes = Vec::new();
            let mut writer = PayloadWriter::new(&mut bytes);
            writer.keep_nul();
            match text {
                Some(text) => text.write(&mut writer)?,
                None => writer.text(absent)?,
            }
            Ok(bytes)
        };
        let missing = PayloadError::Missing { name: "script_block_text" };
        let result = self.scan_result.as_ref().map_or(Ok(0), |number| number.0.try_into());
        let scan = Scan {
            result: result.map_err(|_| PayloadError::NoNumber { name: "scan_result" })?,
            app_name: &string(self.app_name.as_ref(), "PowerShell")?,
            content_name: &string(self.path.as_ref(), "")?,
            content: &string(Some(self.script_block_text.as_ref().ok_or(missing)?), "")?,
        };
        payload::write_scan(&scan, out)
    }

    fn write_payload(&self, fields: &[TemplateField], out: &mut Vec<u8>) -> Result<(), PayloadError> {
        let mut writer = PayloadWriter::new(out);
        for field in fields {
            if field.kind == FieldKind::Number {
                let number =
                    if field.name == "MessageNumber" { &self.message_number } else { &self.message_total };
                let number = number.as_ref().map_or(Ok(1), |number| number.0.try_into());
                writer.number(number.map_err(|_| PayloadError::NoNumber { name: field.name })?)?;
                continue;
            }
            let text = match field.name {
                "ScriptBlockText" => &self.script_block_text,
                "ScriptBlockId" => &self.script_block_id,
                "Path" => &self.path,
                "ContextInfo" => &self.context_info,
                "UserData" => &self.user_data,
                _ => &self.payload,
            };
            if field.name == "ScriptBlockText" {
                writer.keep_nul();
            }
            match (text, field.absence) {
                (Some(text), _) => text.write(&mut writer)?,
                (None, Absence::Filled) => {}
                (None, Absence::Omitted) => break,
                (None, Absence::Refused) => return Err(PayloadError::Missing { name: field.name }),
            }
            writer.end_string()?;
        }
        Ok(())
    }
}

fn narrow<T: TryFrom<i128>>(key: &str, number: Option<&Integer>) -> Result<Option<T>, String> {
    number.map(|number| number.narrow(key)).transpose()
}
