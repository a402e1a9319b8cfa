//! Converts the verdicts of the matcher into hits. The only module that uses both matcher and transport.

pub mod block;

use crate::amsi;
use crate::event::{EventHeader, RawEvent};
use etwsieve_event::Sid;
use etwsieve_matcher as matcher;
use etwsieve_matcher::{EventKind, Field, Fields, Matcher, Rule, Span, ViewMatch};
use etwsieve_transport::hit::{
    EventContent, HitV1, RuleRefV1, Scope, SpanV1, Transformation, Utf16Text, View,
};

/// Maximum number of rules per hit. An event with more rules becomes several hits, each short enough for a frame; a
/// store merges them.
pub const RULES_PER_HIT: usize = 128;

/// Creates the hit of an event whose raw text matched these rules of `matcher`. Allocates, and searches the event again
/// for the matching spans.
pub fn hit(event: &RawEvent, kind: EventKind, source: &str, matcher: &Matcher, rules: &[u32]) -> HitV1 {
    let fields = Fields::split(kind, &event.payload);
    let spans = matcher.spans(&fields, rules);
    let rules = rules.iter().filter_map(|&rule| matcher.rules().get(rule as usize));
    let nuls = FirstNuls::of(&fields);
    let rules = rules.zip(spans).map(|(rule, spans)| rule_ref(rule, &spans, &nuls)).collect();
    limited_hit(&EventFacts::of(event), source, View::Raw, content(&fields, &event.payload), rules, |_| {})
}

/// Creates the hit of an event for matches in another view. All of `found` must belong to the same view.
pub fn view_hit(
    event: &RawEvent,
    kind: EventKind,
    source: &str,
    matcher: &Matcher,
    found: &[ViewMatch],
) -> HitV1 {
    let fields = Fields::split(kind, &event.payload);
    let view = found.first().map_or(View::Raw, |first| view(first.view));
    let nuls = FirstNuls::of(&fields);
    let rules = found.iter().filter_map(|one| view_rule_ref(one, matcher, &nuls)).collect();
    limited_hit(&EventFacts::of(event), source, view, content(&fields, &event.payload), rules, |_| {})
}

/// Describes a rule that matched a view. Its spans refer to the original text.
fn view_rule_ref(found: &ViewMatch, matcher: &Matcher, nuls: &FirstNuls) -> Option<RuleRefV1> {
    let rule = matcher.rules().get(found.rule as usize)?;
    let transformations = found.transformations.iter().map(|&done| transformation(done)).collect();
    Some(RuleRefV1 { transformations, ..rule_ref(rule, &found.spans, nuls) })
}

/// Converts a view of the matcher to that of the wire format.
pub fn view(view: matcher::View) -> View {
    match view {
        matcher::View::Normalized => View::Normalized,
        matcher::View::Call => View::Call,
    }
}

fn transformation(done: matcher::Transformation) -> Transformation {
    use matcher::Transformation as From;
    match done {
        From::Dash => Transformation::Dash,
        From::Quote => Transformation::Quote,
        From::Backtick => Transformation::Backtick,
        From::Whitespace => Transformation::Whitespace,
        From::Concatenation => Transformation::Concatenation,
        From::Format => Transformation::Format,
        From::Join => Transformation::Join,
        From::Split => Transformation::Split,
        From::Replace => Transformation::Replace,
        From::CharCast => Transformation::CharCast,
        From::Reverse => Transformation::Reverse,
        From::Base64 => Transformation::Base64,
        From::Deflate => Transformation::Deflate,
        From::Gzip => Transformation::Gzip,
        From::Alias => Transformation::Alias,
        From::ParameterPrefix => Transformation::ParameterPrefix,
        From::ParameterAlias => Transformation::ParameterAlias,
        From::Positional => Transformation::Positional,
        From::ModuleQualified => Transformation::ModuleQualified,
    }
}

/// Groups matches by view, and splits groups that are too large for a hit.
pub fn by_view(found: &[ViewMatch]) -> Vec<Vec<ViewMatch>> {
    let mut groups = Vec::new();
    for view in [matcher::View::Normalized, matcher::View::Call] {
        let of_view: Vec<ViewMatch> = found.iter().filter(|found| found.view == view).cloned().collect();
        groups.extend(of_view.chunks(RULES_PER_HIT).map(<[ViewMatch]>::to_vec));
    }
    groups
}

/// The facts of an event that a hit contains.
struct EventFacts<'a> {
    header: &'a EventHeader,
    user_sid: Option<Sid>,
    computer: &'a str,
    sequence: u64,
}

impl<'a> EventFacts<'a> {
    fn of(event: &'a RawEvent) -> Self {
        Self {
            header: &event.header,
            user_sid: event.user_sid,
            computer: &event.computer,
            sequence: event.sequence,
        }
    }
}

