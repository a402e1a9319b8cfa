//! What may come on a connection, and what it means: the states of `docs/wire.md`, without sockets and clocks.

use crate::backend::{Id, Item, SEQUENCE_MAX};
use etwsieve_transport::wire::codec::CodecError;
use etwsieve_transport::wire::frame::{FrameError, FrameType, VERSION};
use etwsieve_transport::wire::message::{GAP_COUNT_MAX, GapV1, HelloV1, StatusV1};
use etwsieve_transport::wire::{self, codec};

/// Why a connection is closed without a word.
#[derive(Debug, thiserror::Error)]
pub(super) enum Breach {
    /// The bytes are no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The frame is longer than its type may be.
    #[error("a frame of type {kind} with {len} payload bytes, the maximum is {max}")]
    TooLong {
        /// The header's type.
        kind: u8,
        /// The header's length.
        len: usize,
        /// The most that type may have.
        max: usize,
    },
    /// The payload does not decode.
    #[error("a {0:?} frame that does not decode: {1}")]
    Codec(FrameType, CodecError),
    /// A frame that has no place here.
    #[error("an unexpected {0:?} frame")]
    Unexpected(FrameType),
    /// A number was left out.
    #[error("number {found} follows {expected}: numbers were left out")]
    LeftOut {
        /// The next number.
        expected: u64,
        /// Where the frame begins.
        found: u64,
    },
    /// A number outside of 1 to [`SEQUENCE_MAX`].
    #[error("sequence number {0} is not between 1 and {SEQUENCE_MAX}")]
    Number(u64),
    /// A gap of more hits than a sensor can have given up.
    #[error("a GAP of {0} hits, the maximum is {GAP_COUNT_MAX}")]
    Count(u64),
    /// More frames than the window.
    #[error("more than {0} frames without an acknowledgement")]
    Window(u32),
    /// Another epoch although something is unacknowledged.
    #[error("a HELLO while {0} frames are unacknowledged")]
    Early(u64),
}

/// What a frame asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// To be greeted, for the first time or with another epoch.
    Hello(HelloV1),
    /// To be stored and acknowledged. It takes room in the window.
    Item {
        /// What is stored.
        item: Item,
        /// The number of the ACK when everything up to this frame is durable.
        ack: u64,
        /// The work of storing it beside its bytes, as bytes.
        work: usize,
    },
    /// To be kept as the sensor's last STATUS, and answered at once.
    Status(StatusV1),
}

/// The work of storing one rule of a hit: a row with its own strings in two trees.
const RULE_WORK: usize = 1024;
/// The work of storing a gap: counting what of it is stored.
const GAP_WORK: usize = 16 << 10;

/// The numbers of one epoch on one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    pub(super) epoch: Id,
    /// The number that must come next. One more than [`SEQUENCE_MAX`] when all were used.
    next: u64,
    /// The highest number that came; 0: none yet.
    carried: u64,
}

impl Numbers {
    /// Those that a HELLO announces.
    pub(super) fn of(hello: &HelloV1) -> Self {
        Self { epoch: hello.epoch, next: hello.first_unacknowledged, carried: 0 }
    }

    /// Takes the numbers `from` to `to`, and returns the number of their ACK.
    fn take(&mut self, from: u64, to: u64) -> Result<u64, Breach> {
        for number in [from, to] {
            if number == 0 || number > SEQUENCE_MAX {
                return Err(Breach::Number(number));
            }
        }
        if from > self.next {
            return Err(Breach::LeftOut { expected: self.next, found: from });
        }
        self.next = self.next.max(to + 1);
        self.carried = self.carried.max(to);
        Ok(self.carried)
    }
}

