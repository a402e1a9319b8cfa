//! What other views cost beside the raw search: the raw search alone, with the cheap test, and with the views where the
//! test asks for them. On the stream of harmless scripts, of which nearly none has a reason, and on small events.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use etwsieve_bench::rules::RuleSet;
use etwsieve_bench::workload::{Name, Part, Size, Workload};
use etwsieve_matcher::{EventKind, Matcher, Payload, Repeats, Scratch, Views, builtin};
use std::hint::black_box;

/// How far an event is looked at.
#[derive(Clone, Copy, Debug)]
enum Depth {
    Raw,
    Test,
    Views,
}

/// What came of a pass over the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// Pairs of an event and a rule, raw.
    raw: usize,
    /// Events that the cheap test does not pass by.
    closer: usize,
    /// Pairs that a view adds.
    added: usize,
}

fn pass(matcher: &Matcher, workload: &Workload, depth: Depth, scratch: &mut Scratch) -> Outcome {
    let mut outcome = Outcome::default();
    for (_, bytes) in workload.payloads() {
        let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes };
        let raw = matcher.find(&payload, scratch);
        outcome.raw += raw.len();
        if matches!(depth, Depth::Raw) {
            continue;
        }
        // Empty as a rule, and then made without an allocation.
        let raw = raw.to_vec();
        if !matcher.views_could_differ_from_raw(&payload, Views::ALL, scratch) {
            continue;
        }
        outcome.closer += 1;
        if matches!(depth, Depth::Views) {
            outcome.added += matcher.find_views(&payload, Views::ALL, &raw, scratch).len();
        }
    }
    outcome
}

/// Checks the answers: raw those that are known, of the views that none is lost by the cheap test.
fn verify(matcher: &Matcher, workload: &Workload, raw: Option<usize>) -> Outcome {
    let mut scratch = Scratch::default();
    let outcome = pass(matcher, workload, Depth::Views, &mut scratch);
    assert!(raw.is_none_or(|raw| raw == outcome.raw), "raw: {raw:?} known, {} found", outcome.raw);
    let mut added = 0;
    for (_, bytes) in workload.payloads() {
        let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes };
        let raw = matcher.find(&payload, &mut scratch).to_vec();
        added += matcher.find_views(&payload, Views::ALL, &raw, &mut scratch).len();
    }
    assert_eq!(outcome.added, added, "the cheap test passes by nothing that a view finds");
    outcome
}

fn benchmark(criterion: &mut Criterion) {
    let sets = RuleSet::all().expect("the rules load");
    for name in [Name::Stream, Name::Small] {
        let workload = Workload::load(name, Size::of_payloads()).expect("the workload loads");
        for set in sets.iter().filter(|set| ["builtin", "sigma"].contains(&set.name)) {
            let known = workload.expected(set, Part::WHOLE).expect("the verdicts are of this trace");
            // The built-in rules with the one of the call-aware view, as the sensor has them.
            let rules = if set.name == "builtin" { builtin::rules() } else { set.rules.clone() };
            let matcher = Matcher::new(rules).with_repeats(Repeats::Never);
            let outcome = verify(&matcher, &workload, Some(known.len()));
            let events = workload.len();
            eprintln!("{}, {}: {events} events, {outcome:?}", workload.name, set.name);
            let mut group = criterion.benchmark_group(format!("views/{}/{}", workload.name, set.name));
            group.sample_size(20).throughput(Throughput::Elements(events as u64));
            let mut scratch = Scratch::default();
            for (name, depth) in
                [("raw", Depth::Raw), ("raw and test", Depth::Test), ("raw, test and views", Depth::Views)]
            {
                group.bench_function(name, |bencher| {
                    bencher.iter(|| {
                        let found = pass(&matcher, &workload, depth, &mut scratch);
                        assert_eq!(found.raw, outcome.raw, "the answer is right");
                        black_box(found)
                    });
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
