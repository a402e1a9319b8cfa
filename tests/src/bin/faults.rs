//! The fault campaign: `cargo run --release -p etwsieve-tests --bin faults -- [--minutes N] [--seed S]`.
//!
//! Real programs on the loopback interface are killed, lose power, find their disks full, fail to sync, and communicate
//! over a bad network. The last line of standard output is a JSON object. The exit code is 0 if no hit that was reported as
//! delivered is lost, doubled or corrupt, 1 if one is, and 2 if the campaign itself failed.
//!
//! With `--cluster` the store is a cluster of three nats-servers: nodes, collectors and drains are killed, streams and
//! consumers are changed and deleted, logins are refused. `--cluster --figures` measures a cluster without faults.
//!
//! With `--negative-control` the collector acknowledges hits before it syncs them. The campaign must detect that and end
//! with exit code 1.

use etwsieve_tests::faults::{Outcome, Plan, measure_cluster, run_campaign, run_cluster};
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const USAGE: &str =
    "usage: faults [--minutes N] [--seed S] [--cluster [--figures] | --negative-control] [--keep FOLDER]";

/// The command line.
struct Options {
    plan: Plan,
    keep: Option<String>,
    is_cluster: bool,
    has_figures: bool,
}

/// Number of hits in a measurement.
const FIGURE_HITS: usize = 64_000;

fn main() -> ExitCode {
    let Options { plan, keep, is_cluster, has_figures } = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    eprintln!("seed {}, {} s", plan.seed, plan.time.as_secs());
    if has_figures {
        return figures(keep);
    }
    if is_cluster {
        return cluster(&plan, keep);
    }
    match campaign(&plan, keep) {
        Ok(outcome) => {
            for example in &outcome.balance.examples {
                eprintln!("{example}");
            }
            println!("{}", serde_json::to_string(&outcome).unwrap_or_default());
            if outcome.balance.is_even() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("the campaign failed: {error}");
            ExitCode::from(2)
        }
    }
}

/// Prints a line for each number of replicas and partitions.
fn figures(keep: Option<String>) -> ExitCode {
    let measured = tempfile::tempdir().and_then(|own| {
        let place = keep.map_or_else(|| own.path().to_owned(), std::path::PathBuf::from);
        for (replicas, partitions) in [(1, 1), (3, 1), (3, 3)] {
            if let Some(figures) = measure_cluster(&place, replicas, partitions, FIGURE_HITS)? {
                println!("{}", serde_json::to_string(&figures).unwrap_or_default());
            }
        }
        Ok(())
    });
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the measurement failed: {error}");
            ExitCode::from(2)
        }
    }
}

fn cluster(plan: &Plan, keep: Option<String>) -> ExitCode {
    let outcome = tempfile::tempdir().and_then(|own| {
        let place = keep.map_or_else(|| own.path().to_owned(), Into::into);
        std::fs::create_dir_all(&place)?;
        run_cluster(plan.seed, plan.time, &place)
    });
    match outcome {
        Ok(Some(outcome)) => {
            println!("{}", serde_json::to_string(&outcome).unwrap_or_default());
            if outcome.is_kept() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Ok(None) => {
            eprintln!("nats-server is not installed");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("the campaign failed: {error}");
            ExitCode::from(2)
        }
    }
}

fn campaign(plan: &Plan, keep: Option<String>) -> std::io::Result<Outcome> {
    let own = tempfile::tempdir()?;
    let place = keep.map_or_else(|| own.path().to_owned(), Into::into);
    std::fs::create_dir_all(&place)?;
    let is_terminal = std::io::stderr().is_terminal();
    let outcome = run_campaign(plan, &place, |outcome| {
        if is_terminal {
            let Outcome { kills, power_losses, disk_full, sync_errors, connections, .. } = outcome;
            eprint!(
                "\r\x1b[K{kills} kills, {power_losses} power losses, {disk_full} full disks, {sync_errors} failed syncs, {connections} connections"
            );
            let _ = std::io::stderr().flush();
        }
    });
    if is_terminal {
        eprintln!();
    }
    outcome
}

fn options() -> Result<Options, String> {
    let (mut minutes, mut seed, mut negative_control, mut keep) = (2.0, None, false, None);
    let (mut is_cluster, mut has_figures) = (false, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--minutes" => minutes = number()?.parse::<f64>().map_err(|error| error.to_string())?,
            "--seed" => seed = Some(number()?.parse::<u64>().map_err(|error| error.to_string())?),
            "--keep" => keep = Some(number()?),
            "--cluster" => is_cluster = true,
            "--figures" => has_figures = true,
            "--negative-control" => negative_control = true,
            other => return Err(format!("unknown option {other}")),
        }
    }
    let random = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let seconds = (minutes * 60.0).clamp(1.0, 86_400.0);
    let mut plan =
        Plan::with_all_faults(seed.unwrap_or(random % 1_000_000), Duration::from_secs_f64(seconds));
    if negative_control {
        plan.negative_control = true;
        // Power losses between an acknowledgement and its sync are what the campaign must detect.
        plan.power_collector *= 4;
    }
    Ok(Options { plan, keep, is_cluster, has_figures })
}
