//! Violations of the protocol, after which a connection is closed.

use super::SEQUENCE_MAX;
use crate::wire::codec::CodecError;
use crate::wire::frame::{FrameError, FrameType};
use crate::wire::message::GAP_COUNT_MAX;

/// The peer violated the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolViolation {
    /// The bytes are not a valid frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The payload cannot be decoded.
    #[error("invalid {0:?} frame: {1}")]
    Codec(FrameType, CodecError),
    /// A frame of this type is not allowed in this state.
    #[error("unexpected {0:?} frame")]
    UnexpectedFrame(FrameType),
    /// The sensor skipped sequence numbers.
    #[error("sequence number {found}, expected at most {expected}: numbers were skipped")]
    SkippedNumbers {
        /// The highest number with which the frame may start.
        expected: u64,
        /// The first number of the frame.
        found: u64,
    },
    /// A sequence number of the sensor is not between 1 and [`SEQUENCE_MAX`].
    #[error("sequence number {0} is not between 1 and {SEQUENCE_MAX}")]
    SequenceNumber(u64),
    /// The sensor declared more hits lost than it can have dropped.
    #[error("a GAP of {0} hits, expected at most {GAP_COUNT_MAX}")]
    GapCount(u64),
    /// The sensor has more unacknowledged frames than the window allows.
    #[error("more than {0} unacknowledged frames")]
    WindowExceeded(u32),
    /// The sensor started another epoch while frames were unacknowledged.
    #[error("a HELLO while {0} frames are unacknowledged")]
    EarlyHello(u64),
    /// The collector answered with an epoch other than that of the HELLO.
    #[error("a WELCOME for another epoch")]
    WrongEpoch,
    /// The collector chose a version that the sensor did not offer.
    #[error("version {0} was not offered")]
    VersionNotOffered(u8),
    /// The collector acknowledged or refused a frame that was not sent on this connection.
    #[error("{frame_type:?} of number {number}, but only {sent} was sent")]
    NotSent {
        /// `Ack` or `Refused`.
        frame_type: FrameType,
        /// The number in the frame.
        number: u64,
        /// The highest number sent.
        sent: u64,
    },
}
