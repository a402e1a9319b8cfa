//! `etwsieve service`: manages the sensor under the Windows service manager.

use super::options::RuleArgs;
use super::terminal::Terminal;
use super::{Exit, after_writing, rules, usage_error};
use crate::live::config::{Config, DEFAULT_PATH};
use crate::live::report::summary_line;
use crate::live::rule_files::RuleFiles;
use crate::output::Format;
use crate::stop::Stop;
use crate::sys::{self, service};
use clap::Subcommand;
use etwsieve_transport::printable::Lines;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tracing_subscriber::EnvFilter;

/// Output file of the service unless the configuration names one, because a service has no standard output.
const HITS_FILE: &str = r"C:\ProgramData\etwsieve\hits.jsonl";
/// Exit code of the service if its configuration, rules or session failed; the event log has the reason.
const EXIT_FAILED: u32 = 2;

/// Subcommands of `service`.
#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Install the service: automatic start, least-privilege account, restart after a crash.
    Install {
        /// Configuration of the service [default: C:\ProgramData\etwsieve\etwsieve.toml if it exists].
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Install even if ordinary accounts can change the program or its configuration, and only warn.
        #[arg(long)]
        allow_exposed: bool,
    },
    /// Remove the service.
    Uninstall,
    /// Start the service.
    Start,
    /// Stop the service.
    Stop,
    /// Show the state of the service.
    Status,
    /// Run as the service (used by the service manager).
    #[command(hide = true)]
    Run {
        /// Configuration of the service.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

pub(super) fn run(command: &ServiceCommand, terminal: &dyn Fn() -> Terminal) -> Exit {
    if let Err(error) = sys::require("service") {
        return usage_error(error);
    }
    if !matches!(command, ServiceCommand::Run { .. }) {
        terminal();
    }
    match command {
        ServiceCommand::Run { config } => match service::run(config.clone(), main) {
            Ok(0) => Exit::Complete,
            Ok(_) => Exit::Usage,
            Err(error) => usage_error(error),
        },
        ServiceCommand::Install { config, allow_exposed } => install(config.as_deref(), *allow_exposed),
        ServiceCommand::Uninstall => print_result(service::uninstall().map(|()| "uninstalled")),
        ServiceCommand::Start => print_result(service::start().map(|()| "started")),
        ServiceCommand::Stop => print_result(service::stop().map(|code| format!("stopped, {code}"))),
        ServiceCommand::Status => print_result(service::status()),
    }
}

fn install(config: Option<&Path>, allow_exposed: bool) -> Exit {
    let default = Path::new(DEFAULT_PATH);
    let config = config.or_else(|| default.is_file().then_some(default));
    // Checked now, because the service could report an error only in the event log.
    if let Some(path) = config
        && let Err(error) = Config::load(path)
    {
        return usage_error(error);
    }
    print_result(service::install(config, allow_exposed).map(|installed| {
        installed.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        format!("installed: {}\nstart it with `etwsieve service start`", installed.command_line)
    }))
}

fn print_result<E: Display>(result: Result<impl Display, E>) -> Exit {
    match result {
        Ok(text) => after_writing(writeln!(io::stdout(), "{}", Lines(text)), Exit::Complete),
        Err(error) => usage_error(error),
    }
}

/// Runs the sensor as the service and returns its exit code. Diagnostics go to the event log.
fn main(config: Option<&Path>, stop: Stop) -> u32 {
    let config = match load(config) {
        Ok(config) => config,
        Err(error) => {
            service::report_error(&error);
            return EXIT_FAILED;
        }
    };
    let filter = EnvFilter::try_new(&config.log.level).unwrap_or_else(|_| EnvFilter::new("warn"));
    service::log_to_event_log(filter);
    let rule_args = RuleArgs { rules: config.rules.clone(), allow_bad_rules: config.allow_bad_rules };
    let rule_files = RuleFiles::new(config.rules.clone());
    let Ok(matcher) = rules::load(&rule_args) else {
        tracing::error!("the service stops: its rules were rejected; run `etwsieve rules check` for details");
        return EXIT_FAILED;
    };
    let format = Format::from(config.output.format);
    match sys::run_live(config, format, matcher, rule_files, stop) {
        Ok(summary) => {
            tracing::info!("{}", summary_line(&summary.run.total, &summary.etw));
            0
        }
        Err(error) => {
            tracing::error!("the service stops: {error}");
            EXIT_FAILED
        }
    }
}

fn load(path: Option<&Path>) -> Result<Config, String> {
    // Uses only the file that the installation checked: any account may have created a file that appeared later.
    let mut config = match path {
        Some(path) => Config::load(path).map_err(|error| error.to_string())?,
        None => Config::default(),
    };
    let file = config.output.file.get_or_insert_with(|| PathBuf::from(HITS_FILE));
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|error| format!("cannot create the folder {}: {error}", folder.display()))?;
    }
    Ok(config)
}
