//! Matcher and reader do not allocate for an event without a hit.

use etwsieve_bench::alloc::of_thread;
use etwsieve_bench::contestant::decode;
use etwsieve_bench::reader::trace_bytes;
use etwsieve_bench::rules::RuleSet;
use etwsieve_bench::workload::{Name, Size, Workload};
use etwsieve_etl::Trace;
use etwsieve_matcher::{EventKind, Matcher, Payload, Scratch};
use std::hint::black_box;

fn workloads() -> Vec<Workload> {
    // Whole workloads, so that rare paths of the evaluation are taken.
    let recorded = Name::TRACES.map(|name| Workload::load(name, Size::Whole).expect("the workload loads"));
    let generated =
        Name::TRACES.map(|name| Workload::generated(name, Size::Small).expect("the workload loads"));
    recorded.into_iter().chain(generated).collect()
}

#[test]
fn the_counter_counts() {
    let (none, sum) = of_thread(|| (0..100).map(black_box).sum::<u64>());
    assert_eq!((none, sum), (0, 4950));
    let rows: [(&str, u64, fn()); 4] = [
        ("a box", 1, || drop(black_box(Box::new(7)))),
        ("zeroed memory", 1, || drop(black_box(vec![0u8; 4096]))),
        ("nothing", 0, || drop(black_box(Vec::<u8>::new()))),
        ("growth", 2, || {
            let mut bytes = Vec::<u8>::with_capacity(8);
            bytes.extend_from_slice(black_box(&[1; 9]));
            black_box(bytes);
        }),
    ];
    for (name, expected, work) in rows {
        assert_eq!(of_thread(work).0, expected, "{name}");
    }
    // A contestant that is known to allocate.
    let workload = Workload::generated(Name::Busy, Size::Small).unwrap();
    for (event, payload) in workload.payloads() {
        assert!(of_thread(|| decode::is_hit(payload)).0 > 0, "event {event}");
    }
}

#[test]
fn searching_allocates_nothing() {
    for workload in workloads() {
        for rules in RuleSet::all().unwrap() {
            let matcher = Matcher::new(rules.rules.clone());
            let mut scratch = Scratch::default();
            let mut find = |bytes| {
                let payload = Payload { kind: EventKind::ScriptBlock, process_id: None, bytes };
                matcher.find(&payload, &mut scratch).len()
            };
            // The first pass grows the scratch memory and the thread-local caches of regular expressions.
            let hits: usize = workload.payloads().map(|(_, payload)| find(payload)).sum();
            assert!(hits > 0, "{} has hits of {}", workload.name, rules.name);
            let mut without_hit = 0;
            for (event, payload) in workload.payloads() {
                let (allocations, found) = of_thread(|| find(payload));
                if found == 0 {
                    without_hit += 1;
                    assert_eq!(allocations, 0, "{} event {event} with {}", workload.name, rules.name);
                }
            }
            assert!(without_hit > workload.len() / 2, "{without_hit} of {}", workload.len());
        }
    }
}

#[test]
fn reading_allocates_nothing_per_event() {
    for workload in workloads() {
        let bytes = trace_bytes(&workload).unwrap();
        let trace = Trace::new(&bytes).unwrap();
        let mut events = trace.events();
        let (allocations, count) = of_thread(|| {
            let mut count = 0;
            while let Some(event) = events.next() {
                count += u64::from(event.event_id == Some(4104));
                black_box(event.payload);
            }
            count
        });
        assert_eq!(count, workload.events_in_trace());
        assert_eq!(allocations, 0, "{} ({})", workload.name, workload.source);
    }
}
