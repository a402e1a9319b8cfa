//! The matcher on payloads in memory, with every kernel, and the bounds.

use criterion::{Criterion, Throughput};
use etwsieve_bench::contestant::{Entry, own};
use etwsieve_bench::rules::RuleSet;
use etwsieve_bench::workload::{Name, Size, Workload};

pub(crate) fn benchmark(criterion: &mut Criterion) {
    let rule_sets = RuleSet::all().expect("the rules load");
    for name in Name::ALL {
        let workload = Workload::load(name, Size::of_payloads()).expect("the workload loads");
        // The tenfold set takes long to compile, and the report measures it.
        for rules in rule_sets.iter().filter(|rules| rules.name != "sigma10") {
            let mut group = criterion.benchmark_group(format!("gate/{}/{}", workload.name, rules.name));
            let mut entries = own(&workload, rules).expect("the contestants take the rules");
            entries.iter_mut().try_for_each(Entry::verify).expect("the answers are right");
            for entry in &mut entries {
                group.sample_size(10).throughput(Throughput::Bytes(entry.bytes()));
                group.bench_function(entry.name(), |bencher| {
                    bencher.iter(|| entry.run().expect("the answer is right"));
                });
            }
            group.finish();
        }
    }
}
