//! Lines with both sets of keys, and invalid lines.

use super::{LINE_LEN_MAX, replay};
use crate::event::{EventHeader, EventRef, POWERSHELL, POWERSHELL_CORE};
use crate::source::{Damage, Sink, SourceError};
use std::ops::ControlFlow;
use std::path::Path;
use uuid::Uuid;

/// Header, user, computer, payload.
type Event = (EventHeader, Option<String>, Option<String>, Vec<u8>);

#[derive(Default)]
struct Seen {
    events: Vec<Event>,
    unwanted: usize,
    damages: Vec<Damage>,
    read: u64,
}

impl Sink for Seen {
    fn wants(&self, _: &Uuid, _: u16) -> bool {
        true
    }
    fn event(&mut self, event: &EventRef<'_>) -> ControlFlow<()> {
        let user_sid = event.user_sid.map(|sid| sid.to_string());
        let computer = event.computer.map(str::to_owned);
        self.events.push((event.header, user_sid, computer, event.payload.to_vec()));
        ControlFlow::Continue(())
    }
    fn unwanted(&mut self) -> ControlFlow<()> {
        self.unwanted += 1;
        ControlFlow::Continue(())
    }
    fn damaged(&mut self, damage: &Damage) {
        self.damages.push(damage.clone());
    }
    fn progress(&mut self, bytes: u64) {
        self.read = bytes;
    }
}

fn seen(text: &[u8]) -> Seen {
    let mut sink = Seen::default();
    replay(text, Path::new("made"), &mut sink).expect("lines");
    assert_eq!(sink.read, text.len() as u64);
    sink
}

#[test]
fn both_sets_of_keys_give_the_same_event() {
    let exported = r#"{"time_created": "2020-07-22 00:02:31", "provider_guid":
        "f90714a8-5509-434a-bf6d-b1624c8a19a2", "event_id": 4104, "version": 2, "level": 3, "task": 102,
        "opcode": 15, "keywords": "0x8000000000000000", "computer": "A", "user_sid": "S-1-5-18",
        "process_id": 1, "thread_id": 2, "activity_id": "3f0c7a49-e4fd-0001-0094-0940fde4d701",
        "record_id": 9, "message_number": 1, "message_total": 2, "script_block_text": "t",
        "script_block_id": "i", "path": null, "label": {"other": [1]}}"#;
    let detection = r#"{"time": "2020-07-22T00:02:31.0000000Z", "rule_id": "r", "level": "high", "provider":
        "{F90714A8-5509-434A-BF6D-B1624C8A19A2}", "event_id": 4104, "event_version": 2, "event_level": 3,
        "task": 102, "opcode": "15", "keywords": 9223372036854775808, "computer": "A", "user_sid": "S-1-5-18",
        "process_id": 1, "thread_id": 2, "activity_id": "3f0c7a49-e4fd-0001-0094-0940fde4d701",
        "event_record_id": 9, "message_number": 1, "message_total": 2, "script_block_text": "t",
        "script_block_id": "i", "path": null, "context_info": null, "payload": null}"#;
    let text = format!("\u{FEFF}{}\r\n\n  \n{}", exported.replace('\n', " "), detection.replace('\n', " "));
    let sink = seen(text.as_bytes());
    assert_eq!(sink.damages, []);
    let [one, other] = &sink.events[..] else { panic!("two events") };
    assert_eq!(one, other);
    assert_eq!(one.3, b"\x01\0\0\0\x02\0\0\0t\0\0\0i\0\0\0");
    let header = one.0;
    assert_eq!((header.provider, header.event_id, header.channel), (POWERSHELL_CORE, 4104, 16));
    assert_eq!((header.version, header.level, header.task, header.opcode), (2, 3, 102, 15));
    assert_eq!((header.keywords, header.event_record_id), (1 << 63, Some(9)));
    assert_eq!((header.process_id, header.thread_id), (Some(1), Some(2)));
    assert_eq!((one.1.as_deref(), one.2.as_deref()), (Some("S-1-5-18"), Some("A")));
}

