//! How fast one sensor may send: token buckets for frames, bytes and work, shared by its connections.
//!
//! A sensor over its limit is not refused: its connection is read more slowly, so that its spool fills before ours.

use std::time::{Duration, Instant};

/// Longest pause that a bucket asks for at a time.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// STATUS and repeated HELLO that one sensor may send in a second, whatever is configured: many times what an honest one
/// sends. They take no room in the window, so that nothing else would bound the work that they cause.
pub(super) const WORDS_PER_SECOND_MAX: u64 = 100;
/// Work beyond [`WORK_FREE`] that the frames of one sensor may cause in a second, as bytes written, whatever is configured:
/// some thousands of rules, a few hundredths of what a store can do.
const WORK_PER_SECOND_MAX: u64 = 4 << 20;
/// Work of a frame that is not counted: that of a hit with sixteen rules, more than nearly all have.
const WORK_FREE: usize = 16 << 10;

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
    work: Bucket,
    seen: Instant,
}

/// What is taken from a rate.
#[derive(Clone, Copy, Debug)]
pub(super) enum Load {
    /// A frame to be stored: bytes of its payload, and the work that it causes beside them.
    Entry(usize, usize),
    /// STATUS or HELLO: bytes of its payload.
    Word(usize),
}

impl Rate {
    /// 0 is no limit.
    pub(super) fn new(hits_per_second: u64, bytes_per_second: u64, now: Instant) -> Self {
        Self {
            hits: Bucket::new(hits_per_second),
            bytes: Bucket::new(bytes_per_second),
            words: Bucket::new(WORDS_PER_SECOND_MAX),
            work: Bucket::new(WORK_PER_SECOND_MAX),
            seen: now,
        }
    }

    /// Takes one frame; returns how long to wait before the next is read, at most 5 s.
    pub(super) fn take(&mut self, load: Load, now: Instant) -> Duration {
        self.refill(now);
        let (len, apart) = match load {
            Load::Entry(len, work) if work > WORK_FREE => (len, self.work.take((work - WORK_FREE) as f64)),
            Load::Entry(len, _) => (len, Duration::ZERO),
            Load::Word(len) => (len, self.words.take(1.0)),
        };
        self.hits.take(1.0).max(self.bytes.take(len as f64)).max(apart).min(PAUSE_MAX)
    }

    /// Whether nothing is owed: a new one would say the same.
    pub(super) fn is_rested(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.buckets().into_iter().all(|bucket| bucket.level >= bucket.per_second)
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.seen);
        self.seen = now;
        self.buckets().into_iter().for_each(|bucket| bucket.refill(elapsed));
    }

    fn buckets(&mut self) -> [&mut Bucket; 4] {
        [&mut self.hits, &mut self.bytes, &mut self.words, &mut self.work]
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
            assert_eq!(rate.take(Load::Entry(1 << 20, 0), start), Duration::ZERO, "hit {number}");
        }
        assert_eq!(rate.take(Load::Entry(1, 0), start), Duration::from_millis(100));
        assert_eq!(rate.take(Load::Entry(1, 0), start), Duration::from_millis(200));
        // Two seconds later it is full again, and not fuller.
        let later = start + Duration::from_secs(20);
        for number in 0..10 {
            assert_eq!(rate.take(Load::Entry(1, 0), later), Duration::ZERO, "hit {number}");
        }
        assert!(rate.take(Load::Entry(1, 0), later) > Duration::ZERO);
    }

    #[test]
    fn bytes_count_apart_and_the_pause_is_bounded() {
        let start = Instant::now();
        let mut rate = Rate::new(0, 1000, start);
        assert_eq!(rate.take(Load::Entry(1000, 0), start), Duration::ZERO);
        assert_eq!(rate.take(Load::Entry(500, 0), start), Duration::from_millis(500));
        assert_eq!(rate.take(Load::Entry(1 << 20, 0), start), PAUSE_MAX);
        let mut words = Rate::new(0, 0, start);
        for number in 0..WORDS_PER_SECOND_MAX {
            assert_eq!(words.take(Load::Word(1), start), Duration::ZERO, "word {number}");
        }
        assert!(words.take(Load::Word(1), start) > Duration::ZERO);
        assert_eq!(words.take(Load::Entry(1, 0), start), Duration::ZERO, "hits do not wait for words");
        let mut free = Rate::new(0, 0, start);
        assert!((0..10_000).all(|_| free.take(Load::Entry(1 << 20, 0), start) == Duration::ZERO));
    }

    #[test]
    fn expensive_frames_are_read_more_slowly_and_others_are_not() {
        let start = Instant::now();
        let mut rate = Rate::new(0, 0, start);
        let expensive = Load::Entry(1, WORK_FREE + (1 << 20));
        for number in 0..4 {
            assert_eq!(rate.take(expensive, start), Duration::ZERO, "frame {number}");
        }
        assert_eq!(rate.take(expensive, start), Duration::from_millis(250));
        assert_eq!(rate.take(Load::Entry(1, WORK_FREE), start), Duration::ZERO);
        // Going and coming again changes nothing before the debt is paid.
        assert!(!rate.is_rested(start + Duration::from_secs(1)));
        assert!(rate.is_rested(start + Duration::from_secs(2)));
    }
}
