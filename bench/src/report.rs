//! The results of one run: rows in JSON for programs, Markdown and plots for people.

pub mod aims;
pub mod collect;
pub mod markdown;
pub mod plot;
mod summary;

use crate::measure::{ClockKind, Measured, Median};
use aims::Aim;
use serde::Serialize;

/// One result. Keys without a unit in their name are counts or ratios.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The workload: `stream`, `hot`, `small`, `evtx`, `busy`, `hit`; `callback` and a size for the intake.
    pub workload: String,
    /// The trace of the workload: a file of the corpus, or `generated`.
    pub source: String,
    /// Name of the rule set; `none` if nothing is searched for.
    pub rules: String,
    /// Name of the contestant.
    pub contestant: String,
    /// The part of the program that was measured, such as `payloads` or `replay`.
    pub part: String,
    /// The question that the contestant answers.
    pub question: String,
    /// Median of 10^9 bytes per second: bytes of payloads or, for the reader alone, of the file.
    pub gb_per_s: f64,
    /// Distance between the quartiles of `gb_per_s` relative to the median.
    pub spread: f64,
    /// Always true: a row with a wrong answer is never written.
    pub answers_equal: bool,
    /// Nanoseconds per event.
    pub ns_per_event: f64,
    /// Time per byte relative to the first contestant, median of the rounds.
    pub ratio: f64,
    /// Quartiles of `ratio`.
    pub ratio_quartiles: [f64; 2],
    /// Allocations of the calling thread per event; absent for other programs.
    pub allocations_per_event: Option<f64>,
    /// Number of events searched in one pass.
    pub events: u64,
    /// `thread` for processor time, `wall` for wall-clock time.
    pub clock: &'static str,
}

/// The cost of compiling a rule set.
#[derive(Clone, Debug, Serialize)]
pub struct Compiled {
    /// Name of the rule set.
    pub rules: String,
    /// Number of rules.
    pub count: usize,
    /// Number of gate needles for events 4104.
    pub gate_needles: usize,
    /// Time from loaded rules to the matcher, in milliseconds.
    pub compile_ms: f64,
    /// Approximate memory of the compiled set, in bytes.
    pub memory: usize,
}

/// A measurement that was omitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Title of the race.
    pub title: String,
    /// Name of the contestant.
    pub contestant: String,
    /// The reason.
    pub reason: String,
}

/// The results of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The circumstances, as names and values.
    pub facts: Vec<(&'static str, String)>,
    /// All rows; the rows of a race are adjacent.
    pub rows: Vec<Row>,
    /// The cost of compiling the rule sets.
    pub compiled: Vec<Compiled>,
    /// Omitted measurements.
    pub left_out: Vec<LeftOut>,
    /// Remarks on single races.
    pub notes: Vec<String>,
    /// The aims and their measurements.
    pub aims: Vec<Aim>,
}

impl Row {
    /// Makes the row of a measurement.
    pub fn new(part: &str, workload: &str, source: &str, rules: &str, measured: &Measured) -> Self {
        let Median { low, mid, high } = measured.ratio;
        let allocations = measured.allocations_per_event;
        Self {
            workload: workload.to_owned(),
            source: source.to_owned(),
            rules: rules.to_owned(),
            contestant: measured.name.clone(),
            part: part.to_owned(),
            question: measured.question.to_owned(),
            gb_per_s: measured.gb_per_s.mid,
            spread: measured.gb_per_s.spread(),
            answers_equal: true,
            ns_per_event: measured.ns_per_event,
            ratio: mid,
            ratio_quartiles: [low, high],
            allocations_per_event: allocations.is_finite().then_some(allocations),
            events: measured.events,
            clock: match measured.clock {
                ClockKind::Thread => "thread",
                ClockKind::Wall => "wall",
            },
        }
    }

    /// Title of the row's race.
    pub fn title(&self) -> String {
        format!("{}: {}, {} ({})", self.part, self.workload, self.rules, self.source)
    }
}

