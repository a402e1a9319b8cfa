//! The command line: the table of subcommands, and how a command ends.
//!
//! Each command has a file with its options and its `run` function. Options that several commands share are in
//! `options.rs`.

mod config;
mod cost;
mod doctor;
mod files;
mod hits;
mod options;
mod record;
mod replay;
mod rules;
mod service;
mod terminal;
mod trace;
mod watch;

use crate::stop::Stop;
use clap::{Parser, Subcommand};
use etwsieve_transport::files::is_stopped;
use etwsieve_transport::printable::{Lines, is_hidden};
use std::fmt::Display;
use std::process::ExitCode;
use terminal::Terminal;

/// How a command ended. Scripts rely on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// All input was read.
    Complete,
    /// Some input was damaged or unreadable; the rest was processed.
    Damaged,
    /// Wrong usage, invalid rules, or an output that cannot be written.
    Usage,
    /// Stopped by Ctrl-C or a termination signal.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Complete => 0,
            Exit::Damaged => 1,
            Exit::Usage => 2,
            // The code that shells report for SIGINT.
            Exit::Interrupted => 130,
        })
    }
}

const AFTER_HELP: &str = "\
Commands that print hits or facts write a table to a terminal and JSON Lines to a pipe or file, unless --format says otherwise.
Exit codes: 0 all input was read (and sent, with --collector); 1 some input was damaged or unreadable and the rest was processed,
or hits are left in the spool; 2 wrong usage, invalid rules, or an output that cannot be written; 130 stopped by Ctrl-C.
Diagnostics go to standard error; set ETWSIEVE_LOG=debug (or a filter such as etwsieve=trace) to see more.";

/// Search PowerShell script blocks with Sigma rules: live on Windows, in recorded traces on any system.
#[derive(Debug, Parser)]
#[command(name = "etwsieve", version, after_help = AFTER_HELP)]
struct Cli {
    /// Show more diagnostics; repeat for even more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

/// The table of subcommands, in the order of the help text.
#[derive(Debug, Subcommand)]
enum Command {
    Watch(watch::WatchArgs),
    Replay(replay::ReplayArgs),
    Record(record::RecordArgs),
    Doctor(doctor::DoctorArgs),
    /// Manage the Windows service that runs `watch`.
    Service {
        #[command(subcommand)]
        command: service::ServiceCommand,
    },
    /// Check or print the configuration of the live sensor.
    Config {
        #[command(subcommand)]
        command: config::ConfigCommand,
    },
    /// Check rules or measure their cost.
    Rules {
        #[command(subcommand)]
        command: rules::RulesCommand,
    },
    Hits(hits::HitsArgs),
    Trace(trace::TraceArgs),
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    // Clap ends the process with 2 on wrong usage and with 0 on --help.
    let cli = Cli::try_parse().unwrap_or_else(|error| exit_with_usage(&error));
    let verbose = cli.verbose;
    let terminal = || Terminal::new(verbose, "warn");
    let exit = match &cli.command {
        Command::Watch(args) => watch::run(args, verbose),
        Command::Replay(args) => replay::run(args, &terminal()),
        Command::Record(args) => {
            terminal();
            record::run(args)
        }
        Command::Doctor(args) => {
            terminal();
            doctor::run(args)
        }
        Command::Service { command } => service::run(command, &terminal),
        Command::Config { command } => {
            terminal();
            config::run(command)
        }
        Command::Rules { command } => rules::run(command, &terminal()),
        Command::Hits(args) => {
            terminal();
            hits::run(args)
        }
        Command::Trace(args) => trace::run(args, &terminal()),
    };
    exit.into()
}

/// Ends the process like clap, but escapes control characters in the message: a shell may have expanded a pattern to
/// file names that contain some.
fn exit_with_usage(error: &clap::Error) -> ! {
    let text = error.to_string();
    if error.use_stderr() && text.chars().any(|c| c != '\n' && is_hidden(c)) {
        anstream::eprintln!("{}", Lines(text.trim_end()));
        std::process::exit(error.exit_code());
    }
    error.exit()
}

/// Prints an error to standard error.
fn print_error(error: impl Display) {
    anstream::eprintln!("\x1b[1;31merror:\x1b[0m {}", Lines(error));
}

/// Prints an error to standard error, and returns the exit status of wrong usage.
fn usage_error(error: impl Display) -> Exit {
    print_error(error);
    Exit::Usage
}

/// Requests a clean stop on the first signal, and ends the process at once on the second.
fn stop_on_signal(stop: &Stop) {
    let stop = stop.clone();
    let result = ctrlc::set_handler(move || {
        if stop.requested() {
            std::process::exit(130);
        }
        stop.request();
    });
    if let Err(error) = result {
        tracing::warn!("Ctrl-C will end the run without a summary: {error}");
    }
}

/// Returns the exit status after writing to standard output. A reader that has closed the pipe is not an error.
fn after_writing(result: std::io::Result<()>, exit: Exit) -> Exit {
    match result {
        Err(error) if is_stopped(&error) => {
            print_error("stopped; the rest of the output is lost because nothing reads standard output");
            Exit::Interrupted
        }
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            usage_error(format_args!("cannot write to standard output: {error}"))
        }
        _ => exit,
    }
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory;

    #[test]
    fn the_table_of_commands_is_consistent() {
        Cli::command().debug_assert();
    }
}
