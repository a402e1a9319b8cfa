//! Whole programs on one trace, each started once per round: from the command line to the last line of output.
//!
//! `etwsieve replay` and the `rsigma` command search for the same rules and must find the same pairs of event and rule.
//! Detections of joined blocks and other views are specific to etwsieve and do not count. The Python readers only read the
//! trace and must count its events. Peers that `peers.sh` has not installed are omitted.

use crate::answer::{Difference, Pair};
use crate::contestant::decoded_event;
use crate::error::BenchError;
use crate::measure::{ClockKind, Measured, Median};
use crate::rules::RuleSet;
use crate::workload::{Part, Workload};
use etwsieve_tests::corpus;
use serde_json::Value;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use tempfile::TempDir;

/// Environment variable that names the folder of the peers, if it is not the default one.
pub const PEERS_VARIABLE: &str = "ETWSIEVE_BENCH_PEERS";
/// Reads a trace with dissect.etl, events with their user data, and prints the number of its script blocks.
const DISSECT: &str = "\
import sys
from dissect.etl.etl import ETL
count = 0
with open(sys.argv[1], 'rb') as file:
    for record in ETL(file):
        header = record.header
        if type(header).__name__ == 'EventHeader' and header.header.Id == 4104:
            count += len(header.payload) > 0
print(count)
";
/// The same with etl-parser, which needs an observer for each kind of record.
const ETL_PARSER: &str = "\
import sys
from etl.etl import IEtlFileObserver, build_from_stream
class Count(IEtlFileObserver):
    count = 0
    def on_event_record(self, event):
        if event.source.event_header.event_descriptor.Id == 4104:
            self.count += len(event.source.user_data) > 0
    def on_system_trace(self, event): pass
    def on_perfinfo_trace(self, event): pass
    def on_trace_record(self, event): pass
    def on_win_trace(self, event): pass
count = Count()
with open(sys.argv[1], 'rb') as file:
    build_from_stream(file.read()).parse(count)
print(count.count)
";

/// The folder of the peers.
pub fn peers_folder() -> PathBuf {
    std::env::var_os(PEERS_VARIABLE).map_or_else(|| corpus::repository().join("bench/.peers"), PathBuf::from)
}

/// The results of a race.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The measurements, of `etwsieve replay` first; empty if it could not run.
    pub measured: Vec<Measured>,
    /// Names of the programs that could not run, with the reasons.
    pub left_out: Vec<(String, String)>,
}

struct Program {
    name: &'static str,
    command: Vec<String>,
    answer: Expected,
    /// Number of rounds; slow programs run less often.
    rounds: usize,
}

enum Expected {
    /// Each line of output is a detection, which `of_line` converts to a pair.
    Pairs { of_line: fn(&Value, &Ids) -> Option<Pair> },
    /// The output is the number of script blocks.
    Count,
}

/// The names of events and rules in outputs.
struct Ids {
    by_time: HashMap<String, u32>,
    by_rule: HashMap<String, u32>,
}

