//! `etwsieve hits`: what a store holds.

use super::{Exit, HitsArgs, after_writing, complain};
use crate::output::Format;
use crate::output::table::clip;
use etwsieve_etl::FileTime;
use etwsieve_transport::store::{HitFilter, Store, StoreError, StoreStats};
use std::io::{self, BufWriter, Write};

pub(super) fn run(args: &HitsArgs) -> Exit {
    let result = Store::open_read_only(&args.store).and_then(|store| {
        if args.stats {
            Ok(after_writing(print_stats(&store.stats()?), Exit::Complete))
        } else {
            Ok(list(&store, args))
        }
    });
    result.unwrap_or_else(|error: StoreError| {
        complain(error);
        Exit::Usage
    })
}

fn list(store: &Store, args: &HitsArgs) -> Exit {
    let format = args.format.unwrap_or_else(Format::for_stdout);
    let mut exit = Exit::Complete;
    let mut write = || -> io::Result<()> {
        let mut out = BufWriter::new(anstream::AutoStream::auto(io::stdout()));
        format.header(&mut out)?;
        for stored in store.hits(HitFilter::default()) {
            match stored {
                Ok(stored) => format.write(&stored.hit, &mut out)?,
                // A damaged row is told, and the walk goes on behind it.
                Err(error) => {
                    complain(error);
                    exit = Exit::Damaged;
                }
            }
        }
        out.flush()
    };
    let written = write();
    after_writing(written, exit)
}

fn print_stats(stats: &StoreStats) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    writeln!(out, "{} events with hits, {} detections", stats.hits, stats.detections)?;
    writeln!(out, "\n{:>8} {:<13} {:<28} {:<28} RULE", "COUNT", "LEVEL", "FIRST", "LAST")?;
    for rule in &stats.rules {
        let (first, last) = (FileTime(rule.first), FileTime(rule.last));
        writeln!(
            out,
            "{:>8} {:<13} {first} {last} {} ({})",
            rule.count,
            rule.level,
            clip(&rule.title, 200),
            rule.id
        )?;
    }
    writeln!(out, "\n{:>8} {:<28} {:<28} COMPUTER", "EVENTS", "FIRST", "LAST")?;
    for computer in &stats.computers {
        let (first, last) = (FileTime(computer.first), FileTime(computer.last));
        let name = computer.computer.as_deref().map_or_else(|| "(unknown)".into(), |name| clip(name, 200));
        writeln!(out, "{:>8} {first} {last} {name}", computer.count)?;
    }
    out.flush()
}
