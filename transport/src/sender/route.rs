//! Chooses the collector to try next and the time of the attempt: fail-over and back-off, without clock or socket.

use super::Address;
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant};

/// Pause after the first round of attempts.
pub const PAUSE_MIN: Duration = Duration::from_millis(500);
/// Maximum pause between two rounds.
pub const PAUSE_MAX: Duration = Duration::from_mins(1);
/// Maximum time for which a collector can ask not to be contacted.
pub const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);

/// The order in which a sensor tries its collectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Each sensor has its own, constant order. Sensors are spread evenly over the collectors, and so are those of a
    /// collector that fails.
    #[default]
    Shuffled,
    /// The order of the list, with the preferred collector first.
    Listed,
}

impl Order {
    /// Sorts the collectors for the sensor whose spool has this instance id.
    ///
    /// A shuffled order hashes each address separately (rendezvous hashing): if a collector is added or removed, only
    /// the sensors that move to or from it change their collector.
    pub fn sort(self, collectors: &mut [Address], instance: &[u8; 16]) {
        if self == Self::Shuffled {
            collectors.sort_by_cached_key(|address| {
                let hash = Sha256::new().chain_update(instance).chain_update(address.to_string());
                <[u8; 32]>::from(hash.finalize())
            });
        }
    }
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Connect to the collector with this index in the list.
    Connect(usize),
    /// Wait until this time.
    Wait(Instant),
}

/// The state of fail-over and back-off for a list of collectors.
#[derive(Clone, Debug)]
pub struct Route {
    /// The time before which a collector must not be tried.
    resting: Vec<Option<Instant>>,
    next: usize,
    /// Number of collectors tried in this round.
    tried: usize,
    pause: Duration,
    waiting: Option<Instant>,
}

impl Route {
    /// Starts with the first of `collectors` collectors.
    ///
    /// # Panics
    ///
    /// If `collectors` is 0.
    pub fn new(collectors: usize) -> Self {
        assert!(collectors > 0, "a sensor has at least one collector");
        Self { resting: vec![None; collectors], next: 0, tried: 0, pause: PAUSE_MIN, waiting: None }
    }

    /// Returns the next step. `random` is any number; it spreads the attempts of sensors that lost their collector at
    /// the same time.
    pub fn step(&mut self, now: Instant, random: u32) -> Step {
        if let Some(until) = self.waiting {
            if now < until {
                return Step::Wait(until);
            }
            self.waiting = None;
            self.tried = 0;
        }
        while self.tried < self.resting.len() {
            let number = self.next;
            self.next = (self.next + 1) % self.resting.len();
            self.tried += 1;
            if self.resting[number].is_none_or(|until| until <= now) {
                self.resting[number] = None;
                return Step::Connect(number);
            }
        }
        let mut until = now + jitter(self.pause, random);
        // If no collector may be tried after the pause, wait for the first that may.
        if let Some(earliest) =
            self.resting.iter().copied().collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().min())
        {
            until = until.max(earliest);
        }
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.waiting = Some(until);
        Step::Wait(until)
    }

    /// Skips a collector for `retry_after`, because it has asked for that.
    pub fn rest(&mut self, number: usize, retry_after: Duration, now: Instant, random: u32) {
        let time = retry_after.min(RETRY_AFTER_MAX);
        // Add a random part: the wait is never shorter than requested.
        let time = time + time.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0);
        self.resting[number] = Some(now + time);
    }

    /// Resets the pauses, because a collector has acknowledged something.
    pub fn progressed(&mut self) {
        self.pause = PAUSE_MIN;
        self.tried = 1;
    }
}

