//! Golden bytes of the messages of version 1, and the validity rules for their fields.
//!
//! The files in `golden/` were made by an encoder written from `docs/wire.md` alone, not by this crate.

use etwsieve_transport::wire::codec::CodecError;
use etwsieve_transport::wire::frame::{FrameType, split_frame};
use etwsieve_transport::wire::message::{
    AckV1, BusyReason, BusyV1, COUNTS_MAX, CountV1, GapReason, GapV1, HelloV1, MESSAGE_LEN_MAX, Message,
    NAME_LEN_MAX, RefusalReason, RefusedV1, StatusV1, VERSIONS_MAX, WelcomeV1,
};
use etwsieve_transport::wire::{decode_message, encode_message};
use proptest::prelude::*;
use std::fmt::Debug;

const EPOCH: [u8; 16] =
    [0xF0, 0xF1, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF];

fn hello() -> HelloV1 {
    HelloV1 {
        versions: vec![1, 2],
        instance: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        epoch: EPOCH,
        first_unacknowledged: 513,
        software: "etwsieve 0.1.0".into(),
        computer: "SRV-Ω".into(),
    }
}

fn welcome() -> WelcomeV1 {
    WelcomeV1 { version: 1, epoch: EPOCH, durable: 512, window: 1024, quiet_ms: 90_000 }
}

fn gap() -> GapV1 {
    GapV1 { from: 7, to: 1 << 63, count: 300, reason: GapReason::SpoolDamaged }
}

fn count(name: &str, value: u64) -> CountV1 {
    CountV1 { name: name.into(), value }
}

fn status() -> StatusV1 {
    StatusV1 {
        time: 133_601_515_200_008_656,
        uptime_seconds: 86_400,
        counts: vec![count("hits_offered", 12), count("spool_bytes", u64::MAX)],
    }
}

fn refusal() -> RefusedV1 {
    RefusedV1 { epoch: EPOCH, from: 7, to: 9, reason: RefusalReason::NotStorable, detail: "größer".into() }
}

fn check<M: Message + PartialEq + Debug>(golden: &[u8], message: &M) {
    let mut bytes = Vec::new();
    encode_message(message, &mut bytes).expect("a valid message");
    assert_eq!(bytes, golden, "the bytes of version 1 have changed: make a new struct instead");
    let split = split_frame(golden).expect("a frame").expect("a complete one");
    assert_eq!(split.frame_type, M::TYPE);
    assert_eq!(&decode_message::<M>(split.payload).expect("a message"), message);
    for len in 0..split.payload.len() {
        decode_message::<M>(&split.payload[..len]).expect_err("a message cut short");
    }
    decode_message::<M>(&[split.payload, &[0]].concat()).expect_err("an extra byte");
}

#[test]
fn golden_bytes() {
    check(include_bytes!("golden/frame_hello_v1.bin"), &hello());
    check(include_bytes!("golden/frame_welcome_v1.bin"), &welcome());
    check(include_bytes!("golden/frame_ack_v1.bin"), &AckV1 { epoch: EPOCH, sequence: (1 << 40) + 1 });
    let busy = BusyV1 { retry_after_ms: 5000, reason: BusyReason::NotAllowed };
    check(include_bytes!("golden/frame_busy_v1.bin"), &busy);
    check(include_bytes!("golden/frame_gap_v1.bin"), &gap());
    check(include_bytes!("golden/frame_status_v1.bin"), &status());
    check(include_bytes!("golden/frame_refused_v1.bin"), &refusal());
}

#[test]
fn enums_have_the_documented_numbers() {
    let reasons = [
        BusyReason::DiskFull,
        BusyReason::StoreFailed,
        BusyReason::Overload,
        BusyReason::Connections,
        BusyReason::Stopping,
        BusyReason::NotAllowed,
        BusyReason::Version,
    ];
    for (number, reason) in (0u32..).zip(reasons) {
        let mut bytes = Vec::new();
        encode_message(&BusyV1 { retry_after_ms: 0, reason }, &mut bytes).unwrap();
        assert_eq!(bytes[20..24], number.to_le_bytes(), "{reason:?}");
    }
    for (number, reason) in (0u32..).zip(GapReason::ALL) {
        let mut bytes = Vec::new();
        encode_message(&GapV1 { reason, ..gap() }, &mut bytes).unwrap();
        assert_eq!(bytes[40..44], number.to_le_bytes(), "{reason:?}");
        assert_eq!(GapReason::from_word(reason.as_str()), Some(reason));
    }
    for (number, reason) in (0u32..).zip(RefusalReason::ALL) {
        let mut bytes = Vec::new();
        encode_message(&RefusedV1 { reason, ..refusal() }, &mut bytes).unwrap();
        assert_eq!(bytes[48..52], number.to_le_bytes(), "{reason:?}");
    }
}

fn refused<M: Message>(name: &str, message: &M, field: &str) {
    let mut out = b"before".to_vec();
    match encode_message(message, &mut out) {
        Err(CodecError::Message(error)) => assert_eq!(error.field, field, "{name}"),
        other => panic!("{name}: {other:?}"),
    }
    assert_eq!(out, b"before", "{name}: a rejected message leaves the buffer unchanged");
}

