//! Security identifiers in the binary form that ETW delivers.

use std::fmt;

/// Maximum number of sub-authorities of a SID (`SID_MAX_SUB_AUTHORITIES`, `winnt.h`).
pub const SUB_AUTHORITIES_MAX: usize = 15;
/// Maximum length of a SID in bytes.
pub const SID_LEN_MAX: usize = 8 + 4 * SUB_AUTHORITIES_MAX;

/// A security identifier in its binary form. Never allocates.
///
/// | offset | type | field |
/// |---|---|---|
/// | 0 | u8 | revision, 1 |
/// | 1 | u8 | number of sub-authorities, at most 15 |
/// | 2 | u48, big-endian | identifier authority |
/// | 8 | u32, little-endian, repeated | sub-authorities |
///
/// Source: MS-DTYP 2.4.2.2. Displays as `S-1-5-21-…`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sid {
    len: u8,
    bytes: [u8; SID_LEN_MAX],
}

impl Sid {
    /// Reads a SID from the start of `bytes` and ignores the bytes after it.
    ///
    /// Returns `None` if the revision is not 1, if the SID has more than [`SUB_AUTHORITIES_MAX`] sub-authorities, or if
    /// `bytes` is too short.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let count = usize::from(*bytes.get(1)?);
        if bytes[0] != 1 || count > SUB_AUTHORITIES_MAX {
            return None;
        }
        let sid = bytes.get(..8 + 4 * count)?;
        let mut own = [0; SID_LEN_MAX];
        own[..sid.len()].copy_from_slice(sid);
        Some(Self { len: sid.len() as u8, bytes: own })
    }

    /// Parses the text form `S-1-…`, with a decimal or `0x` hexadecimal authority.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("S-1-").or_else(|| text.strip_prefix("s-1-"))?.split('-');
        let authority = parts.next()?;
        let authority = match authority.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok()?,
            None => authority.parse::<u64>().ok()?,
        };
        if authority >= 1 << 48 {
            return None;
        }
        let mut bytes = [0; SID_LEN_MAX];
        bytes[0] = 1;
        bytes[2..8].copy_from_slice(&authority.to_be_bytes()[2..]);
        let mut len = 8;
        for part in parts {
            let value: u32 = part.parse().ok()?;
            bytes.get_mut(len..len + 4)?.copy_from_slice(&value.to_le_bytes());
            len += 4;
        }
        bytes[1] = ((len - 8) / 4) as u8;
        Some(Self { len: len as u8, bytes })
    }

    /// Returns the binary form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut authority = [0; 8];
        authority[2..].copy_from_slice(&self.bytes[2..8]);
        write!(f, "S-1-{}", u64::from_be_bytes(authority))?;
        for part in self.as_bytes()[8..].as_chunks::<4>().0 {
            write!(f, "-{}", u32::from_le_bytes(*part))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::Sid;

    #[test]
    fn text_and_bytes_agree() {
        for text in [
            "S-1-0",
            "S-1-5-18",
            "S-1-5-21-4230534742-2542757381-3142984815-1111",
            "S-1-15-2-1-2-3-4-5-6-7-8-9-10-11-12-13-14",
        ] {
            let sid = Sid::parse(text).expect(text);
            assert_eq!(sid.to_string(), text);
            assert_eq!(Sid::from_bytes(sid.as_bytes()), Some(sid));
            assert_eq!(Sid::from_bytes(&sid.as_bytes()[..sid.as_bytes().len() - 1]), None, "{text} cut");
        }
    }

    #[test]
    fn malformed_sids_are_rejected() {
        for text in [
            "",
            "S-1-",
            "S-2-5-18",
            "S-1-5-4294967296",
            "S-1-5-x",
            "S-1-5-1-2-3-4-5-6-7-8-9-10-11-12-13-14-15-16",
            "S-1-281474976710656-1",
        ] {
            assert_eq!(Sid::parse(text), None, "{text}");
        }
        assert_eq!(Sid::from_bytes(&[2, 0, 0, 0, 0, 0, 0, 5]), None);
        assert_eq!(Sid::from_bytes(&[1, 16, 0, 0, 0, 0, 0, 5]), None);
    }
}
