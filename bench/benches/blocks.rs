//! What whole blocks cost beside the search of events: the stream of harmless fragments, searched event by event, and
//! joined as well.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use etwsieve_bench::rules::RuleSet;
use etwsieve_bench::workload::{Name, Size, Workload};
use etwsieve_matcher::block::{Assembly, Fragment, Joined, Limits};
use etwsieve_matcher::{EventKind, Matcher, Payload, Repeats, Scratch};
use std::hint::black_box;

/// Events searched in one sample before the buffers, of which some were exchanged, are made anew.
const EVENTS: usize = 2_000;

fn events(matcher: &Matcher, buffers: &mut [Vec<u8>], scratch: &mut Scratch) -> usize {
    let find = |bytes: &mut Vec<u8>| {
        let payload = Payload { kind: EventKind::ScriptBlock, process_id: Some(4), bytes };
        matcher.find(&payload, scratch).len()
    };
    buffers.iter_mut().map(find).sum()
}

fn blocks(
    matcher: &Matcher,
    buffers: &mut [Vec<u8>],
    scratch: &mut Scratch,
    assembly: &mut Assembly<u64>,
    joined: &mut Joined,
) -> usize {
    let mut found = 0;
    for (time, bytes) in (0u64..).zip(buffers) {
        let payload = Payload { kind: EventKind::ScriptBlock, process_id: Some(4), bytes };
        if payload.fragment().is_none() {
            found += matcher.find(&payload, scratch).len();
            continue;
        }
        let given = matcher.find_fragment(&payload, scratch).to_vec();
        found += given.len();
        let fragment = Fragment {
            source: 0,
            process_id: Some(4),
            time,
            views_could_differ: false,
            found_needles: scratch.found_needles(),
        };
        matcher.take_fragment(assembly, fragment, bytes, &given, scratch, || time);
        while let Some(closed) = assembly.next_closed() {
            found += matcher.find_joined(&closed, scratch, joined).len();
            assembly.recycle(closed);
        }
    }
    found
}

fn benchmark(criterion: &mut Criterion) {
    let workload = Workload::load(Name::Stream, Size::of_payloads()).expect("the workload loads");
    let payloads: Vec<Vec<u8>> =
        workload.payloads().take(EVENTS).map(|(_, payload)| payload.to_vec()).collect();
    let bytes: usize = payloads.iter().map(Vec::len).sum();
    for rules in RuleSet::all().expect("the rules load").iter().filter(|rules| rules.name != "sigma10") {
        let matcher = Matcher::new(rules.rules.clone()).with_repeats(Repeats::Never);
        let (mut scratch, mut joined) = (Scratch::default(), Joined::default());
        let mut assembly = Assembly::<u64>::new(Limits::default());
        let plain = events(&matcher, &mut payloads.clone(), &mut scratch);
        let whole = blocks(&matcher, &mut payloads.clone(), &mut scratch, &mut assembly, &mut joined);
        assert!(whole >= plain, "blocks give no less: {whole}, {plain}");
        let mut group = criterion.benchmark_group(format!("blocks/{}", rules.name));
        group.sample_size(20).throughput(Throughput::Bytes(bytes as u64));
        group.bench_function("events", |bencher| {
            let input = || payloads.clone();
            let work = |mut buffers: Vec<Vec<u8>>| {
                black_box(events(&matcher, &mut buffers, &mut scratch));
                buffers
            };
            bencher.iter_batched(input, work, BatchSize::PerIteration);
        });
        group.bench_function("events and blocks", |bencher| {
            let input = || payloads.clone();
            let work = |mut buffers: Vec<Vec<u8>>| {
                black_box(blocks(&matcher, &mut buffers, &mut scratch, &mut assembly, &mut joined));
                buffers
            };
            bencher.iter_batched(input, work, BatchSize::PerIteration);
        });
        group.finish();
    }
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
