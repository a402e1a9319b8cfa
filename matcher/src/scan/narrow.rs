//! UTF-16LE to one byte a unit, folded: the haystack of every ASCII search.
//!
//! A unit below U+0080 becomes its byte, capital letters their small ones; every other unit becomes
//! [`NOT_ASCII`], which no needle contains. So a needle of folded ASCII bytes stands in the narrowed text exactly
//! where it stands in the original, at even offsets only, whatever the case.

/// What a unit above U+007F becomes.
pub(crate) const NOT_ASCII: u8 = 0xFF;

/// Writes the narrowed form of `units` to `out`, replacing what it held.
///
/// Allocates only while `out` grows. The loop is plain so that the compiler turns it into vector code.
pub(crate) fn narrow(units: &[[u8; 2]], out: &mut Vec<u8>) {
    // No clearing: every byte is written below.
    out.resize(units.len(), 0);
    for (to, unit) in out.iter_mut().zip(units) {
        *to = narrow_unit(u16::from_le_bytes(*unit));
    }
}

#[inline]
pub(crate) fn narrow_unit(unit: u16) -> u8 {
    let byte = if unit < 0x80 { unit as u8 } else { NOT_ASCII };
    let capital = byte.wrapping_sub(b'A') < 26;
    byte | (u8::from(capital) << 5)
}

#[cfg(test)]
mod tests {
    use super::{NOT_ASCII, narrow, narrow_unit};

    #[test]
    fn every_unit() {
        for unit in 0..=u16::MAX {
            let expected = match u8::try_from(unit) {
                Ok(byte) if byte.is_ascii() => byte.to_ascii_lowercase(),
                _ => NOT_ASCII,
            };
            assert_eq!(narrow_unit(unit), expected, "{unit:#06x}");
        }
    }

    #[test]
    fn replaces_what_was_there() {
        let mut out = vec![1; 100];
        narrow(&[[b'A', 0], [b'A', 1], [0xE4, 0]], &mut out);
        assert_eq!(out, [b'a', NOT_ASCII, NOT_ASCII]);
    }
}
