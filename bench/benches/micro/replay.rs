//! Complete replays, from the file to the hits.

use criterion::{Criterion, Throughput};
use etwsieve_bench::replay;
use etwsieve_bench::rules::RuleSet;
use etwsieve_bench::workload::{Name, Size, Workload};
use etwsieve_matcher::Matcher;
use std::sync::Arc;

pub(crate) fn benchmark(criterion: &mut Criterion) {
    let rule_sets = RuleSet::all().expect("the rules load");
    for name in Name::TRACES {
        let workload = Workload::load(name, Size::of_traces()).expect("the workload loads");
        for rules in rule_sets.iter().filter(|rules| rules.name != "sigma10") {
            let matcher = Arc::new(Matcher::new(rules.rules.clone()));
            let entrants =
                replay::entrants(&workload, rules, &matcher).expect("the verdicts are of this trace");
            let mut group = criterion.benchmark_group(format!("replay/{}/{}", workload.name, rules.name));
            group.sample_size(10).throughput(Throughput::Bytes(workload.bytes().len() as u64));
            for mut entrant in entrants {
                group.bench_function(&entrant.name, |bencher| {
                    bencher.iter(|| (entrant.pass)().expect("the answer is right"));
                });
            }
            group.finish();
        }
    }
}