/// Runs the programs on the trace of this workload, with Sigma's rules.
///
/// # Errors
///
/// [`BenchError::WrongAnswer`] if a program's output is not the expected one, and errors of reading and writing files.
pub fn race(workload: &Workload, rules: &RuleSet, rounds: usize) -> Result<Outcome, BenchError> {
    let mut outcome = Outcome::default();
    let (Some(trace), Some(files)) = (workload.path(), RuleSet::sigma_files()) else {
        outcome.left_out.push(("whole programs".into(), "the corpus is not available".into()));
        return Ok(outcome);
    };
    let folder = TempDir::new().map_err(|source| BenchError::Io { path: std::env::temp_dir(), source })?;
    let rule_folder = files.first().and_then(|file| file.parent()).unwrap_or(Path::new("."));
    let programs = programs(trace, rule_folder, &folder.path().join("events.jsonl"), rounds, &mut outcome);
    if programs.iter().any(|program| program.name == "rsigma") {
        write_events(workload, &folder.path().join("events.jsonl"))?;
    }
    let expected = workload.expected(rules, Part::WHOLE)?;
    let ids = Ids {
        by_time: workload.times().map(|(event, time)| (time.to_owned(), event)).collect(),
        by_rule: rules.by_id().into_iter().map(|(id, rule)| (id.to_owned(), rule)).collect(),
    };
    let mut seconds: Vec<Vec<f64>> = programs.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds.max(1) {
        for (program, seconds) in programs.iter().zip(&mut seconds) {
            if round < program.rounds {
                let output = folder.path().join("output");
                seconds.push(run(program, &output)?);
                check(program, &output, workload, &ids, &expected)?;
            }
        }
    }
    let Some(first) = seconds.first().map(|seconds| Median::of(seconds.clone()).mid) else {
        return Ok(outcome);
    };
    let bytes = workload.bytes().len() as u64;
    for (program, seconds) in programs.iter().zip(seconds) {
        outcome.measured.push(Measured {
            name: program.name.to_owned(),
            question: if matches!(program.answer, Expected::Count) { "events" } else { "verdicts" },
            clock: ClockKind::Wall,
            events: workload.len() as u64,
            bytes,
            gb_per_s: Median::of(seconds.iter().map(|seconds| bytes as f64 / seconds * 1e-9).collect()),
            ns_per_event: Median::of(seconds.clone()).mid * 1e9 / workload.len().max(1) as f64,
            // They run too rarely for ratios within single rounds.
            ratio: Median::of(seconds.iter().map(|seconds| seconds / first).collect()),
            allocations_per_event: f64::NAN,
        });
    }
    Ok(outcome)
}

fn programs(trace: &Path, rules: &Path, events: &Path, rounds: usize, outcome: &mut Outcome) -> Vec<Program> {
    let mut programs = Vec::new();
    let mut left_out = |name: &str, reason: String| outcome.left_out.push((name.to_owned(), reason));
    let text = |path: &Path| path.display().to_string();
    match own_program() {
        Ok(program) => {
            let plain = ["--scope", "event", "--view", "raw"];
            for (name, more) in
                [("etwsieve replay", &[][..]), ("etwsieve replay, events as recorded", &plain)]
            {
                let command = [text(&program), "replay".into(), "--rules".into(), text(rules)].into_iter();
                let command = command.chain(["--format".into(), "jsonl".into(), text(trace)]);
                let command = command.chain(more.iter().map(|&argument| argument.to_owned())).collect();
                programs.push(Program {
                    name,
                    command,
                    answer: Expected::Pairs { of_line: our_pair },
                    rounds,
                });
            }
        }
        Err(reason) => {
            left_out("whole programs", reason);
            return programs;
        }
    }
    let not_installed = || "not installed; bench/peers.sh does it".to_owned();
    let rsigma = peers_folder().join("bin/rsigma");
    if rsigma.exists() {
        let events = format!("@{}", text(events));
        let command =
            ["engine", "eval", "--input-format", "json", "--output-format", "ndjson", "--include-event"];
        let command = [text(&rsigma)].into_iter().chain(command.map(str::to_owned));
        let command = command.chain(["--rules".into(), text(rules), "--event".into(), events]).collect();
        programs.push(Program {
            name: "rsigma",
            command,
            answer: Expected::Pairs { of_line: rsigma_pair },
            rounds: rounds.min(3),
        });
    } else {
        left_out("rsigma", not_installed());
    }
    let python = peers_folder().join("python/bin/python");
    for (name, package, script) in
        [("dissect.etl", "dissect/etl", DISSECT), ("etl-parser", "etl", ETL_PARSER)]
    {
        if has_package(&python, package) {
            let command = vec![text(&python), "-c".into(), script.into(), text(trace)];
            programs.push(Program { name, command, answer: Expected::Count, rounds: rounds.min(3) });
        } else {
            left_out(name, not_installed());
        }
    }
    programs
}

/// Returns whether the virtual environment of this interpreter contains a package.
fn has_package(python: &Path, package: &str) -> bool {
    let Some(root) = python.parent().and_then(Path::parent) else { return false };
    let Ok(versions) = fs::read_dir(root.join("lib")) else { return false };
    python.exists()
        && versions.flatten().any(|version| version.path().join("site-packages").join(package).is_dir())
}

