//! Systems without ETW: everything compiles, nothing starts.

use crate::live::config::Config;
use crate::live::doctor::Finding;
use crate::live::policy::Edition;
use crate::live::recording::{RecordError, Recorded, Recording};
use crate::live::report::LiveSummary;
use crate::live::rule_files::RuleFiles;
use crate::live::session::SessionState;
use crate::output::Format;
use crate::stop::Stop;
use etwsieve_matcher::Matcher;
use std::io;
use std::path::Path;

/// The command needs Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`etwsieve {command}` needs Windows, because it uses event tracing; on this system `etwsieve replay` searches recorded \
     traces (.etl, .evtx, .jsonl)"
)]
pub struct NeedsWindows {
    command: &'static str,
}

/// Why the live sensor cannot start.
pub type LiveError = NeedsWindows;

/// Refuses every command.
///
/// # Errors
///
/// Always.
pub fn require(command: &'static str) -> Result<(), NeedsWindows> {
    Err(NeedsWindows { command })
}

/// Refuses to start.
///
/// # Errors
///
/// Always.
pub fn run_live(
    _config: Config,
    _format: Format,
    _matcher: Matcher,
    _rule_files: RuleFiles,
    _stop: Stop,
) -> Result<LiveSummary, LiveError> {
    Err(NeedsWindows { command: "watch" })
}

/// Refuses to record.
///
/// # Errors
///
/// Always.
pub fn record(
    recording: &Recording<'_>,
    _stop: &Stop,
    _progress: impl FnMut(&SessionState, u64),
) -> Result<Recorded, RecordError> {
    Err(RecordError::session("start", &recording.settings.name, io::ErrorKind::Unsupported.into()))
}

/// Returns no findings.
pub fn examine(_session: &str) -> Vec<Finding> {
    Vec::new()
}

/// Returns `None`: no edition of PowerShell reports to ETW here.
pub fn canary(_edition: Edition) -> Option<Finding> {
    None
}

/// Returns `None`: a configuration that the sensor finds by itself is only used on Windows.
pub fn exposure(_path: &Path) -> Option<String> {
    None
}

/// The service manager, which does not exist here.
pub mod service {
    use super::NeedsWindows;
    use crate::stop::Stop;
    use std::path::{Path, PathBuf};
    use tracing_subscriber::EnvFilter;

    /// Why an action of the service manager failed.
    pub type ServiceError = NeedsWindows;

    const REFUSED: ServiceError = NeedsWindows { command: "service" };

    /// A service that was installed.
    #[derive(Clone, Debug)]
    pub struct Installed {
        /// The command line of the service.
        pub command_line: String,
        /// Warnings for the administrator.
        pub warnings: Vec<String>,
    }

    /// Refuses to install.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn install(_config: Option<&Path>, _allow_exposed: bool) -> Result<Installed, ServiceError> {
        Err(REFUSED)
    }

    /// Refuses to uninstall.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn uninstall() -> Result<(), ServiceError> {
        Err(REFUSED)
    }

    /// Refuses to start the service.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn start() -> Result<(), ServiceError> {
        Err(REFUSED)
    }

    /// Refuses to stop the service.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn stop() -> Result<String, ServiceError> {
        Err(REFUSED)
    }

    /// Refuses to query the service.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn status() -> Result<String, ServiceError> {
        Err(REFUSED)
    }

    /// Refuses to run as the service.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn run(_config: Option<PathBuf>, _main: fn(Option<&Path>, Stop) -> u32) -> Result<u32, ServiceError> {
        Err(REFUSED)
    }

    /// Does nothing, because only Windows has an event log.
    pub fn log_to_event_log(_filter: EnvFilter) {}

    /// Does nothing, because only Windows has an event log.
    pub fn report_error(_message: &str) {}
}

#[cfg(test)]
mod tests {
    use super::{require, service};

    #[test]
    fn commands_that_need_windows_say_so_and_name_the_alternative() {
        let message = require("watch").unwrap_err().to_string();
        assert!(message.starts_with("`etwsieve watch` needs Windows") && message.contains("etwsieve replay"));
        assert!(service::status().unwrap_err().to_string().starts_with("`etwsieve service` needs Windows"));
    }
}
