//! The sensor under the Windows service manager.

use crate::stop::Stop;
use etwsieve_host::event_log::{self, EventLogLayer};
use etwsieve_host::service::{self, Description, ServiceArgs};
pub use etwsieve_host::service::{Installed, ServiceError};
use std::path::{Path, PathBuf};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;

/// The sensor as a service.
///
/// LocalService may start event tracing sessions and has few rights on the machine and none on the network. The virtual
/// account `NT SERVICE\etwsieve` has even fewer, but must be a member of Performance Log Users to start sessions.
/// LocalSystem can do anything, which is too much for a program that parses an attacker's text.
static SENSOR: Description = Description {
    name: "etwsieve",
    display_name: "etwsieve PowerShell sensor",
    description: "Searches the script blocks that PowerShell reports through event tracing with Sigma rules. While \
                  this service is stopped, nothing monitors PowerShell on this machine.",
    account: Description::LOCAL_SERVICE,
    program: "etwsieve",
    by_hand: "watch",
};
/// Maximum number of event log entries per minute.
const EVENT_LOG_PER_MINUTE: u32 = 30;

/// Installs the service with this configuration file.
///
/// # Errors
///
/// [`ServiceError`]; unless `allow_exposed`, also if ordinary accounts can change the program or the configuration.
pub fn install(config: Option<&Path>, allow_exposed: bool) -> Result<Installed, ServiceError> {
    service::install(&SENSOR, config, &[], allow_exposed)
}

/// Stops and removes the service.
///
/// # Errors
///
/// [`ServiceError`].
pub fn uninstall() -> Result<(), ServiceError> {
    service::uninstall(&SENSOR)
}

/// Starts the service and waits until it runs.
///
/// # Errors
///
/// [`ServiceError`].
pub fn start() -> Result<(), ServiceError> {
    service::start(&SENSOR)
}

/// Stops the service, waits until it has stopped, and returns its exit code in words.
///
/// # Errors
///
/// [`ServiceError`].
pub fn stop() -> Result<String, ServiceError> {
    service::stop(&SENSOR).map(|code| code.to_string())
}

/// Returns the state of the service in several lines.
///
/// # Errors
///
/// [`ServiceError`].
pub fn status() -> Result<String, ServiceError> {
    service::status(&SENSOR).map(|status| status.to_string())
}

/// Runs this process as the service: calls `main` with the configuration file and a stop that the service manager
/// requests, and returns its exit code.
///
/// # Errors
///
/// [`ServiceError`] if the service manager did not start this process.
pub fn run(config: Option<PathBuf>, main: fn(Option<&Path>, Stop) -> u32) -> Result<u32, ServiceError> {
    let args = ServiceArgs { config, ..ServiceArgs::default() };
    let stop = Stop::default();
    let requested = stop.clone();
    let work: service::Main = Box::new(move |args| main(args.config.as_deref(), stop));
    service::run_service(&SENSOR, args, work, Box::new(move || requested.request()))
}

/// Sends the diagnostics of this process that pass `filter` to the event log.
pub fn log_to_event_log(filter: EnvFilter) {
    // The sensor runs even if the event log cannot be opened: monitoring is more important.
    let layer = EventLogLayer::new(SENSOR.name, EVENT_LOG_PER_MINUTE).ok();
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(filter).with(layer));
}

/// Writes one error to the event log.
pub fn report_error(message: &str) {
    let _ = event_log::report(SENSOR.name, event_log::Level::Error, event_log::ERROR_ID, message);
}
