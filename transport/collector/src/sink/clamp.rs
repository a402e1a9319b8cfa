//! Clamps values that receivers refuse, and bounds the texts that are repeated in every record of a hit.
//!
//! A hit with many rules becomes many records that repeat the values of the event. The first records contain them
//! completely; once [`copies_len_max`] is used up, further records contain an excerpt around the match of their rule.
//! Lengths are those of the JSON, in which a control character takes six bytes. The output of a hit is therefore linear
//! in its length, whatever its texts and however many rules match.

use etwsieve_transport::hit::{CutV1, EventContent, HitV1, PieceV1, RuleRefV1, SpanV1, Utf16Text};
use etwsieve_transport::time::TICKS_PER_SECOND;
use std::borrow::Cow;
use std::ops::Range;

/// The last FILETIME of the year 9999: later years have five digits, which parsers of ISO 8601 and RFC 5424 refuse.
pub(super) const TIME_MAX: u64 = 265_046_774_400 * TICKS_PER_SECOND - 1;
/// Maximum length of a value that receivers index as one term, in bytes. Lucene refuses documents with terms above
/// 32,766.
pub(super) const TERM_LEN_MAX: usize = 8 * 1024;
/// Maximum length of a text in an excerpt, in bytes of JSON.
pub(super) const EXCERPT_LEN_MAX: usize = 512;
/// Maximum length of other strings of the event (source, computer, SID, path, id) in an excerpt, in bytes of JSON.
pub(super) const EXCERPT_STRING_LEN_MAX: usize = 128;
/// Minimum budget for further copies of a hit's values, in bytes of JSON, so that short scripts are always complete.
const COPIES_LEN_MIN: usize = 64 * 1024;
/// Minimum number of whole copies of a long hit, in addition to the first record.
const COPIES_MIN: usize = 3;
/// Field of a record that lists the fields whose values differ from the event's.
pub(super) const CLAMPED: &str = "clamped";

/// Limits of the values in a record. Lengths are bytes of JSON.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldLimits {
    /// Maximum length of the script and other long texts.
    pub(super) text: usize,
    /// Maximum length of strings that receivers index as one term.
    pub(super) term: usize,
    /// Maximum length of strings of the rule.
    pub(super) rule: usize,
    /// Maximum number of elements of each list.
    pub(super) entries: usize,
    /// Whether a shortened text is its beginning followed by `…`, rather than an excerpt around the rule's first span.
    pub(super) is_beginning: bool,
}

impl FieldLimits {
    /// The limits of receivers.
    pub(super) const WHOLE: Self = Self {
        text: usize::MAX,
        term: TERM_LEN_MAX,
        rule: usize::MAX,
        entries: usize::MAX,
        is_beginning: false,
    };
    /// The limits of records after the first ones.
    pub(super) const EXCERPT: Self =
        Self { text: EXCERPT_LEN_MAX, term: EXCERPT_STRING_LEN_MAX, ..Self::WHOLE };
}

/// Maximum number of bytes of JSON for all copies of a hit's values after the first.
pub(super) fn copies_len_max(copy_len: usize) -> usize {
    COPIES_LEN_MIN.max(COPIES_MIN * copy_len)
}

/// Number of bytes of JSON that every whole record of the hit repeats, apart from field names.
pub(super) fn copy_len(hit: &HitV1) -> usize {
    let strings = [Some(&hit.source), hit.computer.as_ref(), hit.user_sid.as_ref(), detail(hit)];
    let strings: usize = strings.into_iter().flatten().map(|text| json_len(text.chars())).sum();
    let texts: usize = hit.content.texts().into_iter().flatten().map(|(_, text)| units_len(&text.0)).sum();
    // A piece is two numbers of up to ten digits with punctuation.
    strings + texts + 24 * hit.cut.as_ref().map_or(0, |cut| cut.pieces.len())
}

