//! What a detection carries: the event as it was recorded, and the rules that matched it.
//!
//! [`HitV1`] is frozen once it has been released: its fields, their types and their order are the wire format
//! of version 1. What a later release wants to say goes into a new struct (`HitV2`), and both are decoded.
//! Every field that grows has a named maximum here; [`HitV1::check`] enforces them on the way out and the
//! decoder on the way in, before it allocates.

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

/// Longest text field of an event, in UTF-16 units.
///
/// Twice what the largest event can hold (a payload is at most 128 KiB); three such texts fit a frame.
pub const TEXT_UNITS_MAX: usize = 128 * 1024;
/// Longest string (source, computer, SID, each string of a rule), in bytes of UTF-8.
pub const STRING_LEN_MAX: usize = 4096;
/// Most rules of one hit.
pub const RULES_MAX: usize = 4096;
/// What the id of a rule begins with if the sensor made it because the rule has none.
pub const DERIVED_ID_PREFIX: &str = "derived-";
/// Most ATT&CK ids of one rule.
pub const ATTACK_MAX: usize = 64;
/// Most spans of one rule. A rule that matched at more places shows some of each of its literals.
pub const SPANS_MAX: usize = 16;
/// Most transformations of one rule.
pub const TRANSFORMATIONS_MAX: usize = 32;
/// Most pieces that are kept of a text that was cut.
pub const PIECES_MAX: usize = 1024;

/// What was searched when the rules matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// One event. Wire value 0.
    Event,
    /// A script block joined from its fragments. Wire value 1.
    Block,
}

/// In which form it was searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum View {
    /// As recorded. Wire value 0.
    Raw,
    /// With PowerShell's own equivalences folded. Wire value 1.
    Normalized,
    /// By cmdlet and parameter. Wire value 2.
    Call,
}

impl Scope {
    /// The lower-case word that outputs and stores use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Block => "block",
        }
    }
}

impl View {
    /// The lower-case word that outputs and stores use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Normalized => "normalized",
            Self::Call => "call",
        }
    }
}

/// The fields of the event's own template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventContent {
    /// Event 4104. Wire value 0.
    ScriptBlock {
        /// Number of this fragment, from 1 in honest events; `None` for a joined block.
        message_number: Option<i32>,
        /// Number of fragments of the block.
        message_total: Option<i32>,
        /// The script.
        text: Utf16Text,
        /// GUID of the block as the event spells it.
        script_block_id: Option<Utf16Text>,
        /// Script file. `None`: the layout has no such field; empty: no file.
        path: Option<Utf16Text>,
    },
    /// Event 4103. Wire value 1.
    Module {
        /// Host, runspace, command and user, as lines.
        context_info: Utf16Text,
        /// User data, as a rule empty.
        user_data: Utf16Text,
        /// Command invocations with their parameters.
        payload: Utf16Text,
    },
    /// No event of PowerShell: the sensor reports on itself or on the session it reads. Wire value 2.
    Notice {
        /// What happened, for people.
        #[serde(deserialize_with = "bounded::string")]
        detail: String,
    },
    /// Event 1101 of Microsoft-Antimalware-Scan-Interface. Wire value 3.
    Amsi {
        /// What PowerShell handed to the scanner.
        text: Utf16Text,
        /// The script's file; empty for what comes from none.
        content_name: Utf16Text,
        /// Who handed it over: `PowerShell_`, program and version.
        app_name: Utf16Text,
        /// The scanner's answer, an `AMSI_RESULT` of Windows.
        scan_result: u32,
    },
}

/// A place in a text of the event, in UTF-16 units of the original: before anything was cut or transformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpanV1 {
    /// Which text of the content, in wire order, from 0: of a script block text, id, path; of a 4103 context info,
    /// user data, payload; of a 1101 text, content name, app name.
    pub text: u8,
    /// First unit.
    pub start: u32,
    /// Number of units.
    pub len: u32,
}

