//! The wire format of hits and messages: [`codec`] encodes structs, [`frame`] delimits them on a connection, and
//! [`message`] defines everything that sensor and collector exchange besides hits.
//!
//! `docs/wire.md` has the byte tables and the protocol, the golden files in `tests/golden` pin the bytes. All integers
//! are little-endian.

pub mod codec;
pub mod frame;
pub mod message;

use crate::hit::HitV1;
use codec::CodecError;
use frame::{FrameType, HEADER_LEN};
use message::Message;
use serde::{Deserialize, Serialize};

/// Payload of a DATA frame: a hit and its sequence number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataV1 {
    /// The number that the collector acknowledges; not the number of the event in its source.
    pub sequence: u64,
    /// The hit.
    pub hit: HitV1,
}

/// Appends a DATA frame to `out`.
///
/// # Errors
///
/// The same as for [`codec::encode_hit`]; `out` is unchanged then.
pub fn encode_data(sequence: u64, hit: &HitV1, out: &mut Vec<u8>) -> Result<(), CodecError> {
    sealed(FrameType::Data, out, |out| codec::append_data(sequence, hit, out))
}

/// Decodes the payload of a DATA frame that [`frame::split_frame`] returned.
///
/// # Errors
///
/// The same as for [`codec::decode_hit`].
pub fn decode_data(payload: &[u8]) -> Result<DataV1, CodecError> {
    codec::decode_data(payload)
}

/// Appends a message to `out` as a frame.
///
/// # Errors
///
/// [`CodecError::Message`] and [`CodecError::TooLong`]; `out` is unchanged then.
pub fn encode_message<M: Message>(message: &M, out: &mut Vec<u8>) -> Result<(), CodecError> {
    sealed(M::TYPE, out, |out| codec::append_message(message, out))
}

/// Decodes the payload of a frame of type `M::TYPE`.
///
/// # Errors
///
/// [`CodecError::Truncated`], [`CodecError::TooLong`], [`CodecError::Invalid`], [`CodecError::Message`].
pub fn decode_message<M: Message>(payload: &[u8]) -> Result<M, CodecError> {
    codec::decode_message(payload)
}

/// Appends a frame with the payload that `payload` appends. Leaves `out` unchanged on an error.
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
