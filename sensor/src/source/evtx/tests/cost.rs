//! The cost of a record is limited: each byte that is read, compared, written or allocated is charged.

use super::{Log, Seen};
use crate::source::evtx::{CHUNK_LEN, CHUNK_STEPS_PER_BYTE_MAX, RECORD_BYTES_MAX, RECORD_STEPS_FREE, replay};
use std::path::Path;

fn read(file: &[u8]) -> Seen {
    let mut sink = Seen::default();
    replay(file, Path::new("made"), &mut sink).expect("a log");
    let steps_max = (CHUNK_STEPS_PER_BYTE_MAX + 16) * CHUNK_LEN as u64 + 2 * RECORD_STEPS_FREE;
    assert!(sink.cost.steps <= steps_max, "{} of {steps_max} steps", sink.cost.steps);
    sink
}

/// Writes a part of a record.
type Part = fn(&mut Log);

/// Returns a log with a record whose template uses one large value many times, between `before` and `after`.
fn repeated(value: &[u8], kind: u8, times: usize, before: Part, after: Part) -> Vec<u8> {
    Log::of(|log| {
        log.bytes(&[0x0F, 1, 1, 0, 0x0C, 1, 0, 0, 0, 0]);
        let definition = log.0.len() as u32 + 4;
        log.bytes(&definition.to_le_bytes()).bytes(&[0; 24]);
        let body = log.0.len();
        log.bytes(&[0x0F, 1, 1, 0]);
        let mut inner = Log(std::mem::take(&mut log.0));
        before(&mut inner);
        for _ in 0..times {
            inner.bytes(&[0x0D, 0, 0, kind]);
        }
        after(&mut inner);
        log.0 = inner.0;
        log.bytes(&[0]);
        let len = (log.0.len() - body) as u32;
        log.0[body - 4..body].copy_from_slice(&len.to_le_bytes());
        log.bytes(&1u32.to_le_bytes()).bytes(&(value.len() as u16).to_le_bytes()).bytes(&[kind, 0]);
        log.bytes(value);
    })
}

/// Opens an element in a template, which has two more bytes than outside.
fn open(log: &mut Log, name: &str) {
    log.bytes(&[0x41, 0xFF, 0xFF, 0, 0, 0, 0]).name(name).bytes(&[0; 4]);
}

fn system(log: &mut Log, content: fn(&mut Log)) {
    open(log, "Event");
    log.bytes(&[0x02]);
    open(log, "System");
    log.bytes(&[0x02]);
    open(log, "Provider");
    log.bytes(&[0x06]).name("Name").text("Microsoft-Windows-PowerShell").bytes(&[0x03]);
    open(log, "EventID");
    log.bytes(&[0x02]).text("4104").close();
    content(log);
}

/// Without limits each of these would cost bytes times tokens: seconds, or hundreds of megabytes, for a record.
#[test]
fn a_value_that_a_template_uses_many_times_is_limited() {
    let text: Vec<u8> = (0..22_000u16).flat_map(|unit| (0x4100 + unit % 90).to_le_bytes()).collect();
    let end: Part = |log| _ = log.close().close().close();
    let in_data: Part = |log| {
        system(log, |log| _ = log.close());
        open(log, "EventData");
        log.bytes(&[0x02]);
        open(log, "Data");
        log.bytes(&[0x06]).name("Name").text("ScriptBlockText").bytes(&[0x02]);
        // The text ends here, so all other values have no effect.
        log.bytes(&[0x05, 0x01, 1, 0, 0, 0]);
    };
    let rows: [(&str, u8, Part); 6] = [
        ("Computer", 0x01, |log| {
            system(log, |log| {
                open(log, "Computer");
                log.bytes(&[0x02]);
            });
        }),
        ("Channel", 0x01, |log| {
            system(log, |log| {
                open(log, "Channel");
                log.bytes(&[0x02]);
            });
        }),
        ("Provider/@Name", 0x01, |log| {
            system(log, |log| {
                open(log, "Provider");
                log.bytes(&[0x06]).name("Name");
            });
        }),
        ("Data/@Name", 0x01, |log| {
            system(log, |log| _ = log.close());
            open(log, "EventData");
            log.bytes(&[0x02]);
            open(log, "Data");
            log.bytes(&[0x06]).name("Name");
        }),
        ("Data as text", 0x01, in_data),
        ("Data as digits", 0x0E, in_data),
    ];
    for (name, kind, before) in rows {
        let sink = read(&repeated(&text, kind, 2_000, before, end));
        assert!(sink.cost.bytes <= RECORD_BYTES_MAX, "{name}: {} bytes", sink.cost.bytes);
        assert_eq!(sink.damages.len(), 1, "{name}: {:?}", sink.damages);
        assert_eq!((sink.damages[0].reason, sink.damages[0].offset), ("work limit", 4096 + 512), "{name}");
        assert!(sink.events.is_empty(), "{name}");
    }
}

