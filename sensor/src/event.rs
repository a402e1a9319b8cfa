//! One event as a source hands it over: header facts and the payload's bytes, nothing parsed.

use crate::sid::Sid;
use etwsieve_etl::FileTime;
use etwsieve_matcher::EventKind;
use uuid::{Uuid, uuid};

/// Microsoft-Windows-PowerShell (Windows PowerShell 5.1).
pub const POWERSHELL: Uuid = uuid!("a0c1853b-5c40-4b15-8766-3cf1c58f985a");
/// PowerShellCore (PowerShell 7), with the same event templates.
pub const POWERSHELL_CORE: Uuid = uuid!("f90714a8-5509-434a-bf6d-b1624c8a19a2");

/// Microsoft-Antimalware-Scan-Interface: what is handed to the antimalware scanner.
pub const AMSI: Uuid = uuid!("2a576b87-09a7-520e-c21a-4942f0271d67");

/// The sensor itself, as the provider of its notices. A GUID of its own, registered nowhere.
pub const SENSOR: Uuid = uuid!("5d0e9a4c-3c1b-4f63-9d0a-8a6f1f5b7e21");

/// Module logging: `ContextInfo`, `UserData`, `Payload`.
pub const MODULE_LOGGING: u16 = 4103;
/// Script block logging: `MessageNumber`, `MessageTotal`, `ScriptBlockText`, `ScriptBlockId`, `Path`.
pub const SCRIPT_BLOCK_LOGGING: u16 = 4104;

/// A scan of the antimalware scanner: [`crate::amsi`] has its fields.
pub const AMSI_SCAN: u16 = 1101;

/// The largest payload that ETW itself can carry, in bytes: an event's size is a `u16`.
///
/// Rebuilt payloads may be larger than the original (an .evtx record loses nothing), so sources cut at
/// [`PAYLOAD_LEN_MAX`] instead.
pub const ETW_EVENT_LEN_MAX: usize = 0xFFFF;
/// The largest payload that passes the pipeline, in bytes. An .evtx chunk is 64 KiB, so no record exceeds it.
pub const PAYLOAD_LEN_MAX: usize = 128 * 1024;

/// The facts of an event header that reach a detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventHeader {
    /// When the event was written.
    pub time: FileTime,
    /// The provider that wrote it.
    pub provider: Uuid,
    /// Event id of the descriptor.
    pub event_id: u16,
    /// Version of the descriptor.
    pub version: u8,
    /// Channel of the descriptor: 16 Operational, 17 Analytic.
    pub channel: u8,
    /// Level of the descriptor: 3 = PowerShell itself found the block suspicious, 5 = verbose.
    pub level: u8,
    /// Opcode of the descriptor.
    pub opcode: u8,
    /// Task of the descriptor.
    pub task: u16,
    /// Keywords of the descriptor.
    pub keywords: u64,
    /// Process that wrote the event, where the source knows it.
    pub process_id: Option<u32>,
    /// Thread that wrote the event, where the source knows it.
    pub thread_id: Option<u32>,
    /// Activity of the event; `None` for the nil GUID too.
    pub activity_id: Option<Uuid>,
    /// `System/EventRecordID` of an event log record.
    pub event_record_id: Option<u64>,
}

/// An event borrowed from its source.
#[derive(Clone, Copy, Debug)]
pub struct EventRef<'a> {
    /// Header facts.
    pub header: EventHeader,
    /// The user on whose behalf the event was written.
    pub user_sid: Option<Sid>,
    /// The computer that recorded it, if the source says so.
    pub computer: Option<&'a str>,
    /// User data in the layout of the event's template, little-endian.
    pub payload: &'a [u8],
}

/// An event in a buffer of the pool: what crosses the channel.
#[derive(Debug)]
pub struct RawEvent {
    /// Header facts.
    pub header: EventHeader,
    /// The user on whose behalf the event was written.
    pub user_sid: Option<Sid>,
    /// Index of the source in the pipeline's list.
    pub source: u32,
    /// Running number of the event within its source: the tie-break of equal times.
    pub sequence: u64,
    /// Events of the source that were dropped since the one before this.
    pub dropped_before: u64,
    /// The group of script blocks that a fragment belongs to; 0 for other events.
    pub shard: u8,
    /// Payload bytes for which the buffer counts while it is out; a matcher may keep them and give another buffer back.
    pub payload_len: usize,
    /// The recording computer; empty when unknown. Recycled with the buffer.
    pub computer: String,
    /// User data, at most [`PAYLOAD_LEN_MAX`] bytes; of AMSI content the form that the matcher searches. Recycled
    /// with the buffer.
    pub payload: Vec<u8>,
}

/// The kind of event that rules see in an event of this provider; `None` if it is none of theirs.
pub fn kind(provider: &Uuid, event_id: u16) -> Option<EventKind> {
    EventKind::from_event_id(event_id).filter(|kind| match kind {
        EventKind::Amsi => *provider == AMSI,
        EventKind::ScriptBlock | EventKind::Module => is_powershell(provider),
    })
}

/// The providers that a live session enables: PowerShell's, and with `amsi` that of the antimalware scanner.
pub fn providers(amsi: bool) -> &'static [Uuid] {
    if amsi { &[POWERSHELL, POWERSHELL_CORE, AMSI] } else { &[POWERSHELL, POWERSHELL_CORE] }
}

/// True for the two PowerShell providers.
pub fn is_powershell(provider: &Uuid) -> bool {
    *provider == POWERSHELL || *provider == POWERSHELL_CORE
}
