//! How far a connection's frames are settled: written by the committer, read by the connection.

use etwsieve_transport::wire::message::{BusyReason, RefusedV1};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The progress of one epoch of one connection.
///
/// The parts change together under a lock. As separate atomics a connection could read an acknowledgement before the
/// frames that it covers were counted as settled, send it, and then take the sensor's next frames for more than the
/// window allows.
#[derive(Debug, Default)]
pub(crate) struct Progress {
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

/// The progress at one moment.
#[derive(Debug)]
pub(crate) struct Reading {
    /// Frames settled: durable, refused or failed.
    pub(crate) settled: u64,
    /// The number of the ACK, or the reason why there will be no further one.
    pub(crate) ack: Result<u64, BusyReason>,
    /// Frames refused since the last reading. The ACK covers them.
    pub(crate) refused: Vec<RefusedV1>,
}

impl Progress {
    /// Reads the progress and takes out what was refused.
    pub(crate) fn read(&self) -> Reading {
        let mut state = self.state();
        Reading {
            settled: state.settled,
            ack: state.failure.map_or(Ok(state.ack), Err),
            refused: std::mem::take(&mut state.refused),
        }
    }

    /// A frame is durable; `ack` is the number of its ACK.
    pub(super) fn durable(&self, ack: u64) {
        self.settle(|state| state.ack = state.ack.max(ack));
    }

    /// A frame can never be stored, and the ACK covers it.
    pub(super) fn refused(&self, ack: u64, refused: RefusedV1) {
        self.settle(|state| {
            state.ack = state.ack.max(ack);
            state.refused.push(refused);
        });
    }

    /// A frame was not stored: from now on nothing is acknowledged.
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

    /// With a counter for each part, a reader between the two writes saw more acknowledged than settled.
    #[test]
    fn an_acknowledgement_is_never_read_before_its_frames_are_settled() {
        const FRAMES: u64 = 200_000;
        let progress = Arc::new(Progress::default());
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
        let progress = Progress::default();
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
        assert!(progress.read().refused.is_empty(), "a refusal is told once");
        progress.failed(BusyReason::DiskFull);
        progress.durable(4);
        let reading = progress.read();
        assert_eq!((reading.settled, reading.ack), (4, Err(BusyReason::DiskFull)));
    }
}
