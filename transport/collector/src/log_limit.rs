//! Limits repeated log lines, so that an attacker who causes a line with each connection cannot fill the disk.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Maximum number of lines of one kind per [`PERIOD`].
const LINES_MAX: u32 = 10;
/// The period of the limit.
const PERIOD: Duration = Duration::from_secs(10);

/// Limits log lines of one kind.
#[derive(Debug, Default)]
pub(super) struct LogLimit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    began: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl LogLimit {
    /// Returns the number of lines suppressed since the last one if a line may be logged now, else `None`.
    pub(super) fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.began.is_none_or(|began| now.saturating_duration_since(began) >= PERIOD) {
            (state.began, state.lines) = (Some(now), 0);
        }
        if state.lines >= LINES_MAX {
            state.suppressed += 1;
            return None;
        }
        state.lines += 1;
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_ten_lines_and_a_count() {
        let (quota, start) = (LogLimit::default(), Instant::now());
        let logged = (0..1000).filter(|_| quota.admit_at(start).is_some()).count();
        assert_eq!(logged, LINES_MAX as usize);
        assert_eq!(quota.admit_at(start + PERIOD), Some(1000 - u64::from(LINES_MAX)));
        assert_eq!(quota.admit_at(start + PERIOD), Some(0));
    }
}
