//! How fast one sensor may send: a token bucket for hits and one for bytes, shared by its connections.
//!
//! A sensor over its limit is not refused: its connection is read more slowly, so that its spool fills before ours.

use std::time::{Duration, Instant};

/// Longest pause that a bucket asks for at a time.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// STATUS and repeated HELLO that one sensor may send in a second, whatever is configured: many times what an honest one
/// sends. They take no room in the window, so that nothing else would bound the work that they cause.
pub(super) const WORDS_PER_SECOND_MAX: u64 = 100;

/// A bucket that holds one second's worth and may be overdrawn by one frame.
#[derive(Debug)]
struct Bucket {
    /// 0: no limit.
    per_second: f64,
    level: f64,
}

impl Bucket {
    fn new(per_second: u64) -> Self {
        let per_second = per_second as f64;
        Self { per_second, level: per_second }
    }

    fn refill(&mut self, elapsed: Duration) {
        self.level = (self.level + self.per_second * elapsed.as_secs_f64()).min(self.per_second);
    }

    /// Takes `amount` and returns how long to wait before the next taking.
    fn take(&mut self, amount: f64) -> Duration {
        if self.per_second <= 0.0 {
            return Duration::ZERO;
        }
        self.level -= amount;
        if self.level >= 0.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(-self.level / self.per_second)
    }
}

/// The rate of one sensor.
#[derive(Debug)]
pub(super) struct Rate {
    hits: Bucket,
    bytes: Bucket,
    words: Bucket,
    seen: Instant,
}

impl Rate {
    /// 0 is no limit.
    pub(super) fn new(hits_per_second: u64, bytes_per_second: u64, now: Instant) -> Self {
        Self {
            hits: Bucket::new(hits_per_second),
            bytes: Bucket::new(bytes_per_second),
            words: Bucket::new(WORDS_PER_SECOND_MAX),
            seen: now,
        }
    }

    /// Takes one frame of `len` bytes; returns how long to wait before the next is read, at most 5 s. `is_word`: it is a
    /// STATUS or HELLO.
    pub(super) fn take(&mut self, len: usize, is_word: bool, now: Instant) -> Duration {
        let elapsed = now.saturating_duration_since(self.seen);
        self.seen = now;
        for bucket in [&mut self.hits, &mut self.bytes, &mut self.words] {
            bucket.refill(elapsed);
        }
        let pause = self.hits.take(1.0).max(self.bytes.take(len as f64));
        let pause = if is_word { pause.max(self.words.take(1.0)) } else { pause };
        pause.min(PAUSE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_free_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut rate = Rate::new(10, 0, start);
        for number in 0..10 {
            assert_eq!(rate.take(1 << 20, false, start), Duration::ZERO, "hit {number}");
        }
        assert_eq!(rate.take(1, false, start), Duration::from_millis(100));
        assert_eq!(rate.take(1, false, start), Duration::from_millis(200));
        // Two seconds later it is full again, and not fuller.
        let later = start + Duration::from_secs(20);
        for number in 0..10 {
            assert_eq!(rate.take(1, false, later), Duration::ZERO, "hit {number}");
        }
        assert!(rate.take(1, false, later) > Duration::ZERO);
    }

    #[test]
    fn bytes_count_apart_and_the_pause_is_bounded() {
        let start = Instant::now();
        let mut rate = Rate::new(0, 1000, start);
        assert_eq!(rate.take(1000, false, start), Duration::ZERO);
        assert_eq!(rate.take(500, false, start), Duration::from_millis(500));
        assert_eq!(rate.take(1 << 20, false, start), PAUSE_MAX);
        let mut words = Rate::new(0, 0, start);
        for number in 0..WORDS_PER_SECOND_MAX {
            assert_eq!(words.take(1, true, start), Duration::ZERO, "word {number}");
        }
        assert!(words.take(1, true, start) > Duration::ZERO);
        assert_eq!(words.take(1, false, start), Duration::ZERO, "hits do not wait for words");
        let mut free = Rate::new(0, 0, start);
        assert!((0..10_000).all(|_| free.take(1 << 20, false, start) == Duration::ZERO));
    }
}
