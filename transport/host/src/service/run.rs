//! The service process: runs the program and reports its state to the service manager.

use super::{Description, STOP_TIME_MAX, ServiceError, refused};
use std::ffi::OsString;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use windows_service::service::{
    ServiceControl, ServiceControlAccept, ServiceExitCode, ServiceState, ServiceStatus, ServiceType,
};
use windows_service::service_control_handler::{self, ServiceControlHandlerResult, ServiceStatusHandle};
use windows_service::{define_windows_service, service_dispatcher};

/// Exit code of a service whose main function panicked; the same as that of a Rust program.
pub const EXIT_PANICKED: u32 = 101;
/// Exit code of a service that could not connect to the service manager.
const EXIT_NOT_CONNECTED: u32 = 102;
/// The start time announced to the service manager.
const START_HINT: Duration = Duration::from_secs(10);

/// Arguments of the service process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceArgs {
    /// Path of the configuration on the command line.
    pub config: Option<PathBuf>,
    /// Arguments of this start, as in `sc.exe start NAME …`. The first one is the name of the service.
    pub start_parameters: Vec<OsString>,
}

/// The main function of the service. It returns the exit code.
pub type Main = Box<dyn FnOnce(&ServiceArgs) -> u32 + Send>;
/// Requests the main function to stop. It may be called more than once and must not block.
pub type AskToStop = Box<dyn Fn() + Send + Sync>;

struct Work {
    service: &'static Description,
    args: ServiceArgs,
    /// Taken when the service starts.
    main: Mutex<Option<Main>>,
    ask_to_stop: AskToStop,
}

/// The connection to the service manager; `None` before it exists and after the service has stopped.
struct Life {
    handle: Option<ServiceStatusHandle>,
    exit_code: u32,
}

// The dispatcher calls plain functions, so their data is static. The control handler also captures nothing, because
// windows-service frees it after the first stop; a zero-sized handler remains valid.
static WORK: OnceLock<Work> = OnceLock::new();
static LIFE: Mutex<Life> = Mutex::new(Life { handle: None, exit_code: EXIT_NOT_CONNECTED });

define_windows_service!(entry, service_main);

/// Runs `main` as the service, blocks until it ends, and returns its exit code.
///
/// The state is reported as running as soon as the process is connected to the service manager. Stop, shutdown and
/// preshutdown call `ask_to_stop`, after which `main` has 30 s to return. An exit code other than 0 is a failure, after
/// which the service manager restarts the service. If `main` panics, the exit code is [`EXIT_PANICKED`].
///
/// # Errors
///
/// [`ServiceError::NotStartedByManager`] if the process was not started by the service manager; errors of the service
/// manager; and an error for a second call in the same process.
pub fn run_service(
    service: &'static Description,
    args: ServiceArgs,
    main: Main,
    ask_to_stop: AskToStop,
) -> Result<u32, ServiceError> {
    let work = Work { service, args, main: Mutex::new(Some(main)), ask_to_stop };
    WORK.set(work).map_err(|_| ServiceError::AlreadyRunning(service))?;
    service_dispatcher::start(service.name, entry)
        .map_err(refused(service, "run this program as the service"))?;
    Ok(LIFE.lock().unwrap_or_else(PoisonError::into_inner).exit_code)
}

/// Called by the dispatcher on a separate thread.
fn service_main(start_parameters: Vec<OsString>) {
    let Some(work) = WORK.get() else {
        return;
    };
    let Some(main) = work.main.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        return;
    };
    let handle = match service_control_handler::register(work.service.name, control) {
        Ok(handle) => handle,
        Err(error) => return tracing::error!(%error, "cannot register the control handler"),
    };
    LIFE.lock().unwrap_or_else(PoisonError::into_inner).handle = Some(handle);
    report(ServiceState::StartPending, START_HINT);
    report(ServiceState::Running, Duration::ZERO);
    let args = ServiceArgs { start_parameters, ..work.args.clone() };
    // A service has no standard error, so panics of all threads are logged as errors.
    panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    let code = catch_unwind(AssertUnwindSafe(|| main(&args))).unwrap_or(EXIT_PANICKED);
    LIFE.lock().unwrap_or_else(PoisonError::into_inner).exit_code = code;
    report(ServiceState::Stopped, Duration::ZERO);
}

/// Called by the dispatcher for each control.
fn control(control: ServiceControl) -> ServiceControlHandlerResult {
    match control {
        ServiceControl::Interrogate => ServiceControlHandlerResult::NoError,
        ServiceControl::Stop | ServiceControl::Shutdown | ServiceControl::Preshutdown => {
            // The order matters: "stop pending" must not be reported after "stopped".
            report(ServiceState::StopPending, STOP_TIME_MAX);
            if let Some(work) = WORK.get() {
                (work.ask_to_stop)();
            }
            ServiceControlHandlerResult::NoError
        }
        _ => ServiceControlHandlerResult::NotImplemented,
    }
}

/// Reports the state to the service manager. Nothing is reported after "stopped".
fn report(state: ServiceState, wait_hint: Duration) {
    let mut life = LIFE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(handle) = life.handle else {
        return;
    };
    let stopped = state == ServiceState::Stopped;
    if stopped {
        life.handle = None;
    }
    let controls_accepted = if state == ServiceState::Running {
        ServiceControlAccept::STOP | ServiceControlAccept::SHUTDOWN | ServiceControlAccept::PRESHUTDOWN
    } else {
        ServiceControlAccept::empty()
    };
    let exit_code = match life.exit_code {
        code if stopped && code != 0 => ServiceExitCode::ServiceSpecific(code),
        _ => ServiceExitCode::NO_ERROR,
    };
    let pending = matches!(state, ServiceState::StartPending | ServiceState::StopPending);
    let status = ServiceStatus {
        service_type: ServiceType::OWN_PROCESS,
        current_state: state,
        controls_accepted,
        exit_code,
        checkpoint: u32::from(pending),
        wait_hint,
        process_id: None,
    };
    if let Err(error) = handle.set_service_status(status) {
        tracing::error!(%error, ?state, "cannot report the state to the service manager");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static TEST: Description = Description {
        name: "etwsieve-test",
        display_name: "etwsieve-test",
        description: "",
        account: Description::LOCAL_SERVICE,
        program: "etwsieve-test",
        by_hand: "run",
    };

    #[test]
    fn a_process_started_by_hand_gets_an_error() {
        let run = || run_service(&TEST, ServiceArgs::default(), Box::new(|_| 0), Box::new(|| ()));
        match run() {
            Err(ServiceError::NotStartedByManager(_)) => {}
            other => panic!("{other:?}"),
        }
        assert!(matches!(run(), Err(ServiceError::AlreadyRunning(_))));
    }

    #[test]
    fn unsupported_controls_are_rejected() {
        assert!(matches!(control(ServiceControl::ParamChange), ServiceControlHandlerResult::NotImplemented));
        assert!(matches!(control(ServiceControl::Interrogate), ServiceControlHandlerResult::NoError));
    }
}
