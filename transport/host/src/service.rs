//! The sensor as a Windows service: install, uninstall, start, stop, status; [`run_service`] is its life.
//!
//! The account is LocalService with a service SID, and of its privileges only `SeChangeNotifyPrivilege` is kept:
//! - LocalService may start event tracing sessions, has few rights on the machine and none on the network.
//! - The virtual account `NT SERVICE\etwsieve` would be narrower still, but may not start sessions unless it is made
//!   a member of Performance Log Users; LocalSystem may do everything, which a program that reads an attacker's texts
//!   should not.
//! - Other services run as LocalService too. The service SID `NT SERVICE\etwsieve` lets rules, configuration and store
//!   be granted to this service alone.
#![expect(unsafe_code, reason = "the privileges of a service are set through a pointer")]

mod error;
mod run;
mod status;

use crate::exposure::exposures;
pub use error::ServiceError;
use error::{is_busy, is_unsupported, refused};
pub use run::{AskToStop, EXIT_PANICKED, Main, ServiceArgs, run_service};
use status::exit_code;
pub use status::{ExitCode, State, Status, status};
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use windows_service::service::{
    Service, ServiceAccess, ServiceAction, ServiceActionType, ServiceErrorControl, ServiceFailureActions,
    ServiceFailureResetPeriod, ServiceInfo, ServiceSidType, ServiceStartType, ServiceState, ServiceStatus,
    ServiceType,
};
use windows_service::service_manager::{ServiceManager, ServiceManagerAccess};
use windows_sys::Win32::System::Services::{
    ChangeServiceConfig2W, SERVICE_CONFIG_REQUIRED_PRIVILEGES_INFO, SERVICE_REQUIRED_PRIVILEGES_INFOW,
};

/// Name of the service.
pub const NAME: &str = "etwsieve";
const DISPLAY_NAME: &str = "etwsieve PowerShell sensor";
const DESCRIPTION: &str = "Searches the script blocks that PowerShell reports through event tracing with Sigma rules. \
    When it is stopped, nothing watches PowerShell on this machine.";
const ACCOUNT: &str = r"NT AUTHORITY\LocalService";
/// To walk through folders whose own list would not let one in: every service has it.
const PRIVILEGE: &str = "SeChangeNotifyPrivilege";
/// Pauses before the first, second and each later restart.
const RESTART_AFTER: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(10), Duration::from_mins(1)];
/// After this time without a failure the next one is the first again.
const FAILURES_FORGOTTEN_AFTER: Duration = Duration::from_hours(24);
/// How long the service may take to stop, and [`stop`] waits.
pub const STOP_TIME_MAX: Duration = Duration::from_secs(30);
/// How long [`start`] waits for the service.
pub const START_TIME_MAX: Duration = Duration::from_secs(30);
/// A service that runs still after this time has found its configuration and rules.
const SETTLE_TIME: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// An installed service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The command line of the service; paths with blanks are quoted.
    pub command_line: String,
    /// What the administrator should know.
    pub warnings: Vec<String>,
}

/// Installs the service: delayed automatic start, restarts after failures, LocalService without privileges. If a
/// step fails the service is taken away again.
///
/// The program is this one, where it stands now. If ordinary accounts can change it, the configuration or the
/// folders above them, nothing is installed, unless `allow_exposed`: then that is a warning.
///
/// # Errors
///
/// [`ServiceError`].
pub fn install(config: Option<&Path>, allow_exposed: bool) -> Result<Installed, ServiceError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ServiceError::Path { path, source }
    };
    let program = std::env::current_exe().map_err(failed(Path::new("etwsieve.exe")))?;
    let config = match config {
        None => None,
        Some(path) => {
            let path = std::path::absolute(path).map_err(failed(path))?;
            std::fs::metadata(&path).map_err(failed(&path))?;
            Some(path)
        }
    };
    let mut warnings = Vec::new();
    for path in [Some(&program), config.as_ref()].into_iter().flatten() {
        for exposure in exposures(path).map_err(failed(path))? {
            if !allow_exposed {
                return Err(ServiceError::Exposed(exposure));
            }
            warnings.push(exposure.to_string());
        }
    }
    if !["ProgramFiles", "ProgramW6432"]
        .iter()
        .filter_map(std::env::var_os)
        .any(|folder| !folder.is_empty() && program.starts_with(folder))
    {
        warnings.push(format!("{} is not below Program Files", program.display()));
    }
    install_as(NAME, &program, config.as_deref(), warnings)
}