/// A rule that matched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRefV1 {
    /// The rule's id, usually a GUID. A sensor makes one for a rule without: `derived-` and a GUID that follows from the
    /// rule's contents. Other sensors may leave it empty.
    #[serde(deserialize_with = "bounded::string")]
    pub id: String,
    /// The rule's title.
    #[serde(deserialize_with = "bounded::string")]
    pub title: String,
    /// Severity in Sigma's words, `informational` to `critical`; may be empty.
    #[serde(deserialize_with = "bounded::string")]
    pub level: String,
    /// ATT&CK technique ids such as `T1021.006`, at most [`ATTACK_MAX`].
    #[serde(deserialize_with = "bounded::strings::<ATTACK_MAX, _>")]
    pub attack: Vec<String>,
    /// Whether a span lies behind the first U+0000 of its text, where tools that decode by the manifest stop.
    pub beyond_nul: bool,
    /// What matched, ascending, at most [`SPANS_MAX`]. Of a text that was cut, always inside the pieces kept.
    #[serde(deserialize_with = "bounded::vec::<SPANS_MAX, _, _>")]
    pub spans: Vec<SpanV1>,
    /// What was undone before the rule matched; empty in the raw view. At most [`TRANSFORMATIONS_MAX`].
    #[serde(deserialize_with = "bounded::vec::<TRANSFORMATIONS_MAX, _, _>")]
    pub transformations: Vec<Transformation>,
}

impl RuleRefV1 {
    /// Whether the sensor made the id because the rule has none.
    pub fn has_derived_id(&self) -> bool {
        self.id.starts_with(DERIVED_ID_PREFIX)
    }
}

/// One detection: an event and every rule that matched it in one scope and view.
///
/// The order of the fields is the order on the wire; `docs/wire.md` has the byte table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HitV1 {
    /// When the event was written: FILETIME, 100 ns ticks since 1601-01-01T00:00:00Z.
    pub time: u64,
    /// The file or session it came from.
    #[serde(deserialize_with = "bounded::string")]
    pub source: String,
    /// Running number of the event in its source; orders events of equal time.
    pub source_sequence: u64,
    /// Provider GUID in the byte order of Windows (`Uuid::to_bytes_le`).
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
    /// The recording computer.
    #[serde(deserialize_with = "bounded::option_string")]
    pub computer: Option<String>,
    /// The user's SID in its text form, `S-1-5-…`.
    #[serde(deserialize_with = "bounded::option_string")]
    pub user_sid: Option<String>,
    /// The process that wrote the event.
    pub process_id: Option<u32>,
    /// The thread that wrote the event.
    pub thread_id: Option<u32>,
    /// Activity GUID, in the byte order of `provider`.
    pub activity_id: Option<[u8; 16]>,
    /// `System/EventRecordID` of an event log record.
    pub event_record_id: Option<u64>,
    /// Event or joined block.
    pub scope: Scope,
    /// The form that was searched.
    pub view: View,
    /// Whether parts of the block were missing when it was searched: never seen, or given up for want of room.
    pub partial: bool,
    /// The template's fields.
    pub content: EventContent,
    /// How one of the texts was cut; `None` if all are whole.
    pub cut: Option<CutV1>,
    /// The rules that matched, at most [`RULES_MAX`]. Last, so that the bytes before them are the event's.
    #[serde(deserialize_with = "bounded::vec::<RULES_MAX, _, _>")]
    pub rules: Vec<RuleRefV1>,
}

/// A field of a hit above its maximum.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} of the hit has {found} {unit}, the maximum is {max}")]
pub struct HitLimitError {
    /// The field.
    pub field: &'static str,
    /// What is counted: `bytes`, `UTF-16 units` or `entries`.
    pub unit: &'static str,
    /// How many there are.
    pub found: usize,
    /// How many may be.
    pub max: usize,
}

impl HitV1 {
    /// Provider as a GUID that displays in the usual form.
    pub fn provider_guid(&self) -> Uuid {
        Uuid::from_bytes_le(self.provider)
    }

    /// Activity as a GUID that displays in the usual form.
    pub fn activity_guid(&self) -> Option<Uuid> {
        self.activity_id.map(Uuid::from_bytes_le)
    }

    /// Checks every field against its maximum.
    ///
    /// # Errors
    ///
    /// The first field that exceeds its maximum. A hit can pass and yet be too long for a frame as a whole;
    /// the encoder says so.
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

    /// Cuts over-long strings and texts to their maximum, and says whether anything was cut.
    ///
    /// For hits of hostile files (a computer name of 60 KB): reporting them cut beats losing them. Spans and
    /// transformations beyond their maximum are left out. Other lists are left alone; a hit with too many rules
    /// becomes two hits, which a store joins again.
    ///
    /// Of a script longer than the maximum (a joined block) the beginning and what surrounds the spans are kept, and
    /// [`cut`](Self::cut) says so; a span for which there is no room is left out.
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
    /// The texts with their names, in wire order.
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
