//! Golden bytes of version 1: everything stored or sent in this version must stay readable.
//!
//! The files in `golden/` were made by an encoder written from `docs/wire.md` alone, not by this crate.

use etwsieve_transport::hit::{
    CutV1, EventContent, EventIdentity, HitV1, PieceV1, RuleRefV1, Scope, SpanV1, Transformation, Utf16Text,
    View,
};
use etwsieve_transport::wire::codec::{decode_hit, encode_hit};
use etwsieve_transport::wire::frame::split_frame;
use etwsieve_transport::wire::{DataV1, decode_data, encode_data};

const CHANGED: &str = "the bytes of wire version 1 have changed: stores and sensors in the field become unreadable. \
    Make a new struct (HitV2) with golden files of its own instead of changing this one";

const HIT: &[u8] = include_bytes!("golden/hit_v1.bin");
const HIT_AMSI: &[u8] = include_bytes!("golden/hit_amsi_v1.bin");
const FRAME: &[u8] = include_bytes!("golden/frame_data_v1.bin");

/// `frame_data_v1.bin`, annotated.
#[rustfmt::skip]
const WALK: &[u8] = &[
    // Frame header.
    b'E', b'T', b'W', b'S',                         // magic
    1,                                              // version
    3,                                              // type: DATA
    0, 0,                                           // flags
    0xE0, 0, 0, 0,                                  // payload: 224 bytes
    0x0B, 0xAB, 0x28, 0x75,                         // CRC-32 of the 12 bytes above and of all below
    // DataV1.
    2, 1, 0, 0, 0, 0, 0, 0,                         // sequence 258
    // HitV1.
    1, 0, 0, 0, 0, 0, 0, 0,                         // time
    1, 0, 0, 0, 0, 0, 0, 0, b'a',                   // source: 1 byte
    2, 0, 0, 0, 0, 0, 0, 0,                         // source_sequence
    0xA8, 0x14, 0x07, 0xF9, 0x09, 0x55, 0x4A, 0x43, // provider f90714a8-5509-434a-
    0xBF, 0x6D, 0xB1, 0x62, 0x4C, 0x8A, 0x19, 0xA2, //   bf6d-b1624c8a19a2
    0x07, 0x10,                                     // event_id 4103
    1, 16, 4, 20,                                   // version, channel, level, opcode
    106, 0,                                         // task
    0, 0, 0, 0, 0, 0, 0, 0,                         // keywords
    0,                                              // computer: none
    0,                                              // user_sid: none
    1, 7, 0, 0, 0,                                  // process_id: 7
    0,                                              // thread_id: none
    0,                                              // activity_id: none
    0,                                              // event_record_id: none
    1, 0, 0, 0,                                     // scope: block
    2, 0, 0, 0,                                     // view: call
    1,                                              // partial
    1, 0, 0, 0,                                     // content: Module
    2, 0, 0, 0, 0, 0, 0, 0, b'A', 0,                //   context_info: 2 bytes
    0, 0, 0, 0, 0, 0, 0, 0,                         //   user_data: empty
    2, 0, 0, 0, 0, 0, 0, 0, 0x00, 0xDC,             //   payload: a lone low surrogate
    1,                                              // cut:
    2,                                              //   text 2, the payload
    9, 0, 0, 0,                                     //   units: 9
    0,                                              //   sha256: none
    1, 0, 0, 0, 0, 0, 0, 0,                         //   pieces: 1
    8, 0, 0, 0,                                     //     start
    1, 0, 0, 0,                                     //     len
    1, 0, 0, 0, 0, 0, 0, 0,                         // rules: 1
    1, 0, 0, 0, 0, 0, 0, 0, b'r',                   //   id
    1, 0, 0, 0, 0, 0, 0, 0, b't',                   //   title
    3, 0, 0, 0, 0, 0, 0, 0, b'l', b'o', b'w',       //   level
    1, 0, 0, 0, 0, 0, 0, 0,                         //   attack: 1
    2, 0, 0, 0, 0, 0, 0, 0, b'T', b'1',             //     id
    1,                                              //   beyond_nul
    1, 0, 0, 0, 0, 0, 0, 0,                         //   spans: 1
    2, 8, 0, 0, 0, 1, 0, 0, 0,                      //     text, start, len
    1, 0, 0, 0, 0, 0, 0, 0,                         //   transformations: 1
    14, 0, 0, 0,                                    //     alias
];

