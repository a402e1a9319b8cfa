//! Structs to bytes and back: everything this project knows of bincode.
//!
//! bincode 1.3.3 with fixed-width integers, little-endian. Its rules, which `docs/wire.md` repeats: integers
//! as they are; `Option` one byte (0, 1) and then the value; enum variant `u32`; string, byte string and list
//! a `u64` length (bytes, bytes, entries) and then the contents; structs and arrays their parts, nothing
//! between them. There is one encoding per value: what decodes encodes to the same bytes.
//!
//! Decoding is only ever done on slices: a string's or text's length is compared with what is left of the
//! slice, and a list's with its maximum, before either is allocated, so that decoding never holds more than a
//! few times the bytes it was given. bincode's limit counts what has been read; it does not keep serde from
//! reserving up to 1 MiB for each list that merely claims to be long, which is why lists decode through
//! `hit/bounded.rs`.

use crate::hit::{HitLimitError, HitV1};
use crate::wire::DataV1;
use crate::wire::frame::PAYLOAD_LEN_MAX;
use crate::wire::message::{MESSAGE_LEN_MAX, Message, MessageError};
use bincode::{DefaultOptions, ErrorKind, Options};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest encoded hit, in bytes: with the sequence number before it, it fills a frame.
pub const HIT_LEN_MAX: usize = PAYLOAD_LEN_MAX - size_of::<u64>();
/// Version of the structs in this file, as frames and stores write it beside the bytes.
pub const HIT_VERSION: u8 = 1;

/// Why a hit or a message cannot be encoded, or bytes are none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// To encode: a field exceeds its maximum.
    #[error(transparent)]
    Limit(#[from] HitLimitError),
    /// A message that breaks a rule, in either direction.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The whole exceeds the maximum. To encode, divide the rules over two hits of the same event.
    #[error("an encoded hit or message of more than {max} bytes")]
    TooLong {
        /// The most bytes there may be.
        max: usize,
    },
    /// To encode into a slice: it is too short.
    #[error("the hit needs {expected} bytes, the buffer has {found}")]
    BufferTooShort {
        /// Bytes of the encoded hit.
        expected: usize,
        /// Bytes of the buffer.
        found: usize,
    },
    /// To decode: the bytes end inside the struct.
    #[error("it ends early, after {len} bytes")]
    Truncated {
        /// Bytes there were.
        len: usize,
    },
    /// To decode: bytes that no encoder writes.
    #[error("{len} bytes do not decode: {detail}")]
    Invalid {
        /// Bytes there were.
        len: usize,
        /// What was expected and found.
        detail: String,
    },
}

fn options(len_max: usize) -> impl Options {
    DefaultOptions::new().with_fixint_encoding().with_limit(len_max as u64).reject_trailing_bytes()
}

/// Encodes a hit.
///
/// # Errors
///
/// [`CodecError::Limit`] and [`CodecError::TooLong`]: such a hit would not decode.
pub fn encode_hit(hit: &HitV1) -> Result<Vec<u8>, CodecError> {
    hit.check()?;
    let mut out = Vec::new();
    append(hit, HIT_LEN_MAX, &mut out)?;
    Ok(out)
}

/// Encodes a hit into the start of `out` and returns the number of bytes.
///
/// # Errors
///
/// As [`encode_hit`], and [`CodecError::BufferTooShort`]; nothing has been written then.
pub fn encode_hit_into(hit: &HitV1, out: &mut [u8]) -> Result<usize, CodecError> {
    let expected = encoded_hit_len(hit)?;
    let found = out.len();
    let part = out.get_mut(..expected).ok_or(CodecError::BufferTooShort { expected, found })?;
    options(HIT_LEN_MAX).serialize_into(part, hit).map_err(|error| refuse_encoding(*error, HIT_LEN_MAX))?;
    Ok(expected)
}

/// The number of bytes that [`encode_hit`] gives.
///
/// # Errors
///
/// As [`encode_hit`].
pub fn encoded_hit_len(hit: &HitV1) -> Result<usize, CodecError> {
    hit.check()?;
    let len =
        options(HIT_LEN_MAX).serialized_size(hit).map_err(|error| refuse_encoding(*error, HIT_LEN_MAX))?;
    Ok(len as usize)
}

