//! Narrowing: converts UTF-16LE to one folded byte per unit, the haystack of all ASCII searches.
//!
//! A unit below U+0080 becomes its byte, with letters in lower case; every other unit becomes [`NOT_ASCII`], which no
//! ASCII needle contains. A needle of folded ASCII bytes therefore occurs in the narrowed text exactly where it occurs
//! in the original, ignoring case, and only at even offsets.
//!
//! The loops are plain; the vector code compiles them again for wider vectors.

#![expect(
    clippy::inline_always,
    reason = "the loops must be compiled with the target features of their callers"
)]

#[cfg(target_arch = "x86_64")]
mod x86;

use crate::scan::kernel::Isa;
#[cfg(target_arch = "x86_64")]
use crate::scan::kernel::Kernel;

/// The byte for units above U+007F.
pub(crate) const NOT_ASCII: u8 = 0xFF;

/// The narrowed form of one event's text, made on first use.
#[derive(Debug, Default)]
pub(crate) struct Narrowed {
    bytes: Vec<u8>,
    is_made: bool,
}

impl Narrowed {
    /// Starts a new text.
    pub(crate) fn begin(&mut self) {
        self.is_made = false;
    }

    /// Drops the text and releases memory beyond this many units.
    pub(crate) fn shrink_to(&mut self, units: usize) {
        self.is_made = false;
        self.bytes.truncate(units);
        self.bytes.shrink_to(units);
    }

    /// Returns the narrowed form of the text, if it has been made.
    pub(crate) fn made(&self) -> Option<&[u8]> {
        self.is_made.then_some(&self.bytes[..])
    }

    /// Returns the narrowed form of `units`, which must not change until the next [`begin`](Self::begin).
    pub(crate) fn of(&mut self, units: &[[u8; 2]], isa: Isa) -> &[u8] {
        if !self.is_made {
            narrow(units, &mut self.bytes, isa);
            self.is_made = true;
        }
        &self.bytes
    }
}

/// Writes the narrowed form of `units` to `out`, replacing its contents. Allocates only while `out` grows.
pub(crate) fn narrow(units: &[[u8; 2]], out: &mut Vec<u8>, isa: Isa) {
    // No need to clear: every byte is written below.
    out.resize(units.len(), 0);
    match isa.kernel() {
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512 | Kernel::Avx2 => x86::narrow(units, out, isa),
        _ => narrow_plain(units, out),
    }
}

/// Writes the low byte of each unit to `out`, replacing its contents. Returns true if all units are ASCII.
pub(crate) fn low_bytes(units: &[[u8; 2]], out: &mut Vec<u8>, isa: Isa) -> bool {
    out.resize(units.len(), 0);
    match isa.kernel() {
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512 | Kernel::Avx2 => x86::low_bytes(units, out, isa),
        _ => low_bytes_plain(units, out),
    }
}

#[inline(always)]
pub(super) fn narrow_plain(units: &[[u8; 2]], out: &mut [u8]) {
    for (to, unit) in out.iter_mut().zip(units) {
        *to = narrow_unit(u16::from_le_bytes(*unit));
    }
}

#[inline(always)]
pub(super) fn low_bytes_plain(units: &[[u8; 2]], out: &mut [u8]) -> bool {
    let mut all = 0;
    for (to, unit) in out.iter_mut().zip(units) {
        let unit = u16::from_le_bytes(*unit);
        all |= unit;
        *to = unit as u8;
    }
    all < 0x80
}

#[inline(always)]
pub(crate) fn narrow_unit(unit: u16) -> u8 {
    let byte = if unit < 0x80 { unit as u8 } else { NOT_ASCII };
    let capital = byte.wrapping_sub(b'A') < 26;
    byte | (u8::from(capital) << 5)
}

#[cfg(test)]
mod tests {
    use super::{NOT_ASCII, low_bytes, narrow, narrow_unit};
    use crate::scan::kernel::{Isa, Kernel};
    use crate::scan::sample::every;

    #[test]
    fn every_unit_and_every_kernel() {
        let all = || every(0..=u16::MAX, 127);
        let units: Vec<[u8; 2]> = all().map(u16::to_le_bytes).collect();
        for kernel in Kernel::available() {
            let mut out = vec![1; 100];
            narrow(&units, &mut out, Isa::new(kernel));
            assert_eq!(out.len(), units.len());
            for (unit, &narrowed) in all().zip(&out) {
                let expected = match u8::try_from(unit) {
                    Ok(byte) if byte.is_ascii() => byte.to_ascii_lowercase(),
                    _ => NOT_ASCII,
                };
                assert_eq!((narrowed, narrow_unit(unit)), (expected, expected), "{kernel} {unit:#06x}");
            }
        }
    }

    #[test]
    fn every_length_and_alignment() {
        let text: Vec<u8> = "Enter-PSSession \u{212a}\u{e4} -ComputerName [x@`{Zz"
            .repeat(9)
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        for kernel in Kernel::available() {
            let isa = Isa::new(kernel);
            for start in every(0..70, 23) {
                for len in every(0..200, 37) {
                    let units = text[start..start + 2 * len].as_chunks().0;
                    let expected: Vec<u8> =
                        units.iter().map(|unit| narrow_unit(u16::from_le_bytes(*unit))).collect();
                    let mut out = Vec::new();
                    narrow(units, &mut out, isa);
                    assert_eq!(out, expected, "{kernel} {start} {len}");
                    let ascii = low_bytes(units, &mut out, isa);
                    assert_eq!(ascii, units.iter().all(|[low, high]| *low < 0x80 && *high == 0));
                    assert!(units.iter().zip(&out).all(|(unit, low)| unit[0] == *low));
                }
            }
        }
    }
}
