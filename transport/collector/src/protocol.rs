//! Validates and interprets the frames of a sensor as `docs/wire.md` defines them, without sockets and clocks.

use crate::backend::{EntryBody, Id, SEQUENCE_MAX};
use etwsieve_transport::wire::codec::CodecError;
use etwsieve_transport::wire::frame::{FrameError, FrameType, VERSION};
use etwsieve_transport::wire::message::{GAP_COUNT_MAX, GapV1, HelloV1, StatusV1};
use etwsieve_transport::wire::{self, codec};

/// A violation of the protocol, after which the connection is closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProtocolViolation {
    /// The bytes are not a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The payload is longer than its type allows.
    #[error("frame of type {kind} has {len} payload bytes, the maximum is {max}")]
    TooLong {
        /// The type in the header.
        kind: u8,
        /// The length in the header.
        len: usize,
        /// The maximum length for this type.
        max: usize,
    },
    /// The payload does not decode.
    #[error("cannot decode a {0:?} frame: {1}")]
    Codec(FrameType, CodecError),
    /// A frame of this type is not allowed here.
    #[error("unexpected {0:?} frame")]
    Unexpected(FrameType),
    /// Sequence numbers were skipped.
    #[error("sequence number {found} skips {expected}")]
    LeftOut {
        /// The next sequence number.
        expected: u64,
        /// The first sequence number of the frame.
        found: u64,
    },
    /// A sequence number is out of range.
    #[error("sequence number {0} is not between 1 and {SEQUENCE_MAX}")]
    Number(u64),
    /// A gap has more hits than a sensor can have dropped.
    #[error("GAP of {0} hits, the maximum is {GAP_COUNT_MAX}")]
    Count(u64),
    /// More frames are unacknowledged than the window allows.
    #[error("more than {0} unacknowledged frames")]
    Window(u32),
    /// A HELLO starts another epoch while frames are unacknowledged.
    #[error("HELLO with {0} unacknowledged frames")]
    Early(u64),
}

/// A validated frame of a sensor.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReceivedFrame {
    /// Starts an epoch; answered with WELCOME.
    Hello(HelloV1),
    /// A hit or gap that must be stored and acknowledged. It takes room in the window.
    Entry {
        /// The hit or gap.
        item: EntryBody,
        /// The sequence number of the ACK once everything up to this frame is durable.
        ack: u64,
        /// The work of storing it in addition to its length, in bytes written.
        work: usize,
    },
    /// The sensor's new STATUS; answered with an ACK at once.
    Status(StatusV1),
}

/// The work of storing one rule of a hit, in bytes written: a row with its strings in two B-trees.
const RULE_WORK: usize = 1024;
/// The work of storing a gap, in bytes written: counting how many of its hits are stored.
const GAP_WORK: usize = 16 << 10;

/// Tracks the sequence numbers of one epoch on one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct SequenceTracker {
    pub(super) epoch: Id,
    /// The next sequence number; one more than [`SEQUENCE_MAX`] when all are used.
    next: u64,
    /// The highest sequence number received; 0: none.
    carried: u64,
}

impl SequenceTracker {
    /// Starts at the sequence number that a HELLO announces.
    pub(super) fn of(hello: &HelloV1) -> Self {
        Self { epoch: hello.epoch, next: hello.first_unacknowledged, carried: 0 }
    }

    /// Accepts the sequence numbers `from` to `to` and returns the number of their ACK.
    fn take(&mut self, from: u64, to: u64) -> Result<u64, ProtocolViolation> {
        for number in [from, to] {
            if number == 0 || number > SEQUENCE_MAX {
                return Err(ProtocolViolation::Number(number));
            }
        }
        if from > self.next {
            return Err(ProtocolViolation::LeftOut { expected: self.next, found: from });
        }
        self.next = self.next.max(to + 1);
        self.carried = self.carried.max(to);
        Ok(self.carried)
    }
}

