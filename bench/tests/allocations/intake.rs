//! The intake of a live session does not allocate, neither for events that are searched nor for events that are dropped.
//!
//! The test counts the allocations of the thread of the source, which in a live session is the thread of the ETW callback.

use etwsieve::event::EventRef;
use etwsieve::pipeline::{Progress, run};
use etwsieve::rules::ActiveRules;
use etwsieve::source::{Sink, Source, SourceError};
use etwsieve::stop::Stop;
use etwsieve_bench::alloc::of_thread;
use etwsieve_bench::callback::{header, payload, settings};
use etwsieve_bench::replay::Counting;
use etwsieve_matcher::{Matcher, builtin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const EVENTS: u64 = 20_000;

/// Offers events as fast as possible, or with a pause after every few.
struct Counted {
    payload: Vec<u8>,
    pause_every: Option<u64>,
    allocations: Arc<AtomicU64>,
}

impl Source for Counted {
    fn name(&self) -> String {
        "counted".into()
    }

    fn len(&self) -> u64 {
        0
    }

    fn run(&mut self, sink: &mut dyn Sink) -> Result<(), SourceError> {
        let offer = |sink: &mut dyn Sink, number| {
            let event = EventRef {
                header: header(number),
                user_sid: None,
                computer: Some("ws01.corp.example"),
                payload: &self.payload,
            };
            sink.event(&event).is_break()
        };
        // A thread allocates once for waking another one, with its first events.
        for number in 0..64 {
            offer(sink, number);
            thread::sleep(Duration::from_micros(100));
        }
        let (count, ()) = of_thread(|| {
            for number in 64..EVENTS {
                if offer(sink, number) {
                    break;
                }
                if self.pause_every.is_some_and(|every| number % every == 0) {
                    thread::sleep(Duration::from_micros(200));
                }
            }
        });
        self.allocations.store(count, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn the_intake_allocates_nothing() {
    let rules = ActiveRules::new(Matcher::new(builtin::rules()));
    // Buffers of the pool, bytes of a payload, pauses, and whether events must be dropped.
    let rows = [
        ("searched", 64, 512, Some(16), false),
        ("searched, large", 64, 40 << 10, Some(8), false),
        ("no room", 1, 512, None, true),
        ("no room, large", 2, 40 << 10, None, true),
    ];
    for (name, pool, len, pause_every, drops) in rows {
        let allocations = Arc::new(AtomicU64::new(u64::MAX));
        let source = Counted { payload: payload(len), pause_every, allocations: Arc::clone(&allocations) };
        let mut sources: Vec<Box<dyn Source>> = vec![Box::new(source)];
        let progress = Progress::new(1);
        let mut observer = Counting::default();
        let summary = run(&mut sources, &rules, &settings(pool), &Stop::default(), &progress, &mut observer);
        let searched = summary.total.events_matched + summary.total.events_not_matched;
        assert!(searched > 0 && searched <= EVENTS, "{name}: {searched} events searched");
        if drops {
            assert!(searched < EVENTS, "{name}: nothing was dropped");
        } else {
            // The number depends on other load of the machine, since the matcher thread has to run during the pauses.
            assert!(searched > EVENTS / 10, "{name}: {searched} events searched");
        }
        assert_eq!(allocations.load(Ordering::Relaxed), 0, "{name}");
    }
}