fn install_as(
    name: &str,
    program: &Path,
    config: Option<&Path>,
    mut warnings: Vec<String>,
) -> Result<Installed, ServiceError> {
    let mut arguments: Vec<OsString> = vec!["service".into(), "run".into()];
    if let Some(config) = config {
        arguments.extend(["--config".into(), config.into()]);
    }
    let access = ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE;
    let manager =
        ServiceManager::local_computer(None::<&str>, access).map_err(refused("open its database"))?;
    let info = ServiceInfo {
        name: name.into(),
        display_name: if name == NAME { DISPLAY_NAME.into() } else { name.into() },
        service_type: ServiceType::OWN_PROCESS,
        start_type: ServiceStartType::AutoStart,
        error_control: ServiceErrorControl::Normal,
        executable_path: program.to_path_buf(),
        launch_arguments: arguments,
        dependencies: vec![],
        account_name: Some(ACCOUNT.into()),
        account_password: None,
    };
    // Starting belongs to the recovery actions: whoever sets a restart must be allowed to start.
    let access = ServiceAccess::CHANGE_CONFIG
        | ServiceAccess::QUERY_CONFIG
        | ServiceAccess::START
        | ServiceAccess::DELETE;
    let service = manager.create_service(&info, access).map_err(refused("create the service"))?;
    match configure(&service, &mut warnings) {
        Ok(command_line) => Ok(Installed { command_line, warnings }),
        Err(error) => {
            // A half-configured service would run with all privileges of its account.
            if let Err(left) = service.delete() {
                tracing::warn!(error = %left, "the half-configured service could not be deleted");
            }
            Err(error)
        }
    }
}

/// All that is not told when a service is created. Returns its command line.
fn configure(service: &Service, warnings: &mut Vec<String>) -> Result<String, ServiceError> {
    let restarts =
        RESTART_AFTER.map(|delay| ServiceAction { action_type: ServiceActionType::Restart, delay });
    let failures = ServiceFailureActions {
        reset_period: ServiceFailureResetPeriod::After(FAILURES_FORGOTTEN_AFTER),
        reboot_msg: None,
        command: None,
        actions: Some(restarts.to_vec()),
    };
    let steps = [
        ("set the description", service.set_description(DESCRIPTION)),
        ("restrict the privileges", require_privilege(service)),
        ("set the service SID", service.set_config_service_sid_info(ServiceSidType::Unrestricted)),
        ("delay the automatic start", service.set_delayed_auto_start(true)),
        ("set restarts", service.update_failure_actions(failures)),
        ("restart after errors too", service.set_failure_actions_on_non_crash_failures(true)),
        ("set the time to shut down", service.set_preshutdown_timeout(STOP_TIME_MAX)),
    ];
    for (action, result) in steps {
        match result.map_err(refused(action)) {
            Ok(()) => {}
            // Not Windows, then: Wine knows some of these settings only.
            Err(ServiceError::System { source, .. }) if is_unsupported(&source) => {
                warnings.push(format!("this system cannot {action}"));
            }
            Err(error) => return Err(error),
        }
    }
    let config = service.query_config().map_err(refused("tell the configuration"))?;
    Ok(config.executable_path.to_string_lossy().into_owned())
}

/// Takes all privileges but one from the service's token.
fn require_privilege(service: &Service) -> windows_service::Result<()> {
    // A list of texts, each with its NUL, and one more NUL at the end.
    let mut list: Vec<u16> = PRIVILEGE.encode_utf16().chain([0, 0]).collect();
    let info = SERVICE_REQUIRED_PRIVILEGES_INFOW { pmszRequiredPrivileges: list.as_mut_ptr() };
    // SAFETY: the handle is open, the structure is what this level takes, and its list ends in two NULs.
    let done = unsafe {
        let (handle, info) = (service.raw_handle(), (&raw const info).cast());
        ChangeServiceConfig2W(handle, SERVICE_CONFIG_REQUIRED_PRIVILEGES_INFO, info)
    };
    if done == 0 { Err(windows_service::Error::Winapi(io::Error::last_os_error())) } else { Ok(()) }
}

fn open(name: &str, access: ServiceAccess) -> Result<Service, ServiceError> {
    let manager = ServiceManager::local_computer(None::<&str>, ServiceManagerAccess::CONNECT)
        .map_err(refused("open its database"))?;
    manager.open_service(name, access).map_err(refused("open the service"))
}

/// Stops the service if it runs, and removes it.
///
/// # Errors
///
/// [`ServiceError`].
pub fn uninstall() -> Result<(), ServiceError> {
    uninstall_as(NAME)
}

