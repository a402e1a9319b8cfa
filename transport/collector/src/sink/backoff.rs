//! Pauses between attempts: doubling, and random so that many do not come back at once.

use std::time::Duration;

/// The pauses of one place that is tried again and again.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `min`, doubling to `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min), next: min }
    }

    /// The next pause: a random part, at least half, of what has been doubled so far.
    pub fn pause(&mut self) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(self.max);
        let mut random = [0; 4];
        // Without random numbers the pause is whole, which is no reason to fail.
        if getrandom::fill(&mut random).is_err() {
            return full;
        }
        full.mul_f64(0.5 + f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX) / 2.0)
    }

    /// It worked: begin with the shortest pause again.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_within_bounds_and_starts_anew() {
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
