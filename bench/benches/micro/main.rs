//! Benchmarks of the parts: `cargo bench -p etwsieve-bench --bench micro -- [GROUP]`.
//!
//! Groups are named `area/workload/rules`. If GROUP starts with an area, the other areas are not even prepared. With
//! `cargo test` each benchmark runs once, which checks its answer.

mod blocks;
mod callback;
mod gate;
mod reader;
mod replay;
mod views;

use criterion::Criterion;

/// An area: the first part of the names of its groups, and its benchmarks.
type Area = (&'static str, fn(&mut Criterion));

const AREAS: [Area; 6] = [
    ("blocks", blocks::benchmark),
    ("callback", callback::benchmark),
    ("gate", gate::benchmark),
    ("reader", reader::benchmark),
    ("replay", replay::benchmark),
    ("views", views::benchmark),
];

fn main() {
    let area_of =
        |argument: String| AREAS.into_iter().find(|(area, _)| argument.split('/').next() == Some(area));
    let filter = std::env::args().skip(1).find_map(area_of);
    let mut criterion = Criterion::default().configure_from_args();
    for (area, benchmark) in AREAS {
        if filter.is_none_or(|(only, _)| only == area) {
            benchmark(&mut criterion);
        }
    }
    criterion.final_summary();
}
