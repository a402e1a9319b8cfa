//! `WMI_BUFFER_HEADER`, the header of every buffer.
//!
//! | offset | type | field | meaning in a file |
//! |---|---|---|---|
//! | 00 | u32 | BufferSize | bytes to the next buffer, this header included; compressed: the stored size |
//! | 04 | u32 | SavedOffset | end of the events; 0 or too small in some header buffers |
//! | 08 | u32 | CurrentOffset | write offset of the kernel, may exceed the buffer; not read |
//! | 10 | i64 | TimeStamp | when the buffer was flushed, raw clock; 0 in the first buffer |
//! | 18 | i64 | SequenceNumber | flush order within the session |
//! | 28 | u16 | ProcessorIndex | with flag 0x20; without it u8 processor number, u8 alignment |
//! | 2A | u16 | LoggerId | |
//! | 2C | u32 | State | 3 (flush) in all files |
//! | 30 | u32 | FilledBytes | end of the events from the start of the buffer; uncompressed when compressed |
//! | 34 | u16 | BufferFlag | 2 events lost, 4 buffer lost, 0x20 see above, 0x40 compressed |
//! | 36 | u16 | BufferType | 0 generic .. 4 header .. 7 debug info |
//!
//! Source: Geoff Chappell, "WMI_BUFFER_HEADER"; `ETW_BUFFER_HEADER` of the Windows SDK; recorded traces of Windows 7 to
//! 11. The other fields are reference counts and kernel addresses.

use crate::bytes::{i64_at, u16_at, u32_at};

/// Length of the header of a buffer. Events start after it.
pub const BUFFER_HEADER_LEN: usize = 0x48;
/// Maximum size of a buffer in bytes (`EVENT_TRACE_PROPERTIES.BufferSize` is at most 16 MiB).
pub const BUFFER_LEN_MAX: u32 = 16 << 20;

const FLAG_PROCESSOR_INDEX: u16 = 0x20;
const FLAG_COMPRESSED: u16 = 0x40;
const FLAGS_LOSS: u16 = 0x02 | 0x04;
const FLAGS_KNOWN: u16 = 0x7f;
const TYPE_MAX: u16 = 7;

/// The fields of a buffer header that are used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BufferHeader {
    /// `BufferSize`, not validated.
    pub(crate) size: u32,
    saved_offset: u32,
    /// Raw time stamp of the flush.
    pub(crate) flushed: i64,
    pub(crate) sequence: i64,
    pub(crate) processor: u16,
    pub(crate) logger_id: u16,
    filled_bytes: u32,
    flags: u16,
    kind: u16,
}

impl BufferHeader {
    /// Reads the header at the start of `bytes`; `None` if `bytes` is too short.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; BUFFER_HEADER_LEN] = bytes.first_chunk()?;
        let flags = u16_at(bytes, 0x34)?;
        let processor = u16_at(bytes, 0x28)?;
        Some(Self {
            size: u32_at(bytes, 0x00)?,
            saved_offset: u32_at(bytes, 0x04)?,
            flushed: i64_at(bytes, 0x10)?,
            sequence: i64_at(bytes, 0x18)?,
            processor: if flags & FLAG_PROCESSOR_INDEX == 0 { processor & 0xff } else { processor },
            logger_id: u16_at(bytes, 0x2a)?,
            filled_bytes: u32_at(bytes, 0x30)?,
            flags,
            kind: u16_at(bytes, 0x36)?,
        })
    }

    /// Returns the end of the events in bytes from the start of the buffer, not validated.
    ///
    /// Uses `FilledBytes`, because `SavedOffset` is 0 in header buffers of Windows 7, and too small if records were
    /// appended to a header buffer.
    pub(crate) fn filled(&self) -> u32 {
        if self.filled_bytes < BUFFER_HEADER_LEN as u32 { self.saved_offset } else { self.filled_bytes }
    }

    pub(crate) fn is_compressed(&self) -> bool {
        self.flags & FLAG_COMPRESSED != 0
    }

    /// Returns whether events or a buffer were lost before this one.
    pub(crate) fn marks_loss(&self) -> bool {
        self.flags & FLAGS_LOSS != 0
    }

    /// Returns whether a buffer can have this size.
    pub(crate) fn is_size_valid(size: u32) -> bool {
        (BUFFER_HEADER_LEN as u32..=BUFFER_LEN_MAX).contains(&size)
    }

    /// Returns whether the logger `logger_id` could have written all fields.
    pub(crate) fn is_plausible(&self, logger_id: u16, filled_max: u32) -> bool {
        Self::is_size_valid(self.size)
            && self.logger_id == logger_id
            && self.flags & !FLAGS_KNOWN == 0
            && self.kind <= TYPE_MAX
            && (BUFFER_HEADER_LEN as u32..=filled_max).contains(&self.filled())
            && (self.is_compressed() || self.filled() <= self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::{BUFFER_HEADER_LEN, BUFFER_LEN_MAX, BufferHeader};

    fn header(fields: &[(usize, &[u8])]) -> BufferHeader {
        let mut bytes = [0; BUFFER_HEADER_LEN];
        for (at, value) in fields {
            bytes[*at..*at + value.len()].copy_from_slice(value);
        }
        BufferHeader::read(&bytes).unwrap()
    }

    #[test]
    fn the_processor_number_has_two_layouts() {
        let old = header(&[(0x28, &[2, 8])]);
        assert_eq!(old.processor, 2, "number and alignment");
        let new = header(&[(0x28, &[2, 8]), (0x34, &[0x20, 0])]);
        assert_eq!(new.processor, 0x802, "16-bit index");
    }

    #[test]
    fn filled_bytes_take_precedence_over_saved_offset() {
        let both = header(&[(0x04, &[0xc8, 1]), (0x30, &[0x40, 2])]);
        assert_eq!(both.filled(), 0x240);
        let saved_only = header(&[(0x04, &[0xc8, 1])]);
        assert_eq!(saved_only.filled(), 0x1c8);
    }

    #[test]
    fn buffer_sizes_are_limited() {
        for (size, valid) in
            [(0, false), (0x47, false), (0x48, true), (BUFFER_LEN_MAX, true), (u32::MAX, false)]
        {
            assert_eq!(BufferHeader::is_size_valid(size), valid, "{size}");
        }
    }
}
