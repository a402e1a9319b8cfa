//! Errors of service commands, with instructions for the user.

use super::{Description, ExitCode, State};
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

/// A service command failed.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// Access was denied.
    #[error("access was denied: this needs an elevated prompt (\"Run as administrator\")")]
    NotElevated,
    /// A service with this name exists.
    #[error("the service {} is already installed; remove it with `{} service uninstall`", .0.name, .0.program)]
    AlreadyInstalled(&'static Description),
    /// No service with this name exists.
    #[error("the service {} is not installed; install it with `{} service install`", .0.name, .0.program)]
    NotInstalled(&'static Description),
    /// The service will be deleted when the last handle to it is closed.
    #[error(
        "the service {} is marked for deletion; close the Services console and other programs that show it, or restart \
         Windows",
        .0.name
    )]
    MarkedForDeletion(&'static Description),
    /// The service is already running.
    #[error("the service {} is already running", .0.name)]
    AlreadyRunning(&'static Description),
    /// The service is not running.
    #[error("the service {} is not running", .0.name)]
    NotRunning(&'static Description),
    /// The service is disabled.
    #[error("the service {name} is disabled; enable it with `sc.exe config {name} start= delayed-auto`", name = .0.name)]
    Disabled(&'static Description),
    /// The service stopped immediately after its start.
    #[error("the service {} stopped immediately after its start with {code}; see the Application event log", service.name)]
    StoppedAtOnce {
        /// The service.
        service: &'static Description,
        /// The exit code.
        code: ExitCode,
    },
    /// The service did not reach the expected state in time.
    #[error("the service {} is still {state} after {seconds} s", service.name)]
    TimedOut {
        /// The service.
        service: &'static Description,
        /// The state after the wait.
        state: State,
        /// Duration of the wait, in seconds.
        seconds: u64,
    },
    /// `service run` was not started by the service manager.
    #[error(
        "`{program} service run` can only be started by the service manager; use `{program} service start`, or `{program} {}`",
        .0.by_hand,
        program = .0.program
    )]
    NotStartedByManager(&'static Description),
    /// Ordinary accounts can change a file that the service would run or read.
    #[error("{0}, which could take over the service; move the file below Program Files")]
    Exposed(Exposure),
    /// The path of the program or of the configuration cannot be used.
    #[error("{path}: {source}")]
    Path {
        /// The path.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// Another error of the service manager.
    #[error("cannot {action}: {source}")]
    System {
        /// The action that failed.
        action: &'static str,
        /// The error of the service manager.
        source: io::Error,
    },
}

/// Converts an error of the service manager for `action` on `service`.
pub(super) fn refused(
    service: &'static Description,
    action: &'static str,
) -> impl Fn(windows_service::Error) -> ServiceError {
    move |error| {
        let source = match error {
            windows_service::Error::Winapi(source) => source,
            other => io::Error::other(other),
        };
        match source.raw_os_error().map(i32::cast_unsigned) {
            Some(ERROR_ACCESS_DENIED) => ServiceError::NotElevated,
            Some(ERROR_SERVICE_EXISTS) => ServiceError::AlreadyInstalled(service),
            Some(ERROR_SERVICE_DOES_NOT_EXIST) => ServiceError::NotInstalled(service),
            Some(ERROR_SERVICE_MARKED_FOR_DELETE) => ServiceError::MarkedForDeletion(service),
            Some(ERROR_SERVICE_ALREADY_RUNNING) => ServiceError::AlreadyRunning(service),
            Some(ERROR_SERVICE_NOT_ACTIVE) => ServiceError::NotRunning(service),
            Some(ERROR_SERVICE_DISABLED) => ServiceError::Disabled(service),
            Some(ERROR_FAILED_SERVICE_CONTROLLER_CONNECT) => ServiceError::NotStartedByManager(service),
            _ => ServiceError::System { action, source },
        }
    }
}

/// Returns true if the system does not support this setting.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(i32::cast_unsigned);
    matches!(code, Some(ERROR_CALL_NOT_IMPLEMENTED | ERROR_INVALID_LEVEL))
}

/// Returns true if the service is currently starting or stopping.
pub(super) fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error().map(i32::cast_unsigned) == Some(ERROR_SERVICE_CANNOT_ACCEPT_CTRL)
}

#[cfg(test)]
mod tests {
    use super::*;

    static DANCER: Description = Description {
        name: "dancer",
        display_name: "Dancer",
        description: "Dances.",
        account: Description::LOCAL_SERVICE,
        program: "dance",
        by_hand: "waltz",
    };

    #[test]
    fn errors_of_the_service_manager_include_instructions() {
        let rows = [
            (5, "elevated"),
            (1073, "the service dancer is already installed; remove it with `dance service uninstall`"),
            (1060, "the service dancer is not installed; install it with `dance service install`"),
            (1072, "the service dancer is marked for deletion"),
            (1056, "the service dancer is already running"),
            (1062, "the service dancer is not running"),
            (
                1058,
                "the service dancer is disabled; enable it with `sc.exe config dancer start= delayed-auto`",
            ),
            (
                1063,
                "`dance service run` can only be started by the service manager; use `dance service start`, or `dance waltz`",
            ),
            (87, "cannot dance"),
        ];
        for (code, expected) in rows {
            let answer = windows_service::Error::Winapi(io::Error::from_raw_os_error(code));
            let error = refused(&DANCER, "dance")(answer);
            assert!(error.to_string().contains(expected), "{code}: {error}");
        }
    }
}
