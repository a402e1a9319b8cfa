//! Hits as bytes: [`frame`] carries them over a connection, [`codec`] turns structs into bytes and back.
//!
//! The byte tables are in `docs/wire.md`; the golden files in `tests/golden` hold them fast. Everything is
//! little-endian. The payloads of the session protocol (all frame types but DATA) are not defined here yet.

pub mod codec;
pub mod frame;

use crate::hit::HitV1;
use codec::CodecError;
use frame::{FrameType, HEADER_LEN};
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
    let start = out.len();
    out.resize(start + HEADER_LEN, 0);
    if let Err(error) = codec::append_data(sequence, hit, out) {
        out.truncate(start);
        return Err(error);
    }
    let (_, frame) = out.split_at_mut(start);
    frame::write_header(FrameType::Data, frame);
    Ok(())
}

/// Decodes the payload of a DATA frame, as [`frame::split_frame`] hands it out.
///
/// # Errors
///
/// As [`codec::decode_hit`].
pub fn decode_data(payload: &[u8]) -> Result<DataV1, CodecError> {
    codec::decode_data(payload)
}
