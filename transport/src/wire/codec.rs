//! Encoding and decoding of structs. No other file uses bincode.
//!
//! The encoding is that of bincode 1.3.3 with little-endian integers of fixed width. `docs/wire.md` repeats its rules:
//! an `Option` is one byte (0 or 1) and then the value; an enum variant is a `u32`; a string, byte string or list is a
//! `u64` length (in bytes, bytes or entries) and then its contents; structs and arrays are their parts without anything
//! between them. Every value has exactly one encoding: bytes that decode encode to the same bytes.
//!
//! Only slices are decoded. The length of a string or text is compared with the rest of the slice, and that of a list
//! with its maximum, before memory is allocated, so decoding needs no more than a few times the size of its input.
//! bincode's own limit counts bytes read; it does not stop serde from reserving up to 1 MiB for a list that merely
//! claims to be long. Lists are therefore decoded by `hit/bounded.rs`.

use crate::hit::{HitLimitError, HitV1};
use crate::wire::DataV1;
use crate::wire::frame::PAYLOAD_LEN_MAX;
use crate::wire::message::{MESSAGE_LEN_MAX, Message, MessageError};
use bincode::{DefaultOptions, ErrorKind, Options};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Maximum length of an encoded hit, in bytes. With its sequence number it fills a frame.
pub const HIT_LEN_MAX: usize = PAYLOAD_LEN_MAX - size_of::<u64>();
/// Version of the structs in this file, as written in frames and stores beside the bytes.
pub const HIT_VERSION: u8 = 1;

/// A hit or message cannot be encoded, or bytes do not decode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Encoding: a field exceeds its maximum.
    #[error(transparent)]
    Limit(#[from] HitLimitError),
    /// Encoding or decoding: a field of a message has an invalid value.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The hit or message is too long as a whole. When encoding a hit, divide its rules between two hits of the same
    /// event.
    #[error("the encoded hit or message exceeds {max} bytes")]
    TooLong {
        /// The maximum, in bytes.
        max: usize,
    },
    /// Encoding into a slice: the slice is too short.
    #[error("the hit needs {expected} bytes, the buffer has {found}")]
    BufferTooShort {
        /// Length of the encoded hit, in bytes.
        expected: usize,
        /// Length of the slice, in bytes.
        found: usize,
    },
    /// Decoding: the bytes end inside the struct.
    #[error("truncated after {len} bytes")]
    Truncated {
        /// Length of the input, in bytes.
        len: usize,
    },
    /// Decoding: no value is encoded as these bytes.
    #[error("invalid encoding of {len} bytes: {detail}")]
    Invalid {
        /// Length of the input, in bytes.
        len: usize,
        /// Expected and actual contents.
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
/// [`CodecError::Limit`] and [`CodecError::TooLong`]: the encoded hit would not decode.
pub fn encode_hit(hit: &HitV1) -> Result<Vec<u8>, CodecError> {
    hit.check()?;
    let mut out = Vec::new();
    append(hit, HIT_LEN_MAX, &mut out)?;
    Ok(out)
}

/// Encodes a hit into the start of `out` and returns its length in bytes.
///
/// # Errors
///
/// The same as for [`encode_hit`], and [`CodecError::BufferTooShort`]. Nothing is written then.
pub fn encode_hit_into(hit: &HitV1, out: &mut [u8]) -> Result<usize, CodecError> {
    let expected = encoded_hit_len(hit)?;
    let found = out.len();
    let part = out.get_mut(..expected).ok_or(CodecError::BufferTooShort { expected, found })?;
    options(HIT_LEN_MAX).serialize_into(part, hit).map_err(|error| refuse_encoding(*error, HIT_LEN_MAX))?;
    Ok(expected)
}

/// Returns the length of the encoded hit, in bytes.
///
/// # Errors
///
/// The same as for [`encode_hit`].
pub fn encoded_hit_len(hit: &HitV1) -> Result<usize, CodecError> {
    hit.check()?;
    let len =
        options(HIT_LEN_MAX).serialized_size(hit).map_err(|error| refuse_encoding(*error, HIT_LEN_MAX))?;
    Ok(len as usize)
}

/// Encodes a hit without its rules, so that the bytes depend on the event alone.
///
/// # Errors
///
/// The same as for [`encode_hit`].
pub fn encode_event(hit: &HitV1) -> Result<Vec<u8>, CodecError> {
    let mut bytes = encode_hit(hit)?;
    let rules = options(HIT_LEN_MAX)
        .serialized_size(&hit.rules)
        .map_err(|error| refuse_encoding(*error, HIT_LEN_MAX))?;
    // The rules are the last field. Replace them with an empty list.
    bytes.truncate(bytes.len() - rules as usize);
    bytes.extend_from_slice(&0u64.to_le_bytes());
    Ok(bytes)
}

/// Encodes the parts of a hit that identify its event: like [`encode_event`], but without the source and the number in
/// the source. Of a truncated text only the length and the hash are included, because the pieces depend on the rules.
///
/// # Errors
///
/// The same as for [`encode_hit`].
pub fn encode_identity(hit: &HitV1) -> Result<Vec<u8>, CodecError> {
    if hit.cut.is_none() {
        return Ok(identity_parts(hit, &encode_event(hit)?).concat());
    }
    let mut whole = HitV1 { rules: Vec::new(), ..hit.clone() };
    whole.forget_pieces();
    Ok(identity_parts(hit, &encode_event(&whole)?).concat())
}

/// Returns the parts of [`encode_identity`]. `event` is the encoded event of a hit whose text is not truncated.
pub(crate) fn identity_parts<'e>(hit: &HitV1, event: &'e [u8]) -> [&'e [u8]; 3] {
    // An encoded event starts with the time, the source (length and bytes) and the number in the source.
    const TIME_LEN: usize = size_of::<u64>();
    const NO_SOURCE: &[u8] = &[0; 2 * size_of::<u64>()];
    let rest = TIME_LEN + NO_SOURCE.len() + hit.source.len();
    [event.get(..TIME_LEN).unwrap_or_default(), NO_SOURCE, event.get(rest..).unwrap_or_default()]
}

/// Decodes a hit. `bytes` must contain the hit and nothing else.
///
/// # Errors
///
/// [`CodecError::Truncated`], [`CodecError::TooLong`], [`CodecError::Invalid`].
pub fn decode_hit(bytes: &[u8]) -> Result<HitV1, CodecError> {
    decode(bytes, HIT_LEN_MAX)
}

pub(super) fn append_data(sequence: u64, hit: &HitV1, out: &mut Vec<u8>) -> Result<(), CodecError> {
    /// [`DataV1`] with a borrowed hit.
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
        // Unreachable: the writers have room, and every struct here can be encoded.
        other => CodecError::Invalid { len: 0, detail: other.to_string() },
    }
}

fn refuse_decoding(error: ErrorKind, len: usize) -> CodecError {
    match error {
        // No input is longer than the limit, so a length beyond the limit is beyond the end of the input, too.
        ErrorKind::SizeLimit => CodecError::Truncated { len },
        ErrorKind::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            CodecError::Truncated { len }
        }
        other => CodecError::Invalid { len, detail: other.to_string() },
    }
}
