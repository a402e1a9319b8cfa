//! Hits round-trip, limits hold when encoding and decoding, and hostile bytes are rejected cheaply.

mod arbitrary;
mod common;

use arbitrary::any_hit;
use common::{hit, rule};
use etwsieve_transport::hit::{
    ATTACK_MAX, CutV1, EventContent, HitV1, PIECES_MAX, PieceV1, RULES_MAX, SPANS_MAX, STRING_LEN_MAX,
    SpanV1, TEXT_UNITS_MAX, TRANSFORMATIONS_MAX, Transformation, Utf16Text,
};
use etwsieve_transport::wire::codec::{
    CodecError, HIT_LEN_MAX, decode_hit, encode_event, encode_hit, encode_hit_into, encode_identity,
    encoded_hit_len,
};
use etwsieve_transport::wire::frame::{FrameType, split_frame};
use etwsieve_transport::wire::{decode_data, encode_data};
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_hit_round_trips(hit in any_hit(), sequence: u64) {
        let bytes = encode_hit(&hit).unwrap();
        prop_assert_eq!(encoded_hit_len(&hit).unwrap(), bytes.len());
        prop_assert_eq!(&decode_hit(&bytes).unwrap(), &hit);

        let mut buffer = vec![0xEE; bytes.len() + 3];
        prop_assert_eq!(encode_hit_into(&hit, &mut buffer).unwrap(), bytes.len());
        prop_assert_eq!(&buffer[..bytes.len()], &bytes[..]);
        prop_assert_eq!(&buffer[bytes.len()..], &[0xEE; 3]);

        let mut frames = b"before".to_vec();
        encode_data(sequence, &hit, &mut frames).unwrap();
        frames.extend(b"after");
        let split = split_frame(&frames[6..]).unwrap().unwrap();
        prop_assert_eq!(split.frame_type, FrameType::Data);
        prop_assert_eq!(split.rest, b"after");
        let data = decode_data(split.payload).unwrap();
        prop_assert_eq!(data.sequence, sequence);
        prop_assert_eq!(data.hit, hit);
    }

    #[test]
    fn an_encoded_event_does_not_depend_on_the_rules(hit in any_hit()) {
        let bare = HitV1 { rules: vec![], ..hit.clone() };
        prop_assert_eq!(encode_event(&hit).unwrap(), encode_hit(&bare).unwrap());
    }

    /// Spans and pieces of another program are unverified: looking them up and merging them must be safe, whatever they
    /// are.
    #[test]
    fn unverified_pieces_are_not_trusted(mut hit in any_hit(), mut other in any_hit()) {
        for span in hit.rules.iter().flat_map(|rule| &rule.spans) {
            if let Some(shown) = hit.shown(*span) {
                let (_, text) = hit.content.texts()[usize::from(span.text)].unwrap();
                prop_assert!(shown.end <= text.0.len());
            }
        }
        if let (Some(own), Some(others)) = (&hit.cut, &mut other.cut) {
            (others.text, others.units, others.sha256) = (own.text, own.units, own.sha256);
        }
        hit.add_pieces(&other);
        prop_assert_eq!(decode_hit(&encode_hit(&hit).unwrap()).unwrap(), hit);
    }

    /// The pieces depend on the rules, source and number on the path. The identity depends on none of them.
    #[test]
    fn an_identity_ignores_pieces_and_source(hit in any_hit()) {
        let mut other =
            HitV1 { rules: vec![], source: String::new(), source_sequence: 0, ..hit.clone() };
        if hit.cut.is_none() {
            prop_assert_eq!(encode_identity(&hit).unwrap(), encode_event(&other).unwrap());
        }
        if let Some(cut) = &mut other.cut {
            cut.pieces.push(PieceV1 { start: 1, len: 1 });
        }
        prop_assert_eq!(encode_identity(&hit).unwrap(), encode_identity(&other).unwrap());
    }

    #[test]
    fn decoded_hits_encode_to_the_same_bytes(hit in any_hit(), at: prop::sample::Index, byte: u8) {
        let mut bytes = encode_hit(&hit).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(other) = decode_hit(&bytes) {
            prop_assert_eq!(encode_hit(&other).unwrap(), bytes);
        }
    }

    #[test]
    fn random_bytes_decode_or_are_rejected(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = split_frame(&bytes);
        let _ = decode_hit(&bytes);
    }
}