/// Returns the hit as receivers accept it, without rules if anything was changed, and the names of the changed fields.
pub(super) fn whole(hit: &HitV1) -> (Cow<'_, HitV1>, Vec<&'static str>) {
    let long = |text: &str| beginning(text, TERM_LEN_MAX).is_some();
    let terms = [Some(&hit.source), hit.computer.as_ref(), hit.user_sid.as_ref()];
    let is_long = hit.time > TIME_MAX
        || terms.into_iter().flatten().any(|text| long(text))
        || hit
            .content
            .texts()
            .into_iter()
            .flatten()
            .any(|(name, text)| is_term(name) && !fits(&text.0, TERM_LEN_MAX));
    let (shown, mut clamped) = if is_long {
        let (hit, clamped) = event(hit, &[], FieldLimits::WHOLE);
        (Cow::Owned(hit), clamped)
    } else {
        (Cow::Borrowed(hit), Vec::new())
    };
    for (name, text) in hit.content.texts().into_iter().flatten() {
        let name = field(name);
        if has_lone_surrogate(&text.0) && !clamped.contains(&name) {
            clamped.push(name);
        }
    }
    (shown, clamped)
}

/// Returns the event of a hit within limits, without rules, and the names of the shortened fields. `spans` are those of
/// the record's rule.
pub(super) fn event(hit: &HitV1, spans: &[SpanV1], limits: FieldLimits) -> (HitV1, Vec<&'static str>) {
    let mut clamped = Vec::new();
    let mut shortener =
        Shortener { hit, spans, limits, clamped: &mut clamped, cut: hit.cut.as_ref().map(Cow::Borrowed) };
    let time = hit.time.min(TIME_MAX);
    if time != hit.time {
        shortener.clamped.push("time");
    }
    let source = shortener.string("source", &hit.source, limits.term);
    let computer = hit.computer.as_ref().map(|text| shortener.string("computer", text, limits.term));
    let user_sid = hit.user_sid.as_ref().map(|text| shortener.string("user_sid", text, limits.term));
    let content = shortener.content();
    let cut = shortener.cut();
    let event = HitV1 {
        time,
        source,
        computer,
        user_sid,
        content,
        cut,
        rules: Vec::new(),
        source_sequence: hit.source_sequence,
        provider: hit.provider,
        event_id: hit.event_id,
        version: hit.version,
        channel: hit.channel,
        level: hit.level,
        opcode: hit.opcode,
        task: hit.task,
        keywords: hit.keywords,
        process_id: hit.process_id,
        thread_id: hit.thread_id,
        activity_id: hit.activity_id,
        event_record_id: hit.event_record_id,
        scope: hit.scope,
        view: hit.view,
        partial: hit.partial,
    };
    (event, clamped)
}

/// Returns the rule within limits and adds the names of the shortened fields to `clamped`.
pub(super) fn rule<'a>(
    rule: &'a RuleRefV1,
    limits: FieldLimits,
    clamped: &mut Vec<&'static str>,
) -> Cow<'a, RuleRefV1> {
    let mut short = Cow::Borrowed(rule);
    if let Some(kept) = beginning(&rule.id, limits.rule) {
        kept.clone_into(&mut short.to_mut().id);
        clamped.push("rule_id");
    }
    if let Some(kept) = beginning(&rule.title, limits.rule) {
        kept.clone_into(&mut short.to_mut().title);
        clamped.push("rule_title");
    }
    if let Some(kept) = beginning(&rule.level, limits.rule) {
        kept.clone_into(&mut short.to_mut().level);
        clamped.push("level");
    }
    if rule.attack.len() > limits.entries || rule.attack.iter().any(|id| beginning(id, limits.rule).is_some())
    {
        let attack = rule.attack.iter().take(limits.entries);
        short.to_mut().attack =
            attack.map(|id| beginning(id, limits.rule).unwrap_or(id).to_owned()).collect();
        clamped.push("attack");
    }
    if rule.spans.len() > limits.entries {
        short.to_mut().spans.truncate(limits.entries);
        clamped.push("spans");
    }
    if rule.transformations.len() > limits.entries {
        short.to_mut().transformations.truncate(limits.entries);
        clamped.push("transformations");
    }
    short
}

struct Shortener<'a> {
    hit: &'a HitV1,
    spans: &'a [SpanV1],
    limits: FieldLimits,
    clamped: &'a mut Vec<&'static str>,
    cut: Option<Cow<'a, CutV1>>,
}