#[test]
fn invalid_messages_are_not_encoded() {
    refused("no version", &HelloV1 { versions: vec![], ..hello() }, "hello.versions");
    refused("versions", &HelloV1 { versions: vec![1; VERSIONS_MAX + 1], ..hello() }, "hello.versions");
    let zero = HelloV1 { first_unacknowledged: 0, ..hello() };
    refused("number 0", &zero, "hello.first_unacknowledged");
    let long = "x".repeat(NAME_LEN_MAX + 1);
    refused("software", &HelloV1 { software: long.clone(), ..hello() }, "hello.software");
    refused("computer", &HelloV1 { computer: long.clone(), ..hello() }, "hello.computer");
    refused("window", &WelcomeV1 { window: 0, ..welcome() }, "welcome.window");
    refused("gap from 0", &GapV1 { from: 0, ..gap() }, "gap.from");
    refused("gap backwards", &GapV1 { from: 9, to: 8, ..gap() }, "gap.to");
    refused("gap of none", &GapV1 { count: 0, ..gap() }, "gap.count");
    refused("gap too many", &GapV1 { from: 3, to: 4, count: 3, ..gap() }, "gap.count");
    refused("refused 0", &RefusedV1 { from: 0, ..refusal() }, "refused.from");
    refused("refused backwards", &RefusedV1 { to: 6, ..refusal() }, "refused.to");
    refused("detail", &RefusedV1 { detail: long.clone(), ..refusal() }, "refused.detail");
    let counts = (0..=COUNTS_MAX).map(|number| count(&number.to_string(), 0)).collect();
    refused("counts", &StatusV1 { counts, ..status() }, "status.counts");
    refused("name", &StatusV1 { counts: vec![count(&long, 1)], ..status() }, "status.counts.name");
    let twice = vec![count("a", 1), count("a", 2)];
    refused("twice", &StatusV1 { counts: twice, ..status() }, "status.counts.name");
    let whole = GapV1 { from: 1, to: u64::MAX, count: u64::MAX, ..gap() };
    encode_message(&whole, &mut Vec::new()).expect("the longest possible gap");
}

#[test]
fn invalid_messages_are_not_decoded() {
    let payload = |golden: &[u8]| golden[16..].to_vec();
    let mut gap = payload(include_bytes!("golden/frame_gap_v1.bin"));
    gap[..8].fill(0);
    assert!(matches!(decode_message::<GapV1>(&gap), Err(CodecError::Message(_))));
    gap[..8].copy_from_slice(&8u64.to_le_bytes());
    gap[24..28].copy_from_slice(&5u32.to_le_bytes());
    assert!(matches!(decode_message::<GapV1>(&gap), Err(CodecError::Invalid { .. })));
    let mut hello = payload(include_bytes!("golden/frame_hello_v1.bin"));
    hello[..8].copy_from_slice(&17u64.to_le_bytes());
    assert!(matches!(decode_message::<HelloV1>(&hello), Err(CodecError::Invalid { .. })));
    let long = vec![0; MESSAGE_LEN_MAX + 1];
    assert_eq!(decode_message::<StatusV1>(&long), Err(CodecError::TooLong { max: MESSAGE_LEN_MAX }));
}

#[test]
fn the_best_common_version_is_chosen() {
    let rows = [(vec![1], Some(1)), (vec![9, 1, 2], Some(1)), (vec![2, 255, 0], None)];
    for (versions, chosen) in rows {
        assert_eq!(
            HelloV1 { versions: versions.clone(), ..hello() }.choose_version(),
            chosen,
            "{versions:?}"
        );
    }
}

proptest! {
    /// Bytes that decode encode to the same bytes, and nothing panics.
    #[test]
    fn any_bytes_decode_or_are_rejected(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        again::<HelloV1>(&bytes)?;
        again::<WelcomeV1>(&bytes)?;
        again::<AckV1>(&bytes)?;
        again::<BusyV1>(&bytes)?;
        again::<GapV1>(&bytes)?;
        again::<StatusV1>(&bytes)?;
        again::<RefusedV1>(&bytes)?;
    }

    #[test]
    fn any_valid_gap_round_trips(from in 1u64.., len: u64, count: u64, reason in 0..5usize) {
        let to = from.saturating_add(len);
        let count = 1 + count % (to - from + 1).max(1);
        let gap = GapV1 { from, to, count, reason: GapReason::ALL[reason] };
        let mut bytes = Vec::new();
        encode_message(&gap, &mut bytes).unwrap();
        prop_assert_eq!(decode_message::<GapV1>(&bytes[16..]).unwrap(), gap);
    }
}

fn again<M: Message>(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(message) = decode_message::<M>(bytes) {
        let mut frame = Vec::new();
        encode_message(&message, &mut frame).expect("a decoded message is valid");
        prop_assert_eq!(frame[5], M::TYPE as u8);
        prop_assert_eq!(&frame[16..], bytes);
        prop_assert!(M::TYPE != FrameType::Data);
    }
    Ok(())
}
