//! The cost of one event for the thread that delivers it, which in a live session is the thread of the ETW callback.
//!
//! The pipeline runs as it does live: a full pool drops events, and a matcher thread drains the channel. A source offers
//! events with payloads of one size in bursts that fit into the pool, and lets the matcher catch up between them; only the
//! bursts are timed. For comparison the same bytes are copied into the same number of buffers.

use crate::error::BenchError;
use crate::measure::{ClockKind, Measured, Median};
use crate::replay::Counting;
use cpu_time::ThreadTime;
use etwsieve::event::{EventHeader, EventRef};
use etwsieve::pipeline::{Progress, Settings, Shard, WhenFull, run};
use etwsieve::rules::ActiveRules;
use etwsieve::search::Search;
use etwsieve::source::{Sink, Source, SourceError};
use etwsieve::stop::Stop;
use etwsieve_etl::FileTime;
use etwsieve_matcher::builtin;
use etwsieve_tests::samples;
use etwsieve_tests::writer::script_block;
use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Payload sizes, in bytes, and their names.
pub const PAYLOADS: [(&str, usize); 3] = [("0.5 KB", 512), ("6 KB", 6 << 10), ("40 KB", 40 << 10)];
/// Buffers of the pool.
const POOL: usize = 128;
/// Events of a burst: fewer than the pool, so that none is dropped if the matcher has caught up.
pub const BURST: usize = 64;
/// Time for the matcher to catch up. It needs a fraction of it.
const PAUSE: Duration = Duration::from_millis(2);
const ID: &str = "339311ba-d4cc-4a10-b04e-417ef95bc8b6";

/// The cost of the bursts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Intake {
    /// Time of the source's thread within bursts.
    pub time: Duration,
    /// Number of events offered.
    pub offered: u64,
    /// Number of events dropped because the pool was full.
    pub dropped: u64,
}

/// Returns a payload of event 4104 with `len` bytes that matches no rule.
pub fn payload(len: usize) -> Vec<u8> {
    let around = script_block(1, 1, "", ID, None).len();
    let text = "Write-Output 'nothing to see here'; ".chars().cycle();
    let text: String = text.take(len.saturating_sub(around) / 2).collect();
    script_block(1, 1, text.as_str(), ID, None)
}

/// Returns the header of an event of a live session.
pub fn header(number: u64) -> EventHeader {
    EventHeader {
        process_id: Some(8),
        thread_id: Some(12),
        ..samples::header(FileTime(133_500_000_000_000_000 + number))
    }
}

/// Returns the settings of a live session with a pool of this size.
pub fn settings(pool: usize) -> Settings {
    Settings {
        threads: 1,
        channel_events: pool,
        channel_bytes: usize::MAX / 200,
        when_full: WhenFull::Drop,
        warning_reserve: 0,
        shard: Shard::Writer,
        search: Search::default(),
    }
}

struct Bursts {
    payload: Vec<u8>,
    count: usize,
    pause: Duration,
    time: Arc<Mutex<Duration>>,
}

impl Source for Bursts {
    fn name(&self) -> String {
        "bursts".into()
    }

    fn len(&self) -> u64 {
        0
    }

    fn run(&mut self, sink: &mut dyn Sink) -> Result<(), SourceError> {
        let mut time = Duration::ZERO;
        // The first burst touches the pool's memory.
        for burst in 0..=self.count {
            let start = ThreadTime::now();
            for event in 0..BURST {
                let event = EventRef {
                    header: header((burst * BURST + event) as u64),
                    user_sid: None,
                    computer: None,
                    payload: &self.payload,
                };
                if sink.event(&event).is_break() {
                    break;
                }
            }
            if burst > 0 {
                time += start.elapsed();
            }
            thread::sleep(self.pause);
        }
        if let Ok(mut total) = self.time.lock() {
            *total = time;
        }
        Ok(())
    }
}

