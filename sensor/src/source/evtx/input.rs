//! Reads the numbers, names and values of BinXML with bounds checks.
//!
//! All offsets are relative to the start of the chunk. Nothing is copied.

use std::ops::Range;

/// Value types that the callers distinguish (MS-EVEN6 2.2.12, `ValueType`).
pub(super) mod kind {
    pub(crate) const NULL: u8 = 0x00;
    pub(crate) const TEXT: u8 = 0x01;
    pub(crate) const ANSI: u8 = 0x02;
    pub(crate) const I8: u8 = 0x03;
    pub(crate) const U8: u8 = 0x04;
    pub(crate) const I16: u8 = 0x05;
    pub(crate) const U16: u8 = 0x06;
    pub(crate) const I32: u8 = 0x07;
    pub(crate) const U32: u8 = 0x08;
    pub(crate) const I64: u8 = 0x09;
    pub(crate) const U64: u8 = 0x0A;
    pub(crate) const F32: u8 = 0x0B;
    pub(crate) const F64: u8 = 0x0C;
    pub(crate) const BOOL: u8 = 0x0D;
    pub(crate) const BINARY: u8 = 0x0E;
    pub(crate) const GUID: u8 = 0x0F;
    pub(crate) const FILETIME: u8 = 0x11;
    pub(crate) const SYSTEMTIME: u8 = 0x12;
    pub(crate) const SID: u8 = 0x13;
    pub(crate) const HEX32: u8 = 0x14;
    pub(crate) const HEX64: u8 = 0x15;
    pub(crate) const BINXML: u8 = 0x21;
}

/// A value as stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'c> {
    /// Type of the value: one of [`kind`], or another byte.
    pub(super) kind: u8,
    /// Bytes of the value; for text the UTF-16LE units without their count.
    pub(super) bytes: &'c [u8],
    /// Offset of the bytes in the chunk, for fragments.
    pub(super) at: usize,
}

/// The name of an element or attribute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'c>(&'c [u8]);

impl Name<'_> {
    /// Returns whether the name equals `ascii`.
    pub(super) fn is(&self, ascii: &str) -> bool {
        units_are(self.0, ascii)
    }
}

/// Returns whether UTF-16LE text equals `ascii`.
pub(super) fn units_are(utf16le: &[u8], ascii: &str) -> bool {
    utf16le.len() == 2 * ascii.len()
        && utf16le.as_chunks::<2>().0.iter().zip(ascii.bytes()).all(|(unit, byte)| *unit == [byte, 0])
}

/// Why the stream of a record is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} at byte {at:#x} of the chunk, found {found:#x}")]
pub(super) struct BinXmlError {
    at: usize,
    expected: &'static str,
    found: usize,
}

/// Reads a part of the chunk with bounds checks. Offsets are relative to the start of the chunk.
pub(super) struct Input<'c> {
    chunk: &'c [u8],
    pub(super) at: usize,
    end: usize,
}

impl<'c> Input<'c> {
    pub(super) fn new(chunk: &'c [u8], range: Range<usize>) -> Result<Self, BinXmlError> {
        if range.start > range.end || range.end > chunk.len() {
            return Err(BinXmlError {
                at: range.start,
                expected: "an offset in the chunk",
                found: range.end,
            });
        }
        Ok(Self { chunk, at: range.start, end: range.end })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.end
    }

    pub(super) fn unexpected(&self, expected: &'static str, found: usize) -> BinXmlError {
        BinXmlError { at: self.at, expected, found }
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'c [u8], BinXmlError> {
        let left = self.end - self.at;
        if len > left {
            return Err(self.unexpected("more bytes", left));
        }
        let bytes = &self.chunk[self.at..self.at + len];
        self.at += len;
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], BinXmlError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, BinXmlError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, BinXmlError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, BinXmlError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Reads a name by its offset, and skips the name if it is stored here.
    pub(super) fn name(&mut self) -> Result<Name<'c>, BinXmlError> {
        let offset = self.u32()? as usize;
        let mut table = Input::new(self.chunk, offset..self.chunk.len())?;
        table.take(6)?;
        let units = usize::from(table.u16()?);
        let name = Name(table.take(2 * units)?);
        table.take(2)?;
        if offset == self.at {
            self.take(table.at - offset)?;
        }
        Ok(name)
    }

    /// Reads UTF-16 text after a u16 with the number of its units.
    pub(super) fn text(&mut self) -> Result<Value<'c>, BinXmlError> {
        let units = self.u16()?;
        self.units(usize::from(units))
    }

    pub(super) fn units(&mut self, units: usize) -> Result<Value<'c>, BinXmlError> {
        let at = self.at;
        Ok(Value { kind: kind::TEXT, bytes: self.take(2 * units)?, at })
    }

    /// Reads a value in the stream: text, or a type with a fixed length.
    pub(super) fn value(&mut self) -> Result<Value<'c>, BinXmlError> {
        let found = self.u8()?;
        let len = match found {
            kind::TEXT => return self.text(),
            kind::NULL => 0,
            kind::I8 | kind::U8 => 1,
            kind::I16 | kind::U16 => 2,
            kind::I32 | kind::U32 | kind::F32 | kind::BOOL | kind::HEX32 => 4,
            kind::I64 | kind::U64 | kind::F64 | kind::FILETIME | kind::HEX64 => 8,
            kind::GUID | kind::SYSTEMTIME => 16,
            kind::SID => 8 + 4 * usize::from(self.chunk[..self.end].get(self.at + 1).copied().unwrap_or(0)),
            kind::BINXML => usize::from(self.u16()?),
            _ => return Err(self.unexpected("a value type of known length", usize::from(found))),
        };
        let at = self.at;
        Ok(Value { kind: found, bytes: self.take(len)?, at })
    }

    /// Reads one of the five entities that XML defines.
    pub(super) fn entity(&mut self) -> Result<Value<'c>, BinXmlError> {
        let name = self.name()?;
        let known: [(&str, &'static [u8]); 5] =
            [("amp", b"&\0"), ("lt", b"<\0"), ("gt", b">\0"), ("quot", b"\"\0"), ("apos", b"'\0")];
        let entity = known.iter().find(|(of, _)| name.is(of));
        let (_, bytes) = entity.ok_or_else(|| self.unexpected("an entity of XML", name.0.len()))?;
        Ok(Value { kind: kind::TEXT, bytes, at: 0 })
    }
}
