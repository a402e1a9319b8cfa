//! The frame, which delimits a message on a connection and protects it with a checksum.
//!
//! | offset | type | field |
//! |---|---|---|
//! | 0 | u32 | magic, the bytes `ETWS` |
//! | 4 | u8 | version of the structs in the payload, 1 |
//! | 5 | u8 | type, see [`FrameType`] |
//! | 6 | u16 | flags, 0 |
//! | 8 | u32 | length of the payload in bytes, at most [`PAYLOAD_LEN_MAX`] |
//! | 12 | u32 | CRC-32 of bytes 0 to 11 and of the payload |
//! | 16 | | payload |
//!
//! All integers are little-endian. The CRC is that of zlib and Ethernet (reflected polynomial 0xEDB88320, initial and
//! final exclusive-or 0xFFFFFFFF; `123456789` gives 0xCBF43926). Layout and CRC are the same in every version, so that
//! a receiver can distinguish an unknown version from damage.

use crc32fast::Hasher;

/// The first four bytes of a frame, `ETWS`, as a little-endian integer.
pub const MAGIC: u32 = u32::from_le_bytes(*b"ETWS");
/// Version of the structs in payloads.
pub const VERSION: u8 = 1;
/// Length of the header, in bytes.
pub const HEADER_LEN: usize = 16;
/// Maximum length of a payload, in bytes.
pub const PAYLOAD_LEN_MAX: usize = 1024 * 1024;
/// Maximum length of a frame, in bytes.
pub const FRAME_LEN_MAX: usize = HEADER_LEN + PAYLOAD_LEN_MAX;

/// Offset of the type in a header.
pub(crate) const TYPE_AT: usize = 5;
/// Offset of the payload length in a header.
pub(crate) const LENGTH_AT: usize = 8;
const CRC_AT: usize = 12;

/// The type of a frame, which determines its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameType {
    /// The sensor introduces itself.
    Hello = 1,
    /// The collector answers a HELLO.
    Welcome = 2,
    /// A hit with its sequence number.
    Data = 3,
    /// Everything up to a sequence number is durable.
    Ack = 4,
    /// The collector accepts no more frames for a while.
    Busy = 5,
    /// A range of sequence numbers whose hits were dropped.
    Gap = 6,
    /// The sensor's loss counters and health.
    Status = 7,
    /// The collector can never store a frame.
    Refused = 8,
}

impl FrameType {
    /// All types in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Hello,
        Self::Welcome,
        Self::Data,
        Self::Ack,
        Self::Busy,
        Self::Gap,
        Self::Status,
        Self::Refused,
    ];

    /// Returns the type with this number on the wire.
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|known| *known as u8 == number)
    }
}

/// The bytes are not a valid frame. The stream cannot be resynchronised after any of these errors: close the
/// connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The stream does not carry frames.
    #[error("not a frame: magic {found:#010x}, expected {MAGIC:#010x}")]
    Magic {
        /// The first four bytes as a little-endian integer.
        found: u32,
    },
    /// The payload is longer than the receiver accepts.
    #[error("a payload of {len} bytes, expected at most {max}")]
    TooLong {
        /// Length of the payload, in bytes.
        len: usize,
        /// Maximum length for this type of frame, in bytes.
        max: usize,
    },
    /// The frame was damaged on its way.
    #[error("damaged frame: CRC-32 is {found:#010x}, the header has {expected:#010x}")]
    Crc {
        /// The CRC in the header.
        expected: u32,
        /// The CRC of the bytes.
        found: u32,
    },
    /// The frame is intact but has a version that was not agreed on.
    #[error("unsupported frame version {found}, expected {VERSION}")]
    Version {
        /// The version in the header.
        found: u8,
    },
    /// The frame is intact but this version has no such type.
    #[error("unknown frame type {found}")]
    Type {
        /// The type in the header.
        found: u8,
    },
    /// The frame is intact but this version defines no flags.
    #[error("unknown frame flags {found:#06x}, expected none")]
    Flags {
        /// The flags in the header.
        found: u16,
    },
}

/// The first frame of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split<'a> {
    /// Type of the frame.
    pub frame_type: FrameType,
    /// The payload, borrowed from the buffer.
    pub payload: &'a [u8],
    /// The bytes after the frame.
    pub rest: &'a [u8],
}

/// Splits the first frame off `input`.
///
/// Returns `None` while the frame is incomplete: call again with more bytes, at most [`FRAME_LEN_MAX`] in all. Magic
/// and length are checked as soon as the header is complete, then the CRC, and only then version, type and flags.
/// Allocates nothing.
///
/// # Errors
///
/// [`FrameError`]; close the connection.
pub fn split_frame(input: &[u8]) -> Result<Option<Split<'_>>, FrameError> {
    let Some((header, body)) = input.split_first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let [m0, m1, m2, m3, version, kind, f0, f1, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
    let magic = u32::from_le_bytes([m0, m1, m2, m3]);
    if magic != MAGIC {
        return Err(FrameError::Magic { found: magic });
    }
    let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if len > PAYLOAD_LEN_MAX {
        return Err(FrameError::TooLong { len, max: PAYLOAD_LEN_MAX });
    }
    let Some((payload, rest)) = body.split_at_checked(len) else {
        return Ok(None);
    };
    let expected = u32::from_le_bytes([c0, c1, c2, c3]);
    let found = crc(&header[..CRC_AT], payload);
    if found != expected {
        return Err(FrameError::Crc { expected, found });
    }
    if version != VERSION {
        return Err(FrameError::Version { found: version });
    }
    let frame_type = FrameType::from_u8(kind).ok_or(FrameError::Type { found: kind })?;
    let flags = u16::from_le_bytes([f0, f1]);
    if flags != 0 {
        return Err(FrameError::Flags { found: flags });
    }
    Ok(Some(Split { frame_type, payload, rest }))
}

