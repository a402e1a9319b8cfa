//! `TRACE_LOGFILE_HEADER`, the first event of a trace.
//!
//! The event has a 0x20-byte system header (hook id 0), and the offsets below start after it. If two are given, the
//! first is for the layout with 32-bit pointers (marker 0xC0010002), the second for that with 64-bit pointers
//! (0xC0020002).
//!
//! | offset | type | field |
//! |---|---|---|
//! | 00 | u32 | BufferSize in bytes; the maximum in compressed files |
//! | 04 | 4 u8 | OS major, minor; file format major, minor (1.5 since Windows 7, 2.0 compressed) |
//! | 08 | u32 | ProviderVersion: OS build |
//! | 0C | u32 | NumberOfProcessors |
//! | 10 | i64 | EndTime, FILETIME; 0 in a file that was not closed |
//! | 20 | u32 | LogFileMode |
//! | 24 | u32 | BuffersWritten; 0 in a file that was not closed |
//! | 2C | u32 | PointerSize |
//! | 30 | u32 | EventsLost |
//! | 34 | u32 | CpuSpeedInMHz |
//! | 40 / 48 | 0xAC | time zone |
//! | F0 / F8 | i64 | BootTime, FILETIME |
//! | F8 / 100 | i64 | PerfFreq in Hz |
//! | 100 / 108 | i64 | StartTime, FILETIME |
//! | 108 / 110 | u32 | ReservedFlags: the clock |
//! | 10C / 114 | u32 | BuffersLost |
//! | 110 / 118 | UTF-16LE | logger name, file name, each with a final NUL |
//!
//! Source: `TRACE_LOGFILE_HEADER` in `evntrace.h`; Geoff Chappell, "TRACE_LOGFILE_HEADER"; recorded traces.

use crate::buffer::{BUFFER_HEADER_LEN, BUFFER_LEN_MAX, BufferHeader};
use crate::bytes::{i64_at, u8_at, u16_at, u32_at};
use crate::clock::{Clock, ClockType};
use crate::error::EtlError;
use etwsieve_event::FileTime;
use etwsieve_event::time::TICKS_PER_SECOND;

const MARKER_32: u32 = 0xC001_0002;
const MARKER_64: u32 = 0xC002_0002;
const SYSTEM_HEADER_LEN: usize = 0x20;
/// Length up to the names in the 32-bit layout; the 64-bit layout has 8 bytes more.
const LOGFILE_HEADER_32_LEN: usize = 0x110;
/// Offset at which the layouts begin to differ.
const POINTERS_AT: usize = 0x38;

const MODE_CIRCULAR: u32 = 0x0002;
const MODE_PREALLOCATE: u32 = 0x0020;
const MODE_COMPRESSED: u32 = 0x0400_0000;

/// The header of a trace, and the counts of its buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceInfo {
    /// Version of the recording system, major and minor: (10, 0) for Windows 10 and 11.
    pub os_version: (u8, u8),
    /// Build of the recording system.
    pub os_build: u32,
    /// Version of the file format, major and minor: (1, 5) since Windows 7, (2, 0) for compressed files.
    pub file_version: (u8, u8),
    /// Clock of the raw time stamps, with its frequency.
    pub clock: Clock,
    /// Frequency of the performance counter in Hz, also if another clock is used.
    pub perf_freq: i64,
    /// Speed of a processor in MHz.
    pub cpu_mhz: u32,
    /// Number of processors of the recording system.
    pub processors: u32,
    /// Size of a pointer in bytes, 4 or 8. Not validated.
    pub pointer_size: u32,
    /// When the session started.
    pub start: Option<FileTime>,
    /// When the session ended; in merged files some seconds before the last event. `None` if the file was not closed.
    pub end: Option<FileTime>,
    /// When the system booted, accurate to about half a second.
    pub boot: Option<FileTime>,
    /// `LogFileMode`: 1 sequential, 2 circular, 4 append, 8 new file, 0x04000000 compressed, ...
    pub log_file_mode: u32,
    /// Size of a buffer in bytes; in a compressed file the maximum decompressed size.
    pub buffer_size: u32,
    /// Number of buffers according to the header; 0 if the file was not closed.
    pub buffers_written: u32,
    /// Events that the session lost.
    pub events_lost: u32,
    /// Buffers that the session lost.
    pub buffers_lost: u32,
    /// Name of the session.
    pub logger_name: String,
    /// Name of the file when it was recorded.
    pub log_file_name: String,
    /// Number of buffers in the file, including the first one.
    pub buffers_found: u64,
    /// Number of compressed buffers.
    pub buffers_compressed: u64,
    /// Number of buffers whose header states that events or a buffer were lost before them.
    pub buffers_marking_loss: u64,
    /// Number of zeros at the end of the file, reserved for buffers that were never written.
    pub unused_bytes: u64,
}