impl Shortener<'_> {
    fn string(&mut self, name: &'static str, text: &str, len_max: usize) -> String {
        let Some(kept) = beginning(text, len_max) else { return text.to_owned() };
        self.clamped.push(name);
        kept.to_owned()
    }

    /// Shortens one of the texts; `index` is its position in the content.
    fn text(&mut self, index: u8, name: &'static str, text: &Utf16Text) -> Utf16Text {
        let len_max = if is_term(name) { self.limits.term } else { self.limits.text };
        if fits(&text.0, len_max) {
            return text.clone();
        }
        self.clamped.push(field(name));
        let is_beginning = self.limits.is_beginning || is_term(name);
        let at = self.spans.iter().find(|span| span.text == index).and_then(|span| self.hit.shown(*span));
        let range = match at {
            Some(at) if !is_beginning => around(&text.0, &at, len_max),
            _ => 0..fitting(&text.0, len_max),
        };
        let mut kept = text.0.get(range.clone()).unwrap_or_default().to_vec();
        if self.limits.is_beginning {
            kept.push(0x2026);
        } else if name == "text" {
            self.cut = Some(Cow::Owned(self.pieces(index, text.0.len(), &range)));
        }
        Utf16Text(kept)
    }

    /// Describes how a text was cut to `range`, in units of the original text.
    fn pieces(&self, index: u8, units: usize, range: &Range<usize>) -> CutV1 {
        match &self.hit.cut {
            Some(cut) if cut.text == index => {
                let (mut before, mut pieces) = (0_usize, Vec::new());
                for piece in &cut.pieces {
                    let shown = before..before.saturating_add(piece.len as usize);
                    let (start, end) = (shown.start.max(range.start), shown.end.min(range.end));
                    if start < end {
                        let skipped = (start - shown.start) as u32;
                        let start_of_piece = piece.start.saturating_add(skipped);
                        pieces.push(PieceV1 { start: start_of_piece, len: (end - start) as u32 });
                    }
                    before = shown.end;
                }
                CutV1 { text: index, units: cut.units, sha256: cut.sha256, pieces }
            }
            _ => CutV1 {
                text: index,
                units: units as u32,
                sha256: None,
                pieces: vec![PieceV1 { start: range.start as u32, len: range.len() as u32 }],
            },
        }
    }

    fn content(&mut self) -> EventContent {
        let hit = self.hit;
        match &hit.content {
            EventContent::ScriptBlock { message_number, message_total, text, script_block_id, path } => {
                EventContent::ScriptBlock {
                    message_number: *message_number,
                    message_total: *message_total,
                    text: self.text(0, "text", text),
                    script_block_id: script_block_id.as_ref().map(|id| self.text(1, "script_block_id", id)),
                    path: path.as_ref().map(|path| self.text(2, "path", path)),
                }
            }
            EventContent::Module { context_info, user_data, payload } => EventContent::Module {
                context_info: self.text(0, "context_info", context_info),
                user_data: self.text(1, "user_data", user_data),
                payload: self.text(2, "payload", payload),
            },
            EventContent::Notice { detail } => {
                let kept = self.string("notice", detail, self.limits.text);
                let is_cut = kept.len() < detail.len() && self.limits.is_beginning;
                EventContent::Notice { detail: if is_cut { kept + "…" } else { kept } }
            }
            EventContent::Amsi { text, content_name, app_name, scan_result } => EventContent::Amsi {
                text: self.text(0, "text", text),
                content_name: self.text(1, "path", content_name),
                app_name: self.text(2, "app_name", app_name),
                scan_result: *scan_result,
            },
        }
    }

    /// Returns how the script was cut, within the limits.
    fn cut(self) -> Option<CutV1> {
        let mut cut = self.cut?.into_owned();
        if cut.pieces.len() > self.limits.entries {
            cut.pieces.truncate(self.limits.entries);
            self.clamped.push("cut");
        }
        Some(cut)
    }
}