/// Creates the hit of an event with these rules, applies `change`, and cuts it to the limits of a hit.
fn limited_hit(
    event: &EventFacts<'_>,
    source: &str,
    view: View,
    content: EventContent,
    rules: Vec<RuleRefV1>,
    change: impl FnOnce(&mut HitV1),
) -> HitV1 {
    let header = event.header;
    let mut hit = HitV1 {
        time: header.time.0,
        source: source.to_owned(),
        source_sequence: event.sequence,
        provider: header.provider.to_bytes_le(),
        event_id: header.event_id,
        version: header.version,
        channel: header.channel,
        level: header.level,
        opcode: header.opcode,
        task: header.task,
        keywords: header.keywords,
        computer: (!event.computer.is_empty()).then(|| event.computer.to_owned()),
        user_sid: event.user_sid.map(|sid| sid.to_string()),
        process_id: header.process_id,
        thread_id: header.thread_id,
        activity_id: header.activity_id.map(|id| id.to_bytes_le()),
        event_record_id: header.event_record_id,
        scope: Scope::Event,
        view,
        partial: false,
        content,
        cut: None,
        rules,
    };
    change(&mut hit);
    if hit.cut_to_limits() {
        tracing::warn!(source, sequence = event.sequence, "a field of a hit was cut to its maximum length");
    }
    hit
}

fn rule_ref(rule: &Rule, spans: &[Span], nuls: &FirstNuls) -> RuleRefV1 {
    let place = |span: &Span| {
        Some(SpanV1 {
            text: nuls.order.iter().position(|field| *field == span.field)?.try_into().ok()?,
            start: span.units.start.try_into().ok()?,
            len: span.units.len().try_into().ok()?,
        })
    };
    RuleRefV1 {
        id: rule.id.clone(),
        title: rule.title.clone(),
        level: rule.level.clone(),
        attack: rule.attack.clone(),
        beyond_nul: spans.iter().any(|span| nuls.hide(span)),
        spans: spans.iter().filter_map(place).collect(),
        transformations: Vec::new(),
    }
}

/// Positions of the first U+0000 in the text fields of an event, where tools that decode events by the manifest stop.
struct FirstNuls {
    /// The text fields in the order of the payload.
    order: &'static [Field],
    /// For each field the index of the unit.
    first: Vec<Option<usize>>,
}

impl FirstNuls {
    fn of(fields: &Fields<'_>) -> Self {
        let order = fields.kind().text_fields();
        let first = |field: &Field| first_nul(fields.text(*field).unwrap_or_default().as_chunks().0);
        Self { order, first: order.iter().map(first).collect() }
    }

    /// Returns whether a U+0000 precedes the end of the span, so that those tools do not show all of it.
    fn hide(&self, span: &Span) -> bool {
        let of_field = self.order.iter().zip(&self.first).find(|(field, _)| **field == span.field);
        of_field.and_then(|(_, nul)| *nul).is_some_and(|nul| nul < span.units.end)
    }
}

fn first_nul(units: &[[u8; 2]]) -> Option<usize> {
    const BLOCK: usize = 64;
    let is_nul = |unit: &[u8; 2]| *unit == [0, 0];
    // Checked in blocks, so that the compiler can vectorise the loop.
    let has_nul = |block: &[[u8; 2]]| block.iter().map(|unit| u8::from(is_nul(unit))).max() == Some(1);
    let block = units.chunks(BLOCK).position(has_nul)?;
    let at = units[BLOCK * block..].iter().position(is_nul)?;
    Some(BLOCK * block + at)
}

fn content(fields: &Fields<'_>, payload: &[u8]) -> EventContent {
    let wide =
        |bytes: &[u8]| Utf16Text(bytes.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect());
    let text = |field| fields.text(field).map(wide);
    let number = |field| fields.number(field).and_then(|n| i32::try_from(n).ok());
    match fields.kind() {
        EventKind::ScriptBlock => EventContent::ScriptBlock {
            message_number: number(Field::MessageNumber),
            message_total: number(Field::MessageTotal),
            text: text(Field::ScriptBlockText).unwrap_or_default(),
            script_block_id: text(Field::ScriptBlockId),
            path: text(Field::Path),
        },
        EventKind::Module => EventContent::Module {
            context_info: text(Field::ContextInfo).unwrap_or_default(),
            user_data: text(Field::UserData).unwrap_or_default(),
            payload: text(Field::Payload).unwrap_or_default(),
        },
        EventKind::Amsi => {
            let (scan_result, app_name) = amsi::result_and_app_name(payload).unwrap_or_default();
            EventContent::Amsi {
                text: text(Field::ScriptBlockText).unwrap_or_default(),
                content_name: text(Field::Path).unwrap_or_default(),
                app_name: wide(app_name),
                scan_result,
            }
        }
    }
}