/// Returns a random part of a pause, at least half of it.
fn jitter(pause: Duration, random: u32) -> Duration {
    pause.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn sensors_are_spread_over_the_collectors() {
        let listed: Vec<Address> = ["c0:1", "c1:1", "c2:1", "c3:1"].map(|text| text.parse().unwrap()).into();
        let (mut firsts, mut seconds, mut moved) = ([0; 4], [0; 4], 0);
        for number in 0..4000_u128 {
            let instance = number.to_le_bytes();
            let mut collectors = listed.clone();
            Order::Shuffled.sort(&mut collectors, &instance);
            let place = |address: &Address| listed.iter().position(|other| other == address).unwrap();
            firsts[place(&collectors[0])] += 1;
            if place(&collectors[0]) == 0 {
                seconds[place(&collectors[1])] += 1;
            }
            // The list in another order, and without the last collector.
            let mut fewer: Vec<Address> = listed[..3].iter().rev().cloned().collect();
            Order::Shuffled.sort(&mut fewer, &instance);
            moved += usize::from(fewer[0] != collectors[0]);
            let mut same = listed.clone();
            Order::Listed.sort(&mut same, &instance);
            assert_eq!(same, listed);
        }
        assert!(firsts.iter().all(|count| (900..1100).contains(count)), "{firsts:?}");
        assert!(seconds[1..].iter().all(|count| (270..400).contains(count)), "{seconds:?}");
        assert_eq!(moved, firsts[3], "only the sensors of the collector that is gone move");
    }

    #[test]
    fn all_are_tried_before_the_first_pause() {
        let now = Instant::now();
        let mut route = Route::new(3);
        let steps: Vec<Step> = (0..4).map(|_| route.step(now, u32::MAX)).collect();
        assert_eq!(steps[..3], [Step::Connect(0), Step::Connect(1), Step::Connect(2)]);
        assert_eq!(steps[3], Step::Wait(now + ms(500)));
        assert_eq!(route.step(now + ms(499), 0), steps[3], "the pause stays the same");
        assert_eq!(route.step(now + ms(500), 0), Step::Connect(0));
    }

    #[test]
    fn pauses_double_to_a_minute_and_are_reset() {
        let mut now = Instant::now();
        let mut route = Route::new(1);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert_eq!(route.step(now, 0), Step::Connect(0));
            let Step::Wait(until) = route.step(now, 0) else { panic!("there is a pause") };
            pauses.push((until - now).as_millis());
            now = until;
        }
        // Half of 0.5 s, 1 s, … 60 s: the shortest pauses that are possible.
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(route.step(now, 0), Step::Connect(0));
        route.progressed();
        assert_eq!(route.step(now, u32::MAX), Step::Wait(now + ms(500)));
    }

    #[test]
    fn the_longer_of_pause_and_retry_after_counts() {
        // Columns: retry after, then the time at which the only address is tried again, both in ms. The pause is 500
        // ms.
        for (retry_after, expected) in [(100, 500), (2000, 2000)] {
            let now = Instant::now();
            let mut route = Route::new(1);
            assert_eq!(route.step(now, u32::MAX), Step::Connect(0));
            route.rest(0, ms(retry_after), now, 0);
            assert_eq!(route.step(now, u32::MAX), Step::Wait(now + ms(expected)), "{retry_after}");
            // `retry_after` has not lengthened the next pause, which only doubles with the rounds.
            assert_eq!(route.step(now + ms(expected), u32::MAX), Step::Connect(0));
            let wait = route.step(now + ms(expected), u32::MAX);
            assert_eq!(wait, Step::Wait(now + ms(expected + 1000)), "{retry_after}");
        }
    }

    #[test]
    fn a_collector_that_asked_for_a_pause_is_skipped() {
        let now = Instant::now();
        let mut route = Route::new(2);
        assert_eq!(route.step(now, 0), Step::Connect(0));
        route.rest(0, ms(10_000), now, 0);
        assert_eq!(route.step(now, 0), Step::Connect(1));
        assert_eq!(route.step(now, 0), Step::Wait(now + ms(250)));
        assert_eq!(route.step(now + ms(250), 0), Step::Connect(1));
        route.rest(1, ms(20_000), now, u32::MAX);
        assert_eq!(
            route.step(now + ms(300), 0),
            Step::Wait(now + ms(10_000)),
            "no collector may be tried before"
        );
        assert_eq!(route.step(now + ms(10_000), 0), Step::Connect(0));
        route.rest(0, Duration::from_secs(1 << 40), now, 0);
        assert!(route.resting[0].unwrap() <= now + RETRY_AFTER_MAX);
    }
}
