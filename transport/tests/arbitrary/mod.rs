//! Strategies for arbitrary hits.

use etwsieve_transport::hit::{
    CutV1, EventContent, HitV1, PieceV1, RuleRefV1, Scope, SpanV1, Transformation, Utf16Text, View,
};
use proptest::prelude::*;

/// Units of every kind; lone surrogates and NUL are common.
fn any_text() -> impl Strategy<Value = Utf16Text> {
    let unit = prop_oneof![4 => 0x20u16..0x7F, 1 => Just(0), 1 => 0xD800u16..0xE000, 1 => any::<u16>()];
    proptest::collection::vec(unit, 0..60).prop_map(Utf16Text)
}

fn any_content() -> impl Strategy<Value = EventContent> {
    let option = || proptest::option::of(any_text());
    let number = || any::<Option<i32>>();
    prop_oneof![
        (number(), number(), any_text(), option(), option()).prop_map(
            |(message_number, message_total, text, script_block_id, path)| EventContent::ScriptBlock {
                message_number,
                message_total,
                text,
                script_block_id,
                path,
            }
        ),
        (any_text(), any_text(), any_text()).prop_map(|(context_info, user_data, payload)| {
            EventContent::Module { context_info, user_data, payload }
        }),
        (any_text(), any_text(), any_text(), any::<u32>()).prop_map(
            |(text, content_name, app_name, scan_result)| EventContent::Amsi {
                text,
                content_name,
                app_name,
                scan_result,
            }
        ),
        ".{0,40}".prop_map(|detail| EventContent::Notice { detail }),
    ]
}

fn any_rule() -> impl Strategy<Value = RuleRefV1> {
    let attack = proptest::collection::vec(".{0,9}", 0..4);
    let span = any::<(u8, u32, u32)>().prop_map(|(text, start, len)| SpanV1 { text, start, len });
    let spans = proptest::collection::vec(span, 0..4);
    let transformation = proptest::sample::select(
        &[Transformation::Dash, Transformation::Base64, Transformation::ModuleQualified][..],
    );
    let transformations = proptest::collection::vec(transformation, 0..4);
    let strings = (".{0,40}", ".{0,40}", ".{0,9}", attack);
    (strings, any::<bool>(), spans, transformations).prop_map(
        |((id, title, level, attack), beyond_nul, spans, transformations)| RuleRefV1 {
            id,
            title,
            level,
            attack,
            beyond_nul,
            spans,
            transformations,
        },
    )
}

/// A description of a truncation that need not match its text, because receivers must not trust it.
fn any_cut() -> impl Strategy<Value = Option<CutV1>> {
    let piece = any::<(u32, u32)>().prop_map(|(start, len)| PieceV1 { start, len });
    let pieces = proptest::collection::vec(piece, 0..5);
    let cut = (any::<(u8, u32, Option<[u8; 32]>)>(), pieces)
        .prop_map(|((text, units, sha256), pieces)| CutV1 { text, units, sha256, pieces });
    proptest::option::of(cut)
}

/// Hits with random values in every field.
pub(crate) fn any_hit() -> impl Strategy<Value = HitV1> {
    let place = (any::<u64>(), ".{0,20}", any::<u64>(), any::<[u8; 16]>());
    let descriptor = any::<(u16, u8, u8, u8, u8, u16, u64)>();
    let string = || proptest::option::of(".{0,20}");
    let origin = (string(), string(), any::<(Option<u32>, Option<u32>, Option<[u8; 16]>, Option<u64>)>());
    let scope = prop_oneof![Just(Scope::Event), Just(Scope::Block)];
    let view = prop_oneof![Just(View::Raw), Just(View::Normalized), Just(View::Call)];
    let rules = proptest::collection::vec(any_rule(), 0..4);
    let how = (scope, view, any::<bool>());
    (place, descriptor, origin, how, any_content(), any_cut(), rules).prop_map(
        |(place, descriptor, origin, (scope, view, partial), content, cut, rules)| {
            let (time, source, source_sequence, provider) = place;
            let (event_id, version, channel, level, opcode, task, keywords) = descriptor;
            let (computer, user_sid, (process_id, thread_id, activity_id, event_record_id)) = origin;
            HitV1 {
                time,
                source,
                source_sequence,
                provider,
                event_id,
                version,
                channel,
                level,
                opcode,
                task,
                keywords,
                computer,
                user_sid,
                process_id,
                thread_id,
                activity_id,
                event_record_id,
                scope,
                view,
                partial,
                content,
                cut,
                rules,
            }
        },
    )
}
