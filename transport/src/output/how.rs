//! How a rule matched, so that a person can see it: under the same names in every JSON output.

use crate::hit::{CutV1, HitV1, RuleRefV1, SpanV1};
use crate::time::FILETIME_TEXT_MAX;
use data_encoding::HEXLOWER;
use serde::Serialize;

/// How a rule matched, beside scope and view.
#[derive(Debug, Serialize)]
pub(super) struct How {
    /// Whether parts of the block were missing.
    partial: bool,
    /// Whether a span lies behind a U+0000.
    beyond_nul: bool,
    transformations: Vec<&'static str>,
    spans: Vec<Span>,
    cut: Option<Cut>,
    /// Values that are not those of the event, because no text can express them.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    clamped: &'static [&'static str],
}

/// What matched, in UTF-16 units of the uncut original.
#[derive(Debug, Serialize)]
struct Span {
    /// The text, by the name that it has in JSON Lines.
    field: &'static str,
    start: u32,
    len: u32,
}

/// How a script too long for a line was cut: the text in the line is these pieces, one behind the other.
#[derive(Debug, Serialize)]
struct Cut {
    /// Length of the whole, in UTF-16 units.
    units: u32,
    /// Of the whole as UTF-16LE, in hexadecimal; null if it was never held as a whole.
    sha256: Option<String>,
    /// Start and length of each, in units of the whole.
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
    /// `None` for a text that the event does not have.
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