impl TraceInfo {
    /// Returns whether the session never closed the file, because the system crashed or the session is still running.
    pub fn is_never_closed(&self) -> bool {
        self.end.is_none() || self.buffers_written == 0
    }

    /// Returns the maximum decompressed size of a buffer in bytes, including its header.
    pub(crate) fn filled_max(&self) -> u32 {
        if BufferHeader::is_size_valid(self.buffer_size) { self.buffer_size } else { BUFFER_LEN_MAX }
    }

    /// Returns whether buffers are compressed and therefore of any size.
    pub(crate) fn is_compressed(&self) -> bool {
        self.log_file_mode & MODE_COMPRESSED != 0
    }

    /// Returns whether zeros at the end of the file may be reserved space.
    pub(crate) fn may_end_unused(&self) -> bool {
        self.is_never_closed() || self.log_file_mode & (MODE_CIRCULAR | MODE_PREALLOCATE) != 0
    }

    /// Reads the log file header at the start of a file.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, EtlError> {
        let marker = u32_at(bytes, BUFFER_HEADER_LEN);
        let pointers_len = match marker {
            Some(MARKER_32) | None => 0,
            Some(MARKER_64) => 8,
            Some(found) => return Err(EtlError::NotATrace { offset: BUFFER_HEADER_LEN as u64, found }),
        };
        let names_at = LOGFILE_HEADER_32_LEN + pointers_len;
        let event_len_min = SYSTEM_HEADER_LEN + names_at;
        let cut = |found: usize| EtlError::HeaderCut {
            expected: (BUFFER_HEADER_LEN + event_len_min) as u64,
            found: found as u64,
        };
        let event = bytes.get(BUFFER_HEADER_LEN..).unwrap_or_default();
        if event.len() < event_len_min {
            return Err(cut(bytes.len()));
        }
        let (size, hook_id) = (u16_at(event, 4).unwrap_or(0), u16_at(event, 6).unwrap_or(0));
        if hook_id != 0 {
            let found = marker.unwrap_or(0);
            return Err(EtlError::NotATrace { offset: BUFFER_HEADER_LEN as u64, found });
        }
        if usize::from(size) < event_len_min {
            return Err(cut(BUFFER_HEADER_LEN + usize::from(size)));
        }
        let event = &event[..usize::from(size).min(event.len())];
        let raw_start = i64_at(event, 0x10).unwrap_or(0);
        let header = event.get(SYSTEM_HEADER_LEN..).unwrap_or_default();
        Ok(Self::from_header(&Fields { header, pointers_len }, raw_start, names_at))
    }

    fn from_header(fields: &Fields<'_>, raw_start: i64, names_at: usize) -> Self {
        let time = |at| Some(fields.i64(at)).filter(|ticks| *ticks > 0).map(|ticks| FileTime(ticks as u64));
        let (start, cpu_mhz, perf_freq) = (time(0x100), fields.u32(0x34), fields.i64(0xF8));
        let kind = ClockType::new(fields.u32(0x108));
        let hz = match kind {
            ClockType::SystemTime => TICKS_PER_SECOND,
            ClockType::CpuCycles => u64::from(cpu_mhz) * 1_000_000,
            ClockType::PerformanceCounter | ClockType::Other(_) => u64::try_from(perf_freq).unwrap_or(0),
        };
        let (logger_name, rest) = wide_string(fields.header.get(names_at..).unwrap_or_default());
        let (log_file_name, _) = wide_string(rest);
        Self {
            os_version: (fields.u8(0x04), fields.u8(0x05)),
            os_build: fields.u32(0x08),
            file_version: (fields.u8(0x06), fields.u8(0x07)),
            clock: Clock { kind, hz, start: start.unwrap_or_default(), raw_start },
            perf_freq,
            cpu_mhz,
            processors: fields.u32(0x0C),
            pointer_size: fields.u32(0x2C),
            start,
            end: time(0x10),
            boot: time(0xF0),
            log_file_mode: fields.u32(0x20),
            buffer_size: fields.u32(0x00),
            buffers_written: fields.u32(0x24),
            events_lost: fields.u32(0x30),
            buffers_lost: fields.u32(0x10C),
            logger_name,
            log_file_name,
            buffers_found: 0,
            buffers_compressed: 0,
            buffers_marking_loss: 0,
            unused_bytes: 0,
        }
    }
}

