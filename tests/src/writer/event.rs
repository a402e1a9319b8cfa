//! One event to write, with any kind of header.

use super::AmsiScan;
use etwsieve_etl::{HeaderKind, item_type};
use etwsieve_event::provider::{AMSI, POWERSHELL};
use uuid::Uuid;

/// `MESSAGE` options that this writer knows: sequence 1, GUID 2, component id 4, time 8, system info 0x20.
const MESSAGE_SEQUENCE: u16 = 0x01;
const MESSAGE_GUID: u16 = 0x02;
const MESSAGE_COMPONENT_ID: u16 = 0x04;
const MESSAGE_TIME: u16 = 0x18;
const MESSAGE_SYSTEM_INFO: u16 = 0x20;

/// An event to write. Fields that its kind of header does not have are not written.
#[derive(Clone, Debug, PartialEq)]
pub struct EventSpec {
    /// Kind of the header.
    pub header: HeaderKind,
    /// Time in ticks of 100 ns after the start of the session.
    pub ticks: u64,
    /// The raw time stamp; `None` to compute it from [`ticks`](Self::ticks).
    pub raw_time: Option<i64>,
    /// The processor in whose buffer the event is stored.
    pub processor: u16,
    /// Process.
    pub process_id: u32,
    /// Thread.
    pub thread_id: u32,
    /// Provider, class or message GUID.
    pub provider: Uuid,
    /// Event id, or number of a message.
    pub event_id: u16,
    /// Version, of which kernel events and manifest events store one byte.
    pub version: u16,
    /// Channel.
    pub channel: u8,
    /// Level.
    pub level: u8,
    /// Opcode, or type of a classic event.
    pub opcode: u8,
    /// Task.
    pub task: u16,
    /// Keywords.
    pub keywords: u64,
    /// `EventProperty`.
    pub property: u16,
    /// Activity.
    pub activity_id: Uuid,
    /// Extended items: type and data.
    pub items: Vec<(u16, Vec<u8>)>,
    /// Type and group of a kernel event.
    pub hook_id: u16,
    /// Number of performance counters of a perfinfo event, at most 7.
    pub counters: u8,
    /// Options of a message, which determine its fields.
    pub message_options: u16,
    /// User data.
    pub payload: Vec<u8>,
}

impl EventSpec {
    /// Creates an event with a header of this kind and all fields zero.
    pub fn new(header: HeaderKind) -> Self {
        Self {
            header,
            ticks: 0,
            raw_time: None,
            processor: 0,
            process_id: 0,
            thread_id: 0,
            provider: Uuid::nil(),
            event_id: 0,
            version: 0,
            channel: 0,
            level: 0,
            opcode: 0,
            task: 0,
            keywords: 0,
            property: 0,
            activity_id: Uuid::nil(),
            items: Vec::new(),
            hook_id: 0,
            counters: 0,
            message_options: 0,
            payload: Vec::new(),
        }
    }

    /// An event of Microsoft-Windows-PowerShell, with the descriptor that its manifest gives to 4103 to 4106.
    pub fn powershell(event_id: u16, payload: Vec<u8>) -> Self {
        let (level, opcode, task) = match event_id {
            4103 => (4, 20, 106),
            4105 => (5, 15, 102),
            4106 => (5, 15, 103),
            _ => (5, 15, 2),
        };
        let mut event = Self::new(HeaderKind::Event64);
        (event.provider, event.event_id, event.version, event.channel) = (POWERSHELL, event_id, 1, 16);
        (event.level, event.opcode, event.task, event.payload) = (level, opcode, task, payload);
        event
    }

    /// An event 1101 of Microsoft-Antimalware-Scan-Interface, with its descriptor.
    pub fn amsi(scan: &AmsiScan) -> Self {
        let mut event = Self::new(HeaderKind::Event64);
        (event.provider, event.event_id, event.version) = (AMSI, 1101, scan.version.into());
        (event.level, event.keywords, event.payload) = (4, 1, scan.payload());
        event
    }

    /// A kernel event with process and thread.
    pub fn system(hook_id: u16) -> Self {
        Self { hook_id, version: 2, ..Self::new(HeaderKind::System64) }
    }

