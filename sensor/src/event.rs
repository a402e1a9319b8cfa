//! An event as a source delivers it: header and raw payload.

use etwsieve_matcher::EventKind;
use uuid::Uuid;

pub use etwsieve_event::provider::{AMSI, POWERSHELL, POWERSHELL_CORE, SENSOR, is_powershell};
pub use etwsieve_event::{EventHeader, Sid};

/// Event id of module logging: `ContextInfo`, `UserData`, `Payload`.
pub const MODULE_LOGGING: u16 = 4103;
/// Event id of script block logging: `MessageNumber`, `MessageTotal`, `ScriptBlockText`, `ScriptBlockId`, `Path`.
pub const SCRIPT_BLOCK_LOGGING: u16 = 4104;

/// Event id of a scan of the antimalware scanner; its fields are in [`crate::amsi`].
pub const AMSI_SCAN: u16 = 1101;

/// Maximum length of an ETW event in bytes: its size is a `u16`.
///
/// Payloads that are rebuilt from other formats may be longer; their limit is [`PAYLOAD_LEN_MAX`].
pub const ETW_EVENT_LEN_MAX: usize = 0xFFFF;
/// Maximum length of a payload in the pipeline, in bytes. An .evtx chunk is 64 KiB, so no record exceeds it.
pub const PAYLOAD_LEN_MAX: usize = 128 * 1024;

/// An event borrowed from its source.
#[derive(Clone, Copy, Debug)]
pub struct EventRef<'a> {
    /// Header of the event.
    pub header: EventHeader,
    /// The user on whose behalf the event was written.
    pub user_sid: Option<Sid>,
    /// The computer that recorded the event, if the source knows it.
    pub computer: Option<&'a str>,
    /// User data in the layout of the event's template, little-endian.
    pub payload: &'a [u8],
}

/// An event in a buffer of the pool, as it is sent to a matcher thread.
#[derive(Debug)]
pub struct RawEvent {
    /// Header of the event.
    pub header: EventHeader,
    /// The user on whose behalf the event was written.
    pub user_sid: Option<Sid>,
    /// Index of the source in the pipeline's list.
    pub source: u32,
    /// Number of the event within its source. Orders events with equal times.
    pub sequence: u64,
    /// Number of events of the source that were dropped since the previous event.
    pub dropped_before: u64,
    /// Shard of the script block that a fragment belongs to; 0 for other events.
    pub shard: u8,
    /// Length of the original payload, which counts towards the queue limit until the buffer returns. A matcher may
    /// keep the payload and return the buffer with another one.
    pub payload_len: usize,
    /// The computer that recorded the event; empty if unknown. The memory is reused with the buffer.
    pub computer: String,
    /// User data, at most [`PAYLOAD_LEN_MAX`] bytes; for AMSI events the form that the matcher searches. The memory is
    /// reused with the buffer.
    pub payload: Vec<u8>,
}

/// Returns the kind of event for rules; `None` if no rule can search events with this provider and id.
pub fn kind(provider: &Uuid, event_id: u16) -> Option<EventKind> {
    EventKind::from_event_id(event_id).filter(|kind| match kind {
        EventKind::Amsi => *provider == AMSI,
        EventKind::ScriptBlock | EventKind::Module => is_powershell(provider),
    })
}

/// Returns the providers that a live session enables: PowerShell's, and with `amsi` that of the antimalware scanner.
pub fn providers(amsi: bool) -> &'static [Uuid] {
    if amsi { &[POWERSHELL, POWERSHELL_CORE, AMSI] } else { &[POWERSHELL, POWERSHELL_CORE] }
}
