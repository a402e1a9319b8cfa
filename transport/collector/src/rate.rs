//! Rate limits of a sensor: token buckets for frames, bytes and work, shared by its connections.
//!
//! A sensor above its limit is not refused. Its connections are read more slowly, so that its hits wait in its own
//! spool.

use std::time::{Duration, Instant};

/// Maximum length of one pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Maximum rate of STATUS and repeated HELLO frames of one sensor per second: many times what an honest sensor sends.
/// They take no room in the window, so nothing else bounds the work that they cause.
pub(super) const CONTROL_PER_SECOND_MAX: u64 = 100;
/// Maximum work above [`WORK_FREE`] that the frames of one sensor may cause per second, in bytes written: some
/// thousands of rules, a few percent of what a store can do.
const WORK_PER_SECOND_MAX: u64 = 4 << 20;
/// Work per frame that is not counted: that of a hit with sixteen rules, more than nearly all hits have.
const WORK_FREE: usize = 16 << 10;

/// A token bucket that holds the tokens of one second and may be overdrawn by one frame.
#[derive(Debug)]
struct TokenBucket {
    /// 0: no limit.
    per_second: f64,
    level: f64,
}

impl TokenBucket {
    fn new(per_second: u64) -> Self {
        let per_second = per_second as f64;
        Self { per_second, level: per_second }
    }

    fn refill(&mut self, elapsed: Duration) {
        self.level = (self.level + self.per_second * elapsed.as_secs_f64()).min(self.per_second);
    }

    /// Takes `amount` and returns how long to wait before the next call.
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

/// The rate limits of one sensor.
#[derive(Debug)]
pub(super) struct SensorRate {
    hits: TokenBucket,
    bytes: TokenBucket,
    control: TokenBucket,
    work: TokenBucket,
    seen: Instant,
}

/// The load that a frame causes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Load {
    /// A frame to be stored: the length of its payload in bytes, and the additional work of storing it.
    Entry(usize, usize),
    /// STATUS or HELLO: the length of its payload in bytes.
    Control(usize),
}

impl SensorRate {
    /// Creates the limits; 0 is no limit.
    pub(super) fn new(hits_per_second: u64, bytes_per_second: u64, now: Instant) -> Self {
        Self {
            hits: TokenBucket::new(hits_per_second),
            bytes: TokenBucket::new(bytes_per_second),
            control: TokenBucket::new(CONTROL_PER_SECOND_MAX),
            work: TokenBucket::new(WORK_PER_SECOND_MAX),
            seen: now,
        }
    }

    /// Accounts for one frame and returns how long to wait before the next is read, at most [`PAUSE_MAX`].
    pub(super) fn take(&mut self, load: Load, now: Instant) -> Duration {
        self.refill(now);
        let (len, apart) = match load {
            Load::Entry(len, work) if work > WORK_FREE => (len, self.work.take((work - WORK_FREE) as f64)),
            Load::Entry(len, _) => (len, Duration::ZERO),
            Load::Control(len) => (len, self.control.take(1.0)),
        };
        self.hits.take(1.0).max(self.bytes.take(len as f64)).max(apart).min(PAUSE_MAX)
    }

    /// Returns whether all buckets are full, as in new limits.
    pub(super) fn has_recovered(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.buckets().into_iter().all(|bucket| bucket.level >= bucket.per_second)
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.seen);
        self.seen = now;
        self.buckets().into_iter().for_each(|bucket| bucket.refill(elapsed));
    }

    fn buckets(&mut self) -> [&mut TokenBucket; 4] {
        [&mut self.hits, &mut self.bytes, &mut self.control, &mut self.work]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_second_is_free_and_then_the_rate_applies() {
        let start = Instant::now();
        let mut rate = SensorRate::new(10, 0, start);
        for number in 0..10 {
            assert_eq!(rate.take(Load::Entry(1 << 20, 0), start), Duration::ZERO, "hit {number}");
        }
        assert_eq!(rate.take(Load::Entry(1, 0), start), Duration::from_millis(100));
        assert_eq!(rate.take(Load::Entry(1, 0), start), Duration::from_millis(200));
        // Later it is full again, but not fuller.
        let later = start + Duration::from_secs(20);
        for number in 0..10 {
            assert_eq!(rate.take(Load::Entry(1, 0), later), Duration::ZERO, "hit {number}");
        }
        assert!(rate.take(Load::Entry(1, 0), later) > Duration::ZERO);
    }

    #[test]
    fn bytes_are_limited_separately_and_the_pause_is_bounded() {
        let start = Instant::now();
        let mut rate = SensorRate::new(0, 1000, start);
        assert_eq!(rate.take(Load::Entry(1000, 0), start), Duration::ZERO);
        assert_eq!(rate.take(Load::Entry(500, 0), start), Duration::from_millis(500));
        assert_eq!(rate.take(Load::Entry(1 << 20, 0), start), PAUSE_MAX);
        let mut control = SensorRate::new(0, 0, start);
        for number in 0..CONTROL_PER_SECOND_MAX {
            assert_eq!(control.take(Load::Control(1), start), Duration::ZERO, "message {number}");
        }
        assert!(control.take(Load::Control(1), start) > Duration::ZERO);
        assert_eq!(
            control.take(Load::Entry(1, 0), start),
            Duration::ZERO,
            "hits do not wait for control messages"
        );
        let mut free = SensorRate::new(0, 0, start);
        assert!((0..10_000).all(|_| free.take(Load::Entry(1 << 20, 0), start) == Duration::ZERO));
    }

    #[test]
    fn only_expensive_frames_are_slowed_down() {
        let start = Instant::now();
        let mut rate = SensorRate::new(0, 0, start);
        let expensive = Load::Entry(1, WORK_FREE + (1 << 20));
        for number in 0..4 {
            assert_eq!(rate.take(expensive, start), Duration::ZERO, "frame {number}");
        }
        assert_eq!(rate.take(expensive, start), Duration::from_millis(250));
        assert_eq!(rate.take(Load::Entry(1, WORK_FREE), start), Duration::ZERO);
        // Reconnecting does not reset the limits before they have recovered.
        assert!(!rate.has_recovered(start + Duration::from_secs(1)));
        assert!(rate.has_recovered(start + Duration::from_secs(2)));
    }
}