/// Judges a frame. `numbers` is `None` before the first HELLO.
///
/// # Errors
///
/// [`Breach`]: close the connection.
pub(super) fn judge(
    frame_type: FrameType,
    payload: &[u8],
    numbers: Option<&mut Numbers>,
) -> Result<Received, Breach> {
    let codec = |error| Breach::Codec(frame_type, error);
    if frame_type == FrameType::Hello {
        let hello: HelloV1 = wire::decode_message(payload).map_err(codec)?;
        if hello.first_unacknowledged > SEQUENCE_MAX {
            return Err(Breach::Number(hello.first_unacknowledged));
        }
        return Ok(Received::Hello(hello));
    }
    let Some(numbers) = numbers else {
        return Err(Breach::Unexpected(frame_type));
    };
    match frame_type {
        FrameType::Data => {
            let data = wire::decode_data(payload).map_err(codec)?;
            let ack = numbers.take(data.sequence, data.sequence)?;
            // The number is the first eight bytes, or it would not have decoded.
            let bytes = payload.get(size_of::<u64>()..).unwrap_or_default().to_vec();
            debug_assert!(bytes.len() <= codec::HIT_LEN_MAX);
            let work = data.hit.rules.len() * RULE_WORK;
            Ok(Received::Item {
                item: Item::Hit { sequence: data.sequence, version: VERSION, bytes },
                ack,
                work,
            })
        }
        FrameType::Gap => {
            let gap: GapV1 = wire::decode_message(payload).map_err(codec)?;
            if gap.count > GAP_COUNT_MAX {
                return Err(Breach::Count(gap.count));
            }
            let ack = numbers.take(gap.from, gap.to)?;
            Ok(Received::Item { item: Item::Gap(gap), ack, work: GAP_WORK })
        }
        FrameType::Status => Ok(Received::Status(wire::decode_message(payload).map_err(codec)?)),
        FrameType::Hello | FrameType::Welcome | FrameType::Ack | FrameType::Busy | FrameType::Refused => {
            Err(Breach::Unexpected(frame_type))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(next: u64) -> Numbers {
        Numbers { epoch: [1; 16], next, carried: 0 }
    }

    #[test]
    fn numbers_follow_each_other() {
        // Name, next number, frames (from, to), ACK of the last or the breach.
        type Row = (&'static str, u64, &'static [(u64, u64)], Result<u64, &'static str>);
        let rows: [Row; 12] = [
            ("the first", 1, &[(1, 1)], Ok(1)),
            ("two in a row", 1, &[(1, 1), (2, 2)], Ok(2)),
            ("from the middle", 100, &[(100, 100)], Ok(100)),
            ("one left out", 1, &[(1, 1), (3, 3)], Err("left out")),
            ("the first left out", 1, &[(2, 2)], Err("left out")),
            ("a repetition", 1, &[(1, 1), (2, 2), (1, 1)], Ok(2)),
            ("a repetition from before the connection", 100, &[(50, 50)], Ok(50)),
            ("a gap", 1, &[(1, 10), (11, 11)], Ok(11)),
            ("a gap over what was sent", 1, &[(1, 1), (2, 2), (1, 10), (11, 11)], Ok(11)),
            ("a gap that begins too late", 1, &[(2, 10)], Err("left out")),
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
    fn nothing_but_a_hello_comes_first() {
        for frame_type in FrameType::ALL {
            let breach = judge(frame_type, &[], None).unwrap_err();
            assert_eq!(matches!(breach, Breach::Unexpected(_)), frame_type != FrameType::Hello, "{breach}");
        }
    }

    #[test]
    fn what_collectors_say_is_no_word_of_a_sensor() {
        for frame_type in [FrameType::Welcome, FrameType::Ack, FrameType::Busy, FrameType::Refused] {
            let breach = judge(frame_type, &[], Some(&mut numbers(1))).unwrap_err();
            assert!(matches!(breach, Breach::Unexpected(_)), "{breach}");
        }
    }

    #[test]
    fn what_is_expensive_to_store_is_charged_for_it() {
        let gap = GapV1 { from: 1, to: 5, count: 5, reason: wire::message::GapReason::SpoolFull };
        let mut frame = Vec::new();
        wire::encode_message(&gap, &mut frame).unwrap();
        let payload = &frame[wire::frame::HEADER_LEN..];
        let received = judge(FrameType::Gap, payload, Some(&mut numbers(1))).unwrap();
        assert_eq!(received, Received::Item { item: Item::Gap(gap), ack: 5, work: GAP_WORK });
    }
}