/// Returns the path of the sensor's program beside this one, and builds it if necessary.
fn own_program() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = own.parent().unwrap_or(Path::new("."));
    let program = folder.join(format!("etwsieve{}", std::env::consts::EXE_SUFFIX));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(corpus::repository()).args(["build", "--quiet", "--package", "etwsieve"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    if let Some(target) = folder.parent() {
        command.arg("--target-dir").arg(target);
    }
    match command.status() {
        Ok(status) if status.success() && program.exists() => Ok(program),
        Ok(status) => Err(format!("the sensor does not build: {status}")),
        Err(error) => Err(format!("cargo does not start: {error}")),
    }
}

fn write_events(workload: &Workload, path: &Path) -> Result<(), BenchError> {
    let write = || -> io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        for (number, payload) in workload.payloads() {
            let mut event = decoded_event(payload);
            event["EventNumber"] = number.into();
            serde_json::to_writer(&mut out, &event)?;
            out.write_all(b"\n")?;
        }
        out.flush()
    };
    write().map_err(|source| BenchError::Io { path: path.into(), source })
}

/// Runs a program and returns its wall-clock time in seconds.
fn run(program: &Program, output: &Path) -> Result<f64, BenchError> {
    let failed = |detail: String| BenchError::Peer { name: program.name.to_owned(), detail };
    let file = File::create(output).map_err(|source| BenchError::Io { path: output.into(), source })?;
    let start = Instant::now();
    let result = Command::new(&program.command[0])
        .args(&program.command[1..])
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    let seconds = start.elapsed().as_secs_f64();
    if result.status.success() {
        return Ok(seconds);
    }
    let text = String::from_utf8_lossy(&result.stderr);
    Err(failed(format!("{}: {}", result.status, text.lines().last().unwrap_or_default())))
}

fn check(
    program: &Program,
    output: &Path,
    workload: &Workload,
    ids: &Ids,
    expected: &[Pair],
) -> Result<(), BenchError> {
    let text = fs::read_to_string(output).map_err(|source| BenchError::Io { path: output.into(), source })?;
    let difference = match program.answer {
        Expected::Count => {
            let found = text.trim().parse().unwrap_or(0);
            let expected = workload.events_in_trace();
            (found != expected).then_some(Difference { expected, found, missing: None, extra: None })
        }
        Expected::Pairs { of_line } => {
            let pair = |line: &str| {
                let value = serde_json::from_str(line).unwrap_or(Value::Null);
                // A line without a known event and rule is a wrong answer.
                (!is_ours_alone(&value)).then(|| of_line(&value, ids).unwrap_or((u32::MAX, u32::MAX)))
            };
            let found: Vec<Pair> =
                text.lines().filter(|line| line.starts_with('{')).filter_map(pair).collect();
            Difference::between(expected, &found)
        }
    };
    match difference {
        None => Ok(()),
        Some(difference) => Err(BenchError::WrongAnswer {
            contestant: program.name.to_owned(),
            workload: workload.name.to_owned(),
            rules: "sigma".to_owned(),
            difference,
        }),
    }
}

/// Returns whether a line is a detection of a joined block, or of another view than the raw one.
fn is_ours_alone(line: &Value) -> bool {
    line["scope"] == "block" || line["view"].as_str().is_some_and(|view| view != "raw")
}

fn our_pair(line: &Value, ids: &Ids) -> Option<Pair> {
    let event = ids.by_time.get(line["time"].as_str()?)?;
    Some((*event, *ids.by_rule.get(line["rule_id"].as_str()?)?))
}

fn rsigma_pair(line: &Value, ids: &Ids) -> Option<Pair> {
    let event = line["event"]["EventNumber"].as_u64()?;
    let rule = line["rule_id"].as_str().or_else(|| line["header"]["rule_id"].as_str())?;
    Some((event as u32, *ids.by_rule.get(rule)?))
}
