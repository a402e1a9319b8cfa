//! Details of a match, under the same names in every JSON output.

use crate::hit::{CutV1, HitV1, RuleRefV1, SpanV1};
use crate::time::FILETIME_TEXT_MAX;
use data_encoding::HEXLOWER;
use serde::Serialize;

/// Details of a match beside its scope and view.
#[derive(Debug, Serialize)]
pub(super) struct How {
    /// True if parts of the block were missing.
    partial: bool,
    /// True if a span is after a U+0000.
    beyond_nul: bool,
    transformations: Vec<&'static str>,
    spans: Vec<Span>,
    cut: Option<Cut>,
    /// Names of values that differ from the event because the output format cannot express them.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    clamped: &'static [&'static str],
}

/// A match, in UTF-16 units of the original text.
#[derive(Debug, Serialize)]
struct Span {
    /// Name of the text in JSON Lines.
    field: &'static str,
    start: u32,
    len: u32,
}

/// How a script too long for a hit was truncated. The text in the output is these pieces, concatenated.
#[derive(Debug, Serialize)]
struct Cut {
    /// Length of the complete text, in UTF-16 units.
    units: u32,
    /// SHA-256 of the complete text as UTF-16LE, in hexadecimal; null if the complete text was never in memory.
    sha256: Option<String>,
    /// Start and length of each piece, in units of the complete text.
    pieces: Vec<[u32; 2]>,
}

impl How {
    pub(super) fn new(hit: &HitV1, rule: &RuleRefV1) -> Self {
        Self {
            partial: hit.partial,
            beyond_nul: rule.beyond_nul,
            transformations: rule.transformations.iter().map(|it| it.as_str()).collect(),
            spans: rule.spans.iter().filter_map(|span| Span::new(hit, *span)).collect(),
            cut: hit.cut.as_ref().map(Cut::new),
            clamped: if hit.time > FILETIME_TEXT_MAX { &["time"] } else { &[] },
        }
    }
}

impl Span {
    /// Returns `None` for a text that the event does not have.
    fn new(hit: &HitV1, span: SpanV1) -> Option<Self> {
        let (name, _) = hit.content.texts().into_iter().nth(usize::from(span.text))??;
        let field = if name == "text" { "script_block_text" } else { name };
        Some(Self { field, start: span.start, len: span.len })
    }
}

impl Cut {
    fn new(cut: &CutV1) -> Self {
        Self {
            units: cut.units,
            sha256: cut.sha256.map(|hash| HEXLOWER.encode(&hash)),
            pieces: cut.pieces.iter().map(|piece| [piece.start, piece.len]).collect(),
        }
    }
}
