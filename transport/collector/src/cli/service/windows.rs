//! The collector as a Windows service.

use super::ServiceCommand;
use crate::cli::serve::until_stopped;
use crate::cli::{Exit, after_writing, log, refuse};
use crate::config::Config;
use crate::pki::{Register, SENSORS_FILE};
use crate::server::Security;
use crate::tls::{AUTHORITY_FILE, COLLECTOR_FILE, server_config};
use etwsieve_host::event_log::{self, ERROR_ID, EventLogLayer, Level};
use etwsieve_host::service::{self, Description, ServiceArgs, ServiceError};
use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Notify;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;

/// The service of the collector.
///
/// The collector accepts connections, reads its certificates and writes its store, which needs no privileges.
/// LocalService suffices for that, has few rights on the machine, and authenticates anonymously on the network; the
/// certificates identify the collector. The virtual account `NT SERVICE\etwsieve-collector` and NetworkService would
/// authenticate as the machine. Files that only the collector may access are granted to its service SID, which has the
/// same name as the virtual account.
static COLLECTOR: Description = Description {
    name: "etwsieve-collector",
    display_name: "etwsieve collector",
    description: "Receives hits from etwsieve sensors and stores them. While it is stopped, sensors keep their hits \
                  in their spools.",
    account: Description::LOCAL_SERVICE,
    program: "etwsieve-collector",
    by_hand: "serve",
};
/// Maximum number of event log entries per minute.
const EVENT_LOG_PER_MINUTE: u32 = 30;
/// Exit code if the configuration, store, address or certificates cannot be used; the event log has the reason.
const EXIT_REFUSED: u32 = 2;

pub(in crate::cli) fn run(command: &ServiceCommand) -> Exit {
    if let ServiceCommand::Run { config } = command {
        return match work(config) {
            Ok(0) => Exit::Complete,
            Ok(_) => Exit::Usage,
            Err(error) => refuse(error),
        };
    }
    log("info");
    match command {
        ServiceCommand::Install { config, allow_exposed } => match install(config, *allow_exposed) {
            Ok(command_line) => say(format_args!(
                "installed: {command_line}\nstart it with `etwsieve-collector service start`"
            )),
            Err(error) => refuse(error),
        },
        ServiceCommand::Uninstall => told(service::uninstall(&COLLECTOR), |()| "uninstalled".into()),
        ServiceCommand::Start => told(service::start(&COLLECTOR), |()| "started".into()),
        ServiceCommand::Stop => told(service::stop(&COLLECTOR), |code| format!("stopped, {code}")),
        ServiceCommand::Status => told(service::status(&COLLECTOR), |status| status.to_string()),
        ServiceCommand::Run { .. } => Exit::Complete,
    }
}

/// Installs the service and returns its command line.
fn install(config: &Path, allow_exposed: bool) -> Result<String, Box<dyn Error>> {
    // Paths in the configuration are resolved against its folder.
    let path = std::path::absolute(config)?;
    // The service could report errors only in the event log.
    let reads = certificates(&Config::load(&path)?)?;
    let installed = service::install(&COLLECTOR, Some(&path), &reads, allow_exposed)?;
    installed.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(installed.command_line)
}

/// Checks the certificates and returns the paths of their files.
fn certificates(config: &Config) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let Security::Pki(folder) = config.security()? else {
        return Ok(Vec::new());
    };
    Register::read(folder.join(SENSORS_FILE))?;
    server_config(&folder)?;
    Ok([AUTHORITY_FILE, COLLECTOR_FILE, SENSORS_FILE].map(|name| folder.join(name)).into())
}

fn told<T>(result: Result<T, ServiceError>, text: impl FnOnce(T) -> String) -> Exit {
    match result {
        Ok(value) => say(text(value)),
        Err(error) => refuse(error),
    }
}

fn say(text: impl Display) -> Exit {
    after_writing(writeln!(io::stdout(), "{text}"))
}

/// Runs this process as the service.
fn work(config: &Path) -> Result<u32, ServiceError> {
    let args = ServiceArgs { config: Some(config.into()), ..ServiceArgs::default() };
    // `Notify` remembers a request that arrives before anyone waits for it.
    let stop = Arc::new(Notify::new());
    let asked = Arc::clone(&stop);
    let main: service::Main = Box::new(move |args| main(args, stop));
    service::run_service(&COLLECTOR, args, main, Box::new(move || asked.notify_one()))
}

/// The main function of the service. It logs to the event log.
fn main(args: &ServiceArgs, stop: Arc<Notify>) -> u32 {
    // Serve without logging rather than not at all.
    let layer = EventLogLayer::new(COLLECTOR.name, EVENT_LOG_PER_MINUTE).ok();
    // Only the configuration that was checked by the installation.
    let config = match Config::load(args.config.as_deref().unwrap_or(Path::new(""))) {
        Ok(config) => config,
        Err(error) => {
            let _ = event_log::report(COLLECTOR.name, Level::Error, ERROR_ID, &error.to_string());
            return EXIT_REFUSED;
        }
    };
    let filter = EnvFilter::try_new(&config.log.level).unwrap_or_else(|_| EnvFilter::new("warn"));
    let subscriber = tracing_subscriber::registry().with(filter).with(layer);
    let _ = tracing::subscriber::set_global_default(subscriber);
    match until_stopped(&config, false, || Ok(async move { stop.notified().await })) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("service stopped: {error}");
            EXIT_REFUSED
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_matches_the_command_line() {
        let cli = <crate::cli::Cli as clap::CommandFactory>::command();
        assert_eq!((COLLECTOR.name, COLLECTOR.program), (cli.get_name(), cli.get_name()));
        assert!(cli.find_subcommand(COLLECTOR.by_hand).is_some());
        assert_eq!(COLLECTOR.account, r"NT AUTHORITY\LocalService");
        let error = ServiceError::NotStartedByManager(&COLLECTOR).to_string();
        let start = "use `etwsieve-collector service start`, or `etwsieve-collector serve`";
        assert!(error.ends_with(start), "{error}");
    }

    #[test]
    fn the_command_line_of_the_service_parses() {
        use clap::Parser;
        let words = ["etwsieve-collector", "service", "run", "--config", r"C:\a b\collector.toml"];
        let cli = crate::cli::Cli::try_parse_from(words).unwrap();
        assert!(matches!(
            cli.command,
            crate::cli::Command::Service { command: ServiceCommand::Run { config } }
                if config == Path::new(words[4])
        ));
    }

    #[test]
    fn an_unusable_configuration_is_not_installed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("collector.toml");
        let rows = [
            ("an unknown key", "colour = 1", "colour"),
            ("neither certificates nor insecure_loopback", "", "no certificates"),
            ("a folder without certificates", "pki = 'pki'", "pki"),
        ];
        for (name, text, expected) in rows {
            std::fs::write(&path, text).unwrap();
            let error = install(&path, true).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
    }
}