/// Offers `bursts` bursts of events with this payload to a live pipeline with the built-in rule.
pub fn intake(payload: &[u8], bursts: usize) -> Intake {
    let time = Arc::new(Mutex::new(Duration::ZERO));
    let source = Bursts { payload: payload.to_vec(), count: bursts, pause: PAUSE, time: Arc::clone(&time) };
    let mut sources: Vec<Box<dyn Source>> = vec![Box::new(source)];
    let rules = ActiveRules::new(crate::rules::compile(builtin::rules()));
    let progress = Progress::new(1);
    let mut observer = Counting::default();
    let summary = run(&mut sources, &rules, &settings(POOL), &Stop::default(), &progress, &mut observer);
    let offered = (bursts * BURST) as u64;
    let searched = summary.total.events_matched + summary.total.events_not_matched;
    let time = time.lock().map_or(Duration::ZERO, |time| *time);
    Intake { time, offered, dropped: (offered + BURST as u64).saturating_sub(searched) }
}

/// Returns the time it takes to copy the payload as often, into the buffers of a pool in turn.
pub fn copies(payload: &[u8], bursts: usize) -> Duration {
    let mut buffers = vec![vec![0u8; payload.len()]; POOL];
    let mut time = Duration::ZERO;
    for burst in 0..=bursts {
        let start = ThreadTime::now();
        for event in 0..BURST {
            let buffer = &mut buffers[(burst * BURST + event) % POOL];
            buffer.copy_from_slice(black_box(payload));
            black_box(buffer.as_slice());
        }
        if burst > 0 {
            time += start.elapsed();
        }
        thread::sleep(PAUSE / 8);
    }
    time
}

/// Measures intake and bare copies in turn, the intake first. Also returns the number of dropped events.
///
/// # Errors
///
/// None at present; the signature is that of the other races.
pub fn race(payload_len: usize, rounds: usize, bursts: usize) -> Result<(Vec<Measured>, u64), BenchError> {
    let payload = payload(payload_len);
    let events = (bursts * BURST) as u64;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let mut dropped = 0;
    for _ in 0..rounds.max(1) {
        let intake = intake(&payload, bursts);
        dropped += intake.dropped;
        ours.push(intake.time.as_secs_f64().max(1e-12) / events as f64);
        bare.push(copies(&payload, bursts).as_secs_f64().max(1e-12) / events as f64);
    }
    let measured = |name: &str, question, times: &[f64]| Measured {
        name: name.to_owned(),
        question,
        clock: ClockKind::Thread,
        events,
        bytes: events * payload.len() as u64,
        gb_per_s: Median::of(times.iter().map(|time| payload.len() as f64 / time * 1e-9).collect()),
        ns_per_event: Median::of(times.to_vec()).mid * 1e9,
        ratio: Median::of(times.iter().zip(&ours).map(|(time, ours)| time / ours).collect()),
        allocations_per_event: 0.0,
    };
    Ok((vec![measured("intake", "intake", &ours), measured("memcpy", "bound", &bare)], dropped))
}

#[cfg(test)]
mod tests {
    use super::{BURST, PAYLOADS, intake, payload, race};

    #[test]
    fn bursts_arrive() {
        for (name, len) in PAYLOADS {
            let payload = payload(len);
            assert!(payload.len() <= len && payload.len() + 2 > len, "{name}: {} bytes", payload.len());
            let intake = intake(&payload, 3);
            assert_eq!(intake.offered, 3 * BURST as u64);
            assert!(!intake.time.is_zero() && intake.dropped <= intake.offered, "{intake:?}");
        }
    }

    #[test]
    fn rows_are_of_the_same_bytes() {
        let (rows, _) = race(512, 1, 2).unwrap();
        assert_eq!([rows[0].name.as_str(), rows[1].name.as_str()], ["intake", "memcpy"]);
        assert_eq!(rows[0].bytes, rows[1].bytes);
        assert!(rows.iter().all(|row| row.ns_per_event > 0.0));
    }
}
