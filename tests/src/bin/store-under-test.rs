//! Fills a store, and says on standard output how far it is durable: `store-under-test STORE SEED COUNT`.
//!
//! Started again it goes on where it was. Errors go to standard error, a line each, and what failed is tried again.

use etwsieve_tests::faults::{Batch, Rng};
use etwsieve_transport::store::{HitFilter, Store};
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(path), Some(seed), Some(count)) = (args.next(), args.next(), args.next()) else {
        eprintln!("usage: store-under-test STORE SEED COUNT");
        return ExitCode::from(2);
    };
    let (seed, count) = (seed.parse().unwrap_or(0), count.parse().unwrap_or(0));
    let hits = Batch::new("store", count, 100..6000, &mut Rng::new(seed)).hits();
    loop {
        // After an error with a new connection: what it knew of the file may be wrong.
        match fill(&path, &hits) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => eprintln!("{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn fill(path: &str, hits: &[etwsieve_transport::hit::HitV1]) -> Result<(), Box<dyn std::error::Error>> {
    let mut store = Store::open(path)?;
    let mut done = store.hits(HitFilter::default()).count();
    let mut out = std::io::stdout();
    while done < hits.len() {
        let end = (done + 1 + done % 7).min(hits.len());
        store.insert_batch(&hits[done..end])?;
        done = end;
        writeln!(out, "{done}")?;
        out.flush()?;
    }
    Ok(())
}
