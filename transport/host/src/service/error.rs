//! What can go wrong with the service, and what to do then.

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

/// Why a command about a service failed, and what to do.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// Access was denied.
    #[error("access was denied: this needs an elevated prompt (\"Run as administrator\")")]
    NotElevated,
    /// A service of this name exists.
    #[error("the service {} is installed already: `{} service uninstall` removes it", .0.name, .0.program)]
    AlreadyInstalled(&'static Description),
    /// No service of this name exists.
    #[error("the service {} is not installed: `{} service install` installs it", .0.name, .0.program)]
    NotInstalled(&'static Description),
    /// The service is deleted as soon as nobody holds it open.
    #[error(
        "the service {} is about to be deleted: close the Services console and whatever else shows it, or restart \
         Windows",
        .0.name
    )]
    MarkedForDeletion(&'static Description),
    /// It runs already.
    #[error("the service {} runs already", .0.name)]
    AlreadyRunning(&'static Description),
    /// It does not run.
    #[error("the service {} does not run", .0.name)]
    NotRunning(&'static Description),
    /// Somebody disabled it.
    #[error("the service {name} is disabled: `sc.exe config {name} start= delayed-auto` enables it", name = .0.name)]
    Disabled(&'static Description),
    /// It stopped while it was being started.
    #[error("the service {} stopped right after its start with {code}: the event log Application says why", service.name)]
    StoppedAtOnce {
        /// The service.
        service: &'static Description,
        /// How it ended.
        code: ExitCode,
    },
    /// It did not get there in time.
    #[error("the service {} is still {state} after {seconds} s", service.name)]
    TimedOut {
        /// The service.
        service: &'static Description,
        /// Where it stands.
        state: State,
        /// How long was waited.
        seconds: u64,
    },
    /// `service run` was started by somebody else.
    #[error(
        "`{program} service run` is for the service manager: use `{program} service start`, or `{program} {}`",
        .0.by_hand,
        program = .0.program
    )]
    NotStartedByManager(&'static Description),
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

/// Makes a [`ServiceError`] of what the service manager said to `action` on `service`.
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

    static DANCER: Description = Description {
        name: "dancer",
        display_name: "Dancer",
        description: "Dances.",
        account: Description::LOCAL_SERVICE,
        program: "dance",
        by_hand: "waltz",
    };

    #[test]
    fn codes_of_the_service_manager_say_what_to_do() {
        let rows = [
            (5, "elevated"),
            (1073, "the service dancer is installed already: `dance service uninstall` removes it"),
            (1060, "the service dancer is not installed: `dance service install` installs it"),
            (1072, "the service dancer is about to be deleted"),
            (1056, "the service dancer runs already"),
            (1062, "the service dancer does not run"),
            (1058, "the service dancer is disabled: `sc.exe config dancer start= delayed-auto`"),
            (
                1063,
                "`dance service run` is for the service manager: use `dance service start`, or `dance waltz`",
            ),
            (87, "refused to dance"),
        ];
        for (code, expected) in rows {
            let answer = windows_service::Error::Winapi(io::Error::from_raw_os_error(code));
            let error = refused(&DANCER, "dance")(answer);
            assert!(error.to_string().contains(expected), "{code}: {error}");
        }
    }
}