#[test]
fn payloads_have_the_layout_of_the_template() {
    let rows: [(&str, &str, &[u8]); 6] = [
        ("only a text", r#""script_block_text": "t""#, b"\x01\0\0\0\x01\0\0\0t\0\0\0\0\0"),
        ("empty path", r#""script_block_text": "", "path": """#, b"\x01\0\0\0\x01\0\0\0\0\0\0\0\0\0"),
        (
            "lone surrogates and a pair",
            r#""script_block_text": "\ude00a\ud83d\ude00\ud83d", "message_number": -1"#,
            b"\xff\xff\xff\xff\x01\0\0\0\x00\xdea\0\x3d\xd8\x00\xde\x3d\xd8\0\0\0\0",
        ),
        (
            "line ends and a NUL",
            r#""script_block_text": "\r\n \u0000behind", "event_id": "0x1008""#,
            b"\x01\0\0\0\x01\0\0\0\r\0\n\0 \0\0\0b\0e\0h\0i\0n\0d\0\0\0\0\0",
        ),
        ("module", r#""payload": "p", "context_info": "\u00e9""#, b"\xe9\0\0\0\0\0p\0\0\0"),
        ("raw UTF-8", r#""payload": "ü""#, b"\0\0\0\0\xfc\0\0\0"),
    ];
    for (name, keys, expected) in rows {
        let sink = seen(format!(r#"{{"time": "2020-01-01T00:00:00Z", {keys}}}"#).as_bytes());
        assert_eq!(sink.damages, [], "{name}");
        assert_eq!(sink.events[0].3, expected, "{name}");
        let header = sink.events[0].0;
        assert_eq!(header.provider, POWERSHELL, "{name}");
        let of_manifest = if header.event_id == 4103 { (1, 4, 20, 106) } else { (1, 5, 15, 2) };
        assert_eq!((header.version, header.level, header.opcode, header.task), of_manifest, "{name}");
    }
}

#[test]
fn invalid_lines_are_reported_and_skipped() {
    let good = r#"{"time": "2020-01-01T00:00:00Z", "script_block_text": "t"}"#;
    let long = format!(r#"{{"payload": "{}"}}"#, "x".repeat(LINE_LEN_MAX));
    let wide = format!(r#"{{"time": "2020-01-01T00:00:00Z", "payload": "{}"}}"#, "x".repeat(70_000));
    let rows = [
        ("no JSON", "{oops", "key"),
        ("cut", r#"{"time": "2020"#, "EOF"),
        ("two on a line", r#"{"time": "2020-01-01T00:00:00Z", "payload": ""} {}"#, "trailing"),
        ("another type", "[]", "object"),
        ("no time", r#"{"payload": ""}"#, "time"),
        ("bad time", r#"{"time": "now", "payload": ""}"#, "RFC 3339"),
        ("no id", r#"{"time": "2020-01-01T00:00:00Z"}"#, "event_id"),
        ("large id", r#"{"time": "2020-01-01T00:00:00Z", "event_id": 65536}"#, "event_id"),
        ("no text", r#"{"time": "2020-01-01T00:00:00Z", "event_id": 4104}"#, "ScriptBlockText"),
        ("bad SID", r#"{"time": "2020-01-01T00:00:00Z", "payload": "", "user_sid": "me"}"#, "SID"),
        ("bad GUID", r#"{"time": "2020-01-01T00:00:00Z", "payload": "", "provider": "me"}"#, "GUID"),
        ("bad level", r#"{"time": "2020-01-01T00:00:00Z", "payload": "", "level": "high"}"#, "level"),
        ("text of a number", r#"{"time": "2020-01-01T00:00:00Z", "payload": 5}"#, "text"),
        ("too long", &long, "at most"),
        ("payload too long", &wide, "at most"),
    ];
    for (name, line, word) in rows {
        let sink = seen(format!("{good}\n{line}\n{good}").as_bytes());
        assert_eq!(sink.events.len(), 2, "{name}");
        let [damage] = &sink.damages[..] else { panic!("{name}: {:?}", sink.damages) };
        assert_eq!((damage.reason, damage.offset), ("line", good.len() as u64 + 1), "{name}");
        assert!(damage.detail.contains(word), "{name}: {}", damage.detail);
    }
    let mut invalid = br#"{"time": "2020-01-01T00:00:00Z", "payload": "?"}"#.to_vec();
    let at = invalid.len() - 3;
    invalid[at] = 0xFF;
    assert_eq!(seen(&invalid).damages.len(), 1);
    assert_eq!(seen(b"").events.len(), 0);
}

#[test]
fn other_events_are_counted_and_other_files_rejected() {
    let line = r#"{"time": "2020-01-01T00:00:00Z", "event_id": 4105, "script_block_id": "x"}"#;
    let sink = seen(line.as_bytes());
    assert_eq!((sink.events.len(), sink.unwanted, sink.damages.len()), (0, 1, 0));
    let result = replay(&b"\n \nElfFile"[..], Path::new("made"), &mut Seen::default());
    assert!(matches!(result, Err(SourceError::NotThisFormat { .. })));
}
