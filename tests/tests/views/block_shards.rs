//! More blocks than fit: the evicted blocks do not depend on the number of threads.

use etwsieve::event::{EventHeader, EventRef};
use etwsieve::pipeline::{self, Observer, Progress, Settings};
use etwsieve::rules::ActiveRules;
use etwsieve::source::{Sink, Source, SourceError};
use etwsieve::stop::Stop;
use etwsieve_etl::FileTime;
use etwsieve_matcher::{Matcher, builtin};
use etwsieve_tests::samples;
use etwsieve_tests::writer::script_block;
use etwsieve_transport::hit::HitV1;
use std::collections::BTreeSet;

/// More incomplete blocks than fit, and among them some blocks that match when joined.
struct Flood;

impl Flood {
    /// Approximate size in bytes and number of fragments, which do not fit into all shards together.
    const FRAGMENT_LEN: usize = 48 << 10;
    const FRAGMENTS: u64 = 7_500;
    /// One in this many fragments starts a block whose second fragment follows at once, and another one starts a block
    /// whose second fragment follows after a third of the flood, when the block may have been evicted.
    const HONEST_EVERY: u64 = 250;
}

impl Source for Flood {
    fn name(&self) -> String {
        "flood".into()
    }

    fn len(&self) -> u64 {
        Self::FRAGMENTS
    }

    fn run(&mut self, sink: &mut dyn Sink) -> Result<(), SourceError> {
        let filler = "-ComputerName x; ".repeat(Self::FRAGMENT_LEN / 34);
        let mut offer = |n: u64, kind: &str, number: i32, text: &str| {
            let id = format!("{n:08x}-{kind}-4a10-b04e-417ef95bc8b6");
            let payload = script_block(number, 2, text, &id, None);
            let header = EventHeader { process_id: Some(4 * (n % 7) as u32), ..samples::header(FileTime(n)) };
            let event = EventRef { header, user_sid: None, computer: None, payload: &payload };
            // No stop is requested in this test.
            let _ = sink.event(&event);
        };
        for n in 0..Self::FRAGMENTS {
            offer(n, "dead", 1, &filler);
            if n % Self::HONEST_EVERY == 0 {
                offer(n, "beef", 1, "Enter-PSSess");
                offer(n, "beef", 2, "ion -ComputerName b");
                offer(n, "cafe", 1, "Enter-PSSess");
                if let Some(before) = n.checked_sub(Self::FRAGMENTS / 3) {
                    offer(before / Self::HONEST_EVERY * Self::HONEST_EVERY, "cafe", 2, "ion -ComputerName b");
                }
            }
        }
        Ok(())
    }
}

/// Block id, rule and `partial` of each hit.
#[derive(Default)]
struct Hits(BTreeSet<(u64, String, bool)>);

impl Observer for Hits {
    fn hit(&mut self, _source: u32, hit: HitV1) {
        for rule in &hit.rules {
            self.0.insert((hit.source_sequence, rule.id.clone(), hit.partial));
        }
    }

    fn tick(&mut self, _progress: &Progress) {}

    fn failed(&mut self, _source: u32, error: &SourceError) {
        panic!("{error}");
    }
}

/// Hits and evicted blocks are the same for every number of threads.
#[test]
fn a_flood_does_not_depend_on_threads() {
    let outcome = |threads: usize| {
        let rules = ActiveRules::new(Matcher::new(builtin::rules()));
        let settings = Settings { threads, ..Settings::default() };
        let mut hits = Hits::default();
        let mut sources: [Box<dyn Source>; 1] = [Box::new(Flood)];
        let progress = Progress::new(1);
        let summary = pipeline::run(&mut sources, &rules, &settings, &Stop::default(), &progress, &mut hits);
        (hits.0, summary.total.blocks)
    };
    let one = outcome(1);
    assert!(one.1.evicted > 100 && one.0.len() >= 30, "{one:?}");
    for threads in [2, 5, 16] {
        assert_eq!(outcome(threads), one, "{threads} threads");
    }
}