fn small() -> DataV1 {
    let hit = HitV1 {
        time: 1,
        source: "a".into(),
        source_sequence: 2,
        provider: uuid::uuid!("f90714a8-5509-434a-bf6d-b1624c8a19a2").to_bytes_le(),
        event_id: 4103,
        version: 1,
        channel: 16,
        level: 4,
        opcode: 20,
        task: 106,
        keywords: 0,
        computer: None,
        user_sid: None,
        process_id: Some(7),
        thread_id: None,
        activity_id: None,
        event_record_id: None,
        scope: Scope::Block,
        view: View::Call,
        partial: true,
        content: EventContent::Module {
            context_info: "A".into(),
            user_data: Utf16Text::default(),
            payload: Utf16Text(vec![0xDC00]),
        },
        cut: Some(CutV1 { text: 2, units: 9, sha256: None, pieces: vec![PieceV1 { start: 8, len: 1 }] }),
        rules: vec![RuleRefV1 {
            id: "r".into(),
            title: "t".into(),
            level: "low".into(),
            attack: vec!["T1".into()],
            beyond_nul: true,
            spans: vec![SpanV1 { text: 2, start: 8, len: 1 }],
            transformations: vec![Transformation::Alias],
        }],
    };
    DataV1 { sequence: 258, hit }
}

fn full() -> HitV1 {
    let mut text: Utf16Text = "Enter-PSSession -ComputerName ".into();
    text.0.extend([0xD800, 0, 0x78, 0xD83D, 0xDE00, 0xDC01]);
    HitV1 {
        time: 133_601_515_200_008_656,
        source: "traces/demo.etl".into(),
        source_sequence: 41,
        provider: uuid::uuid!("a0c1853b-5c40-4b15-8766-3cf1c58f985a").to_bytes_le(),
        event_id: 4104,
        version: 1,
        channel: 16,
        level: 3,
        opcode: 15,
        task: 2,
        keywords: 0x8000_0000_0000_0001,
        computer: Some("srv-Ω.example.test".into()),
        user_sid: Some("S-1-5-21-1-2-3-1104".into()),
        process_id: Some(4242),
        thread_id: Some(77),
        activity_id: Some(uuid::uuid!("00112233-4455-6677-8899-aabbccddeeff").to_bytes_le()),
        event_record_id: Some(9_000_000_001),
        scope: Scope::Event,
        view: View::Raw,
        partial: false,
        content: EventContent::ScriptBlock {
            message_number: Some(2),
            message_total: Some(-3),
            text,
            script_block_id: Some("5f0c1d2e-0000-4000-8000-000000000001".into()),
            path: Some(Utf16Text::default()),
        },
        cut: Some(CutV1 {
            text: 0,
            units: 300_000,
            sha256: Some(std::array::from_fn(|at| at as u8)),
            pieces: vec![PieceV1 { start: 0, len: 30 }, PieceV1 { start: 299_994, len: 6 }],
        }),
        rules: vec![
            RuleRefV1 {
                id: "a4e8f3a4-48b2-11ec-bcfc-3e22fbd008af".into(),
                title: "Remote session".into(),
                level: "medium".into(),
                attack: vec!["T1021.006".into()],
                beyond_nul: true,
                spans: vec![SpanV1 { text: 0, start: 0, len: 15 }, SpanV1 { text: 1, start: 4, len: 70_000 }],
                transformations: vec![Transformation::Dash, Transformation::ModuleQualified],
            },
            RuleRefV1 { title: "no id".into(), ..RuleRefV1::default() },
        ],
    }
}

/// An event of the antimalware scanner.
fn amsi() -> HitV1 {
    HitV1 {
        time: 133_601_515_200_008_657,
        source: "etwsieve".into(),
        source_sequence: 42,
        provider: uuid::uuid!("2a576b87-09a7-520e-c21a-4942f0271d67").to_bytes_le(),
        event_id: 1101,
        version: 0,
        channel: 16,
        level: 4,
        opcode: 0,
        task: 0,
        keywords: 1,
        computer: None,
        user_sid: None,
        process_id: Some(4242),
        thread_id: Some(78),
        activity_id: None,
        event_record_id: None,
        scope: Scope::Event,
        view: View::Raw,
        partial: false,
        content: EventContent::Amsi {
            text: "Get-Alias".into(),
            content_name: Utf16Text::default(),
            app_name: "PowerShell_pwsh.exe_7".into(),
            scan_result: 32_768,
        },
        cut: None,
        rules: vec![RuleRefV1 {
            id: "r".into(),
            title: "Aliases".into(),
            spans: vec![SpanV1 { text: 0, start: 0, len: 9 }],
            ..RuleRefV1::default()
        }],
    }
}

