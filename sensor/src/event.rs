//! One event as a source hands it over: header facts and the payload's bytes, nothing parsed.

use etwsieve_matcher::EventKind;
use uuid::Uuid;

pub use etwsieve_event::provider::{AMSI, POWERSHELL, POWERSHELL_CORE, SENSOR, is_powershell};
pub use etwsieve_event::{EventHeader, Sid};

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
