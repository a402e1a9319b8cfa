//! The allocations of the pipeline do not depend on the number of events without a hit.

use etwsieve::event::EventRef;
use etwsieve::pipeline::{Progress, Settings, run};
use etwsieve::rules::ActiveRules;
use etwsieve::search::Search;
use etwsieve::source::{Sink, Source, SourceError};
use etwsieve::stop::Stop;
use etwsieve_bench::alloc::of_process;
use etwsieve_bench::callback::header;
use etwsieve_bench::replay::Counting;
use etwsieve_matcher::{Matcher, builtin};
use etwsieve_tests::writer::script_block;

const EVENTS: u64 = 20_000;
/// Number of buffers in the pool. All are allocated, and grown to the size of the payload, at the start of a run.
const POOL: usize = 16;
/// Permitted difference between the allocations of two runs: threads that wait for a channel, and the buffers in use.
const SLACK: u64 = 200;
const ID: &str = "339311ba-d4cc-4a10-b04e-417ef95bc8b6";

/// A source that repeats an event.
struct Repeated {
    events: u64,
    payload: Vec<u8>,
}

impl Source for Repeated {
    fn name(&self) -> String {
        "repeated".into()
    }

    fn len(&self) -> u64 {
        0
    }

    fn run(&mut self, sink: &mut dyn Sink) -> Result<(), SourceError> {
        for number in 0..self.events {
            let header = header(number);
            let event = EventRef { header, user_sid: None, computer: None, payload: &self.payload };
            if sink.event(&event).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Returns the allocations and detections of a run over `events` events with this text.
fn allocations(rules: &ActiveRules, text: &str, search: Search, threads: usize, events: u64) -> (u64, u64) {
    let payload = script_block(1, 1, text, ID, None);
    let mut sources: Vec<Box<dyn Source>> = vec![Box::new(Repeated { events, payload })];
    let settings = Settings { threads, channel_events: POOL, search, ..Settings::default() };
    let mut observer = Counting::default();
    let progress = Progress::new(1);
    let (count, summary) =
        of_process(|| run(&mut sources, rules, &settings, &Stop::default(), &progress, &mut observer));
    assert_eq!(summary.total.events_matched + summary.total.events_not_matched, events);
    (count, observer.detections)
}

#[test]
fn events_without_a_hit_allocate_nothing() {
    let _guard = super::alone();
    let rules = ActiveRules::new(Matcher::new(builtin::rules()));
    let rows = [
        ("harmless", "Get-Date | Format-List".to_owned(), Search::default()),
        // The cmdlet occurs in a rule of the call-aware view, which would have to inspect the text and allocate.
        ("near hit", "Enter-PSSession -Id 4".to_owned(), Search::PLAIN),
        ("long", "Write-Output 'nothing to see'; ".repeat(600), Search::default()),
    ];
    for (name, text, search) in rows {
        for threads in [1, 3] {
            allocations(&rules, &text, search, threads, 100);
            let (once, _) = allocations(&rules, &text, search, threads, EVENTS);
            let (twice, detections) = allocations(&rules, &text, search, threads, 2 * EVENTS);
            assert_eq!(detections, 0, "{name}");
            assert!(twice <= once + SLACK, "{name}, {threads} threads: {once} allocations, then {twice}");
            assert!(once < EVENTS / 20, "{name}, {threads} threads: {once} allocations");
        }
    }
    // The same method detects the allocations of hits.
    let hit = "Enter-PSSession -ComputerName srv01";
    let (once, detections) = allocations(&rules, hit, Search::PLAIN, 1, 1_000);
    let (twice, _) = allocations(&rules, hit, Search::PLAIN, 1, 2_000);
    assert_eq!(detections, 1_000);
    assert!(twice > once + 1_000, "{once} allocations, then {twice}");
}
