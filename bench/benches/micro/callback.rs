//! The intake of a live pipeline, compared with a bare copy of the payload.

use criterion::{Criterion, Throughput};
use etwsieve_bench::callback::{BURST, PAYLOADS, copies, intake, payload};

const BURSTS_MAX: usize = 100;

pub(crate) fn benchmark(criterion: &mut Criterion) {
    for (name, len) in PAYLOADS {
        let payload = payload(len);
        let mut group = criterion.benchmark_group(format!("callback/{name}"));
        group.sample_size(10).throughput(Throughput::Bytes(payload.len() as u64));
        // An iteration is an event. Only whole bursts are possible, and their number is limited because of the pauses.
        let bursts = |events: u64| (events as usize).div_ceil(BURST).min(BURSTS_MAX);
        let share = |events: u64| events as f64 / (bursts(events) * BURST) as f64;
        group.bench_function("intake", |bencher| {
            bencher.iter_custom(|events| intake(&payload, bursts(events)).time.mul_f64(share(events)));
        });
        group.bench_function("memcpy", |bencher| {
            bencher.iter_custom(|events| copies(&payload, bursts(events)).mul_f64(share(events)));
        });
        group.finish();
    }
}
