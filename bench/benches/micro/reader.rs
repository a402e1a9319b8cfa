//! The `.etl` reader alone, on traces in memory and in a file.

use criterion::{Criterion, Throughput};
use etwsieve_bench::reader;
use etwsieve_bench::workload::{Name, Size, Workload};

pub(crate) fn benchmark(criterion: &mut Criterion) {
    for name in Name::TRACES {
        let workload = Workload::load(name, Size::of_traces()).expect("the workload loads");
        let bytes = reader::trace_bytes(&workload).expect("the trace is read");
        let mut group = criterion.benchmark_group(format!("reader/{}", workload.name));
        group.sample_size(20).throughput(Throughput::Bytes(bytes.len() as u64));
        for mut entrant in reader::entrants(&workload, &bytes) {
            group.bench_function(&entrant.name, |bencher| {
                bencher.iter(|| (entrant.pass)().expect("the answer is right"));
            });
        }
        group.finish();
    }
}