/// Encodes a hit as if no rule had matched it: the same bytes for the same event, whatever the rules.
///
/// # Errors
///
/// As [`encode_hit`].
pub fn encode_event(hit: &HitV1) -> Result<Vec<u8>, CodecError> {
    let mut bytes = encode_hit(hit)?;
    let rules = options(HIT_LEN_MAX)
        .serialized_size(&hit.rules)
        .map_err(|error| refuse_encoding(*error, HIT_LEN_MAX))?;
    // The rules are the last field: cut them off and say that there are none.
    bytes.truncate(bytes.len() - rules as usize);
    bytes.extend_from_slice(&0u64.to_le_bytes());
    Ok(bytes)
}

/// Encodes what identifies the hit's event: as [`encode_event`], but without the source and the number in it, and of a
/// text that was cut only what does not depend on the rules, its length and hash.
///
/// # Errors
///
/// As [`encode_hit`].
pub fn encode_identity(hit: &HitV1) -> Result<Vec<u8>, CodecError> {
    if hit.cut.is_none() {
        return Ok(identity_parts(hit, &encode_event(hit)?).concat());
    }
    let mut whole = HitV1 { rules: Vec::new(), ..hit.clone() };
    whole.forget_pieces();
    Ok(identity_parts(hit, &encode_event(&whole)?).concat())
}

/// The parts of [`encode_identity`], where `event` is the encoded event of a hit whose text is not cut.
pub(crate) fn identity_parts<'e>(hit: &HitV1, event: &'e [u8]) -> [&'e [u8]; 3] {
    // The time, then the source (its length and its bytes), the number in the source, and the rest.
    const TIME_LEN: usize = size_of::<u64>();
    const NO_SOURCE: &[u8] = &[0; 2 * size_of::<u64>()];
    let rest = TIME_LEN + NO_SOURCE.len() + hit.source.len();
    [event.get(..TIME_LEN).unwrap_or_default(), NO_SOURCE, event.get(rest..).unwrap_or_default()]
}

/// Decodes a hit; `bytes` must be it and nothing more.
///
/// # Errors
///
/// [`CodecError::Truncated`], [`CodecError::TooLong`], [`CodecError::Invalid`].
pub fn decode_hit(bytes: &[u8]) -> Result<HitV1, CodecError> {
    decode(bytes, HIT_LEN_MAX)
}

pub(super) fn append_data(sequence: u64, hit: &HitV1, out: &mut Vec<u8>) -> Result<(), CodecError> {
    /// [`DataV1`], borrowed.
    #[derive(Serialize)]
    struct Data<'a> {
        sequence: u64,
        hit: &'a HitV1,
    }
    hit.check()?;
    append(&Data { sequence, hit }, PAYLOAD_LEN_MAX, out)
}

pub(super) fn decode_data(bytes: &[u8]) -> Result<DataV1, CodecError> {
    decode(bytes, PAYLOAD_LEN_MAX)
}

pub(super) fn append_message<M: Message>(message: &M, out: &mut Vec<u8>) -> Result<(), CodecError> {
    message.check()?;
    append(message, MESSAGE_LEN_MAX, out)
}

pub(super) fn decode_message<M: Message>(bytes: &[u8]) -> Result<M, CodecError> {
    let message: M = decode(bytes, MESSAGE_LEN_MAX)?;
    message.check()?;
    Ok(message)
}

fn append(value: &impl Serialize, len_max: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    options(len_max).serialize_into(out, value).map_err(|error| refuse_encoding(*error, len_max))
}

fn decode<T: DeserializeOwned>(bytes: &[u8], len_max: usize) -> Result<T, CodecError> {
    if bytes.len() > len_max {
        return Err(CodecError::TooLong { max: len_max });
    }
    options(len_max).deserialize(bytes).map_err(|error| refuse_decoding(*error, bytes.len()))
}

fn refuse_encoding(error: ErrorKind, max: usize) -> CodecError {
    match error {
        ErrorKind::SizeLimit => CodecError::TooLong { max },
        // Not reached: the writers have room, and no struct here refuses to be encoded.
        other => CodecError::Invalid { len: 0, detail: other.to_string() },
    }
}

fn refuse_decoding(error: ErrorKind, len: usize) -> CodecError {
    match error {
        // A length beyond the limit is a length beyond the slice, which is no longer than the limit.
        ErrorKind::SizeLimit => CodecError::Truncated { len },
        ErrorKind::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            CodecError::Truncated { len }
        }
        other => CodecError::Invalid { len, detail: other.to_string() },
    }
}