    /// The same as [`system`](Self::system) in the layout of a 32-bit kernel.
    pub fn system_32(hook_id: u16) -> Self {
        Self { header: HeaderKind::System32, ..Self::system(hook_id) }
    }

    /// A kernel event without process and thread, with up to seven performance counters.
    pub fn perf_info(hook_id: u16, counters: u8) -> Self {
        Self { hook_id, version: 2, counters: counters & 7, ..Self::new(HeaderKind::PerfInfo64) }
    }

    /// An event of a classic provider.
    pub fn full(class: Uuid, kind: u8) -> Self {
        Self { provider: class, opcode: kind, ..Self::new(HeaderKind::Full64) }
    }

    /// A message of WPP tracing.
    pub fn message(number: u16, options: u16) -> Self {
        Self { event_id: number, message_options: options, ..Self::new(HeaderKind::Message) }
    }

    /// Sets the time in ticks of 100 ns after the start.
    #[must_use]
    pub fn at(mut self, ticks: u64) -> Self {
        self.ticks = ticks;
        self
    }

    /// Sets the processor.
    #[must_use]
    pub fn on(mut self, processor: u16) -> Self {
        self.processor = processor;
        self
    }

    /// Sets process and thread.
    #[must_use]
    pub fn by(mut self, process_id: u32, thread_id: u32) -> Self {
        (self.process_id, self.thread_id) = (process_id, thread_id);
        self
    }

    /// Sets the user data.
    #[must_use]
    pub fn payload(mut self, payload: Vec<u8>) -> Self {
        self.payload = payload;
        self
    }

    /// Adds an extended item.
    #[must_use]
    pub fn item(mut self, kind: u16, data: &[u8]) -> Self {
        self.items.push((kind, data.to_vec()));
        self
    }

    /// Adds the user, as a binary SID.
    #[must_use]
    pub fn sid(self, sid: &[u8]) -> Self {
        self.item(item_type::SID, sid)
    }

    /// Adds the related activity.
    #[must_use]
    pub fn related_activity(self, id: Uuid) -> Self {
        self.item(item_type::RELATED_ACTIVITY_ID, &id.to_bytes_le())
    }

    /// Returns whether the header of this event has a time stamp.
    pub fn has_time(&self) -> bool {
        match self.header {
            HeaderKind::Message => self.message_options & MESSAGE_TIME != 0,
            HeaderKind::Timed | HeaderKind::Error | HeaderKind::WNode => false,
            _ => true,
        }
    }

    /// Returns the bytes of the event without padding. The size wraps around above 65,535.
    pub fn encode(&self, raw_time: i64) -> Vec<u8> {
        let mut bytes = match self.header {
            HeaderKind::System32 => self.kernel(0x01, raw_time),
            HeaderKind::System64 => self.kernel(0x02, raw_time),
            HeaderKind::Compact32 => self.kernel(0x03, raw_time),
            HeaderKind::Compact64 => self.kernel(0x04, raw_time),
            HeaderKind::PerfInfo32 => self.kernel(0x10, raw_time),
            HeaderKind::PerfInfo64 => self.kernel(0x11, raw_time),
            HeaderKind::Full32 => self.classic(0x0A, raw_time),
            HeaderKind::Full64 => self.classic(0x14, raw_time),
            HeaderKind::Instance32 => self.classic(0x0B, raw_time),
            HeaderKind::Instance64 => self.classic(0x15, raw_time),
            HeaderKind::Event32 => self.event(0x12, raw_time),
            HeaderKind::Event64 => self.event(0x13, raw_time),
            HeaderKind::Message => self.message_header(raw_time),
            HeaderKind::Timed => vec![0, 0, 0x0C, 0xC0],
            HeaderKind::Error => vec![0, 0, 0x0D, 0xC0],
            HeaderKind::WNode => vec![0, 0, 0x0E, 0xC0],
        };
        bytes.extend_from_slice(&self.payload);
        let size_at = match self.header {
            HeaderKind::System32
            | HeaderKind::System64
            | HeaderKind::Compact32
            | HeaderKind::Compact64
            | HeaderKind::PerfInfo32
            | HeaderKind::PerfInfo64 => 4,
            _ => 0,
        };
        let size = (bytes.len() as u16).to_le_bytes();
        bytes[size_at..size_at + 2].copy_from_slice(&size);
        bytes
    }