/// Reads fields by their offsets in the 32-bit layout. The length of the header has been checked.
struct Fields<'a> {
    header: &'a [u8],
    pointers_len: usize,
}

impl Fields<'_> {
    fn at(&self, offset: usize) -> usize {
        if offset < POINTERS_AT { offset } else { offset + self.pointers_len }
    }

    fn u8(&self, offset: usize) -> u8 {
        u8_at(self.header, self.at(offset)).unwrap_or(0)
    }

    fn u32(&self, offset: usize) -> u32 {
        u32_at(self.header, self.at(offset)).unwrap_or(0)
    }

    fn i64(&self, offset: usize) -> i64 {
        i64_at(self.header, self.at(offset)).unwrap_or(0)
    }
}

/// Returns the UTF-16LE string at the start of `bytes`, and the bytes after its NUL. Without a NUL it ends with
/// `bytes`.
fn wide_string(bytes: &[u8]) -> (String, &[u8]) {
    let (units, _) = bytes.as_chunks();
    let len = units.iter().position(|unit| *unit == [0, 0]).unwrap_or(units.len());
    let text = char::decode_utf16(units[..len].iter().map(|unit| u16::from_le_bytes(*unit)));
    let text = text.map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    (text, bytes.get(2 * len + 2..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{TraceInfo, wide_string};
    use crate::EtlError;

    #[test]
    fn strings_end_at_a_nul_or_with_the_bytes() {
        let rows: [(&[u8], &str, &[u8]); 4] = [
            (b"a\0\0\0b\0", "a", b"b\0"),
            (b"a\0b\0", "ab", b""),
            (b"\0", "", b""),
            (b"\x00\xd8a\0\0\0", "\u{fffd}a", b""),
        ];
        for (bytes, text, rest) in rows {
            assert_eq!(wide_string(bytes), (text.to_owned(), rest), "{bytes:?}");
        }
    }

    #[test]
    fn files_that_are_not_traces_are_rejected() {
        let mut bytes = vec![0; 0x400];
        assert!(matches!(TraceInfo::read(&bytes), Err(EtlError::NotATrace { found: 0, .. })));
        bytes[0x48..0x4c].copy_from_slice(&0xC002_0002_u32.to_le_bytes());
        assert!(matches!(TraceInfo::read(&bytes), Err(EtlError::HeaderCut { found: 0x48, .. })), "size 0");
        bytes[0x4e] = 5;
        assert!(matches!(TraceInfo::read(&bytes), Err(EtlError::NotATrace { .. })), "another hook id");
        assert!(matches!(TraceInfo::read(&bytes[..0x100]), Err(EtlError::HeaderCut { found: 0x100, .. })));
        assert!(matches!(TraceInfo::read(&[]), Err(EtlError::HeaderCut { found: 0, .. })));
    }
}
