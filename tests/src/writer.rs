//! A deterministic writer of event traces (`.etl`), for tests and the demo trace.
//!
//! It supports every clock, pointer size and kind of header, all three compression formats, and files that were not closed
//! or have wrapped around. The format follows the byte tables of `etwsieve-etl`, which real traces confirm. Its files have
//! not been opened on Windows.
//!
//! ```
//! use etwsieve_tests::writer::{EventSpec, TraceWriter, script_block};
//!
//! let mut writer = TraceWriter::new().processors(2);
//! writer.push(EventSpec::powershell(4104, script_block(1, 1, "Get-Date", "an id", None)).at(10).by(4711, 42));
//! let bytes = writer.build();
//! assert_eq!(bytes.len() % 65_536, 0);
//! ```

mod compress;
mod event;
mod event_log;
mod payload;

pub use compress::{lznt1, xpress, xpress_huffman};
pub use event::EventSpec;
pub use event_log::{Content, event_log};
pub use payload::{AmsiScan, ToUtf16, module_logging, script_block, script_block_marker};

use etwsieve_etl::{BUFFER_HEADER_LEN, ClockType, Compression, FileTime};

/// Length of the first buffer in a compressed trace, as in merged traces of Windows.
const COMPRESSED_FIRST_LEN: usize = 1024;
const TICKS_PER_SECOND: i128 = 10_000_000;

const FLAG_FLUSH_MARKER: u16 = 0x01;
const FLAG_EVENTS_LOST: u16 = 0x02;
const FLAG_PROCESSOR_INDEX: u16 = 0x20;
const FLAG_COMPRESSED: u16 = 0x40;
const TYPE_GENERIC: u16 = 0;
const TYPE_HEADER: u16 = 4;
const MODE_COMPRESSED: u32 = 0x0400_0000;

/// A trace that is being written.
#[derive(Clone, Debug)]
pub struct TraceWriter {
    /// Size of a buffer in bytes; in a compressed trace, its maximum size.
    pub buffer_len: u32,
    /// Number of processors in the header. Events may name others.
    pub processors: u32,
    /// Clock of the raw time stamps.
    pub clock: ClockType,
    /// Frequency of the performance counter, in Hz.
    pub perf_freq: i64,
    /// Speed of a processor in MHz, for the clock of CPU cycles.
    pub cpu_mhz: u32,
    /// Size of a pointer, 4 or 8 bytes, which determines the layout of the log file header.
    pub pointer_size: u32,
    /// Start of the session.
    pub start: FileTime,
    /// Raw time stamp of the start; not used with the clock of system time.
    pub raw_start: i64,
    /// `LogFileMode`, without the bit for compression.
    pub log_file_mode: u32,
    /// Format of the buffers.
    pub compression: Option<Compression>,
    /// Omits the count of buffers and the end time, as after a crash.
    pub is_never_closed: bool,
    /// Number of buffers of zeros at the end.
    pub empty_buffers: usize,
    /// Number of places by which the buffers after the first are rotated, as in a circular file.
    pub rotation: usize,
    /// Number of lost events in the header, to which events that do not fit into a buffer are added.
    pub events_lost: u32,
    /// Number of lost buffers in the header.
    pub buffers_lost: u32,
    /// Name of the session.
    pub logger_name: String,
    /// Name of the file.
    pub log_file_name: String,
    events: Vec<EventSpec>,
}

impl Default for TraceWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl TraceWriter {
    /// Creates an uncompressed 64-bit trace of one processor with buffers of 64 KiB and a performance counter of 10 MHz.
    pub fn new() -> Self {
        Self {
            buffer_len: 65_536,
            processors: 1,
            clock: ClockType::PerformanceCounter,
            perf_freq: 10_000_000,
            cpu_mhz: 3_000,
            pointer_size: 8,
            start: FileTime(133_500_000_000_000_000),
            raw_start: 12_345_678_901,
            log_file_mode: 1,
            compression: None,
            is_never_closed: false,
            empty_buffers: 0,
            rotation: 0,
            events_lost: 0,
            buffers_lost: 0,
            logger_name: "etwsieve".to_owned(),
            log_file_name: "C:\\etwsieve.etl".to_owned(),
            events: Vec::new(),
        }
    }

    /// Sets the size of a buffer in bytes.
    #[must_use]
    pub fn buffer_len(mut self, len: u32) -> Self {
        self.buffer_len = len;
        self
    }

    /// Sets the number of processors in the header.
    #[must_use]
    pub fn processors(mut self, count: u32) -> Self {
        self.processors = count;
        self
    }

    /// Sets the clock and its frequency: in Hz for the performance counter, in MHz for a processor.
    #[must_use]
    pub fn clock(mut self, clock: ClockType, frequency: u32) -> Self {
        self.clock = clock;
        match clock {
            ClockType::CpuCycles => self.cpu_mhz = frequency,
            _ => self.perf_freq = i64::from(frequency),
        }
        self
    }

    /// Sets the size of a pointer in bytes.
    #[must_use]
    pub fn pointer_size(mut self, size: u32) -> Self {
        self.pointer_size = size;
        self
    }