fn text_of(hit: &mut HitV1) -> &mut Utf16Text {
    match &mut hit.content {
        EventContent::ScriptBlock { text, .. } => text,
        EventContent::Module { payload, .. } => payload,
        EventContent::Amsi { app_name, .. } => app_name,
        EventContent::Notice { .. } => panic!("a notice has no text of an event"),
    }
}

/// Sets a field of a hit to the given length: once its maximum, once more than that.
type Change = fn(&mut HitV1, usize);

const LIMITS: [(&str, usize, Change); 10] = [
    ("source", STRING_LEN_MAX, |hit, len| hit.source = "s".repeat(len)),
    ("computer", STRING_LEN_MAX, |hit, len| hit.computer = Some("c".repeat(len))),
    ("text", TEXT_UNITS_MAX, |hit, len| text_of(hit).0 = vec![0xD800; len]),
    ("detail", STRING_LEN_MAX, |hit, len| {
        hit.content = EventContent::Notice { detail: "d".repeat(len) };
    }),
    ("rules", RULES_MAX, |hit, len| hit.rules = vec![rule("id", "title"); len]),
    ("rules.title", STRING_LEN_MAX, |hit, len| hit.rules[0].title = "t".repeat(len)),
    ("rules.attack", ATTACK_MAX, |hit, len| hit.rules[0].attack = vec!["T1".into(); len]),
    ("rules.spans", SPANS_MAX, |hit, len| {
        hit.rules[0].spans = vec![SpanV1 { text: 7, start: 7, len: 7 }; len];
    }),
    ("rules.transformations", TRANSFORMATIONS_MAX, |hit, len| {
        hit.rules[0].transformations = vec![Transformation::Gzip; len];
    }),
    ("cut.pieces", PIECES_MAX, |hit, len| {
        let pieces = vec![PieceV1 { start: 7, len: 7 }; len];
        hit.cut = Some(CutV1 { text: 0, units: 9, sha256: None, pieces });
    }),
];

#[test]
fn hits_beyond_a_limit_are_not_encoded() {
    for (name, max, change) in LIMITS {
        let mut hit = hit(1);
        change(&mut hit, max);
        assert_eq!(decode_hit(&encode_hit(&hit).unwrap()).as_ref(), Ok(&hit), "{name} at its maximum");
        change(&mut hit, max + 1);
        let Err(CodecError::Limit(error)) = encode_hit(&hit) else { panic!("{name} above its maximum") };
        assert_eq!((error.field, error.found, error.max), (name, max + 1, max));
        let mut out = b"before".to_vec();
        encode_data(1, &hit, &mut out).unwrap_err();
        assert_eq!(out, b"before", "{name}: a rejected hit leaves the buffer unchanged");
    }
}

/// Another encoder may not check the limits, so the decoder has to.
#[test]
fn hits_beyond_a_limit_are_not_decoded() {
    for (name, max, change) in LIMITS {
        let mut hit = hit(1);
        change(&mut hit, max);
        let bytes = encode_hit(&hit).unwrap();
        // Repeat the last entry and correct the length before it.
        let (len_at, unit): (usize, Vec<u8>) = match name {
            "source" => (8, b"s".to_vec()),
            "computer" => (find(&bytes, &[1, 0, 16, 0, 0, 0, 0, 0, 0, b'c']) + 1, b"c".to_vec()),
            "detail" => (find(&bytes, &[0, 16, 0, 0, 0, 0, 0, 0, b'd']), b"d".to_vec()),
            "text" => (find(&bytes, &(2 * max as u64).to_le_bytes()), vec![0, 0xD8]),
            "rules" => (find(&bytes, &(max as u64).to_le_bytes()), {
                let one = encoded_rule();
                assert!(bytes.ends_with(&one));
                one
            }),
            "rules.title" => (find(&bytes, &[0, 16, 0, 0, 0, 0, 0, 0, b't']), b"t".to_vec()),
            "rules.attack" => {
                (find(&bytes, &(max as u64).to_le_bytes()), vec![2, 0, 0, 0, 0, 0, 0, 0, b'T', b'1'])
            }
            "rules.spans" => (find(&bytes, &(max as u64).to_le_bytes()), vec![7, 7, 0, 0, 0, 7, 0, 0, 0]),
            "rules.transformations" => (find(&bytes, &(max as u64).to_le_bytes()), vec![13, 0, 0, 0]),
            "cut.pieces" => (find(&bytes, &(max as u64).to_le_bytes()), vec![7, 0, 0, 0, 7, 0, 0, 0]),
            other => panic!("no row for {other}"),
        };
        let len = u64::from_le_bytes(bytes[len_at..len_at + 8].try_into().unwrap());
        let step = if name == "text" { 2 } else { 1 };
        let longer = [&bytes[..len_at], &(len + step).to_le_bytes(), &unit, &bytes[len_at + 8..]].concat();
        let Err(CodecError::Invalid { detail, .. }) = decode_hit(&longer) else {
            panic!("{name} above its maximum: {:?}", decode_hit(&longer).map(|_| ()))
        };
        assert!(detail.contains("at most"), "{name}: {detail}");
    }
}

