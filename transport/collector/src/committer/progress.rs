//! The progress of a connection's frames, written by the committer and read by the connection.

use etwsieve_transport::wire::message::{BusyReason, RefusedV1};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The progress of one epoch on one connection.
///
/// All fields change together under a lock. With separate atomics a connection could read an acknowledgement before the
/// frames that it covers are counted as settled, send it, and then treat the sensor's next frames as a violation of the
/// window.
#[derive(Debug, Default)]
pub(crate) struct AckProgress {
    state: Mutex<State>,
    /// Notified after each change.
    pub(crate) changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    settled: u64,
    ack: u64,
    failure: Option<BusyReason>,
    refused: Vec<RefusedV1>,
}

/// A snapshot of the progress.
#[derive(Debug)]
pub(crate) struct AckSnapshot {
    /// Number of settled frames: durable, refused or failed.
    pub(crate) settled: u64,
    /// The sequence number of the ACK, or why there will be no further one.
    pub(crate) ack: Result<u64, BusyReason>,
    /// Frames refused since the last snapshot. The ACK covers them.
    pub(crate) refused: Vec<RefusedV1>,
}

impl AckProgress {
    /// Takes a snapshot and clears the list of refused frames.
    pub(crate) fn read(&self) -> AckSnapshot {
        let mut state = self.state();
        AckSnapshot {
            settled: state.settled,
            ack: state.failure.map_or(Ok(state.ack), Err),
            refused: std::mem::take(&mut state.refused),
        }
    }

    /// Records that a frame is durable; `ack` is the sequence number of its ACK.
    pub(super) fn durable(&self, ack: u64) {
        self.settle(|state| state.ack = state.ack.max(ack));
    }

    /// Records that a frame can never be stored. The ACK covers it.
    pub(super) fn refused(&self, ack: u64, refused: RefusedV1) {
        self.settle(|state| {
            state.ack = state.ack.max(ack);
            state.refused.push(refused);
        });
    }

    /// Records that a frame was not stored. From now on nothing is acknowledged.
    pub(super) fn failed(&self, reason: BusyReason) {
        self.settle(|state| state.failure = Some(reason));
    }

    fn settle(&self, change: impl FnOnce(&mut State)) {
        {
            let mut state = self.state();
            change(&mut state);
            state.settled += 1;
        }
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etwsieve_transport::wire::message::RefusalReason;
    use std::sync::Arc;

    /// With separate atomics, a reader between the two writes saw more frames acknowledged than settled.
    #[test]
    fn an_acknowledgement_is_never_read_before_its_frames_are_settled() {
        const FRAMES: u64 = 200_000;
        let progress = Arc::new(AckProgress::default());
        let committer = {
            let progress = Arc::clone(&progress);
            std::thread::spawn(move || (1..=FRAMES).for_each(|number| progress.durable(number)))
        };
        let mut last = 0;
        while last < FRAMES {
            let reading = progress.read();
            let ack = reading.ack.unwrap();
            assert_eq!(ack, reading.settled, "each frame's ACK is its own number");
            assert!(ack >= last);
            last = ack;
        }
        committer.join().unwrap();
    }

    #[test]
    fn a_failure_ends_acknowledgements_and_a_refusal_does_not() {
        let progress = AckProgress::default();
        let refused = RefusedV1 {
            epoch: [1; 16],
            from: 2,
            to: 2,
            reason: RefusalReason::NotStorable,
            detail: String::new(),
        };
        progress.durable(1);
        progress.refused(2, refused.clone());
        let reading = progress.read();
        assert_eq!((reading.settled, reading.ack, reading.refused), (2, Ok(2), vec![refused]));
        assert!(progress.read().refused.is_empty(), "a refusal is reported once");
        progress.failed(BusyReason::DiskFull);
        progress.durable(4);
        let reading = progress.read();
        assert_eq!((reading.settled, reading.ack), (4, Err(BusyReason::DiskFull)));
    }
}