    /// Compresses the buffers.
    #[must_use]
    pub fn compressed(mut self, format: Compression) -> Self {
        self.compression = Some(format);
        self
    }

    /// Leaves the file unclosed, as after a crash, with `empty_buffers` reserved at the end.
    #[must_use]
    pub fn never_closed(mut self, empty_buffers: usize) -> Self {
        self.is_never_closed = true;
        self.empty_buffers = empty_buffers;
        self
    }

    /// Rotates the buffers after the first by `places`, as in a circular file that has wrapped around.
    #[must_use]
    pub fn rotated(mut self, places: usize) -> Self {
        self.rotation = places;
        self.log_file_mode = 2;
        self
    }

    /// Adds an event. The events of a processor are stored in the order in which they are added.
    pub fn push(&mut self, event: EventSpec) {
        self.events.push(event);
    }

    /// Returns the events added so far.
    pub fn events(&self) -> &[EventSpec] {
        &self.events
    }

    /// Returns the ticks per second of the clock.
    fn hz(&self) -> i128 {
        match self.clock {
            ClockType::SystemTime => TICKS_PER_SECOND,
            ClockType::CpuCycles => i128::from(self.cpu_mhz) * 1_000_000,
            ClockType::PerformanceCounter | ClockType::Other(_) => i128::from(self.perf_freq),
        }
    }

    /// Returns the raw time stamp of the start.
    pub fn first_raw_time(&self) -> i64 {
        if self.clock == ClockType::SystemTime { self.start.0 as i64 } else { self.raw_start }
    }

    /// Returns the raw time stamp `ticks` of 100 ns after the start, rounded up, so that converting it back gives the same
    /// tick or, with a slower clock, a later one.
    pub fn raw_time(&self, ticks: u64) -> i64 {
        let product = i128::from(ticks) * self.hz();
        let raw =
            product.div_euclid(TICKS_PER_SECOND) + i128::from(product.rem_euclid(TICKS_PER_SECOND) != 0);
        self.first_raw_time().saturating_add(i64::try_from(raw).unwrap_or(i64::MAX))
    }

    /// Returns the raw time stamp of an event of this trace.
    pub fn raw_time_of(&self, event: &EventSpec) -> i64 {
        event.raw_time.unwrap_or_else(|| self.raw_time(event.ticks))
    }

    /// Returns the bytes of the trace.
    pub fn build(&self) -> Vec<u8> {
        let room = self.buffer_len as usize - BUFFER_HEADER_LEN;
        let mut buffers = Vec::new();
        let mut open: Vec<OpenBuffer> = Vec::new();
        let mut too_large = 0;
        let mut last = self.first_raw_time();
        for event in &self.events {
            let raw_time = self.raw_time_of(event);
            last = last.max(raw_time);
            let record = event.encode(raw_time);
            let padded_len = record.len().next_multiple_of(8);
            if record.len() > usize::from(u16::MAX) || padded_len > room {
                too_large += 1;
                continue;
            }
            let at =
                open.iter().position(|buffer| buffer.processor == event.processor).unwrap_or_else(|| {
                    open.push(OpenBuffer::new(event.processor));
                    open.len() - 1
                });
            let buffer = &mut open[at];
            if buffer.data.len() + padded_len > room {
                buffers.push(std::mem::replace(buffer, OpenBuffer::new(event.processor)));
            }
            let end = buffer.data.len() + padded_len;
            buffer.data.extend_from_slice(&record);
            buffer.data.resize(end, 0);
            buffer.last = buffer.last.max(raw_time);
        }
        open.sort_by_key(|buffer| buffer.processor);
        buffers.append(&mut open);

        let events_lost = self.events_lost + too_large;
        let mut stored: Vec<Vec<u8>> = Vec::new();
        for (number, buffer) in buffers.iter().enumerate() {
            let mut flags = FLAG_PROCESSOR_INDEX;
            if number + 1 == buffers.len() {
                flags |= FLAG_FLUSH_MARKER;
                flags |= if events_lost > 0 { FLAG_EVENTS_LOST } else { 0 };
            }
            stored.push(self.buffer(buffer, number as i64 + 1, flags));
        }
        let places = self.rotation % stored.len().max(1);
        stored.rotate_left(places);
        let mut bytes = self.first_buffer(stored.len() as u32 + 1, events_lost, last);
        bytes.extend(stored.into_iter().flatten());
        bytes.resize(bytes.len() + self.empty_buffers * self.buffer_len as usize, 0);
        bytes
    }

    fn buffer(&self, buffer: &OpenBuffer, sequence: i64, flags: u16) -> Vec<u8> {
        let filled = BUFFER_HEADER_LEN + buffer.data.len();
        let header =
            BufferFields { filled, flushed: buffer.last, sequence, processor: buffer.processor, flags };
        let Some(format) = self.compression else {
            let mut bytes = header.encode(self.buffer_len as usize, TYPE_GENERIC);
            bytes.extend_from_slice(&buffer.data);
            bytes.resize(self.buffer_len as usize, 0xff);
            return bytes;
        };
        let data = match format {
            Compression::Xpress => xpress(&buffer.data),
            Compression::Lznt1 => lznt1(&buffer.data),
            Compression::XpressHuffman => xpress_huffman(&buffer.data),
        };
        let header = BufferFields { flags: flags | FLAG_COMPRESSED, ..header };
        let mut bytes = header.encode(BUFFER_HEADER_LEN + data.len(), TYPE_GENERIC);
        bytes.extend_from_slice(&data);
        bytes
    }

