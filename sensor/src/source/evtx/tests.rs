//! Synthetic records, for cases that the recorded files do not contain.

mod cost;
mod outdated;

use super::replay;
use crate::event::{EventHeader, EventRef, POWERSHELL, POWERSHELL_CORE};
use crate::source::{Cost, Damage, Sink};
use crate::stop::Stop;
use etwsieve_event::Sid;
use std::ops::ControlFlow;
use std::path::Path;
use uuid::Uuid;

/// Builds a log of one chunk. Every name is stored where it is used.
struct Log(Vec<u8>);

impl Log {
    /// Returns the file with the record that `write` builds.
    fn of(write: impl FnOnce(&mut Log)) -> Vec<u8> {
        let mut chunk = Log(vec![0; 512]);
        chunk.0[..8].copy_from_slice(b"ElfChnk\0");
        chunk.bytes(b"**\0\0").bytes(&[0; 4]).bytes(&7u64.to_le_bytes()).bytes(&[1, 0, 0, 0, 0, 0, 0, 1]);
        write(&mut chunk);
        let size = (chunk.0.len() - 512 + 4) as u32;
        chunk.bytes(&size.to_le_bytes());
        chunk.0[516..520].copy_from_slice(&size.to_le_bytes());
        let free = chunk.0.len() as u32;
        chunk.0[48..52].copy_from_slice(&free.to_le_bytes());
        chunk.0.resize(65_536, 0);
        let mut file = vec![0; 4096];
        file[..8].copy_from_slice(b"ElfFile\0");
        file.extend(chunk.0);
        file
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn name(&mut self, name: &str) -> &mut Self {
        let at = self.0.len() as u32 + 4;
        self.bytes(&at.to_le_bytes()).bytes(&[0; 6]).bytes(&(name.len() as u16).to_le_bytes());
        self.0.extend(name.bytes().flat_map(|byte| [byte, 0]));
        self.bytes(&[0, 0])
    }

    fn open(&mut self, name: &str, attributes: &[(&str, &str)]) -> &mut Self {
        self.bytes(&[0x41, 0, 0, 0, 0]).name(name).bytes(&[0; 4]);
        for (name, value) in attributes {
            self.bytes(&[0x06]).name(name).text(value);
        }
        self.bytes(&[0x02])
    }

    fn close(&mut self) -> &mut Self {
        self.bytes(&[0x04])
    }

    fn text(&mut self, text: &str) -> &mut Self {
        let units: Vec<u16> = text.encode_utf16().collect();
        self.units(&units)
    }

    fn units(&mut self, units: &[u16]) -> &mut Self {
        self.bytes(&[0x05, 0x01]).bytes(&(units.len() as u16).to_le_bytes());
        self.0.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        self
    }

    fn element(&mut self, name: &str, text: &str) -> &mut Self {
        self.open(name, &[]).text(text).close()
    }

    fn data(&mut self, name: Option<&str>, text: &str) -> &mut Self {
        let attributes: Vec<_> = name.map(|name| ("Name", name)).into_iter().collect();
        self.open("Data", &attributes).text(text).close()
    }

    /// Writes `Event` and `System` of a forwarded record for the event `id`.
    fn system(&mut self, id: &str) -> &mut Self {
        self.bytes(&[0x0F, 1, 1, 0]).open("Event", &[]).open("System", &[]);
        self.open("Provider", &[("Name", "x"), ("Guid", "{A0C1853B-5C40-4B15-8766-3CF1C58F985A}")]).close();
        self.open("EventID", &[("Qualifiers", "5")]).text(id).close();
        self.element("Version", "1").element("Level", "3").element("Task", "2").element("Opcode", "15");
        self.element("Keywords", "0x8000000000000001").element("EventRecordID", "81985529216486895");
        self.open("TimeCreated", &[("SystemTime", "2021-06-10T14:12:46.058429599Z")]).close();
        self.open("Correlation", &[("ActivityID", "{38068009-512D-0001-84A0-36382D51D701}")]).close();
        self.open("Execution", &[("ProcessID", "2096"), ("ThreadID", "5848")]).close();
        self.element("Channel", "Microsoft-Windows-PowerShell/Operational").element("Computer", "fs01.lan");
        self.open("Security", &[("UserID", "S-1-5-18")]).close().close()
    }
}

/// Header, user, computer, payload.
type Event = (EventHeader, Option<Sid>, Option<String>, Vec<u8>);

#[derive(Default)]
struct Seen {
    events: Vec<Event>,
    unwanted: usize,
    damages: Vec<Damage>,
    refuses: bool,
    cost: Cost,
    stop: Stop,
    /// Requests the stop at the first damaged part.
    stops_at_damage: bool,
}

impl Sink for Seen {
    fn wants(&self, _: &Uuid, _: u16) -> bool {
        !self.refuses
    }
    fn event(&mut self, event: &EventRef<'_>) -> ControlFlow<()> {
        let computer = event.computer.map(str::to_owned);
        self.events.push((event.header, event.user_sid, computer, event.payload.to_vec()));
        ControlFlow::Continue(())
    }
    fn unwanted(&mut self) -> ControlFlow<()> {
        self.unwanted += 1;
        ControlFlow::Continue(())
    }
    fn damaged(&mut self, damage: &Damage) {
        self.damages.push(damage.clone());
        if self.stops_at_damage {
            self.stop.request();
        }
    }
    fn worked(&mut self, cost: Cost) {
        self.cost.steps += cost.steps;
        self.cost.bytes += cost.bytes;
    }
    fn stop(&self) -> Stop {
        self.stop.clone()
    }
    fn progress(&mut self, _: u64) {}
}

fn seen(write: impl FnOnce(&mut Log)) -> Seen {
    let mut sink = Seen::default();
    replay(&Log::of(write)[..], Path::new("made"), &mut sink).expect("a log");
    sink
}

fn payload(write: impl FnOnce(&mut Log)) -> Vec<u8> {
    let sink = seen(write);
    assert_eq!(sink.damages, []);
    let [(_, _, _, payload)] = &sink.events[..] else { panic!("one event") };
    payload.clone()
}

fn script_block(units: &[u16], id: &str, path: Option<&str>) -> Vec<u8> {
    let mut bytes = [3i32.to_le_bytes(), 4i32.to_le_bytes()].concat();
    let strings = [units.to_vec(), id.encode_utf16().collect()];
    let path = path.map(|path| path.encode_utf16().collect());
    for string in strings.into_iter().chain(path) {
        bytes.extend(string.into_iter().chain([0]).flat_map(u16::to_le_bytes));
    }
    bytes
}

#[test]
fn header_fields_are_read_from_text() {
    let sink = seen(|log| {
        log.system("4104").open("EventData", &[]).data(Some("ScriptBlockText"), "x").close().close();
    });
    let (header, user_sid, computer, _) = &sink.events[0];
    assert_eq!(header.time.to_string(), "2021-06-10T14:12:46.0584295Z");
    assert_eq!((header.provider, header.event_id), (POWERSHELL, 4104));
    assert_eq!((header.version, header.level, header.task, header.opcode), (1, 3, 2, 15));
    assert_eq!((header.keywords, header.channel), (0x8000_0000_0000_0001, 16));
    assert_eq!(header.event_record_id, Some(81_985_529_216_486_895));
    assert_eq!((header.process_id, header.thread_id), (Some(2096), Some(5848)));
    let activity_id = header.activity_id.map(|id| id.to_string());
    assert_eq!(activity_id.as_deref(), Some("38068009-512d-0001-84a0-36382d51d701"));
    assert_eq!(*user_sid, Sid::parse("S-1-5-18"));
    assert_eq!(computer.as_deref(), Some("fs01.lan"));
}

#[test]
fn text_keeps_every_unit() {
    let found = payload(|log| {
        log.system("4104").open("EventData", &[]);
        log.data(Some("MessageNumber"), "3").data(Some("MessageTotal"), "4");
        log.open("Data", &[("Name", "ScriptBlockText")]);
        log.text(" \r\n\t").bytes(&[0x09]).name("lt").units(&[0xDE00, 0x61, 0xD83D]);
        log.bytes(&[0x08, 0x26, 0]).bytes(&[0x07, 1, 0, 0x20, 0]).text("\n").close();
        log.data(Some("ScriptBlockId"), "id").data(Some("Path"), "").close().close();
    });
    let text = [0x20, 13, 10, 9, 0x3C, 0xDE00, 0x61, 0xD83D, 0x26, 0x20, 10];
    assert_eq!(found, script_block(&text, "id", Some("")));
}

#[test]
fn data_elements_are_found_by_name_or_position() {
    // Name of the row, the Data elements, the path at the end of the payload.
    type Data = [(Option<&'static str>, &'static str)];
    let rows: [(&str, &Data, Option<&str>); 4] = [
        ("five in order", &[(None, "3"), (None, "4"), (None, "t"), (None, "id"), (None, "p")], Some("p")),
        ("four in order", &[(None, "3"), (None, "4"), (None, "t"), (None, "id")], None),
        (
            "names in another order",
            &[
                (Some("Path"), "p"),
                (Some("ScriptBlockText"), "t"),
                (Some("ScriptBlockId"), "id"),
                (Some("Other"), "?"),
                (Some("MessageTotal"), "4"),
                (Some("MessageNumber"), "3"),
            ],
            Some("p"),
        ),
        (
            "a name without Path",
            &[
                (Some("MessageNumber"), "3"),
                (Some("MessageTotal"), "4"),
                (Some("ScriptBlockText"), "t"),
                (Some("ScriptBlockId"), "id"),
            ],
            None,
        ),
    ];
    for (name, data, path) in rows {
        let found = payload(|log| {
            log.system("4104").open("EventData", &[]);
            for (name, text) in data {
                log.data(*name, text);
            }
            log.close().close();
        });
        assert_eq!(found, script_block(&[0x74], "id", path), "{name}");
    }
    let found = payload(|log| {
        log.system("4103").open("EventData", &[]);
        log.data(Some("Payload"), "p").data(Some("ContextInfo"), "c").close().close();
    });
    assert_eq!(found, b"c\0\0\0\0\0p\0\0\0");
}

/// Writes a template element with one substitution, shown if value `dependency` is not null.
fn substituted(log: &mut Log, dependency: u16, name: &str, token: u8, index: u16, kind: u8) {
    log.bytes(&[0x41]).bytes(&dependency.to_le_bytes()).bytes(&[0; 4]).name("Data").bytes(&[0; 4]);
    log.bytes(&[0x06]).name("Name").text(name).bytes(&[0x02]);
    log.bytes(&[token]).bytes(&index.to_le_bytes()).bytes(&[kind, 0x04]);
}

/// Writes `EventData` as a template instance with its definition; the path is value 4.
fn instance(log: &mut Log, path_dependency: u16, path: Option<&str>) {
    log.bytes(&[0x0C, 1, 0, 0, 0, 0]);
    let at = log.0.len() as u32 + 4;
    log.bytes(&at.to_le_bytes()).bytes(&[0; 24]);
    let body = log.0.len();
    log.bytes(&[0x0F, 1, 1, 0, 0x01, 0xFF, 0xFF, 0, 0, 0, 0]).name("EventData").bytes(&[0x02]);
    substituted(log, 0xFFFF, "MessageNumber", 0x0D, 0, 7);
    substituted(log, 0xFFFF, "MessageTotal", 0x0D, 1, 7);
    substituted(log, 0xFFFF, "ScriptBlockText", 0x0E, 2, 1);
    substituted(log, 0xFFFF, "ScriptBlockId", 0x0E, 3, 1);
    substituted(log, path_dependency, "Path", 0x0E, 4, 1);
    log.bytes(&[0x04, 0x00]);
    let len = (log.0.len() - body) as u32;
    log.0[body - 4..body].copy_from_slice(&len.to_le_bytes());
    let path: Option<Vec<u8>> = path.map(|path| path.encode_utf16().flat_map(u16::to_le_bytes).collect());
    log.bytes(&5u32.to_le_bytes()).bytes(&[4, 0, 7, 0, 1, 0, 4, 0, 4, 0, 1, 0, 4, 0, 0x0F, 0]);
    log.0.truncate(log.0.len() - 4);
    log.bytes(&[16, 0, 0x0F, 0]);
    let len = path.as_ref().map_or(0, Vec::len) as u16;
    log.bytes(&len.to_le_bytes()).bytes(&[u8::from(path.is_some()), 0]);
    // i32 3, u8 4, "a" with its NUL, a GUID for the id, the path.
    log.bytes(&[3, 0, 0, 0, 4, b'a', 0, 0, 0]).bytes(&POWERSHELL_CORE.to_bytes_le());
    log.bytes(&path.unwrap_or_default());
}

#[test]
fn template_values_of_every_type_are_substituted() {
    let id = "{F90714A8-5509-434A-BF6D-B1624C8A19A2}";
    let rows = [
        ("with a path", 0xFFFF, Some("p"), Some("p")),
        ("an empty path", 0xFFFF, Some(""), Some("")),
        ("null, optional", 0xFFFF, None, Some("")),
        ("null, and the element depends on it", 4, None, None),
        ("the element depends on another value", 2, None, Some("")),
    ];
    for (name, dependency, path, expected) in rows {
        let found = payload(|log| {
            log.system("4104");
            instance(log, dependency, path);
            log.close();
        });
        assert_eq!(found, script_block(&[0x61], id, expected), "{name}");
    }
}

#[test]
fn unreadable_records_are_reported() {
    fn data(log: &mut Log, id: &str, name: &str, text: &str) {
        log.system(id).open("EventData", &[]).data(Some(name), text).close().close();
    }
    type Write = fn(&mut Log);
    let rows: [(&str, Write, &str); 8] = [
        ("no EventID", |log| _ = log.system("x").close(), "EventID"),
        ("no System", |log| _ = log.open("Event", &[]).close(), "System"),
        ("no EventData", |log| _ = log.system("4104").close(), "ScriptBlockText"),
        ("no text", |log| data(log, "4104", "Path", "p"), "ScriptBlockText"),
        ("no payload", |log| data(log, "4103", "UserData", "p"), "Payload"),
        ("no number", |log| data(log, "4104", "MessageNumber", "1st"), "MessageNumber"),
        ("open at the end", |log| _ = log.open("Event", &[]), "end of an element"),
        (
            "a template that contains itself",
            |log| {
                let at = log.0.len() as u32 + 10;
                log.bytes(&[0x0C, 1, 0, 0, 0, 0]).bytes(&at.to_le_bytes());
                log.bytes(&[0; 20]).bytes(&14u32.to_le_bytes());
                log.bytes(&[0x0C, 1, 0, 0, 0, 0]).bytes(&at.to_le_bytes()).bytes(&[0; 8]);
            },
            "nesting",
        ),
    ];
    for (name, write, word) in rows {
        let sink = seen(write);
        assert_eq!(sink.events.len() + sink.unwanted, 0, "{name}");
        let [damage] = &sink.damages[..] else { panic!("{name}: {:?}", sink.damages) };
        assert_eq!((damage.reason, damage.offset), ("record", 4096 + 512), "{name}");
        assert!(damage.detail.contains(word), "{name}: {}", damage.detail);
    }
}

#[test]
fn the_number_of_tokens_is_limited() {
    // A template of many tokens, which the record uses a thousand times.
    let sink = seen(|log| {
        log.bytes(&[0x0C, 1, 0, 0, 0, 0]);
        let at = log.0.len() as u32 + 4;
        log.bytes(&at.to_le_bytes()).bytes(&[0; 20]).bytes(&8000u32.to_le_bytes()).bytes(&[0x02; 8000]);
        log.bytes(&[0; 4]);
        for _ in 0..1000 {
            log.bytes(&[0x0C, 1, 0, 0, 0, 0]).bytes(&at.to_le_bytes()).bytes(&[0; 4]);
        }
    });
    assert_eq!(sink.damages.len(), 1);
    assert_eq!(sink.damages[0].reason, "work limit");
    assert!(sink.damages[0].detail.contains("work"), "{}", sink.damages[0].detail);
}

#[test]
fn unneeded_events_are_counted() {
    for (name, id, refuses) in [("another event", "4105", false), ("not needed by the sink", "4104", true)] {
        let file = Log::of(|log| {
            log.system(id).open("EventData", &[]).data(Some("ScriptBlockText"), "x").close().close();
        });
        let mut sink = Seen { refuses, ..Seen::default() };
        replay(&file[..], Path::new("made"), &mut sink).expect("a log");
        assert_eq!((sink.events.len(), sink.unwanted, sink.damages.len()), (0, 1, 0), "{name}");
    }
}
