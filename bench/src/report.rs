//! Results as Markdown for people and as JSON rows for programs.

use crate::measure::{Measured, Median};
use serde::Serialize;
use std::io::{self, Write};

/// One result. Keys without a unit in their name are counts or ratios.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name of the workload.
    pub workload: String,
    /// Its trace: a file of the corpus, or `generated`.
    pub source: String,
    /// Name of the rule set; `none` where nothing is searched for.
    pub rules: String,
    /// Who.
    pub contestant: String,
    /// Median of thousand million bytes a second: payload bytes, of the reader alone file bytes.
    pub gb_per_s: f64,
    /// Distance of the quartiles of `gb_per_s` as a part of the median.
    pub spread: f64,
    /// Every answer was the one owed; a row with a wrong one is never written. A bound owes to find nothing.
    pub answers_equal: bool,
    /// Nanoseconds an event.
    pub ns_per_event: f64,
    /// Time for a byte in times the first contestant's, median of the rounds.
    pub ratio: f64,
    /// Quartiles of `ratio`.
    pub ratio_quartiles: [f64; 2],
    /// Allocations of the calling thread for each event.
    pub allocations_per_event: f64,
    /// Events searched in one pass.
    pub events: u64,
}

impl Row {
    /// The row of a measurement.
    pub fn new(workload: &str, source: &str, rules: &str, measured: &Measured) -> Self {
        let Median { low, mid, high } = measured.ratio;
        Self {
            workload: workload.to_owned(),
            source: source.to_owned(),
            rules: rules.to_owned(),
            contestant: measured.name.clone(),
            gb_per_s: measured.gb_per_s.mid,
            spread: measured.gb_per_s.spread(),
            answers_equal: true,
            ns_per_event: measured.ns_per_event,
            ratio: mid,
            ratio_quartiles: [low, high],
            allocations_per_event: measured.allocations_per_event,
            events: measured.events,
        }
    }
}

/// Writes a heading and the table of one race.
///
/// # Errors
///
/// Those of writing.
pub fn write_table(out: &mut dyn Write, title: &str, rows: &[Row]) -> io::Result<()> {
    writeln!(out, "\n## {title}\n")?;
    writeln!(
        out,
        "| contestant | GB/s | spread | ns/event | time, ours = 1 | quartiles | allocations/event | events |"
    )?;
    writeln!(out, "|---|---:|---:|---:|---:|---:|---:|---:|")?;
    for row in rows {
        let [low, high] = row.ratio_quartiles;
        writeln!(
            out,
            "| {} | {} | {:.0} % | {:.0} | {} | {} to {} | {:.2} | {} |",
            row.contestant,
            short(row.gb_per_s),
            100.0 * row.spread,
            row.ns_per_event,
            short(row.ratio),
            short(low),
            short(high),
            row.allocations_per_event,
            row.events
        )?;
    }
    Ok(())
}

/// Three significant digits.
fn short(value: f64) -> String {
    let digits = if value <= 0.0 { 2 } else { (2 - value.log10().floor() as i32).clamp(0, 6) };
    format!("{value:.*}", digits as usize)
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn three_digits() {
        let rows = [
            (31.84, "31.8"),
            (0.6789, "0.679"),
            (1.0, "1.00"),
            (12345.6, "12346"),
            (0.0, "0.00"),
            (0.004_321, "0.00432"),
        ];
        for (value, expected) in rows {
            assert_eq!(short(value), expected);
        }
    }
}
