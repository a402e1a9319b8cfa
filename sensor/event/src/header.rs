//! The header of an event.

use crate::FileTime;
use uuid::Uuid;

/// The fields of an event header that appear in a detection.
///
/// The default is a header of zeros: no provider, no process, written in 1601.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// Level of the descriptor: 3 if PowerShell considers the script block suspicious, 5 for verbose.
    pub level: u8,
    /// Opcode of the descriptor.
    pub opcode: u8,
    /// Task of the descriptor.
    pub task: u16,
    /// Keywords of the descriptor.
    pub keywords: u64,
    /// Process that wrote the event; `None` if the source does not know it.
    pub process_id: Option<u32>,
    /// Thread that wrote the event; `None` if the source does not know it.
    pub thread_id: Option<u32>,
    /// Activity id of the event; `None` for the nil GUID.
    pub activity_id: Option<Uuid>,
    /// `System/EventRecordID` of an event log record; `None` for events from other sources.
    pub event_record_id: Option<u64>,
}