    fn kernel(&self, kind: u8, raw_time: i64) -> Vec<u8> {
        let mut bytes = vec![self.version as u8, self.counters & 7, kind, 0xC0, 0, 0];
        bytes.extend_from_slice(&self.hook_id.to_le_bytes());
        let is_perf_info = kind >= 0x10;
        if !is_perf_info {
            bytes.extend_from_slice(&self.thread_id.to_le_bytes());
            bytes.extend_from_slice(&self.process_id.to_le_bytes());
        }
        bytes.extend_from_slice(&raw_time.to_le_bytes());
        let rest = match kind {
            0x01 | 0x02 => 8,
            _ if is_perf_info => 8 * usize::from(self.counters & 7),
            _ => 0,
        };
        bytes.resize(bytes.len() + rest, 0);
        bytes
    }

    fn classic(&self, kind: u8, raw_time: i64) -> Vec<u8> {
        let mut bytes = vec![0, 0, kind, 0xC0, self.opcode, self.level];
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&self.thread_id.to_le_bytes());
        bytes.extend_from_slice(&self.process_id.to_le_bytes());
        bytes.extend_from_slice(&raw_time.to_le_bytes());
        bytes.extend_from_slice(&self.provider.to_bytes_le());
        let len =
            if matches!(self.header, HeaderKind::Instance32 | HeaderKind::Instance64) { 0x48 } else { 0x30 };
        bytes.resize(len, 0);
        bytes
    }

    fn event(&self, kind: u8, raw_time: i64) -> Vec<u8> {
        let mut bytes = vec![0, 0, kind, 0xC0, u8::from(!self.items.is_empty()), 0];
        bytes.extend_from_slice(&self.property.to_le_bytes());
        bytes.extend_from_slice(&self.thread_id.to_le_bytes());
        bytes.extend_from_slice(&self.process_id.to_le_bytes());
        bytes.extend_from_slice(&raw_time.to_le_bytes());
        bytes.extend_from_slice(&self.provider.to_bytes_le());
        bytes.extend_from_slice(&self.event_id.to_le_bytes());
        bytes.extend_from_slice(&[self.version as u8, self.channel, self.level, self.opcode]);
        bytes.extend_from_slice(&self.task.to_le_bytes());
        bytes.extend_from_slice(&self.keywords.to_le_bytes());
        bytes.extend_from_slice(&0_u64.to_le_bytes());
        bytes.extend_from_slice(&self.activity_id.to_bytes_le());
        for (number, (kind, data)) in self.items.iter().enumerate() {
            let size = (8 + data.len()).next_multiple_of(8);
            let linkage = u16::from(number + 1 < self.items.len());
            for field in [size as u16, *kind, linkage, data.len() as u16] {
                bytes.extend_from_slice(&field.to_le_bytes());
            }
            let end = bytes.len() - 8 + size;
            bytes.extend_from_slice(data);
            bytes.resize(end, 0);
        }
        bytes
    }

    fn message_header(&self, raw_time: i64) -> Vec<u8> {
        let options = self.message_options;
        let mut bytes = vec![0, 0, 0, 0x90];
        bytes.extend_from_slice(&self.event_id.to_le_bytes());
        bytes.extend_from_slice(&options.to_le_bytes());
        if options & MESSAGE_SEQUENCE != 0 {
            bytes.extend_from_slice(&1_u32.to_le_bytes());
        }
        if options & MESSAGE_COMPONENT_ID != 0 {
            bytes.extend_from_slice(&7_u32.to_le_bytes());
        } else if options & MESSAGE_GUID != 0 {
            bytes.extend_from_slice(&self.provider.to_bytes_le());
        }
        if options & MESSAGE_TIME != 0 {
            bytes.extend_from_slice(&raw_time.to_le_bytes());
        }
        if options & MESSAGE_SYSTEM_INFO != 0 {
            bytes.extend_from_slice(&self.thread_id.to_le_bytes());
            bytes.extend_from_slice(&self.process_id.to_le_bytes());
        }
        bytes
    }
}
