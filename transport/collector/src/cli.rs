//! The command line of `etwsieve-collector`.

mod cluster;
mod serve;
mod service;

use crate::config::{Config, DEFAULT_TOML};
use crate::drain::DrainArgs;
use crate::nats;
use crate::pki::cli::PkiArgs;
use crate::pki::{Register, SENSORS_FILE};
use crate::status::{Status, now};
use clap::{Args, Parser, Subcommand, ValueEnum};
use etwsieve_transport::diagnostics::CleanFields;
use etwsieve_transport::printable::{self, Lines, Printable, TerminalJson, is_hidden};
use etwsieve_transport::stop::Stop;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// The outcome of a command. The exit codes are stable and the same as those of `etwsieve`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Complete,
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Complete => 0,
            Exit::Usage => 2,
        })
    }
}

const AFTER_HELP: &str = "\
Exit codes: 0 success, or stopped by a signal; 2 invalid usage, or the store, the address or the certificates cannot
be used. Diagnostics go to standard error; set ETWSIEVE_LOG=debug for more.";
/// Environment variable with the log filter.
const LOG_VARIABLE: &str = "ETWSIEVE_LOG";

/// Collects hits from etwsieve sensors over mutual TLS and stores them durably
#[derive(Debug, Parser)]
#[command(name = "etwsieve-collector", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(ServeArgs),
    Status(StatusArgs),
    Pki(PkiArgs),
    Drain(DrainArgs),
    /// Manage a JetStream cluster: its list of sensors and its sinks
    Cluster {
        #[command(subcommand)]
        command: cluster::ClusterCommand,
    },
    /// Manage the Windows service, which runs `serve`
    Service {
        #[command(subcommand)]
        command: service::ServiceCommand,
    },
    /// Check or print a configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

/// Accept hits from sensors until stopped
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etwsieve-collector serve --insecure-loopback           # for a first try on this machine
  etwsieve-collector serve --listen 0.0.0.0:9514 --pki /etc/etwsieve/pki --store /var/lib/etwsieve/hits.db
  etwsieve-collector serve --config /etc/etwsieve/collector.toml")]
struct ServeArgs {
    /// Configuration file; options on the command line override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address and port for sensors [default: 127.0.0.1:9514]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// SQLite database for the hits, created if it does not exist, or nats://HOST:PORT [default: etwsieve-collector.db]
    #[arg(long, value_name = "FILE")]
    store: Option<String>,
    /// Folder with the certificates
    #[arg(long, value_name = "DIR")]
    pki: Option<PathBuf>,
    /// Serve without certificates, on loopback addresses only
    #[arg(long)]
    insecure_loopback: bool,
    /// Serve Prometheus metrics on this loopback address, such as 127.0.0.1:9478
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    /// Acknowledge before the store has synced, which loses hits, to prove that a test finds the loss
    #[arg(long, hide = true)]
    unsafe_ack_before_sync: bool,
}

/// Show the state of sensors (connection, pending hits, gaps, losses, alarms) and sinks
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  etwsieve-collector status --store /var/lib/etwsieve/hits.db
  etwsieve-collector status --store /var/lib/etwsieve/hits.db --pki /etc/etwsieve/pki   # also unconnected ones
  etwsieve-collector status --config /etc/etwsieve/collector.toml                       # a cluster with its login")]
struct StatusArgs {
    /// Configuration of the collector; its store, pki and [nats] are used
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Database of the collector, or nats://HOST:PORT [default: etwsieve-collector.db]
    #[arg(long, value_name = "FILE")]
    store: Option<String>,
    /// Folder with the certificates [default: `pki` of the configuration]; shows sensors that never connected or are
    /// revoked
    #[arg(long, value_name = "DIR")]
    pki: Option<PathBuf>,
    /// Output format [default: table on a terminal, jsonl otherwise]
    #[arg(long, value_enum)]
    format: Option<StatusFormat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StatusFormat {
    /// A table for people
    Table,
    /// JSON Lines: one line for each sensor, sink and stream
    Jsonl,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a configuration
    Check {
        /// Configuration file
        #[arg(value_name = "FILE")]
        path: PathBuf,
    },
    /// Print the default configuration with a comment for every key
    Print,
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| printable_usage(&error));
    match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Status(args) => {
            log("warn");
            status(&args)
        }
        Command::Pki(args) => match args.run(&mut io::stdout(), &mut io::stderr()) {
            Ok(()) => Exit::Complete,
            Err(error) => refuse(error),
        },
        Command::Drain(args) => drain(&args),
        Command::Cluster { command } => {
            log("warn");
            cluster::run(&command)
        }
        Command::Service { command } => service::run(&command),
        Command::Config { command: ConfigCommand::Print } => {
            after_writing(io::stdout().write_all(DEFAULT_TOML.as_bytes()))
        }
        Command::Config { command: ConfigCommand::Check { path } } => match Config::load(&path) {
            Ok(_) => after_writing(writeln!(io::stdout(), "{} is valid", printable::path(&path))),
            Err(error) => refuse(error),
        },
    }
    .into()
}

