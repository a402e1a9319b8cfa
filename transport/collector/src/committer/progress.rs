//! The progress of the store with a connection's frames: written by the committer, read by the connection.

use etwsieve_transport::protocol::{Settlement, SettlementReport};
use etwsieve_transport::wire::message::{BusyReason, RefusedV1};
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// The progress of one epoch of one connection.
///
/// All counts change together under a lock. With separate atomics a connection could read an acknowledgement before the
/// frames that it covers are counted as settled, send it, and then treat the sensor's next frames as more than the window
/// allows.
#[derive(Debug, Default)]
pub(crate) struct AckProgress {
    settlement: Mutex<Settlement>,
    /// Notified after each change.
    pub(crate) changed: Notify,
}

impl AckProgress {
    /// Reports the progress. Each refused frame is reported once.
    pub(crate) fn report(&self) -> SettlementReport {
        self.settlement.lock().unwrap_or_else(PoisonError::into_inner).report()
    }

    /// Records that a frame is durable. `ack` is the number of the ACK that covers it.
    pub(super) fn durable(&self, ack: u64) {
        self.settle(|settlement| settlement.durable(ack));
    }

    /// Records that a frame can never be stored. The ACK with number `ack` covers it.
    pub(super) fn refused(&self, ack: u64, refused: RefusedV1) {
        self.settle(|settlement| settlement.refused(ack, refused));
    }

    /// Records that a frame was not stored. Nothing is acknowledged from now on.
    pub(super) fn failed(&self, reason: BusyReason) {
        self.settle(|settlement| settlement.failed(reason));
    }

    fn settle(&self, change: impl FnOnce(&mut Settlement)) {
        change(&mut self.settlement.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// With separate counters a reader saw more acknowledged than settled frames.
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
            let report = progress.report();
            let ack = report.ack.unwrap();
            assert_eq!(ack, report.settled, "the ACK of each frame is its own number");
            assert!(ack >= last);
            last = ack;
        }
        committer.join().unwrap();
    }
}
