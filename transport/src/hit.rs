//! A detection: the event as it was recorded, and the rules that matched it.
//!
//! [`HitV1`] is frozen: its fields, their types and their order are version 1 of the wire format. A later release adds
//! new fields in a new struct (`HitV2`) and decodes both. Every list, string and text has a named maximum here.
//! [`HitV1::check`] enforces the maximums before encoding, the decoder before it allocates.

pub(crate) mod bounded;
mod cut;
mod identity;
mod text;
mod transformation;

pub use cut::{CutV1, PieceV1};
pub use identity::EventIdentity;
pub use text::Utf16Text;
pub use transformation::Transformation;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Maximum length of a text field of an event, in UTF-16 units.
///
/// Twice the size of the largest event (a payload is at most 128 KiB). Three such texts fit in a frame.
pub const TEXT_UNITS_MAX: usize = 128 * 1024;
/// Maximum length of a string (source, computer, SID, each string of a rule), in bytes of UTF-8.
pub const STRING_LEN_MAX: usize = 4096;
/// Maximum number of rules in a hit.
pub const RULES_MAX: usize = 4096;
/// Prefix of a rule id that the sensor derived because the rule has no id.
pub const DERIVED_ID_PREFIX: &str = "derived-";
/// Maximum number of ATT&CK ids of a rule.
pub const ATTACK_MAX: usize = 64;
/// Maximum number of spans of a rule. If a rule matched in more places, some matches of each of its literals are kept.
pub const SPANS_MAX: usize = 16;
/// Maximum number of transformations of a rule.
pub const TRANSFORMATIONS_MAX: usize = 32;
/// Maximum number of pieces kept of a truncated text.
pub const PIECES_MAX: usize = 1024;

/// The unit of text that was searched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// A single event. Wire value 0.
    #[default]
    Event,
    /// A script block reassembled from its fragments. Wire value 1.
    Block,
}

/// The form of the text that was searched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum View {
    /// The text as recorded. Wire value 0.
    #[default]
    Raw,
    /// The text after normalisation: quotes, backticks, aliases and the like are undone. Wire value 1.
    Normalized,
    /// The text as cmdlet calls with their parameters. Wire value 2.
    Call,
}

impl Scope {
    /// Returns the lower-case word that outputs and stores use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Block => "block",
        }
    }
}

impl View {
    /// Returns the lower-case word that outputs and stores use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Normalized => "normalized",
            Self::Call => "call",
        }
    }
}

/// The fields of the event's template. The default is a notice without text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventContent {
    /// Event 4104. Wire value 0.
    ScriptBlock {
        /// Number of this fragment, starting at 1 unless the event is forged; `None` for a reassembled block.
        message_number: Option<i32>,
        /// Number of fragments in the block.
        message_total: Option<i32>,
        /// The script.
        text: Utf16Text,
        /// GUID of the block, spelled as in the event.
        script_block_id: Option<Utf16Text>,
        /// Path of the script file. `None`: this version of the event has no such field; empty: the script has no file.
        path: Option<Utf16Text>,
    },
    /// Event 4103. Wire value 1.
    Module {
        /// Host, runspace, command and user, one a line.
        context_info: Utf16Text,
        /// User data; usually empty.
        user_data: Utf16Text,
        /// Command invocations with their parameters.
        payload: Utf16Text,
    },
    /// A report of the sensor about itself or about its session; not a PowerShell event. Wire value 2.
    Notice {
        /// Description of what happened.
        #[serde(deserialize_with = "bounded::string")]
        detail: String,
    },
    /// Event 1101 of Microsoft-Antimalware-Scan-Interface. Wire value 3.
    Amsi {
        /// The text that PowerShell passed to the scanner.
        text: Utf16Text,
        /// Path of the script file; empty if the text has no file.
        content_name: Utf16Text,
        /// The application that requested the scan: `PowerShell_`, program and version.
        app_name: Utf16Text,
        /// The scanner's result, an `AMSI_RESULT` of Windows.
        scan_result: u32,
    },
}

/// A range in a text of the event, in UTF-16 units of the original, before truncation and transformations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpanV1 {
    /// Index of the text in wire order, starting at 0. Script block: text, id, path. Event 4103: context info, user
    /// data, payload. Event 1101: text, content name, app name.
    pub text: u8,
    /// First unit of the range.
    pub start: u32,
    /// Length of the range in units.
    pub len: u32,
}