/// AMSI content is joined from pieces.
#[test]
fn amsi_content_in_many_pieces_is_limited() {
    let sink = read(&repeated(
        &vec![0x41; 40_000],
        0x0E,
        2_000,
        |log| {
            open(log, "Event");
            log.bytes(&[0x02]);
            open(log, "System");
            log.bytes(&[0x02]);
            open(log, "Provider");
            log.bytes(&[0x06]).name("Name").text("Microsoft-Antimalware-Scan-Interface").bytes(&[0x03]);
            open(log, "EventID");
            log.bytes(&[0x02]).text("1101").close().close();
            open(log, "EventData");
            log.bytes(&[0x02]);
            open(log, "Data");
            log.bytes(&[0x06]).name("Name").text("content").bytes(&[0x02]);
        },
        |log| _ = log.close().close().close(),
    ));
    assert!(sink.cost.bytes <= RECORD_BYTES_MAX, "{} bytes", sink.cost.bytes);
    assert_eq!(sink.damages.len(), 1, "{:?}", sink.damages);
}

/// Every record of the chunk costs the maximum: the limit of the chunk is reached, and each further record is reported.
#[test]
fn the_records_of_a_chunk_have_a_common_limit() {
    const RECORDS: usize = 600;
    let mut log = Log(vec![0; 512]);
    log.0[..8].copy_from_slice(b"ElfChnk\0");
    let mut definition = 0;
    for number in 0..RECORDS as u64 {
        let start = log.0.len();
        log.bytes(b"**\0\0").bytes(&[0; 4]).bytes(&number.to_le_bytes()).bytes(&[1, 0, 0, 0, 0, 0, 0, 1]);
        log.bytes(&[0x0C, 1, 0, 0, 0, 0]);
        if number == 0 {
            // The definition of a template of many tokens, in the first record.
            definition = log.0.len() as u32 + 4;
            log.bytes(&definition.to_le_bytes()).bytes(&[0; 20]).bytes(&4000u32.to_le_bytes());
            log.bytes(&[0x02; 4000]).bytes(&[0; 4]);
        } else {
            log.bytes(&definition.to_le_bytes()).bytes(&[0; 4]);
        }
        let size = ((log.0.len() - start + 4) as u32).to_le_bytes();
        log.bytes(&size);
        log.0[start + 4..start + 8].copy_from_slice(&size);
    }
    let free = (log.0.len() as u32).to_le_bytes();
    log.0[48..52].copy_from_slice(&free);
    log.0.resize(CHUNK_LEN, 0);
    let mut file = vec![0; 4096];
    file[..8].copy_from_slice(b"ElfFile\0");
    file.extend(log.0);
    let sink = read(&file);
    // No record is an event. All of them are reported, most without having been read.
    assert_eq!(sink.damages.len(), RECORDS);
    assert!(sink.damages.iter().filter(|damage| damage.reason == "work limit").count() > RECORDS / 2);
}

/// All records of all chunks are damaged, so the sink receives no event at which it could return `Break`.
#[test]
fn a_stop_ends_a_log_of_damaged_records() {
    let one = Log::of(|log| _ = log.bytes(&[0x7F]));
    let mut file = one.clone();
    for _ in 0..50 {
        file.extend_from_slice(&one[4096..]);
    }
    let mut sink = Seen::default();
    replay(&file[..], Path::new("made"), &mut sink).expect("a log");
    assert_eq!(sink.damages.len(), 51);
    let mut sink = Seen { stops_at_damage: true, ..Seen::default() };
    replay(&file[..], Path::new("made"), &mut sink).expect("a log");
    assert_eq!(sink.damages.len(), 1);
}
