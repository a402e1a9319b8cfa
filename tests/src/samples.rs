//! Sample values for tests, which change only the fields that they need: `HitV1 { source, ..samples::hit(1, content) }`.

use etwsieve_event::provider::POWERSHELL;
use etwsieve_event::{EventHeader, FileTime};
use etwsieve_transport::hit::{EventContent, HitV1};

/// Time of the first hit, 2024-01-16, in 100 ns since 1601.
const START: u64 = 133_500_000_000_000_000;

/// Returns the header of an event 4104 of Windows PowerShell, with the descriptor of its manifest.
pub fn header(time: FileTime) -> EventHeader {
    EventHeader {
        time,
        provider: POWERSHELL,
        event_id: 4104,
        version: 1,
        channel: 16,
        level: 5,
        opcode: 15,
        task: 2,
        ..EventHeader::default()
    }
}

/// Returns hit `number` of a source without a name, about an event 4104 as recorded, without rules.
pub fn hit(number: u64, content: EventContent) -> HitV1 {
    let header = header(FileTime(START + number));
    HitV1 {
        time: header.time.0,
        source_sequence: number,
        provider: header.provider.to_bytes_le(),
        event_id: header.event_id,
        version: header.version,
        channel: header.channel,
        level: header.level,
        opcode: header.opcode,
        task: header.task,
        keywords: header.keywords,
        content,
        ..HitV1::default()
    }
}
