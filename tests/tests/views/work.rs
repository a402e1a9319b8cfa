//! Scripts that exceed the budget of the views: they are counted, and a stop does not wait for them.

use etwsieve::event::{EventHeader, EventRef};
use etwsieve::ledger::Summary;
use etwsieve::pipeline::{self, Observer, Progress, Settings};
use etwsieve::rules::ActiveRules;
use etwsieve::source::{Sink, Source, SourceError};
use etwsieve::stop::Stop;
use etwsieve_etl::FileTime;
use etwsieve_matcher::{Matcher, builtin, load};
use etwsieve_tests::samples;
use etwsieve_tests::writer::script_block;
use etwsieve_transport::hit::HitV1;

/// Took time in proportion to the product of both lengths once. Several of them exhaust the budget.
const EXPENSIVE: &str = "$x=('{0,60000}' -f '') -replace ('{0,30000}' -f 'b'),'x';";
/// Matches in the normalised view.
const OBFUSCATED: &str = "iex ('Enter-PS'+'Session -ComputerName a');";

/// A source of script blocks of one event each.
struct Blocks {
    texts: Vec<String>,
    /// Is stopped before the events are delivered.
    stop: Option<Stop>,
}

impl Source for Blocks {
    fn name(&self) -> String {
        "blocks".into()
    }

    fn len(&self) -> u64 {
        self.texts.len() as u64
    }

    fn run(&mut self, sink: &mut dyn Sink) -> Result<(), SourceError> {
        for (n, text) in (0u64..).zip(&self.texts) {
            let payload = script_block(1, 1, text, &format!("{n:08x}-aaaa-4a10-b04e-417ef95bc8b6"), None);
            let header = EventHeader { process_id: Some(4), ..samples::header(FileTime(n)) };
            // The feed accepts an event even if it then requests the source to end.
            let _ = sink.event(&EventRef { header, user_sid: None, computer: None, payload: &payload });
            if let Some(stop) = &self.stop {
                stop.request();
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Hits(Vec<HitV1>);

impl Observer for Hits {
    fn hit(&mut self, _source: u32, hit: HitV1) {
        self.0.push(hit);
    }

    fn tick(&mut self, _progress: &Progress) {}

    fn failed(&mut self, _source: u32, error: &SourceError) {
        panic!("{error}");
    }
}

fn run(blocks: Blocks, rules: &ActiveRules, stop: &Stop) -> (Summary, Vec<HitV1>) {
    let mut hits = Hits::default();
    let mut sources: Vec<Box<dyn Source>> = vec![Box::new(blocks)];
    let settings = Settings { threads: 1, ..Settings::default() };
    let summary = pipeline::run(&mut sources, rules, &settings, stop, &Progress::new(1), &mut hits);
    (summary, hits.0)
}

#[test]
fn views_that_are_cut_short_are_counted_and_their_matches_reported() {
    let rules = ActiveRules::new(Matcher::new(builtin::rules()));
    let texts = vec![
        EXPENSIVE.repeat(40),
        OBFUSCATED.to_owned(),
        format!("{OBFUSCATED}{}", EXPENSIVE.repeat(40)),
        "Get-ChildItem".to_owned(),
    ];
    let (summary, hits) = run(Blocks { texts, stop: None }, &rules, &Stop::default());
    assert_eq!((summary.total.views_cut, summary.total.view_detections), (2, 2), "{summary:?}");
    assert_eq!(hits.len(), 2);
}

/// Stopping the views of an event does not affect its search as recorded.
#[test]
fn a_stop_ends_the_views_but_not_the_search_as_recorded() {
    let rules = ActiveRules::new(Matcher::new(builtin::rules()));
    let stop = Stop::default();
    let text = format!("Enter-PSSession -ComputerName a;{}", EXPENSIVE.repeat(400));
    let blocks = Blocks { texts: vec![text], stop: Some(stop.clone()) };
    let (summary, hits) = run(blocks, &rules, &stop);
    assert!(summary.interrupted && summary.total.balances(), "{summary:?}");
    assert_eq!((summary.total.events_matched, summary.total.views_cut, hits.len()), (1, 1, 1), "{summary:?}");
}

/// While rules are replaced repeatedly, each event is reported once, by the rules of one generation.
#[test]
fn replacing_rules_neither_loses_nor_doubles_hits() {
    const EVENTS: usize = 60;
    let rules = ActiveRules::new(Matcher::new(builtin::rules()));
    let text =
        format!("Enter-PSSession -ComputerName a;{OBFUSCATED}{}", "$b=('a','b' -join '');".repeat(300));
    let other = "title: other\nid: o\nlogsource: {category: ps_script}\ndetection: {s: {ScriptBlockText|contains: zz}, condition: s}\n";
    let done = std::sync::atomic::AtomicBool::new(false);
    let (summary, hits) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Acquire) {
                let mut set = builtin::rules();
                set.extend(load([("o.yml", other)]).rules);
                rules.replace(Matcher::new(set));
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        });
        let result = run(Blocks { texts: vec![text; EVENTS], stop: None }, &rules, &Stop::default());
        done.store(true, std::sync::atomic::Ordering::Release);
        result
    });
    assert_eq!((summary.total.events_matched, hits.len()), (EVENTS as u64, EVENTS), "{summary:?}");
    assert_eq!(summary.total.views_cut, 0, "an event is searched again rather than cut");
}
