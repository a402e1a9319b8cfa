//! Measures contestants in turn, and compares their times within each round.
//!
//! A temporary load slows all contestants of a round alike, so ratios within a round are more stable than times. Medians
//! and quartiles are taken over the rounds.

use crate::alloc;
use crate::answer::mix;
use crate::contestant::Entry;
use crate::error::BenchError;
use cpu_time::ThreadTime;
use std::time::{Duration, Instant};

/// Number and duration of samples.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Number of rounds. Each contestant gives one sample per round.
    pub rounds: usize,
    /// Minimum duration of a sample, which consists of as many passes as needed, so that clock ticks do not matter.
    pub sample: Duration,
}

impl Effort {
    /// For records.
    pub const FULL: Self = Self { rounds: 15, sample: Duration::from_millis(100) };
    /// For a quick look.
    pub const QUICK: Self = Self { rounds: 5, sample: Duration::from_millis(30) };
}

/// The kind of time that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockKind {
    /// Processor time of the calling thread, for work of one thread.
    Thread,
    /// Wall-clock time, for work of several threads.
    Wall,
}

/// Repeatable work that checks its own result.
pub struct Entrant<'a> {
    /// Name of the contestant.
    pub name: String,
    /// The question that it answers.
    pub question: &'static str,
    /// Number of events in one pass.
    pub events: u64,
    /// Number of bytes in one pass, from which GB/s is computed.
    pub bytes: u64,
    /// The clock that measures it.
    pub clock: ClockKind,
    /// Runs one pass.
    pub pass: Box<dyn FnMut() -> Result<(), BenchError> + 'a>,
}

impl<'a> From<Entry<'a>> for Entrant<'a> {
    fn from(mut entry: Entry<'a>) -> Self {
        Self {
            name: entry.name(),
            question: entry.question().as_str(),
            events: entry.events(),
            bytes: entry.bytes(),
            clock: ClockKind::Thread,
            pass: Box::new(move || entry.run()),
        }
    }
}

/// A median, and the quartiles around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Median {
    /// The first quartile.
    pub low: f64,
    /// The median.
    pub mid: f64,
    /// The third quartile.
    pub high: f64,
}

impl Median {
    /// Computes the median and quartiles of these samples.
    ///
    /// # Panics
    ///
    /// If `samples` is empty.
    pub fn of(mut samples: Vec<f64>) -> Self {
        assert!(!samples.is_empty(), "a median needs samples");
        samples.sort_by(f64::total_cmp);
        let last = samples.len() - 1;
        Self { low: samples[last / 4], mid: samples[last / 2], high: samples[last - last / 4] }
    }

    /// Returns the distance between the quartiles relative to the median.
    pub fn spread(&self) -> f64 {
        (self.high - self.low) / self.mid
    }
}

/// The measurements of one entrant.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Name of the contestant.
    pub name: String,
    /// The question that it answers.
    pub question: &'static str,
    /// The clock that measured it.
    pub clock: ClockKind,
    /// Number of events in one pass.
    pub events: u64,
    /// Number of bytes in one pass.
    pub bytes: u64,
    /// 10^9 bytes per second.
    pub gb_per_s: Median,
    /// Nanoseconds per event.
    pub ns_per_event: f64,
    /// Time per byte relative to the first entrant: 30 means that the first is 30 times as fast.
    pub ratio: Median,
    /// Allocations of the calling thread for each event, in a pass after the first.
    pub allocations_per_event: f64,
}