    /// Returns the first buffer: the log file header and the event that Windows writes after it.
    fn first_buffer(&self, buffers: u32, events_lost: u32, last: i64) -> Vec<u8> {
        let raw_start = self.first_raw_time();
        let mut data = self.log_file_header(buffers, events_lost, last).encode(raw_start);
        data.resize(data.len().next_multiple_of(8), 0);
        data.extend_from_slice(&EventSpec::system(0x50).by(4, 4).payload(vec![0; 0x30]).encode(raw_start));
        let filled = BUFFER_HEADER_LEN + data.len();
        let flags = FLAG_FLUSH_MARKER | FLAG_PROCESSOR_INDEX;
        let len = match self.compression {
            Some(_) => COMPRESSED_FIRST_LEN.max(filled),
            None => (self.buffer_len as usize).max(filled),
        };
        let header = BufferFields { filled, flushed: 0, sequence: 0, processor: 0, flags };
        let mut bytes = header.encode(len, TYPE_HEADER);
        bytes.extend_from_slice(&data);
        bytes.resize(len, 0xff);
        bytes
    }

    fn log_file_header(&self, buffers: u32, events_lost: u32, last: i64) -> EventSpec {
        let is_compressed = self.compression.is_some();
        let since = i128::from(last) - i128::from(self.first_raw_time());
        let end = i128::from(self.start.0) + since * TICKS_PER_SECOND / self.hz().max(1) + 1;
        let (end, buffers) = if self.is_never_closed { (0, 0) } else { (end.max(0) as u64, buffers) };
        let clock: u32 = match self.clock {
            ClockType::PerformanceCounter => 1,
            ClockType::SystemTime => 2,
            ClockType::CpuCycles => 3,
            ClockType::Other(value) => value,
        };
        let mut body = Vec::new();
        let mut put = |bytes: &[u8]| body.extend_from_slice(bytes);
        put(&self.buffer_len.to_le_bytes());
        put(&if is_compressed { [10, 0, 2, 0] } else { [10, 0, 1, 5] });
        put(&19_045_u32.to_le_bytes());
        put(&self.processors.to_le_bytes());
        put(&end.to_le_bytes());
        put(&156_250_u32.to_le_bytes());
        put(&0_u32.to_le_bytes());
        put(&(self.log_file_mode | if is_compressed { MODE_COMPRESSED } else { 0 }).to_le_bytes());
        put(&buffers.to_le_bytes());
        put(&1_u32.to_le_bytes());
        put(&self.pointer_size.to_le_bytes());
        put(&events_lost.to_le_bytes());
        put(&self.cpu_mhz.to_le_bytes());
        put(&[0; 16][..2 * self.pointer_size.min(8) as usize]);
        put(&[0; 0xB0]);
        put(&(self.start.0 - 864_000_000_000).to_le_bytes());
        put(&self.perf_freq.to_le_bytes());
        put(&self.start.0.to_le_bytes());
        put(&clock.to_le_bytes());
        put(&self.buffers_lost.to_le_bytes());
        for name in [&self.logger_name, &self.log_file_name] {
            put(&payload::wide(name.as_str()));
        }
        let event = if self.pointer_size == 4 { EventSpec::system_32(0) } else { EventSpec::system(0) };
        event.by(4, 4).payload(body)
    }
}

/// A buffer that is being filled.
#[derive(Clone, Debug)]
struct OpenBuffer {
    processor: u16,
    data: Vec<u8>,
    last: i64,
}

impl OpenBuffer {
    fn new(processor: u16) -> Self {
        Self { processor, data: Vec::new(), last: i64::MIN }
    }
}

/// The fields of a buffer's header that differ from buffer to buffer.
struct BufferFields {
    filled: usize,
    flushed: i64,
    sequence: i64,
    processor: u16,
    flags: u16,
}

impl BufferFields {
    fn encode(&self, len: usize, kind: u16) -> Vec<u8> {
        let filled = (self.filled as u32).to_le_bytes();
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(&(len as u32).to_le_bytes());
        bytes.extend_from_slice(&filled);
        bytes.extend_from_slice(&filled);
        bytes.extend_from_slice(&0_u32.to_le_bytes());
        bytes.extend_from_slice(&self.flushed.to_le_bytes());
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&0_u64.to_le_bytes());
        bytes.extend_from_slice(&self.processor.to_le_bytes());
        bytes.extend_from_slice(&0x21_u16.to_le_bytes());
        bytes.extend_from_slice(&3_u32.to_le_bytes());
        bytes.extend_from_slice(&filled);
        bytes.extend_from_slice(&self.flags.to_le_bytes());
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&[0; 16]);
        bytes
    }
}