/// Appends a frame to `out`.
///
/// # Errors
///
/// [`FrameError::TooLong`]; `out` is unchanged then.
pub fn encode_frame(frame_type: FrameType, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
    if payload.len() > PAYLOAD_LEN_MAX {
        return Err(FrameError::TooLong { len: payload.len(), max: PAYLOAD_LEN_MAX });
    }
    let start = out.len();
    out.resize(start + HEADER_LEN, 0);
    out.extend_from_slice(payload);
    write_header(frame_type, &mut out[start..]);
    Ok(())
}

/// Fills in the first [`HEADER_LEN`] bytes of `frame`. The rest is the payload, whose length the caller has checked.
pub(super) fn write_header(frame_type: FrameType, frame: &mut [u8]) {
    let Some((header, payload)) = frame.split_first_chunk_mut::<HEADER_LEN>() else {
        return;
    };
    header[..4].copy_from_slice(&MAGIC.to_le_bytes());
    header[4..LENGTH_AT].copy_from_slice(&[VERSION, frame_type as u8, 0, 0]);
    header[LENGTH_AT..CRC_AT].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    let crc = crc(&header[..CRC_AT], payload);
    header[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
}

fn crc(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(header);
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a frame with the given header fields and a correct CRC.
    fn sealed(version: u8, kind: u8, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_le_bytes().to_vec();
        bytes.extend([version, kind]);
        bytes.extend(flags.to_le_bytes());
        bytes.extend((payload.len() as u32).to_le_bytes());
        bytes.extend(crc(&bytes, payload).to_le_bytes());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn crc_is_the_documented_one() {
        assert_eq!(crc(b"12345", b"6789"), 0xCBF4_3926);
    }

    #[test]
    fn every_type_goes_out_and_comes_back() {
        for frame_type in FrameType::ALL {
            let mut bytes = Vec::new();
            encode_frame(frame_type, b"payload", &mut bytes).unwrap();
            assert_eq!(bytes, sealed(1, frame_type as u8, 0, b"payload"));
            bytes.extend(b"next");
            let split = split_frame(&bytes).unwrap().unwrap();
            assert_eq!(split, Split { frame_type, payload: b"payload", rest: b"next" });
        }
        assert_eq!(FrameType::ALL.map(|known| known as u8), [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    type Verdict = fn(&FrameError) -> bool;

    #[test]
    fn refusals_come_in_the_stated_order() {
        let long = |mut bytes: Vec<u8>| {
            bytes[8..12].copy_from_slice(&(PAYLOAD_LEN_MAX as u32 + 1).to_le_bytes());
            bytes
        };
        let broken = |mut bytes: Vec<u8>| {
            *bytes.last_mut().unwrap() ^= 1;
            bytes
        };
        let foreign = |mut bytes: Vec<u8>| {
            bytes[0] = b'G';
            bytes
        };
        let rows: [(&str, Vec<u8>, Verdict); 7] = [
            ("foreign and long", foreign(long(sealed(1, 3, 0, b"x"))), |e| {
                matches!(e, FrameError::Magic { .. })
            }),
            ("long and broken", long(broken(sealed(9, 99, 1, b"x"))), |e| {
                matches!(e, FrameError::TooLong { len: 1_048_577, .. })
            }),
            ("broken and unknown", broken(sealed(9, 99, 1, b"x")), |e| matches!(e, FrameError::Crc { .. })),
            ("version", sealed(2, 99, 1, b"x"), |e| matches!(e, FrameError::Version { found: 2 })),
            ("type 9", sealed(1, 9, 1, b"x"), |e| matches!(e, FrameError::Type { found: 9 })),
            ("type 0", sealed(1, 0, 0, b"x"), |e| matches!(e, FrameError::Type { found: 0 })),
            ("flags", sealed(1, 3, 1, b"x"), |e| matches!(e, FrameError::Flags { found: 1 })),
        ];
        for (name, bytes, verdict) in rows {
            let error = split_frame(&bytes).unwrap_err();
            assert!(verdict(&error), "{name}: {error}");
        }
    }

    #[test]
    fn the_longest_frame_passes_and_one_more_byte_does_not() {
        let mut bytes = Vec::new();
        encode_frame(FrameType::Status, &vec![7; PAYLOAD_LEN_MAX], &mut bytes).unwrap();
        assert_eq!(bytes.len(), FRAME_LEN_MAX);
        assert_eq!(split_frame(&bytes).unwrap().unwrap().payload.len(), PAYLOAD_LEN_MAX);
        let before = bytes.clone();
        let error = encode_frame(FrameType::Status, &vec![7; PAYLOAD_LEN_MAX + 1], &mut bytes).unwrap_err();
        assert_eq!(error, FrameError::TooLong { len: PAYLOAD_LEN_MAX + 1, max: PAYLOAD_LEN_MAX });
        assert_eq!(bytes, before);
    }
}