impl Report {
    /// Returns the row of a contestant in a race.
    pub fn row(&self, part: &str, workload: &str, rules: &str, contestant: &str) -> Option<&Row> {
        self.rows.iter().find(|row| {
            row.part == part && row.workload == workload && row.rules == rules && row.contestant == contestant
        })
    }

    /// Returns the rows of each race.
    pub fn races(&self) -> impl Iterator<Item = &[Row]> {
        self.rows.chunk_by(|a, b| a.title() == b.title())
    }
}

/// Formats a number with three significant digits.
pub(crate) fn short(value: f64) -> String {
    let digits = if value == 0.0 { 2 } else { (2 - value.abs().log10().floor() as i32).clamp(0, 6) };
    format!("{value:.*}", digits as usize)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Compiled, LeftOut, Report, Row, short};

    /// A row of made-up numbers.
    pub(crate) fn row(part: &str, workload: &str, rules: &str, contestant: &str, ratio: f64) -> Row {
        Row {
            workload: workload.into(),
            source: "generated".into(),
            rules: rules.into(),
            contestant: contestant.into(),
            part: part.into(),
            question: "verdicts".into(),
            gb_per_s: 20.0 / ratio,
            spread: 0.05,
            answers_equal: true,
            ns_per_event: 100.0 * ratio,
            ratio,
            ratio_quartiles: [ratio * 0.9, ratio * 1.1],
            allocations_per_event: Some(0.0),
            events: 400,
            clock: "thread",
        }
    }

    /// A report of made-up numbers.
    pub(crate) fn report() -> Report {
        let mut rows = Vec::new();
        for rules in ["builtin", "sigma"] {
            for workload in ["stream", "hot", "small"] {
                for (contestant, ratio) in [
                    ("etwsieve", 1.0),
                    ("memchr-absent", 0.93),
                    ("vectorscan-raw", 9.0),
                    ("vectorscan-best", 2.0),
                ] {
                    rows.push(row("payloads", workload, rules, contestant, ratio));
                }
            }
        }
        Report {
            facts: vec![("processor", "a test".into())],
            rows,
            compiled: vec![Compiled {
                rules: "sigma".into(),
                count: 178,
                gate_needles: 700,
                compile_ms: 61.0,
                memory: 1 << 20,
            }],
            left_out: vec![LeftOut { title: "t".into(), contestant: "c".into(), reason: "r".into() }],
            notes: vec!["a remark".into()],
            aims: Vec::new(),
        }
    }

    #[test]
    fn three_digits() {
        let rows = [
            (31.84, "31.8"),
            (0.6789, "0.679"),
            (1.0, "1.00"),
            (12345.6, "12346"),
            (0.0, "0.00"),
            (0.004_321, "0.00432"),
            (-2065.11, "-2065"),
        ];
        for (value, expected) in rows {
            assert_eq!(short(value), expected);
        }
    }

    #[test]
    fn rows_are_found_and_stay_together() {
        let report = report();
        assert_eq!(report.races().count(), 6);
        assert!(report.races().all(|rows| rows.len() == 4 && rows[0].contestant == "etwsieve"));
        assert!(
            (report.row("payloads", "hot", "sigma", "vectorscan-best").unwrap().ratio - 2.0).abs() < 1e-9
        );
        assert!(report.row("payloads", "hot", "ten", "vectorscan-best").is_none());
    }

    #[test]
    fn rows_as_json_have_the_agreed_keys() {
        let value = serde_json::to_value(row("payloads", "stream", "ten", "memmem", 1.5)).unwrap();
        for key in ["workload", "rules", "contestant"] {
            assert!(value[key].is_string(), "{key}");
        }
        for key in ["gb_per_s", "spread"] {
            assert!(value[key].is_f64(), "{key}");
        }
        assert!(value["answers_equal"].is_boolean());
    }
}
