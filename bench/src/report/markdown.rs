//! The report as Markdown.

use super::{Report, Row, short, summary};
use crate::workload::Name;
use std::io::{self, Write};

const HOW_TO_READ: &str = "\
All values are medians of the rounds. GB/s is 10^9 bytes of raw UTF-16LE payload a second (for the reader: of the file).
*Spread* is the distance between the quartiles relative to the median. *Time* is the time for a byte relative to the first
row, taken within each round: 30 means that the first row is 30 times as fast. Contestants take turns in one process, and
the time is the processor time of the thread unless the heading says otherwise. Slow contestants search a sample of the
events, evenly spread over the workload.

Every answer is checked before any time counts, and again in every pass: contestants that give verdicts must find the
right pairs of event and rule, those that only search for literals the right pairs of event and literal. *Literals* are
all literals of the rules. *Gate literals* are the rarest set such that no rule can match without one of its own, chosen
by their frequency in the text that is searched. *Best* searches for those in text narrowed to one byte per UTF-16 unit,
and its time includes the narrowing. In the short workloads (hot, small, evtx, hit) etwsieve does not remember texts that
it has searched, since each pass repeats the one before; in the others it starts each pass without memory. Absolute
numbers hold for this machine only.";

/// Parts in the order of the report, which starts with default settings.
const PARTS: [&str; 6] = ["programs", "views", "replay", "payloads", "reader", "callback"];

/// Writes the report. `plots` are the names and titles of the image files beside it.
///
/// # Errors
///
/// Errors of writing.
pub fn write(out: &mut dyn Write, report: &Report, plots: &[(String, String)]) -> io::Result<()> {
    writeln!(out, "# etwsieve, measured\n")?;
    for (name, value) in &report.facts {
        writeln!(out, "* {name}: {value}")?;
    }
    writeln!(out, "\n{HOW_TO_READ}\n\n## Aims\n")?;
    if let Some(meaning) = summary::of_aims(&report.aims) {
        writeln!(out, "{meaning}\n")?;
    }
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
    writeln!(out, "\n## Workloads\n")?;
    for name in Name::ALL {
        writeln!(out, "* {}: {}", name.as_str(), name.describe())?;
    }
    if !report.compiled.is_empty() {
        writeln!(
            out,
            "\n## Rules\n\nThe rule sets, and what it takes to compile them.\n\n| rules | count | gate needles | compiled in | memory |\n|---|---:|---:|---:|---:|"
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
    let mut races: Vec<&[Row]> = report.races().collect();
    races.sort_by_key(|race| PARTS.iter().position(|part| *part == race[0].part));
    for race in races {
        table(out, race)?;
    }
    writeln!(out, "\n## Not measured\n")?;
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

/// Writes the table of a race.
fn table(out: &mut dyn Write, rows: &[Row]) -> io::Result<()> {
    let Some(first) = rows.first() else { return Ok(()) };
    let clock = if first.clock == "wall" { ", wall-clock time" } else { "" };
    writeln!(out, "\n## {}{clock}\n", first.title())?;
    if let Some(meaning) = summary::of(rows) {
        writeln!(out, "{meaning}\n")?;
    }
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
            "| speed, in times of memchr's scan for an absent byte | stream, builtin | ≥ 0.95 | 0.930 | 98 % of the aim |",
            "| sigma | 178 | 700 | 61.0 ms | 1024 KiB |",
            "## payloads: hot, sigma (generated)",
            "| vectorscan-best | verdicts | 10.0 | 5 % | 200 | 2.00 | 1.80 to 2.20 | 0.00 | 400 |",
            "etwsieve searches 20.0 GB/s, 93 % of the speed of memchr on the same bytes; vectorscan-best, which gives verdicts too, takes 2.00 times as long.",
            "* t: c: r",
            "a remark",
            "![One](one.svg)",
        ];
        for line in wanted {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        // All rows of a table have the same number of columns.
        for lines in text.lines().collect::<Vec<_>>().windows(2) {
            if lines.iter().all(|line| line.starts_with('|')) {
                let [a, b] = [lines[0], lines[1]].map(|line| line.matches('|').count());
                assert_eq!(a, b, "{lines:?}");
            }
        }
    }
}