#[test]
fn hit_amsi_v1() {
    assert_eq!(encode_hit(&amsi()).unwrap(), HIT_AMSI, "{CHANGED}");
    assert_eq!(decode_hit(HIT_AMSI).unwrap(), amsi(), "{CHANGED}");
    for len in 0..HIT_AMSI.len() {
        decode_hit(&HIT_AMSI[..len]).expect_err("a hit cut short");
    }
}

#[test]
fn hit_v1() {
    assert_eq!(encode_hit(&full()).unwrap(), HIT, "{CHANGED}");
    assert_eq!(decode_hit(HIT).unwrap(), full(), "{CHANGED}");
}

/// Stores and sinks keep identities, so these must not change either. Another program computed the values from the
/// golden files according to `docs/wire.md`.
#[test]
fn identities() {
    let rows = [
        (
            "with a record id and a cut text",
            full(),
            [
                "8bb8e4ff057377c442d68f5ef762f24e382e942c43be11c3fffd4a3fc9132fc4",
                "3bfc922da273d1a1f22f202d438f1d82fa666ceb8b2f02734d2ec1f971fdc222",
                "6c573cb54da6f44d0eda39fe936cbeb5c7e3550527236a4cdb41cc6a4b64ff95",
            ],
        ),
        (
            "without either",
            amsi(),
            [
                "bd1e6cc9ad3f88809d1a80bca0a4d9c0668644bb9bf9c8569c1807a907a6d86e",
                "3e069c472f249be11dd8ef24510927b831959306f10abada20edee8831411e8e",
                "21102ec695fbbab2ee1e2aa18a41a65ae207b09500b16eca749fbc038f5facd0",
            ],
        ),
    ];
    for (name, hit, [first, second, of_sensor]) in rows {
        let event = EventIdentity::of(&hit).unwrap();
        let hex = |identity: EventIdentity| {
            identity.as_bytes().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
        };
        assert_eq!(hex(event), first, "{name}");
        assert_eq!(hex(event.occurrence(0)), first, "{name}");
        assert_eq!(hex(event.occurrence(1)), second, "{name}");
        assert_eq!(hex(event.from_sensor("srv1.example.test", &hit)), of_sensor, "{name}");
    }
}

#[test]
fn frame_data_v1() {
    let DataV1 { sequence, hit } = small();
    let mut bytes = Vec::new();
    encode_data(sequence, &hit, &mut bytes).unwrap();
    assert_eq!(bytes, FRAME, "{CHANGED}");
    assert_eq!(WALK, FRAME, "{CHANGED}");
    let split = split_frame(FRAME).unwrap().unwrap();
    assert_eq!(decode_data(split.payload).unwrap(), small(), "{CHANGED}");
}

#[test]
fn every_truncation_is_incomplete_or_rejected() {
    for len in 0..FRAME.len() {
        assert_eq!(split_frame(&FRAME[..len]), Ok(None), "frame cut to {len} bytes");
    }
    for len in 0..HIT.len() {
        decode_hit(&HIT[..len]).expect_err("a hit cut short");
    }
    let longer = [HIT, &[0]].concat();
    decode_hit(&longer).expect_err("an extra byte");
}

/// Without the CRC most corrupted frames would decode to another hit.
#[test]
fn every_flipped_bit_of_a_frame_is_detected() {
    let mut waits = 0;
    for bit in 0..FRAME.len() * 8 {
        let mut bytes = FRAME.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        match split_frame(&bytes) {
            Err(_) => {}
            Ok(None) => {
                waits += 1;
                assert!(
                    (8..12).contains(&(bit / 8)),
                    "bit {bit}: only a larger length makes the frame incomplete"
                );
            }
            Ok(Some(_)) => panic!("bit {bit} was not detected"),
        }
    }
    assert!(waits > 0);
}
