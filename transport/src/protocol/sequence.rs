//! The sequence numbers of an epoch on one connection, as the collector sees them.

use super::{ProtocolViolation, SEQUENCE_MAX};

/// Checks that a sensor skips no number, and determines which ACK covers a frame.
#[derive(Clone, Copy, Debug)]
pub struct SequenceTracker {
    /// The highest number with which the next frame may start; [`SEQUENCE_MAX`] + 1 when all numbers are used.
    next: u64,
    /// The highest number received; 0: none yet.
    highest: u64,
}

impl SequenceTracker {
    /// Starts at the `first_unacknowledged` of a HELLO.
    pub const fn new(first_unacknowledged: u64) -> Self {
        Self { next: first_unacknowledged, highest: 0 }
    }

    /// Records a frame with the numbers `from` to `to`. Returns the number of the ACK that covers it.
    ///
    /// # Errors
    ///
    /// [`ProtocolViolation::SequenceNumber`] and [`ProtocolViolation::SkippedNumbers`].
    pub fn record(&mut self, from: u64, to: u64) -> Result<u64, ProtocolViolation> {
        for number in [from, to] {
            if number == 0 || number > SEQUENCE_MAX {
                return Err(ProtocolViolation::SequenceNumber(number));
            }
        }
        if from > self.next {
            return Err(ProtocolViolation::SkippedNumbers { expected: self.next, found: from });
        }
        self.next = self.next.max(to + 1);
        self.highest = self.highest.max(to);
        Ok(self.highest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_consecutive() {
        // Name, next number, frames (from, to), ACK of the last frame or the violation.
        type Row = (&'static str, u64, &'static [(u64, u64)], Result<u64, &'static str>);
        let rows: [Row; 12] = [
            ("the first", 1, &[(1, 1)], Ok(1)),
            ("two in a row", 1, &[(1, 1), (2, 2)], Ok(2)),
            ("a later start", 100, &[(100, 100)], Ok(100)),
            ("one skipped", 1, &[(1, 1), (3, 3)], Err("skipped")),
            ("the first skipped", 1, &[(2, 2)], Err("skipped")),
            ("a repetition", 1, &[(1, 1), (2, 2), (1, 1)], Ok(2)),
            ("a repetition from before the connection", 100, &[(50, 50)], Ok(50)),
            ("a gap", 1, &[(1, 10), (11, 11)], Ok(11)),
            ("a gap that overlaps sent hits", 1, &[(1, 1), (2, 2), (1, 10), (11, 11)], Ok(11)),
            ("a gap that starts too late", 1, &[(2, 10)], Err("skipped")),
            ("zero", 1, &[(0, 0)], Err("not between")),
            (
                "one more than the last number",
                SEQUENCE_MAX,
                &[(SEQUENCE_MAX, SEQUENCE_MAX), (SEQUENCE_MAX + 1, SEQUENCE_MAX + 1)],
                Err("not between"),
            ),
        ];
        for (name, next, frames, expected) in rows {
            let mut tracker = SequenceTracker::new(next);
            let mut last = Ok(0);
            for (from, to) in frames {
                last = tracker.record(*from, *to);
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
}