fn uninstall_as(name: &str) -> Result<(), ServiceError> {
    let service = open(name, ServiceAccess::QUERY_STATUS | ServiceAccess::STOP | ServiceAccess::DELETE)?;
    match stop_and_wait(&service) {
        Ok(_) | Err(ServiceError::NotRunning) => {}
        Err(error) => return Err(error),
    }
    service.delete().map_err(refused("delete the service"))
}

/// Starts the service, waits until it runs, at most 30 s, and makes sure that it still runs a second later.
///
/// # Errors
///
/// [`ServiceError`].
pub fn start() -> Result<(), ServiceError> {
    let service = open(NAME, ServiceAccess::QUERY_STATUS | ServiceAccess::START)?;
    service.start::<&str>(&[]).map_err(refused("start the service"))?;
    let mut status = wait(&service, START_TIME_MAX, ServiceState::StartPending)?;
    if status.current_state == ServiceState::Running {
        thread::sleep(SETTLE_TIME);
        status = service.query_status().map_err(refused("tell the state"))?;
    }
    match status.current_state {
        ServiceState::Stopped => Err(ServiceError::StoppedAtOnce(exit_code(&status))),
        _ => Ok(()),
    }
}

/// Stops the service and waits until it has stopped, at most 30 s; tells how it ended.
///
/// # Errors
///
/// [`ServiceError`].
pub fn stop() -> Result<ExitCode, ServiceError> {
    stop_and_wait(&open(NAME, ServiceAccess::QUERY_STATUS | ServiceAccess::STOP)?)
}

fn stop_and_wait(service: &Service) -> Result<ExitCode, ServiceError> {
    match service.stop().map_err(refused("stop the service")) {
        Ok(_) => {}
        // It is being started or stopped already; see what becomes of it.
        Err(ServiceError::System { source, .. }) if is_busy(&source) => {}
        Err(error) => return Err(error),
    }
    let deadline = Instant::now() + STOP_TIME_MAX;
    loop {
        let status = service.query_status().map_err(refused("tell the state"))?;
        if status.current_state == ServiceState::Stopped {
            return Ok(exit_code(&status));
        }
        if Instant::now() >= deadline {
            return Err(timed_out(&status, STOP_TIME_MAX));
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Waits until the service is no longer `pending`.
fn wait(service: &Service, time_max: Duration, pending: ServiceState) -> Result<ServiceStatus, ServiceError> {
    let deadline = Instant::now() + time_max;
    loop {
        let status = service.query_status().map_err(refused("tell the state"))?;
        if status.current_state != pending {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            return Err(timed_out(&status, time_max));
        }
        thread::sleep(POLL_INTERVAL);
    }
}

fn timed_out(status: &ServiceStatus, time_max: Duration) -> ServiceError {
    ServiceError::TimedOut { state: status.current_state.into(), seconds: time_max.as_secs() }
}

#[cfg(test)]
mod tests {
    use super::status::status_of;
    use super::*;

    #[test]
    fn a_service_is_installed_described_and_removed() {
        let name = format!("etwsieve-test-{}", std::process::id());
        let program = Path::new(r"C:\Program Files\etwsieve\etwsieve.exe");
        let config = Path::new(r"C:\Program Files\etwsieve\live.toml");
        let installed = match install_as(&name, program, Some(config), vec![]) {
            Ok(installed) => installed,
            Err(ServiceError::NotElevated) => return println!("skipped: not elevated"),
            Err(error) => panic!("{error}"),
        };
        println!("{installed:?}");
        let again = install_as(&name, program, None, vec![]);
        let status = status_of(&name);
        uninstall_as(&name).unwrap();
        assert!(matches!(again, Err(ServiceError::AlreadyInstalled)), "{again:?}");
        let expected = r#""C:\Program Files\etwsieve\etwsieve.exe" service run --config "C:\Program Files\etwsieve\live.toml""#;
        assert_eq!(installed.command_line, expected);
        let status = status.unwrap();
        assert_eq!(status.command_line, expected);
        assert_eq!((status.state, status.process_id), (State::Stopped, None));
        assert!(status.account.to_lowercase().contains("localservice"), "{}", status.account);
        assert_eq!(status.start_type, "automatic");
        assert!(matches!(status_of(&name), Err(ServiceError::NotInstalled)));
        assert!(matches!(uninstall_as(&name), Err(ServiceError::NotInstalled)));
    }

    #[test]
    fn a_missing_configuration_is_named() {
        let error = install(Some(Path::new(r"C:\no such folder\live.toml")), true).unwrap_err();
        assert!(matches!(&error, ServiceError::Path { path, .. } if path.ends_with("live.toml")), "{error}");
    }
}