/// A rule that matched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRefV1 {
    /// The rule's id, usually a GUID. If the rule has none, this sensor derives one from the rule's contents:
    /// `derived-` and a GUID. Other sensors may leave it empty.
    #[serde(deserialize_with = "bounded::string")]
    pub id: String,
    /// The rule's title.
    #[serde(deserialize_with = "bounded::string")]
    pub title: String,
    /// Severity as Sigma spells it, `informational` to `critical`; may be empty.
    #[serde(deserialize_with = "bounded::string")]
    pub level: String,
    /// ATT&CK technique ids such as `T1021.006`, at most [`ATTACK_MAX`].
    #[serde(deserialize_with = "bounded::strings::<ATTACK_MAX, _>")]
    pub attack: Vec<String>,
    /// True if a span is after the first U+0000 of its text, where tools that decode by the manifest stop reading.
    pub beyond_nul: bool,
    /// The matches in ascending order, at most [`SPANS_MAX`]. In a truncated text they are inside the pieces that were
    /// kept.
    #[serde(deserialize_with = "bounded::vec::<SPANS_MAX, _, _>")]
    pub spans: Vec<SpanV1>,
    /// The transformations that were undone before the rule matched, at most [`TRANSFORMATIONS_MAX`]; empty in the raw
    /// view.
    #[serde(deserialize_with = "bounded::vec::<TRANSFORMATIONS_MAX, _, _>")]
    pub transformations: Vec<Transformation>,
}

impl RuleRefV1 {
    /// Returns true if the sensor derived the id because the rule has none.
    pub fn has_derived_id(&self) -> bool {
        self.id.starts_with(DERIVED_ID_PREFIX)
    }
}

/// One detection: an event and every rule that matched it in one scope and view.
///
/// The order of the fields is the order on the wire; `docs/wire.md` has the byte table. By default all fields are zero or
/// empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HitV1 {
    /// When the event was written, as a FILETIME: 100 ns ticks since 1601-01-01T00:00:00Z.
    pub time: u64,
    /// The file or session that the event came from.
    #[serde(deserialize_with = "bounded::string")]
    pub source: String,
    /// Number of the event in its source; orders events with equal times.
    pub source_sequence: u64,
    /// Provider GUID in Windows byte order (`Uuid::to_bytes_le`).
    pub provider: [u8; 16],
    /// Event id of the descriptor.
    pub event_id: u16,
    /// Version of the descriptor.
    pub version: u8,
    /// Channel of the descriptor.
    pub channel: u8,
    /// Level of the descriptor.
    pub level: u8,
    /// Opcode of the descriptor.
    pub opcode: u8,
    /// Task of the descriptor.
    pub task: u16,
    /// Keywords of the descriptor.
    pub keywords: u64,
    /// The computer that recorded the event.
    #[serde(deserialize_with = "bounded::option_string")]
    pub computer: Option<String>,
    /// The user's SID as text, `S-1-5-…`.
    #[serde(deserialize_with = "bounded::option_string")]
    pub user_sid: Option<String>,
    /// The process that wrote the event.
    pub process_id: Option<u32>,
    /// The thread that wrote the event.
    pub thread_id: Option<u32>,
    /// Activity GUID, in the same byte order as `provider`.
    pub activity_id: Option<[u8; 16]>,
    /// `System/EventRecordID` of an event log record.
    pub event_record_id: Option<u64>,
    /// The unit that was searched: an event or a reassembled block.
    pub scope: Scope,
    /// The form of the text that was searched.
    pub view: View,
    /// True if parts of the block were missing when it was searched, because they never arrived or were evicted.
    pub partial: bool,
    /// The fields of the event's template.
    pub content: EventContent,
    /// Truncation of one of the texts; `None` if all are complete.
    pub cut: Option<CutV1>,
    /// The rules that matched, at most [`RULES_MAX`]. They come last, so that the bytes before them depend on the event
    /// alone.
    #[serde(deserialize_with = "bounded::vec::<RULES_MAX, _, _>")]
    pub rules: Vec<RuleRefV1>,
}

impl Default for EventContent {
    fn default() -> Self {
        Self::Notice { detail: String::new() }
    }
}

/// A field of a hit exceeds its maximum.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} of the hit has {found} {unit}, expected at most {max}")]
pub struct HitLimitError {
    /// The field.
    pub field: &'static str,
    /// The unit of `found` and `max`: `bytes`, `UTF-16 units` or `entries`.
    pub unit: &'static str,
    /// The actual number.
    pub found: usize,
    /// The maximum.
    pub max: usize,
}

impl HitV1 {
    /// Returns the provider as a GUID that displays in the usual form.
    pub fn provider_guid(&self) -> Uuid {
        Uuid::from_bytes_le(self.provider)
    }

    /// Returns the activity as a GUID that displays in the usual form.
    pub fn activity_guid(&self) -> Option<Uuid> {
        self.activity_id.map(Uuid::from_bytes_le)
    }