/// Prints a usage error and ends the process as clap does, but escapes control characters in arguments, which may be
/// file names that a shell expanded.
fn printable_usage(error: &clap::Error) -> ! {
    let text = error.to_string();
    if error.use_stderr() && text.chars().any(|c| c != '\n' && is_hidden(c)) {
        eprintln!("{}", Lines(text.trim_end()));
        std::process::exit(error.exit_code());
    }
    error.exit()
}

fn drain(args: &DrainArgs) -> Exit {
    log("info");
    let stop = Stop::default();
    let asked = stop.clone();
    if let Err(error) = ctrlc::set_handler(move || asked.request()) {
        return refuse(format_args!("cannot install a signal handler: {error}"));
    }
    match args.run(&stop) {
        Ok(sinks) => after_writing(sinks.iter().try_for_each(|(name, counts)| {
            let name = Printable(name);
            writeln!(io::stdout(), "{name}: {} delivered, {} refused", counts.delivered, counts.refused)
        })),
        Err(error) => refuse(error),
    }
}

/// Reads the status and, if the folder of the certificates is known, adds the sensors on the list.
fn read_status(args: &StatusArgs, now: i64) -> Result<Status, Box<dyn std::error::Error>> {
    let mut config = match &args.config {
        Some(path) => Config::load(path)?,
        None => Config::default(),
    };
    let mut status = read_store(args, &mut config, now)?;
    if let Some(folder) = args.pki.as_ref().or(config.pki.as_ref()) {
        status.compare(&Register::read(folder.join(SENSORS_FILE))?, now);
    }
    Ok(status)
}

fn read_store(
    args: &StatusArgs,
    config: &mut Config,
    now: i64,
) -> Result<Status, Box<dyn std::error::Error>> {
    if let Some(store) = &args.store {
        config.store.clone_from(store);
    }
    match config.nats() {
        Some(settings) => {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            Ok(runtime.block_on(nats::status(&settings, now))?)
        }
        None => Ok(Status::read(Path::new(&config.store), now)?),
    }
}

fn status(args: &StatusArgs) -> Exit {
    let now = now();
    let status = match read_status(args, now) {
        Ok(status) => status,
        Err(error) => return refuse(error),
    };
    let mut out = io::stdout().lock();
    let usual = if out.is_terminal() { StatusFormat::Table } else { StatusFormat::Jsonl };
    after_writing(match args.format.unwrap_or(usual) {
        StatusFormat::Table => status.write_table(&mut out, now),
        StatusFormat::Jsonl if out.is_terminal() => status.write_jsonl(&mut TerminalJson::new(out)),
        StatusFormat::Jsonl => status.write_jsonl(&mut out),
    })
}

/// Initialises logging with the filter in the environment, or else `usual`.
fn log(usual: &str) {
    let filter = match std::env::var(LOG_VARIABLE) {
        Ok(text) => EnvFilter::try_new(&text).unwrap_or_else(|_| EnvFilter::new(usual)),
        Err(_) => EnvFilter::new(usual),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .fmt_fields(CleanFields)
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
}

fn refuse(error: impl Display) -> Exit {
    eprintln!("error: {}", Lines(error));
    Exit::Usage
}

/// Reports a failed write, unless the reader of a pipe has closed it.
fn after_writing(result: io::Result<()>) -> Exit {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            refuse(format_args!("cannot write the output: {error}"))
        }
        _ => Exit::Complete,
    }
}
