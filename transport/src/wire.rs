//! Hits and messages as bytes: [`frame`] carries them over a connection, [`message`] is what the two ends tell each
//! other, [`codec`] turns structs into bytes and back.
//!
//! The byte tables and the protocol are in `docs/wire.md`; the golden files in `tests/golden` hold them fast.
//! Everything is little-endian.

pub mod codec;
pub mod frame;
pub mod message;
pub mod stream;

use crate::hit::HitV1;
use codec::CodecError;
use frame::{FrameType, HEADER_LEN};
use message::Message;
use serde::{Deserialize, Serialize};

/// Payload of a DATA frame: one hit under its number in the sender's queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataV1 {
    /// Sequence number that the collector acknowledges; not the number of the event in its source.
    pub sequence: u64,
    /// The hit.
    pub hit: HitV1,
}

/// Appends a DATA frame to `out`.
///
/// # Errors
///
/// As [`codec::encode_hit`]; `out` is then as it was.
pub fn encode_data(sequence: u64, hit: &HitV1, out: &mut Vec<u8>) -> Result<(), CodecError> {
    sealed(FrameType::Data, out, |out| codec::append_data(sequence, hit, out))
}

/// Decodes the payload of a DATA frame, as [`frame::split_frame`] hands it out.
///
/// # Errors
///
/// As [`codec::decode_hit`].
pub fn decode_data(payload: &[u8]) -> Result<DataV1, CodecError> {
    codec::decode_data(payload)
}

/// Appends the frame of a message to `out`.
///
/// # Errors
///
/// [`CodecError::Message`] and [`CodecError::TooLong`]; `out` is then as it was.
pub fn encode_message<M: Message>(message: &M, out: &mut Vec<u8>) -> Result<(), CodecError> {
    sealed(M::TYPE, out, |out| codec::append_message(message, out))
}

/// Decodes the payload of a frame whose type is `M`'s.
///
/// # Errors
///
/// [`CodecError::Truncated`], [`CodecError::TooLong`], [`CodecError::Invalid`], [`CodecError::Message`].
pub fn decode_message<M: Message>(payload: &[u8]) -> Result<M, CodecError> {
    codec::decode_message(payload)
}

/// Appends a frame around what `payload` appends, or nothing.
fn sealed(
    frame_type: FrameType,
    out: &mut Vec<u8>,
    payload: impl FnOnce(&mut Vec<u8>) -> Result<(), CodecError>,
) -> Result<(), CodecError> {
    let start = out.len();
    out.resize(start + HEADER_LEN, 0);
    if let Err(error) = payload(out) {
        out.truncate(start);
        return Err(error);
    }
    let (_, frame) = out.split_at_mut(start);
    frame::write_header(frame_type, frame);
    Ok(())
}
