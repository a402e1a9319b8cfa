//! An event of a trace.

use crate::bytes::{guid_at, u8_at, u16_at, u32_at, u64_at};
use crate::decode::{Head, MESSAGE_HEADER_LEN, message, message_guid_at, message_options, message_time_at};
use crate::extended::{ExtendedItems, item_type};
use etwsieve_event::FileTime;
use std::fmt;
use uuid::Uuid;

/// Types of event headers. The number is the pointer size of the writer in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the pairs differ in pointer size only")]
pub enum HeaderKind {
    /// Kernel events, with process and thread.
    System32,
    System64,
    /// Kernel events, with process and thread, without processor times.
    Compact32,
    Compact64,
    /// Kernel events with only a time, and possibly with performance counters.
    PerfInfo32,
    PerfInfo64,
    /// Classic providers: `EVENT_TRACE_HEADER`.
    Full32,
    Full64,
    /// Classic providers that write instances.
    Instance32,
    Instance64,
    /// Manifest and TraceLogging providers: `EVENT_HEADER`.
    Event32,
    Event64,
    /// WPP software tracing: `MESSAGE_TRACE_HEADER`.
    Message,
    /// Not contained in any known recording. Delivered as the bytes after the marker, without a time stamp.
    Timed,
    /// Like [`Timed`](Self::Timed).
    Error,
    /// Like [`Timed`](Self::Timed).
    WNode,
}

impl HeaderKind {
    /// Returns the usual name in capitals, such as `EVENT64`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System32 => "SYSTEM32",
            Self::System64 => "SYSTEM64",
            Self::Compact32 => "COMPACT32",
            Self::Compact64 => "COMPACT64",
            Self::PerfInfo32 => "PERFINFO32",
            Self::PerfInfo64 => "PERFINFO64",
            Self::Full32 => "FULL32",
            Self::Full64 => "FULL64",
            Self::Instance32 => "INSTANCE32",
            Self::Instance64 => "INSTANCE64",
            Self::Event32 => "EVENT32",
            Self::Event64 => "EVENT64",
            Self::Message => "MESSAGE",
            Self::Timed => "TIMED",
            Self::Error => "ERROR",
            Self::WNode => "WNODE",
        }
    }

    pub(crate) const fn from_marker(marker: u32) -> Option<Self> {
        Some(match (marker >> 24, marker >> 16 & 0xff) {
            (0xC0, 0x01) => Self::System32,
            (0xC0, 0x02) => Self::System64,
            (0xC0, 0x03) => Self::Compact32,
            (0xC0, 0x04) => Self::Compact64,
            (0xC0, 0x0A) => Self::Full32,
            (0xC0, 0x0B) => Self::Instance32,
            (0xC0, 0x0C) => Self::Timed,
            (0xC0, 0x0D) => Self::Error,
            (0xC0, 0x0E) => Self::WNode,
            (0xC0, 0x10) => Self::PerfInfo32,
            (0xC0, 0x11) => Self::PerfInfo64,
            (0xC0, 0x12) => Self::Event32,
            (0xC0, 0x13) => Self::Event64,
            (0xC0, 0x14) => Self::Full64,
            (0xC0, 0x15) => Self::Instance64,
            (0x90, _) => Self::Message,
            _ => return None,
        })
    }

    const fn is_kernel(self) -> bool {
        matches!(
            self,
            Self::System32
                | Self::System64
                | Self::Compact32
                | Self::Compact64
                | Self::PerfInfo32
                | Self::PerfInfo64
        )
    }

    /// Returns the offset of the `u16` size.
    pub(crate) const fn size_at(self) -> usize {
        if self.is_kernel() { 4 } else { 0 }
    }

    /// Returns the length of the header, the minimum size of an event.
    pub(crate) const fn header_len(self, marker: u32) -> usize {
        match self {
            Self::System32 | Self::System64 => 0x20,
            Self::Compact32 | Self::Compact64 => 0x18,
            // Bits 8 to 10 are the number of performance counters; bit 15 means a PEBS record.
            Self::PerfInfo32 | Self::PerfInfo64 => {
                0x10 + 8 * ((marker >> 8 & 7) + (marker >> 15 & 1)) as usize
            }
            Self::Full32 | Self::Full64 => 0x30,
            Self::Instance32 | Self::Instance64 => 0x48,
            Self::Event32 | Self::Event64 => 0x50,
            Self::Message => MESSAGE_HEADER_LEN,
            Self::Timed | Self::Error | Self::WNode => 4,
        }
    }

    /// Returns the offset of the time stamp in `event`.
    pub(crate) fn time_at(self, event: &[u8]) -> Option<usize> {
        match self {
            Self::PerfInfo32 | Self::PerfInfo64 => Some(0x08),
            Self::Message => {
                let options = message_options(event);
                (options & message::TIME != 0).then(|| message_time_at(options))
            }
            Self::Timed | Self::Error | Self::WNode => None,
            _ => Some(0x10),
        }
    }
}

