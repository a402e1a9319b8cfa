//! The report for people.

use super::{Report, Row, short};
use crate::workload::Name;
use std::io::{self, Write};

const HOW_TO_READ: &str = "\
GB/s are thousand million bytes of raw UTF-16LE payload a second (reader: of the file), medians of the rounds. Spread
is the distance of the quartiles as a part of the median. A ratio is taken within each round: a contestant's time for a
byte, in times that of the first row, so that 30 means that the first is 30 times as fast. Contestants take turns in one
process; the time is that of the thread, where not stated otherwise. Slow contestants search evenly spread events of the
workload only. Every answer was compared with the right one before any time counted, and again in every pass: pairs of
event and rule for who gives verdicts, pairs of event and literal for who only looks for literals. *Literals* are all
those of the rules; *gate literals* are the rarest choice such that no rule can match without one of its own, chosen
with frequencies of the very text searched; *best* is those on text narrowed to one byte a unit, narrowing included.
Where a pass is short (hot, small, evtx, hit) etwsieve does not recognise repeated texts, since each pass repeats the
one before; in the others it starts every pass without memory. Absolute numbers hold for this machine at this hour.";

/// Writes the report. `plots` are files beside it, with what they show.
///
/// # Errors
///
/// Those of writing.
pub fn write(out: &mut dyn Write, report: &Report, plots: &[(String, String)]) -> io::Result<()> {
    writeln!(out, "# etwsieve, measured\n")?;
    for (name, value) in &report.facts {
        writeln!(out, "* {name}: {value}")?;
    }
    writeln!(out, "\n{HOW_TO_READ}\n\n## Aims\n")?;
    writeln!(out, "| aim | where | wanted | measured | |\n|---|---|---:|---:|---|")?;
    for aim in &report.aims {
        let bound = if aim.at_most { "≤" } else { "≥" };
        let measured = aim.measured.map_or("–".to_owned(), short);
        let wanted = aim.wanted;
        writeln!(
            out,
            "| {} | {} | {bound} {wanted} | {measured} | {} |",
            aim.text,
            aim.place,
            aim.outcome()
        )?;
    }
    for (file, title) in plots {
        writeln!(out, "\n![{title}]({file})")?;
    }
    writeln!(out, "\n## Payloads\n")?;
    for name in Name::ALL {
        writeln!(out, "* {}: {}", name.as_str(), name.describe())?;
    }
    if !report.compiled.is_empty() {
        writeln!(
            out,
            "\n## Rules\n\n| rules | count | needles of the gate | compiled in | memory |\n|---|---:|---:|---:|---:|"
        )?;
    }
    for compiled in &report.compiled {
        writeln!(
            out,
            "| {} | {} | {} | {} ms | {} KiB |",
            compiled.rules,
            compiled.count,
            compiled.gate_needles,
            short(compiled.compile_ms),
            compiled.memory >> 10
        )?;
    }
    for race in report.races() {
        table(out, race)?;
    }
    writeln!(out, "\n## Left out\n")?;
    if report.left_out.is_empty() {
        writeln!(out, "Nothing.")?;
    }
    for left_out in &report.left_out {
        writeln!(out, "* {}: {}: {}", left_out.title, left_out.contestant, left_out.reason)?;
    }
    for note in &report.notes {
        writeln!(out, "\n{note}")?;
    }
    Ok(())
}

/// The table of one race.
fn table(out: &mut dyn Write, rows: &[Row]) -> io::Result<()> {
    let Some(first) = rows.first() else { return Ok(()) };
    let clock = if first.clock == "wall" { ", time on the wall" } else { "" };
    writeln!(out, "\n## {}{clock}\n", first.title())?;
    writeln!(
        out,
        "| contestant | answers | GB/s | spread | ns/event | time, first = 1 | quartiles | allocations/event | events |"
    )?;
    writeln!(out, "|---|---|---:|---:|---:|---:|---:|---:|---:|")?;
    for row in rows {
        let [low, high] = row.ratio_quartiles;
        writeln!(
            out,
            "| {} | {} | {} | {:.0} % | {} | {} | {} to {} | {} | {} |",
            row.contestant,
            row.question,
            short(row.gb_per_s),
            100.0 * row.spread,
            short(row.ns_per_event),
            short(row.ratio),
            short(low),
            short(high),
            row.allocations_per_event.map_or("–".to_owned(), |allocations| format!("{allocations:.2}")),
            row.events
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::write;
    use crate::report::aims;
    use crate::report::tests::report;

    #[test]
    fn everything_is_in_it() {
        let mut report = report();
        report.aims = aims::of(&report);
        let mut out = Vec::new();
        let plots = [("one.svg".to_owned(), "One".to_owned())];
        write(&mut out, &report, &plots).unwrap();
        let text = String::from_utf8(out).unwrap();
        let wanted = [
            "* processor: a test",
            "| speed in times of memchr's scan for an absent byte | stream, builtin | ≥ 0.95 | 0.930 | missed by 2 % |",
            "| sigma | 178 | 700 | 61.0 ms | 1024 KiB |",
            "## payloads: hot, sigma (generated)",
            "| vectorscan-best | verdicts | 10.0 | 5 % | 200 | 2.00 | 1.80 to 2.20 | 0.00 | 400 |",
            "* t: c: r",
            "a remark",
            "![One](one.svg)",
        ];
        for line in wanted {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        // Every table is as wide as its head.
        for lines in text.lines().collect::<Vec<_>>().windows(2) {
            if lines.iter().all(|line| line.starts_with('|')) {
                let [a, b] = [lines[0], lines[1]].map(|line| line.matches('|').count());
                assert_eq!(a, b, "{lines:?}");
            }
        }
    }
}