/// Validates and interprets a frame. `numbers` is `None` before the first HELLO.
///
/// # Errors
///
/// A violation of the protocol: close the connection.
pub(super) fn interpret(
    frame_type: FrameType,
    payload: &[u8],
    numbers: Option<&mut SequenceTracker>,
) -> Result<ReceivedFrame, ProtocolViolation> {
    let codec = |error| ProtocolViolation::Codec(frame_type, error);
    if frame_type == FrameType::Hello {
        let hello: HelloV1 = wire::decode_message(payload).map_err(codec)?;
        if hello.first_unacknowledged > SEQUENCE_MAX {
            return Err(ProtocolViolation::Number(hello.first_unacknowledged));
        }
        return Ok(ReceivedFrame::Hello(hello));
    }
    let Some(numbers) = numbers else {
        return Err(ProtocolViolation::Unexpected(frame_type));
    };
    match frame_type {
        FrameType::Data => {
            let data = wire::decode_data(payload).map_err(codec)?;
            let ack = numbers.take(data.sequence, data.sequence)?;
            // The payload starts with the sequence number, or it would not have decoded.
            let bytes = payload.get(size_of::<u64>()..).unwrap_or_default().to_vec();
            debug_assert!(bytes.len() <= codec::HIT_LEN_MAX);
            let work = data.hit.rules.len() * RULE_WORK;
            Ok(ReceivedFrame::Entry {
                item: EntryBody::Hit { sequence: data.sequence, version: VERSION, bytes },
                ack,
                work,
            })
        }
        FrameType::Gap => {
            let gap: GapV1 = wire::decode_message(payload).map_err(codec)?;
            if gap.count > GAP_COUNT_MAX {
                return Err(ProtocolViolation::Count(gap.count));
            }
            let ack = numbers.take(gap.from, gap.to)?;
            Ok(ReceivedFrame::Entry { item: EntryBody::Gap(gap), ack, work: GAP_WORK })
        }
        FrameType::Status => Ok(ReceivedFrame::Status(wire::decode_message(payload).map_err(codec)?)),
        FrameType::Hello | FrameType::Welcome | FrameType::Ack | FrameType::Busy | FrameType::Refused => {
            Err(ProtocolViolation::Unexpected(frame_type))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(next: u64) -> SequenceTracker {
        SequenceTracker { epoch: [1; 16], next, carried: 0 }
    }

    #[test]
    fn sequence_numbers_are_contiguous() {
        // Name, next number, frames (from, to), ACK of the last one or the error.
        type Row = (&'static str, u64, &'static [(u64, u64)], Result<u64, &'static str>);
        let rows: [Row; 12] = [
            ("the first", 1, &[(1, 1)], Ok(1)),
            ("two in a row", 1, &[(1, 1), (2, 2)], Ok(2)),
            ("from the middle", 100, &[(100, 100)], Ok(100)),
            ("one skipped", 1, &[(1, 1), (3, 3)], Err("skips")),
            ("the first skipped", 1, &[(2, 2)], Err("skips")),
            ("a repetition", 1, &[(1, 1), (2, 2), (1, 1)], Ok(2)),
            ("a repetition from before the connection", 100, &[(50, 50)], Ok(50)),
            ("a gap", 1, &[(1, 10), (11, 11)], Ok(11)),
            ("a gap over what was sent", 1, &[(1, 1), (2, 2), (1, 10), (11, 11)], Ok(11)),
            ("a gap that begins too late", 1, &[(2, 10)], Err("skips")),
            ("zero", 1, &[(0, 0)], Err("not between")),
            (
                "the last number and one more",
                SEQUENCE_MAX,
                &[(SEQUENCE_MAX, SEQUENCE_MAX), (SEQUENCE_MAX + 1, SEQUENCE_MAX + 1)],
                Err("not between"),
            ),
        ];
        for (name, next, frames, expected) in rows {
            let mut numbers = numbers(next);
            let mut last = Ok(0);
            for (from, to) in frames {
                last = numbers.take(*from, *to);
            }
            match (last, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{name}"),
                (Err(found), Err(expected)) => {
                    assert!(found.to_string().contains(expected), "{name}: {found}");
                }
                (found, expected) => panic!("{name}: {found:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn only_a_hello_is_accepted_first() {
        for frame_type in FrameType::ALL {
            let violation = interpret(frame_type, &[], None).unwrap_err();
            assert_eq!(
                matches!(violation, ProtocolViolation::Unexpected(_)),
                frame_type != FrameType::Hello,
                "{violation}"
            );
        }
    }

    #[test]
    fn frames_of_collectors_are_not_accepted() {
        for frame_type in [FrameType::Welcome, FrameType::Ack, FrameType::Busy, FrameType::Refused] {
            let violation = interpret(frame_type, &[], Some(&mut numbers(1))).unwrap_err();
            assert!(matches!(violation, ProtocolViolation::Unexpected(_)), "{violation}");
        }
    }

    #[test]
    fn expensive_frames_report_their_work() {
        let gap = GapV1 { from: 1, to: 5, count: 5, reason: wire::message::GapReason::SpoolFull };
        let mut frame = Vec::new();
        wire::encode_message(&gap, &mut frame).unwrap();
        let payload = &frame[wire::frame::HEADER_LEN..];
        let received = interpret(FrameType::Gap, payload, Some(&mut numbers(1))).unwrap();
        assert_eq!(received, ReceivedFrame::Entry { item: EntryBody::Gap(gap), ack: 5, work: GAP_WORK });
    }
}
