//! A verdict becomes a hit: the one place where matcher and transport meet.

use crate::event::RawEvent;
use etwsieve_matcher::{EventKind, Field, Fields, Rule};
use etwsieve_transport::hit::{EventContent, HitV1, RuleRefV1, Scope, Utf16Text, View};

/// Most rules of one hit. With more, the event gives several hits, each short enough for a frame; a store joins them.
pub const RULES_PER_HIT: usize = 128;

/// Decodes an event that matched. Allocates: hits are rare.
pub fn hit<'a>(
    event: &RawEvent,
    kind: EventKind,
    source: &str,
    rules: impl Iterator<Item = &'a Rule>,
) -> HitV1 {
    let header = &event.header;
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
        computer: (!event.computer.is_empty()).then(|| event.computer.clone()),
        user_sid: event.user_sid.map(|sid| sid.to_string()),
        process_id: header.process_id,
        thread_id: header.thread_id,
        activity_id: header.activity_id.map(|id| id.to_bytes_le()),
        event_record_id: header.event_record_id,
        scope: Scope::Event,
        view: View::Raw,
        partial: false,
        content: content(kind, &event.payload),
        cut: None,
        rules: rules.map(rule_ref).collect(),
    };
    if hit.cut_to_limits() {
        tracing::warn!(source, sequence = event.sequence, "a field of a hit was cut to its limit");
    }
    hit
}

fn rule_ref(rule: &Rule) -> RuleRefV1 {
    RuleRefV1 {
        id: rule.id.clone(),
        title: rule.title.clone(),
        level: rule.level.clone(),
        attack: rule.attack.clone(),
        ..RuleRefV1::default()
    }
}

fn content(kind: EventKind, payload: &[u8]) -> EventContent {
    let fields = Fields::split(kind, payload);
    let text = |field| {
        fields.text(field).map(|bytes| {
            Utf16Text(bytes.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect())
        })
    };
    let number = |field| fields.number(field).and_then(|n| i32::try_from(n).ok());
    match kind {
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
    }
}
