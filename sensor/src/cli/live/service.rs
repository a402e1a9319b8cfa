//! `etwsieve service`: the sensor under the service manager.

use super::{Exit, complain};
use crate::cli::terminal::Terminal;
use crate::cli::{RuleArgs, ServiceCommand, after_writing, rules};
use crate::live::config::{Config, DEFAULT_PATH};
use crate::live::report::line;
use crate::live::rule_folder::RuleFolder;
use crate::output::Format;
use crate::stop::Stop;
use etwsieve_host::event_log::{self, EventLogLayer};
use etwsieve_host::service::{self, Description, ServiceArgs, ServiceError};
use etwsieve_transport::printable::Lines;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;

/// The sensor as a service.
///
/// LocalService may start event tracing sessions, has few rights on the machine and none on the network. The virtual
/// account `NT SERVICE\etwsieve` would be narrower still, but may not start sessions unless it is made a member of
/// Performance Log Users; LocalSystem may do everything, which a program that reads an attacker's texts should not.
static SENSOR: Description = Description {
    name: "etwsieve",
    display_name: "etwsieve PowerShell sensor",
    description: "Searches the script blocks that PowerShell reports through event tracing with Sigma rules. When it \
                  is stopped, nothing watches PowerShell on this machine.",
    account: Description::LOCAL_SERVICE,
    program: "etwsieve",
    by_hand: "watch",
};
/// Where hits go unless the configuration says otherwise: a service has no standard output.
const HITS_FILE: &str = r"C:\ProgramData\etwsieve\hits.jsonl";
/// Most events in the event log in a minute.
const EVENT_LOG_PER_MINUTE: u32 = 30;
/// Exit code of a service whose configuration, rules or session were refused; the event log says why.
const EXIT_REFUSED: u32 = 2;

pub(in crate::cli) fn run(command: &ServiceCommand, terminal: &dyn Fn() -> Terminal) -> Exit {
    if let ServiceCommand::Run { config } = command {
        let args = ServiceArgs { config: config.clone(), ..ServiceArgs::default() };
        let stop = Stop::default();
        let asked = stop.clone();
        let work: service::Main = Box::new(move |args| main(args, stop));
        return match service::run_service(&SENSOR, args, work, Box::new(move || asked.request())) {
            Ok(0) => Exit::Complete,
            Ok(_) => Exit::Usage,
            Err(error) => {
                complain(error);
                Exit::Usage
            }
        };
    }
    terminal();
    match command {
        ServiceCommand::Install { config, allow_exposed } => install(config.as_deref(), *allow_exposed),
        ServiceCommand::Uninstall => told(service::uninstall(&SENSOR), "uninstalled"),
        ServiceCommand::Start => told(service::start(&SENSOR), "started"),
        ServiceCommand::Stop => match service::stop(&SENSOR) {
            Ok(code) => say(format_args!("stopped, {code}")),
            Err(error) => refuse(error),
        },
        ServiceCommand::Status => match service::status(&SENSOR) {
            Ok(status) => say(status),
            Err(error) => refuse(error),
        },
        ServiceCommand::Run { .. } => Exit::Complete,
    }
}

fn install(config: Option<&Path>, allow_exposed: bool) -> Exit {
    let usual = Path::new(DEFAULT_PATH);
    let config = config.or_else(|| usual.is_file().then_some(usual));
    // The service would only say so in the event log.
    if let Some(path) = config
        && let Err(error) = Config::load(path)
    {
        complain(error);
        return Exit::Usage;
    }
    let installed = match service::install(&SENSOR, config, &[], allow_exposed) {
        Ok(installed) => installed,
        Err(error) => return refuse(error),
    };
    installed.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    say(format_args!("installed: {}\nstart it with `etwsieve service start`", installed.command_line))
}

fn told(result: Result<(), ServiceError>, word: &str) -> Exit {
    match result {
        Ok(()) => say(word),
        Err(error) => refuse(error),
    }
}

fn refuse(error: ServiceError) -> Exit {
    complain(error);
    Exit::Usage
}

fn say(text: impl Display) -> Exit {
    after_writing(writeln!(io::stdout(), "{}", Lines(text)), Exit::Complete)
}

/// The service itself. What it has to say goes to the event log.
fn main(args: &ServiceArgs, stop: Stop) -> u32 {
    // Without an event log there is nobody to tell it to; watching is more important.
    let layer = EventLogLayer::new(SENSOR.name, EVENT_LOG_PER_MINUTE).ok();
    let config = match load(args.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            let _ = event_log::report(SENSOR.name, event_log::Level::Error, event_log::ERROR_ID, &error);
            return EXIT_REFUSED;
        }
    };
    let filter = EnvFilter::try_new(&config.log.level).unwrap_or_else(|_| EnvFilter::new("warn"));
    let subscriber = tracing_subscriber::registry().with(filter).with(layer);
    let _ = tracing::subscriber::set_global_default(subscriber);
    let rule_args = RuleArgs { rules: config.rules.clone(), allow_bad_rules: config.allow_bad_rules };
    let folder = RuleFolder::new(config.rules.clone());
    let Ok(matcher) = rules::load(&rule_args) else {
        tracing::error!("the service ends: its rules were refused; `etwsieve rules check` says why");
        return EXIT_REFUSED;
    };
    let format = Format::from(config.output.format);
    match crate::sys::windows::live::run(config, format, matcher, folder, stop) {
        Ok(summary) => {
            tracing::info!("{}", line(&summary.run.total, &summary.etw));
            0
        }
        Err(error) => {
            tracing::error!("the service ends: {error}");
            EXIT_REFUSED
        }
    }
}

fn load(path: Option<&Path>) -> Result<Config, String> {
    // Only what the installation named and checked: a file that appears later may be anybody's.
    let mut config = match path {
        Some(path) => Config::load(path).map_err(|error| error.to_string())?,
        None => Config::default(),
    };
    let file = config.output.file.get_or_insert_with(|| PathBuf::from(HITS_FILE));
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    }
    Ok(config)
}