impl fmt::Display for HeaderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An event, borrowed from the trace or from a decompressed buffer.
///
/// Fields that do not exist in this type of header are `None` or 0.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// Type of the header.
    pub header: HeaderKind,
    /// When the event was written; for an event without a time stamp, the time of the previous event on its processor.
    pub time: FileTime,
    /// Time stamp as stored, in ticks of the clock of the trace.
    pub raw_time: Option<i64>,
    /// Process that wrote the event; `u32::MAX` if the kernel did not know it.
    pub process_id: Option<u32>,
    /// Thread that wrote the event; `u32::MAX` if the kernel did not know it.
    pub thread_id: Option<u32>,
    /// GUID of the provider (event), of the class (full, instance) or of the message (message).
    pub provider: Option<Uuid>,
    /// Event id (event) or number (message).
    pub event_id: Option<u16>,
    /// Version of the event.
    pub version: u16,
    /// Channel of the event.
    pub channel: u8,
    /// Level of the event.
    pub level: u8,
    /// Opcode (event) or type (full, instance).
    pub opcode: u8,
    /// Task of the event.
    pub task: u16,
    /// Keywords of the event.
    pub keywords: u64,
    /// Flags of the event; bit 0: the event has extended items.
    pub flags: u16,
    /// `EventProperty` of the event.
    pub property: u16,
    /// Activity of the event; nil if none was set.
    pub activity_id: Option<Uuid>,
    /// For kernel events: type in the lower byte, group in the upper byte.
    pub hook_id: Option<u16>,
    /// Length of header, extended items and payload.
    pub size: u16,
    /// User data in the layout of the event's template.
    pub payload: &'a [u8],
    /// Processor whose buffer contains the event.
    pub processor: u16,
    /// File offset in bytes of that buffer.
    pub buffer_offset: u64,
    /// Offset of the event in the (decompressed) buffer in bytes, including the buffer header.
    pub position: u32,
    extended: ExtendedItems<'a>,
}

/// Location of an event in the trace.
#[derive(Clone, Copy)]
pub(crate) struct EventLocation {
    pub(crate) time: FileTime,
    pub(crate) processor: u16,
    pub(crate) buffer_offset: u64,
    pub(crate) position: u32,
}