/// Measures the entrants in turn. The others are compared with the first.
///
/// # Errors
///
/// The first error of any pass. A wrong answer has no time.
pub fn race(entrants: &mut [Entrant<'_>], effort: Effort) -> Result<Vec<Measured>, BenchError> {
    let mut passes = Vec::with_capacity(entrants.len());
    let mut allocations = Vec::with_capacity(entrants.len());
    for entrant in &mut *entrants {
        // The first pass grows buffers and fills caches.
        (entrant.pass)()?;
        let (count, once) = alloc::of_thread(|| entrant.sample(1));
        let once = once?;
        allocations.push(count as f64 / entrant.events.max(1) as f64);
        passes.push((effort.sample.as_secs_f64() / once.max(1e-9)).ceil().clamp(1.0, 1e6) as u32);
    }
    let mut seconds_per_byte = vec![Vec::with_capacity(effort.rounds); entrants.len()];
    let mut order: Vec<usize> = (0..entrants.len()).collect();
    for round in 0..effort.rounds.max(1) as u64 {
        // So that no entrant always follows the same one, whose state of caches, predictors and clock influences the next.
        order.sort_by_cached_key(|&at| mix(mix(round) ^ at as u64));
        for &at in &order {
            let entrant = &mut entrants[at];
            let seconds = entrant.sample(passes[at])? / f64::from(passes[at]);
            seconds_per_byte[at].push(seconds.max(1e-12) / entrant.bytes.max(1) as f64);
        }
    }
    let Some(first) = seconds_per_byte.first().cloned() else { return Ok(Vec::new()) };
    let rows = entrants.iter().zip(seconds_per_byte).zip(allocations);
    Ok(rows
        .map(|((entrant, times), allocations_per_event)| Measured {
            name: entrant.name.clone(),
            question: entrant.question,
            clock: entrant.clock,
            events: entrant.events,
            bytes: entrant.bytes,
            ratio: Median::of(times.iter().zip(&first).map(|(time, first)| time / first).collect()),
            gb_per_s: Median::of(times.iter().map(|time| 1e-9 / time).collect()),
            ns_per_event: Median::of(times).mid * 1e9 * entrant.bytes as f64 / entrant.events.max(1) as f64,
            allocations_per_event,
        })
        .collect())
}

impl Entrant<'_> {
    /// Measures `passes` passes, in seconds.
    fn sample(&mut self, passes: u32) -> Result<f64, BenchError> {
        match self.clock {
            ClockKind::Thread => {
                let start = ThreadTime::now();
                (0..passes).try_for_each(|_| (self.pass)())?;
                Ok(start.elapsed().as_secs_f64())
            }
            ClockKind::Wall => {
                let start = Instant::now();
                (0..passes).try_for_each(|_| (self.pass)())?;
                Ok(start.elapsed().as_secs_f64())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ClockKind, Effort, Entrant, Median, race};
    use crate::error::BenchError;
    use std::hint::black_box;
    use std::time::Duration;

    fn entrant(name: &str, work: u64) -> Entrant<'static> {
        let pass = move || {
            let sum = (0..black_box(work)).fold(0u64, |sum, n| black_box(sum ^ n));
            black_box(sum);
            Ok(())
        };
        Entrant {
            name: name.into(),
            question: "sum",
            events: 4,
            bytes: 1_000,
            clock: ClockKind::Thread,
            pass: Box::new(pass),
        }
    }

    #[test]
    fn medians_and_quartiles() {
        let median = |low, mid, high| Median { low, mid, high };
        let rows: [(&[f64], Median); 3] = [
            (&[7.0], median(7.0, 7.0, 7.0)),
            (&[3.0, 1.0, 2.0, 5.0, 4.0], median(2.0, 3.0, 4.0)),
            (&[9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], median(3.0, 5.0, 7.0)),
        ];
        for (samples, expected) in rows {
            assert_eq!(Median::of(samples.to_vec()), expected, "{samples:?}");
        }
    }

    #[test]
    fn ratios_are_those_of_the_work() {
        let mut entrants = [entrant("one", 100_000), entrant("eight", 800_000)];
        let effort = Effort { rounds: 9, sample: Duration::from_millis(4) };
        let measured = race(&mut entrants, effort).unwrap();
        assert!((measured[0].ratio.mid - 1.0).abs() < 1e-9);
        let ratio = measured[1].ratio.mid;
        assert!((4.0..16.0).contains(&ratio), "{ratio}");
        assert!(measured[1].ns_per_event > measured[0].ns_per_event);
    }

    #[test]
    fn an_error_gives_no_time() {
        let mut count = 0;
        let failing = move || {
            count += 1;
            if count < 4 { Ok(()) } else { Err(BenchError::Rules("no".into())) }
        };
        let mut entrants = [entrant("fine", 10), entrant("failing", 10)];
        entrants[1].pass = Box::new(failing);
        assert!(race(&mut entrants, Effort { rounds: 9, sample: Duration::ZERO }).is_err());
    }
}
