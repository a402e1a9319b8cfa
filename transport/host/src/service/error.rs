//! What can go wrong with the service, and what to do then.

use super::{ExitCode, State};
use crate::exposure::Exposure;
use std::io;
use std::path::PathBuf;
use thiserror::Error;
use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_CALL_NOT_IMPLEMENTED, ERROR_FAILED_SERVICE_CONTROLLER_CONNECT,
    ERROR_INVALID_LEVEL, ERROR_SERVICE_ALREADY_RUNNING, ERROR_SERVICE_CANNOT_ACCEPT_CTRL,
    ERROR_SERVICE_DISABLED, ERROR_SERVICE_DOES_NOT_EXIST, ERROR_SERVICE_EXISTS,
    ERROR_SERVICE_MARKED_FOR_DELETE, ERROR_SERVICE_NOT_ACTIVE,
};

/// Why a command about the service failed, and what to do.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// Access was denied.
    #[error("access was denied: this needs an elevated prompt (\"Run as administrator\")")]
    NotElevated,
    /// A service of this name exists.
    #[error("the service etwsieve is installed already: `etwsieve service uninstall` removes it")]
    AlreadyInstalled,
    /// No service of this name exists.
    #[error("the service etwsieve is not installed: `etwsieve service install` installs it")]
    NotInstalled,
    /// The service is deleted as soon as nobody holds it open.
    #[error(
        "the service etwsieve is about to be deleted: close the Services console and whatever else shows it, or restart \
         Windows"
    )]
    MarkedForDeletion,
    /// It runs already.
    #[error("the service etwsieve runs already")]
    AlreadyRunning,
    /// It does not run.
    #[error("the service etwsieve does not run")]
    NotRunning,
    /// Somebody disabled it.
    #[error("the service etwsieve is disabled: `sc.exe config etwsieve start= delayed-auto` enables it")]
    Disabled,
    /// It stopped while it was being started.
    #[error(
        "the service etwsieve stopped right after its start with {0}: the event log Application says why"
    )]
    StoppedAtOnce(ExitCode),
    /// It did not get there in time.
    #[error("the service etwsieve is still {state} after {seconds} s")]
    TimedOut {
        /// Where it stands.
        state: State,
        /// How long was waited.
        seconds: u64,
    },
    /// `service run` was started by somebody else.
    #[error(
        "`etwsieve service run` is for the service manager: use `etwsieve service start`, or `etwsieve watch`"
    )]
    NotStartedByManager,
    /// The service would run or read what ordinary accounts can change.
    #[error(
        "{0}: whoever can change what a service runs or reads becomes that service; move it below Program Files"
    )]
    Exposed(Exposure),
    /// The program's own path or that of the configuration is of no use.
    #[error("{path}: {source}")]
    Path {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// Anything else that the service manager says.
    #[error("the service manager refused to {action}: {source}")]
    System {
        /// What was asked of it.
        action: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

/// Makes a [`ServiceError`] of what the service manager said to `action`.
pub(super) fn refused(action: &'static str) -> impl Fn(windows_service::Error) -> ServiceError {
    move |error| {
        let source = match error {
            windows_service::Error::Winapi(source) => source,
            other => io::Error::other(other),
        };
        match source.raw_os_error().map(i32::cast_unsigned) {
            Some(ERROR_ACCESS_DENIED) => ServiceError::NotElevated,
            Some(ERROR_SERVICE_EXISTS) => ServiceError::AlreadyInstalled,
            Some(ERROR_SERVICE_DOES_NOT_EXIST) => ServiceError::NotInstalled,
            Some(ERROR_SERVICE_MARKED_FOR_DELETE) => ServiceError::MarkedForDeletion,
            Some(ERROR_SERVICE_ALREADY_RUNNING) => ServiceError::AlreadyRunning,
            Some(ERROR_SERVICE_NOT_ACTIVE) => ServiceError::NotRunning,
            Some(ERROR_SERVICE_DISABLED) => ServiceError::Disabled,
            Some(ERROR_FAILED_SERVICE_CONTROLLER_CONNECT) => ServiceError::NotStartedByManager,
            _ => ServiceError::System { action, source },
        }
    }
}

/// Whether the system does not know this setting.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(i32::cast_unsigned);
    matches!(code, Some(ERROR_CALL_NOT_IMPLEMENTED | ERROR_INVALID_LEVEL))
}

/// Whether the service is being started or stopped just now.
pub(super) fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error().map(i32::cast_unsigned) == Some(ERROR_SERVICE_CANNOT_ACCEPT_CTRL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_service_manager_say_what_to_do() {
        let rows = [
            (5, "elevated"),
            (1073, "uninstall"),
            (1060, "not installed"),
            (1072, "restart"),
            (1056, "runs already"),
            (1062, "does not run"),
            (1058, "disabled"),
            (1063, "service start"),
            (87, "refused to dance"),
        ];
        for (code, expected) in rows {
            let error = refused("dance")(windows_service::Error::Winapi(io::Error::from_raw_os_error(code)));
            assert!(error.to_string().contains(expected), "{code}: {error}");
        }
    }
}
