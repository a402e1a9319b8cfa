//! The raw search alone, with the prefilter of the views, and with the views of events that pass it.

use criterion::{Criterion, Throughput};
use etwsieve_bench::rules::RuleSet;
use etwsieve_bench::views::{Depth, RULES, WORKLOADS, matcher, pass, verify};
use etwsieve_bench::workload::{Size, Workload};
use etwsieve_matcher::Scratch;
use std::hint::black_box;

pub(crate) fn benchmark(criterion: &mut Criterion) {
    let sets = RuleSet::all().expect("the rules load");
    for name in WORKLOADS {
        let workload = Workload::load(name, Size::of_payloads()).expect("the workload loads");
        for set in sets.iter().filter(|set| RULES.contains(&set.name)) {
            let matcher = matcher(set);
            let outcome = verify(&matcher, &workload, set).expect("the answers are right");
            let events = workload.len();
            eprintln!("{}, {}: {events} events, {outcome:?}", workload.name, set.name);
            let mut group = criterion.benchmark_group(format!("views/{}/{}", workload.name, set.name));
            group.sample_size(20).throughput(Throughput::Elements(events as u64));
            let mut scratch = Scratch::default();
            for depth in Depth::ALL {
                group.bench_function(depth.as_str(), |bencher| {
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