impl<'a> Event<'a> {
    /// Returns the extended data items.
    pub fn extended(&self) -> ExtendedItems<'a> {
        self.extended.clone()
    }

    /// Returns the user of the event as a binary SID: `u8` revision, `u8` count, 6 bytes authority, `count` `u32`
    /// sub-authorities. `None` if no item contains a complete SID.
    pub fn sid(&self) -> Option<&'a [u8]> {
        let item = self.extended().find(|item| item.kind == item_type::SID)?;
        let count = usize::from(u8_at(item.data, 1)?);
        item.data.get(..8 + 4 * count)
    }

    /// Returns the related activity.
    pub fn related_activity_id(&self) -> Option<Uuid> {
        let item = self.extended().find(|item| item.kind == item_type::RELATED_ACTIVITY_ID)?;
        guid_at(item.data, 0)
    }

    /// Creates the event from its bytes, which `head` describes.
    pub(crate) fn new(head: &Head, event: &'a [u8], location: EventLocation) -> Self {
        let (items_at, payload_at) = (usize::from(head.items_at), usize::from(head.payload_at));
        let kind = head.kind;
        let mut this = Self {
            header: kind,
            time: location.time,
            raw_time: head.raw_time,
            process_id: None,
            thread_id: None,
            provider: None,
            event_id: None,
            version: 0,
            channel: 0,
            level: 0,
            opcode: 0,
            task: 0,
            keywords: 0,
            flags: 0,
            property: 0,
            activity_id: None,
            hook_id: None,
            size: head.size,
            payload: event.get(payload_at..).unwrap_or_default(),
            processor: location.processor,
            buffer_offset: location.buffer_offset,
            position: location.position,
            extended: ExtendedItems::default(),
        };
        match kind {
            HeaderKind::Event32 | HeaderKind::Event64 => {
                this.ids(event);
                this.descriptor(event);
                this.extended = ExtendedItems::new(event.get(items_at..payload_at).unwrap_or_default());
            }
            HeaderKind::Full32 | HeaderKind::Full64 | HeaderKind::Instance32 | HeaderKind::Instance64 => {
                this.ids(event);
                this.provider = guid_at(event, 0x18);
                this.opcode = u8_at(event, 4).unwrap_or(0);
                this.level = u8_at(event, 5).unwrap_or(0);
                this.version = u16_at(event, 6).unwrap_or(0);
            }
            HeaderKind::System32 | HeaderKind::System64 | HeaderKind::Compact32 | HeaderKind::Compact64 => {
                this.ids(event);
                this.hook(event);
            }
            HeaderKind::PerfInfo32 | HeaderKind::PerfInfo64 => this.hook(event),
            HeaderKind::Message => this.message(event),
            HeaderKind::Timed | HeaderKind::Error | HeaderKind::WNode => {}
        }
        this
    }

    fn ids(&mut self, event: &[u8]) {
        self.thread_id = u32_at(event, 0x08);
        self.process_id = u32_at(event, 0x0C);
    }

    fn hook(&mut self, event: &[u8]) {
        self.hook_id = u16_at(event, 6);
        self.version = u16_at(event, 0).unwrap_or(0) & 0xff;
    }

    /// Reads `EVENT_DESCRIPTOR` and the other fields of `EVENT_HEADER`.
    fn descriptor(&mut self, event: &[u8]) {
        self.flags = u16_at(event, 0x04).unwrap_or(0);
        self.property = u16_at(event, 0x06).unwrap_or(0);
        self.provider = guid_at(event, 0x18);
        self.event_id = u16_at(event, 0x28);
        self.version = u8_at(event, 0x2A).unwrap_or(0).into();
        self.channel = u8_at(event, 0x2B).unwrap_or(0);
        self.level = u8_at(event, 0x2C).unwrap_or(0);
        self.opcode = u8_at(event, 0x2D).unwrap_or(0);
        self.task = u16_at(event, 0x2E).unwrap_or(0);
        self.keywords = u64_at(event, 0x30).unwrap_or(0);
        self.activity_id = guid_at(event, 0x40);
    }

    fn message(&mut self, event: &[u8]) {
        let options = message_options(event);
        self.event_id = u16_at(event, 4);
        if options & (message::COMPONENT_ID | message::GUID) == message::GUID {
            self.provider = guid_at(event, message_guid_at(options));
        }
        if options & message::SYSTEM_INFO != 0 {
            let time_len = if options & message::TIME == 0 { 0 } else { 8 };
            let at = message_time_at(options) + time_len;
            self.thread_id = u32_at(event, at);
            self.process_id = u32_at(event, at + 4);
        }
    }
}
