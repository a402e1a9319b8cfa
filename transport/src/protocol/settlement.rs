//! The progress of the store with the frames of one epoch of one connection.

use crate::wire::message::{BusyReason, RefusedV1};

/// Counts settled frames. The store updates it, frame by frame in the order of the connection.
#[derive(Debug, Default)]
pub struct Settlement {
    settled: u64,
    ack: u64,
    failure: Option<BusyReason>,
    refused: Vec<RefusedV1>,
}

/// The state of a [`Settlement`] at one moment.
#[derive(Debug)]
pub struct SettlementReport {
    /// Number of settled frames: durable, refused or failed.
    pub settled: u64,
    /// The number to acknowledge, or the reason why nothing more can be acknowledged.
    pub ack: Result<u64, BusyReason>,
    /// Frames refused since the last report. `ack` covers them.
    pub refused: Vec<RefusedV1>,
}

impl Settlement {
    /// Records that a frame is durable. `ack` is the number of the ACK that covers it.
    pub fn durable(&mut self, ack: u64) {
        self.settled += 1;
        self.ack = self.ack.max(ack);
    }

    /// Records that a frame can never be stored. The ACK with number `ack` covers it.
    pub fn refused(&mut self, ack: u64, refused: RefusedV1) {
        self.durable(ack);
        self.refused.push(refused);
    }

    /// Records that a frame was not stored. Nothing is acknowledged from now on.
    pub fn failed(&mut self, reason: BusyReason) {
        self.settled += 1;
        self.failure = Some(reason);
    }

    /// Reports the progress. Each refused frame is reported once.
    pub fn report(&mut self) -> SettlementReport {
        SettlementReport {
            settled: self.settled,
            ack: self.failure.map_or(Ok(self.ack), Err),
            refused: std::mem::take(&mut self.refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::RefusalReason;

    #[test]
    fn a_failure_ends_acknowledgements_and_a_refusal_does_not() {
        let mut settlement = Settlement::default();
        let refused = RefusedV1 {
            epoch: [1; 16],
            from: 2,
            to: 2,
            reason: RefusalReason::NotStorable,
            detail: String::new(),
        };
        settlement.durable(1);
        settlement.refused(2, refused.clone());
        let report = settlement.report();
        assert_eq!((report.settled, report.ack, report.refused), (2, Ok(2), vec![refused]));
        assert!(settlement.report().refused.is_empty(), "a refusal is reported once");
        settlement.failed(BusyReason::DiskFull);
        settlement.durable(4);
        let report = settlement.report();
        assert_eq!((report.settled, report.ack), (4, Err(BusyReason::DiskFull)));
    }
}
