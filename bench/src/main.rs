//! The command line of the benchmarks: `report` races contestants, `transport` measures the way to the collector, and
//! `worst` counts the steps of expensive scripts.

use clap::{Args, Parser, Subcommand};
use etwsieve_bench::error::BenchError;
use etwsieve_bench::measure::Effort;
use etwsieve_bench::report::collect::{Options, collect};
use etwsieve_bench::report::{markdown, plot};
use etwsieve_bench::transport::{self, Amount, Figure};
use etwsieve_bench::under_attack::{self, AttackAmount};
use etwsieve_bench::workload::Size;
use etwsieve_bench::worst;
use etwsieve_matcher::{Scratch, builtin};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Measure etwsieve against its peers and bounds
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Report(ReportArgs),
    Transport(TransportArgs),
    Worst(WorstArgs),
}

/// Compare the steps of expensive scripts with those of an ordinary one; exit code 1 if a script costs more than 50 ordinary ones
#[derive(Debug, Args)]
struct WorstArgs {
    /// Only kinds whose name contains this; `ordinary` for the ordinary script alone
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Only scripts of this many UTF-16 units
    #[arg(long, value_name = "N")]
    units: Option<usize>,
}

/// Measure the way to the collector: durable hits per second, idle connections, latency
#[derive(Debug, Args)]
struct TransportArgs {
    /// Small amounts, to check that the measurement works
    #[arg(long)]
    quick: bool,
    /// Only measure hits per second of honest sensors with and without attacks on the collector
    #[arg(long)]
    under_attack: bool,
}

/// Race contestants and print the results as Markdown; a wrong answer ends the run
#[derive(Debug, Args)]
struct ReportArgs {
    /// Fewer and shorter samples, and no whole programs
    #[arg(long)]
    quick: bool,
    /// Also write the rows as a JSON array
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write report.md and its plots into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Only the races whose title contains this, such as `stream, sigma`, `reader`, `programs`, `callback`
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Rounds in which the contestants take turns
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
}

/// Rounds of whole programs in a full run.
const PROGRAM_ROUNDS: usize = 5;
/// Bursts of a round of the intake, in a full and in a quick run.
const BURSTS: [usize; 2] = [100, 20];

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Report(arguments) => report(&arguments),
        Command::Transport(arguments) => measure_transport(&arguments),
        Command::Worst(arguments) => weigh_worst(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("etwsieve-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report(arguments: &ReportArgs) -> Result<(), BenchError> {
    let mut effort = if arguments.quick { Effort::QUICK } else { Effort::FULL };
    effort.rounds = arguments.rounds.unwrap_or(effort.rounds);
    // If requested by name, they run in a quick run too.
    let wants_programs = !arguments.quick || arguments.only.starts_with("programs");
    let options = Options {
        effort,
        size: Size::Whole,
        only: arguments.only.clone(),
        program_rounds: if wants_programs { arguments.rounds.unwrap_or(PROGRAM_ROUNDS) } else { 0 },
        bursts: BURSTS[usize::from(arguments.quick)],
    };
    // Before the measurements, so that an output that cannot be written does not waste them.
    if let Some(folder) = &arguments.out {
        fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    }
    if let Some(path) = &arguments.json {
        fs::write(path, "[]\n").map_err(|error| failed(path, error))?;
    }
    let report = collect(&options)?;
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report.rows).map_err(|error| failed(path, error.into()))?;
        fs::write(path, text + "\n").map_err(|error| failed(path, error))?;
    }
    let mut plots = Vec::new();
    if let Some(folder) = &arguments.out {
        plots = plot::draw(&report, folder)?;
    }
    let mut text = Vec::new();
    let written = markdown::write(&mut text, &report, &plots);
    written
        .and_then(|()| io::stdout().write_all(&text))
        .map_err(|error| failed("standard output".as_ref(), error))?;
    if let Some(folder) = &arguments.out {
        let path = folder.join("report.md");
        fs::write(&path, &text).map_err(|error| failed(&path, error))?;
    }
    Ok(())
}

fn measure_transport(arguments: &TransportArgs) -> Result<(), BenchError> {
    let amount = if arguments.quick { Amount::TRIAL } else { Amount::FULL };
    for (name, value) in etwsieve_bench::facts::facts() {
        println!("{name}: {value}");
    }
    println!("\n| what | | aim |\n|---|---|---|");
    let show = |figure: &Figure| {
        let aim = figure.aim.map(|aim| format!("{aim} {}", figure.unit)).unwrap_or_default();
        println!("| {} | {:.1} {} | {aim} |", figure.name, figure.value, figure.unit);
    };
    if arguments.under_attack {
        let amount = if arguments.quick { AttackAmount::TRIAL } else { AttackAmount::FULL };
        under_attack::measure(amount, show)?;
    } else {
        transport::measure(amount, show)?;
    }
    Ok(())
}

fn weigh_worst(arguments: &WorstArgs) -> Result<(), BenchError> {
    let matcher = etwsieve_bench::rules::compile(builtin::rules());
    let mut scratch = Scratch::default();
    let plain = worst::cost(&matcher, &worst::ordinary(worst::ORDINARY_UNITS), &mut scratch);
    println!("| script | units | steps | times ordinary | bytes | cut |\n|---|---:|---:|---:|---:|---|");
    let mut most = 0.0f64;
    let mut show = |name: &str, cost: worst::Cost| {
        let ratio = cost.steps as f64 / plain.steps as f64;
        most = most.max(ratio);
        let worst::Cost { units, steps, bytes, is_cut, .. } = cost;
        println!(
            "| {name} | {units} | {steps} | {ratio:.1} | {bytes} | {} |",
            if is_cut { "yes" } else { "" }
        );
    };
    show("ordinary", plain);
    for kind in worst::KINDS.iter().filter(|kind| kind.name.contains(&arguments.only)) {
        for units in arguments.units.map_or(worst::SIZES.to_vec(), |units| vec![units]) {
            show(kind.name, worst::cost(&matcher, &kind.script(units), &mut scratch));
        }
    }
    if most > worst::RATIO_MAX { Err(BenchError::TooExpensive { ratio: most }) } else { Ok(()) }
}

fn failed(path: &Path, source: io::Error) -> BenchError {
    BenchError::Io { path: path.into(), source }
}