    /// Checks every field against its maximum.
    ///
    /// # Errors
    ///
    /// Returns the first field that exceeds its maximum. A hit that passes can still be too long for a frame as a
    /// whole; the encoder reports that.
    pub fn check(&self) -> Result<(), HitLimitError> {
        string("source", &self.source)?;
        string("computer", self.computer.as_deref().unwrap_or_default())?;
        string("user_sid", self.user_sid.as_deref().unwrap_or_default())?;
        for (field, text) in self.content.texts().into_iter().flatten() {
            limit(field, "UTF-16 units", text.0.len(), TEXT_UNITS_MAX)?;
        }
        if let EventContent::Notice { detail } = &self.content {
            string("detail", detail)?;
        }
        if let Some(cut) = &self.cut {
            limit("cut.pieces", "entries", cut.pieces.len(), PIECES_MAX)?;
        }
        limit("rules", "entries", self.rules.len(), RULES_MAX)?;
        for rule in &self.rules {
            string("rules.id", &rule.id)?;
            string("rules.title", &rule.title)?;
            string("rules.level", &rule.level)?;
            limit("rules.attack", "entries", rule.attack.len(), ATTACK_MAX)?;
            limit("rules.spans", "entries", rule.spans.len(), SPANS_MAX)?;
            limit("rules.transformations", "entries", rule.transformations.len(), TRANSFORMATIONS_MAX)?;
            rule.attack.iter().try_for_each(|id| string("rules.attack", id))?;
        }
        Ok(())
    }

    /// Truncates strings and texts that exceed their maximum. Returns true if any was truncated.
    ///
    /// Hits of hostile files (a computer name of 60 KB) are reported truncated rather than lost. Spans and
    /// transformations beyond their maximum are removed. Other lists are unchanged: a hit with too many rules is sent
    /// as two hits, and the store merges them again.
    ///
    /// A script longer than the maximum (a reassembled block) keeps its beginning and the surroundings of its spans,
    /// and [`cut`](Self::cut) describes the truncation. Spans for which there is no room are removed.
    pub fn cut_to_limits(&mut self) -> bool {
        let rules = self.rules.iter_mut().flat_map(|rule| {
            [&mut rule.id, &mut rule.title, &mut rule.level].into_iter().chain(&mut rule.attack)
        });
        let detail = match &mut self.content {
            EventContent::Notice { detail } => Some(detail),
            _ => None,
        };
        let strings = [Some(&mut self.source), self.computer.as_mut(), self.user_sid.as_mut(), detail]
            .into_iter()
            .flatten();
        let mut cut = false;
        for string in strings.chain(rules).filter(|string| string.len() > STRING_LEN_MAX) {
            string.truncate(string.floor_char_boundary(STRING_LEN_MAX));
            cut = true;
        }
        for rule in &mut self.rules {
            rule.spans.truncate(SPANS_MAX);
            rule.transformations.truncate(TRANSFORMATIONS_MAX);
        }
        cut::cut_script(self);
        for text in self.content.texts_mut().into_iter().flatten() {
            cut |= text.0.len() > TEXT_UNITS_MAX;
            text.0.truncate(TEXT_UNITS_MAX);
        }
        cut
    }
}

impl EventContent {
    /// Returns the texts with their names, in wire order.
    pub fn texts(&self) -> [Option<(&'static str, &Utf16Text)>; 3] {
        match self {
            Self::ScriptBlock { text, script_block_id, path, .. } => [
                Some(("text", text)),
                script_block_id.as_ref().map(|id| ("script_block_id", id)),
                path.as_ref().map(|path| ("path", path)),
            ],
            Self::Module { context_info, user_data, payload } => [
                Some(("context_info", context_info)),
                Some(("user_data", user_data)),
                Some(("payload", payload)),
            ],
            Self::Amsi { text, content_name, app_name, .. } => {
                [Some(("text", text)), Some(("path", content_name)), Some(("app_name", app_name))]
            }
            Self::Notice { .. } => [None; 3],
        }
    }

    pub(crate) fn texts_mut(&mut self) -> [Option<&mut Utf16Text>; 3] {
        match self {
            Self::ScriptBlock { text, script_block_id, path, .. } => {
                [Some(text), script_block_id.as_mut(), path.as_mut()]
            }
            Self::Module { context_info, user_data, payload } => {
                [Some(context_info), Some(user_data), Some(payload)]
            }
            Self::Amsi { text, content_name, app_name, .. } => {
                [Some(text), Some(content_name), Some(app_name)]
            }
            Self::Notice { .. } => [None, None, None],
        }
    }
}

fn string(field: &'static str, value: &str) -> Result<(), HitLimitError> {
    limit(field, "bytes", value.len(), STRING_LEN_MAX)
}

fn limit(field: &'static str, unit: &'static str, found: usize, max: usize) -> Result<(), HitLimitError> {
    if found <= max { Ok(()) } else { Err(HitLimitError { field, unit, found, max }) }
}