fn detail(hit: &HitV1) -> Option<&String> {
    match &hit.content {
        EventContent::Notice { detail } => Some(detail),
        _ => None,
    }
}

/// Returns whether receivers index the text as one term.
fn is_term(name: &str) -> bool {
    matches!(name, "script_block_id" | "path" | "app_name")
}

/// Returns the name of a text in JSON Lines.
fn field(name: &'static str) -> &'static str {
    if name == "text" { "script_block_text" } else { name }
}

/// Returns the length of a character in the JSON of `serde_json`, in bytes.
fn char_len(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        _ => c.len_utf8(),
    }
}

fn json_len(text: impl Iterator<Item = char>) -> usize {
    text.map(char_len).sum()
}

/// Returns an upper bound of the length of a UTF-16 unit in JSON, in bytes. A surrogate takes two bytes of a pair's
/// four; a lone one becomes U+FFFD, which takes three.
fn unit_len(unit: u16) -> usize {
    match unit {
        0xD800..=0xDFFF => 3,
        _ => char::from_u32(u32::from(unit)).map_or(3, char_len),
    }
}

fn units_len(units: &[u16]) -> usize {
    units.iter().map(|unit| unit_len(*unit)).sum()
}

/// Returns whether a text takes at most `len_max` bytes of JSON, in at most `len_max` steps, because it is called for
/// every rule of a hit.
fn fits(units: &[u16], len_max: usize) -> bool {
    units.len().saturating_mul(6) <= len_max || units.len() <= len_max && units_len(units) <= len_max
}

/// Returns the longest prefix that takes at most `len_max` bytes of JSON; `None` if the whole string does.
fn beginning(text: &str, len_max: usize) -> Option<&str> {
    if text.len().saturating_mul(6) <= len_max {
        return None;
    }
    let mut len = 0;
    let end = text.char_indices().find(|(_, c)| {
        len += char_len(*c);
        len > len_max
    });
    end.map(|(at, _)| &text[..at])
}

/// Returns the number of leading units that take at most `len_max` bytes of JSON, without splitting surrogate pairs.
fn fitting(units: &[u16], len_max: usize) -> usize {
    let mut len = 0;
    let end = units.iter().position(|unit| {
        len += unit_len(*unit);
        len > len_max
    });
    end.map_or(units.len(), |end| if splits_pair(units, end) { end - 1 } else { end })
}

/// Returns a range around `at` whose units take at most `len_max` bytes of JSON, or the beginning of `at` if it is
/// longer.
fn around(units: &[u16], at: &Range<usize>, len_max: usize) -> Range<usize> {
    let inside = fitting(units.get(at.clone()).unwrap_or_default(), len_max);
    let (mut start, mut end) = (at.start, at.start + inside);
    let mut left = len_max.saturating_sub(units.get(start..end).map_or(0, units_len));
    // Grow on both sides in turn until no further unit fits.
    loop {
        let mut grown = false;
        if let Some(before) = start.checked_sub(1).and_then(|at| units.get(at)).map(|unit| unit_len(*unit))
            && before <= left
        {
            (start, left, grown) = (start - 1, left - before, true);
        }
        if inside == at.len()
            && let Some(behind) = units.get(end).map(|unit| unit_len(*unit))
            && behind <= left
        {
            (end, left, grown) = (end + 1, left - behind, true);
        }
        if !grown {
            break;
        }
    }
    if splits_pair(units, start) {
        start += 1;
    }
    if splits_pair(units, end) {
        end -= 1;
    }
    start..end.max(start)
}

/// Returns whether a cut before `at` splits a surrogate pair.
fn splits_pair(units: &[u16], at: usize) -> bool {
    let unit = |at: usize| units.get(at).copied().unwrap_or_default();
    at > 0 && (0xD800..0xDC00).contains(&unit(at - 1)) && (0xDC00..0xE000).contains(&unit(at))
}

fn has_lone_surrogate(units: &[u16]) -> bool {
    units.iter().any(|unit| (0xD800..0xE000).contains(unit))
        && char::decode_utf16(units.iter().copied()).any(|unit| unit.is_err())
}

#[cfg(test)]
mod tests;
