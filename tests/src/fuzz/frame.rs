//! Arbitrary bytes as frames and hits: nothing panics, and each value has one encoding.

use etwsieve_transport::hit::{EventContent, HitV1, RuleRefV1, SpanV1, Transformation};
use etwsieve_transport::wire::codec::{decode_hit, encode_event, encode_hit, encode_hit_into};
use etwsieve_transport::wire::frame::{
    FrameType, HEADER_LEN, PAYLOAD_LEN_MAX, Split, encode_frame, split_frame,
};
use etwsieve_transport::wire::message::{
    AckV1, BusyV1, GapV1, HelloV1, Message, RefusedV1, StatusV1, WelcomeV1,
};
use etwsieve_transport::wire::{decode_data, decode_message, encode_data, encode_message};

/// Maximum memory of a decoded hit per encoded byte; growing lists double their capacity.
const HELD_PER_BYTE_MAX: usize = 8;

/// Decodes `data` as a stream of frames, as the payload of a frame of each type, and as a hit.
///
/// # Panics
///
/// If a decoded value does not encode to the same bytes.
pub fn frame(data: &[u8]) {
    let mut stream = data;
    while let Ok(Some(split)) = split_frame(stream) {
        let len = stream.len() - split.rest.len();
        check_frame(&split, &stream[..len]);
        stream = split.rest;
    }
    // Random bytes rarely have a valid CRC, so a frame is made around them.
    let mut sealed = Vec::new();
    if encode_frame(FrameType::Data, data, &mut sealed).is_ok() {
        let split = split_frame(&sealed);
        assert!(matches!(split, Ok(Some(_))), "a frame just encoded does not split: {split:?}");
        if let Ok(Some(split)) = split {
            assert!(split.rest.is_empty(), "a frame just encoded leaves a rest");
            check_frame(&split, &sealed);
        }
    } else {
        assert!(data.len() > PAYLOAD_LEN_MAX, "a payload within its bound was refused");
    }
    check_hit(data);
}

fn check_frame(split: &Split<'_>, bytes: &[u8]) {
    let mut again = Vec::new();
    let encoded = encode_frame(split.frame_type, split.payload, &mut again);
    assert_eq!(encoded, Ok(()), "a frame that was split");
    assert_eq!(again, bytes, "a frame that was split");
    if split.frame_type == FrameType::Data
        && let Ok(data) = decode_data(split.payload)
    {
        again.clear();
        let encoded = encode_data(data.sequence, &data.hit, &mut again);
        assert_eq!(encoded, Ok(()), "a DATA frame that was decoded");
        assert_eq!(again, bytes, "a DATA frame that was decoded");
    }
    check_message::<HelloV1>(split.payload);
    check_message::<WelcomeV1>(split.payload);
    check_message::<AckV1>(split.payload);
    check_message::<BusyV1>(split.payload);
    check_message::<GapV1>(split.payload);
    check_message::<StatusV1>(split.payload);
    check_message::<RefusedV1>(split.payload);
}

/// Decodes the payload as a message, whatever the type of its frame is.
fn check_message<M: Message>(payload: &[u8]) {
    let Ok(message) = decode_message::<M>(payload) else { return };
    assert_eq!(message.check(), Ok(()), "a message that was decoded");
    let mut again = Vec::new();
    let encoded = encode_message(&message, &mut again);
    assert_eq!(encoded, Ok(()), "a message that was decoded");
    assert_eq!(&again[HEADER_LEN..], payload, "a message that was decoded");
}

fn check_hit(bytes: &[u8]) {
    let Ok(mut hit) = decode_hit(bytes) else { return };
    assert_eq!(hit.check(), Ok(()), "a hit that was decoded");
    let held = held(&hit);
    assert!(held <= HELD_PER_BYTE_MAX * bytes.len(), "{held} bytes from {}", bytes.len());
    assert_eq!(encode_hit(&hit).as_deref(), Ok(bytes), "a hit that was decoded");
    let mut buffer = vec![0; bytes.len()];
    assert_eq!(encode_hit_into(&hit, &mut buffer), Ok(bytes.len()));
    assert_eq!(buffer, bytes, "encoded into a buffer");
    let event = encode_event(&hit);
    hit.rules.clear();
    assert_eq!(event, encode_hit(&hit), "the event without its rules");
    assert!(!hit.cut_to_limits(), "nothing is left to cut");
}

/// Memory of the lists and texts of a hit, in bytes.
fn held(hit: &HitV1) -> usize {
    let option = |text: &Option<String>| text.as_ref().map_or(0, String::capacity);
    let rule = |rule: &RuleRefV1| {
        let attack: usize = rule.attack.iter().map(String::capacity).sum();
        rule.id.capacity()
            + rule.title.capacity()
            + rule.level.capacity()
            + attack
            + rule.attack.capacity() * size_of::<String>()
            + rule.spans.capacity() * size_of::<SpanV1>()
            + rule.transformations.capacity() * size_of::<Transformation>()
    };
    let content = match &hit.content {
        EventContent::ScriptBlock { text, .. } | EventContent::Amsi { text, .. } => 2 * text.0.capacity(),
        EventContent::Module { context_info, user_data, payload } => {
            2 * (context_info.0.capacity() + user_data.0.capacity() + payload.0.capacity())
        }
        EventContent::Notice { detail } => detail.capacity(),
    };
    hit.source.capacity()
        + option(&hit.computer)
        + option(&hit.user_sid)
        + content
        + hit.rules.capacity() * size_of::<RuleRefV1>()
        + hit.rules.iter().map(rule).sum::<usize>()
}
