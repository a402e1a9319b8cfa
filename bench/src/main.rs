//! `etwsieve-bench`: measures the contestants in turn and prints their ratios as Markdown.

use clap::Parser;
use etwsieve_bench::contestant::{Entry, entries};
use etwsieve_bench::error::BenchError;
use etwsieve_bench::facts::facts;
use etwsieve_bench::measure::{Effort, Entrant, race};
use etwsieve_bench::report::{Row, write_table};
use etwsieve_bench::rules::RuleSet;
use etwsieve_bench::workload::{Name, Size, Workload};
use etwsieve_bench::{reader, replay};
use etwsieve_matcher::Matcher;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Measures etwsieve beside its peers and bounds. Every answer is checked; a wrong one ends the run.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Fewer and shorter samples: a look, not a result
    #[arg(long)]
    quick: bool,
    /// Rounds in which the contestants take turns
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Also writes the rows as a JSON array
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only the parts whose title contains this, such as `stream, sigma` or `reader`
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("etwsieve-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let mut effort = if arguments.quick { Effort::QUICK } else { Effort::FULL };
    effort.rounds = arguments.rounds.unwrap_or(effort.rounds);
    let out = &mut io::stdout();
    head(out, effort).map_err(printing)?;

    let rule_sets = RuleSet::all()?;
    let mut report = Report { out, effort, only: &arguments.only, rows: Vec::new() };
    for name in Name::ALL {
        let workload = Workload::load(name, Size::Whole)?;
        for rules in &rule_sets {
            report.race(&workload, rules.name, "payloads", || {
                let mut entries = entries(&workload, rules)?;
                entries.iter_mut().try_for_each(Entry::verify)?;
                Ok(entries.into_iter().map(Entrant::from).collect())
            })?;
        }
        for rules in &rule_sets {
            let matcher = Arc::new(Matcher::new(rules.rules.clone()));
            report.race(&workload, rules.name, "replay", || replay::entrants(&workload, rules, &matcher))?;
        }
        let bytes = reader::trace_bytes(&workload)?;
        report.race(&workload, "none", "reader", || Ok(reader::entrants(&workload, &bytes)))?;
    }
    let rows = report.rows;
    if let Some(path) = &arguments.json {
        let failed = |source| BenchError::Io { path: path.clone(), source };
        let text = serde_json::to_string_pretty(&rows).map_err(|error| failed(error.into()))?;
        fs::write(path, text + "\n").map_err(failed)?;
    }
    Ok(())
}

fn head(out: &mut dyn Write, effort: Effort) -> io::Result<()> {
    writeln!(out, "# etwsieve, measured\n")?;
    for (name, value) in facts() {
        writeln!(out, "* {name}: {value}")?;
    }
    writeln!(
        out,
        "* {} rounds, contestants in turn; a sample takes {} ms or one pass; time of the thread, of a replay time on the wall",
        effort.rounds,
        effort.sample.as_millis()
    )?;
    writeln!(
        out,
        "\nGB/s are thousand million bytes of raw UTF-16LE payload a second (reader: of the file). Spread is the\n\
         distance of the quartiles as a part of the median. A ratio is taken within each round: a contestant's time\n\
         for a byte, in times that of the first row. Every answer was checked, in every pass. Absolute numbers hold\n\
         for this machine at this hour."
    )
}

struct Report<'a> {
    out: &'a mut dyn Write,
    effort: Effort,
    only: &'a str,
    rows: Vec<Row>,
}

impl Report<'_> {
    fn race<'e>(
        &mut self,
        workload: &Workload,
        rules: &str,
        part: &str,
        entrants: impl FnOnce() -> Result<Vec<Entrant<'e>>, BenchError>,
    ) -> Result<(), BenchError> {
        let title = format!("{part}: {}, {rules} ({})", workload.name, workload.source);
        if !title.contains(self.only) {
            return Ok(());
        }
        let mut entrants = entrants()?;
        if entrants.is_empty() {
            eprintln!("left out: {title}, nobody knows the right answer");
            return Ok(());
        }
        let measured = race(&mut entrants, self.effort)?;
        let row = |measured| Row::new(workload.name, &workload.source, rules, measured);
        let rows: Vec<Row> = measured.iter().map(row).collect();
        write_table(self.out, &title, &rows).map_err(printing)?;
        self.rows.extend(rows);
        Ok(())
    }
}

fn printing(source: io::Error) -> BenchError {
    BenchError::Io { path: "standard output".into(), source }
}