/// Returns the encoding of the only rule of `hit(1)`.
fn encoded_rule() -> Vec<u8> {
    let encode = |hit: &HitV1| encode_hit(hit).expect("within the limits");
    let bare = encode(&HitV1 { rules: vec![], ..hit(1) });
    encode(&HitV1 { rules: vec![rule("id", "title")], ..hit(1) }).split_off(bare.len())
}

fn find(haystack: &[u8], needle: &[u8]) -> usize {
    haystack.windows(needle.len()).position(|window| window == needle).expect("it is there")
}

#[test]
fn the_longest_hit_fits_in_a_frame_and_a_longer_one_is_rejected() {
    let mut hit = hit(1);
    hit.rules = vec![rule("", ""); RULES_MAX];
    let missing = HIT_LEN_MAX - encoded_hit_len(&hit).unwrap();
    for (index, rule) in hit.rules.iter_mut().enumerate() {
        let share = missing / RULES_MAX + usize::from(index < missing % RULES_MAX);
        rule.title = "t".repeat(share);
    }
    assert_eq!(encode_hit(&hit).unwrap().len(), HIT_LEN_MAX);
    let mut frame = Vec::new();
    encode_data(9, &hit, &mut frame).unwrap();
    let split = split_frame(&frame).unwrap().unwrap();
    assert_eq!(split.payload.len(), 1024 * 1024);
    assert_eq!(decode_data(split.payload).unwrap().hit, hit);

    hit.rules[0].title.push('t');
    assert_eq!(encode_hit(&hit), Err(CodecError::TooLong { max: HIT_LEN_MAX }));
    assert!(matches!(encode_data(9, &hit, &mut frame), Err(CodecError::TooLong { .. })));
    assert_eq!(decode_hit(&vec![0; HIT_LEN_MAX + 1]), Err(CodecError::TooLong { max: HIT_LEN_MAX }));
}

#[test]
fn a_short_buffer_stays_unchanged() {
    let hit = hit(1);
    let len = encoded_hit_len(&hit).unwrap();
    let mut buffer = vec![0xEE; len - 1];
    let error = encode_hit_into(&hit, &mut buffer).unwrap_err();
    assert_eq!(error, CodecError::BufferTooShort { expected: len, found: len - 1 });
    assert!(buffer.iter().all(|&byte| byte == 0xEE));
}

#[test]
fn hostile_strings_are_truncated_to_valid_lengths() {
    let mut honest = hit(1);
    assert!(!honest.cut_to_limits());
    assert_eq!(honest, hit(1));

    let mut hostile = hit(1);
    hostile.computer = Some("é".repeat(STRING_LEN_MAX));
    hostile.rules[0].attack[0] = "T".repeat(STRING_LEN_MAX + 1);
    text_of(&mut hostile).0 = vec![0x41; TEXT_UNITS_MAX + 1];
    encode_hit(&hostile).unwrap_err();
    assert!(hostile.cut_to_limits());
    assert!(hostile.cut.is_some(), "the truncation is recorded");
    assert_eq!(hostile.computer.as_ref().unwrap().len(), STRING_LEN_MAX);
    encode_hit(&hostile).unwrap();
}
