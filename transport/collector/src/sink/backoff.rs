//! Exponential backoff with random jitter, so that many clients do not retry at the same moment.

use std::time::Duration;

/// The pauses between attempts.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Creates a backoff that starts at `min` and doubles up to `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min), next: min }
    }

    /// Returns the next pause, between half of the current maximum and all of it, and doubles the maximum.
    pub fn pause(&mut self) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(self.max);
        let mut random = [0; 4];
        // A pause without jitter is better than an error.
        if getrandom::fill(&mut random).is_err() {
            return full;
        }
        full.mul_f64(0.5 + f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX) / 2.0)
    }

    /// Starts again with the shortest pause, after a success.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_within_bounds_and_restarts() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, 5 * second);
        for round in 0..2 {
            for full in [1, 2, 4, 5, 5] {
                let pause = backoff.pause();
                assert!(
                    pause >= second * full / 2 && pause <= second * full,
                    "round {round}: {pause:?} of {full} s"
                );
            }
            backoff.reset();
        }
    }
}
