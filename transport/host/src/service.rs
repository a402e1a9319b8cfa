//! Installs, uninstalls, starts, stops and queries a Windows service. [`run_service`] runs the service process.
//!
//! A [`Description`] contains everything in which services differ. All services start automatically with a delay, are
//! restarted after failures, have a service SID, and keep only `SeChangeNotifyPrivilege` of the privileges of their
//! account. The service SID `NT SERVICE\NAME` is needed because other services use the same account: with it, files can
//! be granted to a single service. The command line is `PROGRAM service run --config FILE`.
#![expect(unsafe_code, reason = "the privileges of a service are set through a pointer")]

mod error;
mod run;
mod status;

use crate::event_log;
use crate::exposure::exposures;
pub use error::ServiceError;
use error::{is_busy, is_unsupported, refused};
pub use run::{AskToStop, EXIT_PANICKED, Main, ServiceArgs, run_service};
use status::exit_code;
pub use status::{ExitCode, State, Status, status};
use std::ffi::OsString;
use std::io;
use std::iter;
use std::path::{Path, PathBuf};
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

/// The properties in which services differ.
#[derive(Debug, PartialEq, Eq)]
pub struct Description {
    /// Name of the service and of its event source: letters, digits and `-`.
    pub name: &'static str,
    /// Name in the Services console.
    pub display_name: &'static str,
    /// Its purpose, and the consequences of stopping it.
    pub description: &'static str,
    /// Account of the service; must have no password.
    pub account: &'static str,
    /// Name of the program in messages, as in `PROGRAM service start`.
    pub program: &'static str,
    /// Command of the program that does the same outside of a service.
    pub by_hand: &'static str,
}

impl Description {
    /// An account with few rights on the machine, and anonymous on the network.
    pub const LOCAL_SERVICE: &'static str = r"NT AUTHORITY\LocalService";
}

/// Allows access to a file without access to its parent folders. Every service has it.
const PRIVILEGE: &str = "SeChangeNotifyPrivilege";
/// Delay of the first, second and all further restarts.
const RESTART_AFTER: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(10), Duration::from_mins(1)];
/// The count of failures is reset after this time without a failure.
const FAILURES_FORGOTTEN_AFTER: Duration = Duration::from_hours(24);
/// Maximum time that the service may take to stop, and that [`stop`] waits.
pub const STOP_TIME_MAX: Duration = Duration::from_secs(30);
/// Maximum time that [`start`] waits for the service.
pub const START_TIME_MAX: Duration = Duration::from_secs(30);
/// A service that still runs after this time has loaded its configuration and rules.
const SETTLE_TIME: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// An installed service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Command line of the service; paths with spaces are quoted.
    pub command_line: String,
    /// Warnings for the administrator.
    pub warnings: Vec<String>,
}

/// Installs the service and its event source: delayed automatic start, restart after failures, minimal privileges. If a
/// step fails, the service is removed again.
///
/// The service runs this program from its present path. If ordinary accounts can change the program, the configuration,
/// the files in `reads` or any of their parent folders, nothing is installed; with `allow_exposed` that is only a
/// warning.
///
/// # Errors
///
/// [`ServiceError`].
pub fn install(
    service: &'static Description,
    config: Option<&Path>,
    reads: &[PathBuf],
    allow_exposed: bool,
) -> Result<Installed, ServiceError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ServiceError::Path { path, source }
    };
    let program = std::env::current_exe().map_err(failed(Path::new(service.program)))?;
    let config = match config {
        None => None,
        Some(path) => {
            let path = std::path::absolute(path).map_err(failed(path))?;
            std::fs::metadata(&path).map_err(failed(&path))?;
            Some(path)
        }
    };
    let mut warnings = Vec::new();
    for path in iter::once(&program).chain(&config).chain(reads) {
        for exposure in exposures(path).map_err(failed(path))? {
            if !allow_exposed {
                return Err(ServiceError::Exposed(exposure));
            }
            let warning = exposure.to_string();
            // Files in the same folder share their parent folders.
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
    }
    if !["ProgramFiles", "ProgramW6432"]
        .iter()
        .filter_map(std::env::var_os)
        .any(|folder| !folder.is_empty() && program.starts_with(folder))
    {
        warnings.push(format!("{} is not below Program Files", program.display()));
    }
    create(service, &program, config.as_deref(), warnings)
}

fn create(
    description: &'static Description,
    program: &Path,
    config: Option<&Path>,
    mut warnings: Vec<String>,
) -> Result<Installed, ServiceError> {
    let refused = |action| refused(description, action);
    let mut arguments: Vec<OsString> = vec!["service".into(), "run".into()];
    if let Some(config) = config {
        arguments.extend(["--config".into(), config.into()]);
    }
    let access = ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE;
    let manager =
        ServiceManager::local_computer(None::<&str>, access).map_err(refused("open its database"))?;
    let info = ServiceInfo {
        name: description.name.into(),
        display_name: description.display_name.into(),
        service_type: ServiceType::OWN_PROCESS,
        start_type: ServiceStartType::AutoStart,
        error_control: ServiceErrorControl::Normal,
        executable_path: program.to_path_buf(),
        launch_arguments: arguments,
        dependencies: vec![],
        account_name: Some(description.account.into()),
        account_password: None,
    };
    // A service that configures restarts needs the right to start, too.
    let access = ServiceAccess::CHANGE_CONFIG
        | ServiceAccess::QUERY_CONFIG
        | ServiceAccess::START
        | ServiceAccess::DELETE;
    let service = manager.create_service(&info, access).map_err(refused("create the service"))?;
    match configure(description, &service, &mut warnings) {
        Ok(command_line) => {
            if let Err(error) = event_log::install_source(description.name) {
                warnings.push(format!("events will be logged without a registered source: {error}"));
            }
            Ok(Installed { command_line, warnings })
        }
        Err(error) => {
            // A partly configured service would have all privileges of its account.
            if let Err(left) = service.delete() {
                tracing::warn!(error = %left, "cannot delete the partly configured service");
            }
            Err(error)
        }
    }
}

/// Applies the settings that cannot be passed when a service is created. Returns its command line.
fn configure(
    description: &'static Description,
    service: &Service,
    warnings: &mut Vec<String>,
) -> Result<String, ServiceError> {
    let refused = |action| refused(description, action);
    let restarts =
        RESTART_AFTER.map(|delay| ServiceAction { action_type: ServiceActionType::Restart, delay });
    let failures = ServiceFailureActions {
        reset_period: ServiceFailureResetPeriod::After(FAILURES_FORGOTTEN_AFTER),
        reboot_msg: None,
        command: None,
        actions: Some(restarts.to_vec()),
    };
    let steps = [
        ("set the description", service.set_description(description.description)),
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
            // Wine supports only some of these settings.
            Err(ServiceError::System { source, .. }) if is_unsupported(&source) => {
                warnings.push(format!("this system cannot {action}"));
            }
            Err(error) => return Err(error),
        }
    }
    let config = service.query_config().map_err(refused("query the configuration"))?;
    Ok(config.executable_path.to_string_lossy().into_owned())
}

/// Removes all privileges but one from the token of the service.
fn require_privilege(service: &Service) -> windows_service::Result<()> {
    // A list of NUL-terminated strings, followed by another NUL.
    let mut list: Vec<u16> = PRIVILEGE.encode_utf16().chain([0, 0]).collect();
    let info = SERVICE_REQUIRED_PRIVILEGES_INFOW { pmszRequiredPrivileges: list.as_mut_ptr() };
    // SAFETY: the handle is open, the structure is the one for this level, and its list ends with two NULs.
    let done = unsafe {
        let (handle, info) = (service.raw_handle(), (&raw const info).cast());
        ChangeServiceConfig2W(handle, SERVICE_CONFIG_REQUIRED_PRIVILEGES_INFO, info)
    };
    if done == 0 { Err(windows_service::Error::Winapi(io::Error::last_os_error())) } else { Ok(()) }
}

fn open(service: &'static Description, access: ServiceAccess) -> Result<Service, ServiceError> {
    let refused = |action| refused(service, action);
    let manager = ServiceManager::local_computer(None::<&str>, ServiceManagerAccess::CONNECT)
        .map_err(refused("open its database"))?;
    manager.open_service(service.name, access).map_err(refused("open the service"))
}

/// Stops the service if it is running, and removes it and its event source.
///
/// # Errors
///
/// [`ServiceError`].
pub fn uninstall(service: &'static Description) -> Result<(), ServiceError> {
    let access = ServiceAccess::QUERY_STATUS | ServiceAccess::STOP | ServiceAccess::DELETE;
    let opened = open(service, access)?;
    match stop_and_wait(service, &opened) {
        Ok(_) | Err(ServiceError::NotRunning(_)) => {}
        Err(error) => return Err(error),
    }
    opened.delete().map_err(refused(service, "delete the service"))?;
    // A remaining event source is harmless.
    if let Err(error) = event_log::uninstall_source(service.name) {
        tracing::warn!("cannot remove the event source: {error}");
    }
    Ok(())
}

/// Starts the service, waits up to 30 s until it is running, and checks a second later that it still is.
///
/// # Errors
///
/// [`ServiceError`].
pub fn start(service: &'static Description) -> Result<(), ServiceError> {
    let opened = open(service, ServiceAccess::QUERY_STATUS | ServiceAccess::START)?;
    opened.start::<&str>(&[]).map_err(refused(service, "start the service"))?;
    let starts = |state| state == ServiceState::StartPending;
    let mut status = wait_while(service, &opened, START_TIME_MAX, starts)?;
    if status.current_state == ServiceState::Running {
        thread::sleep(SETTLE_TIME);
        status = opened.query_status().map_err(refused(service, "query the state"))?;
    }
    match status.current_state {
        ServiceState::Stopped => Err(ServiceError::StoppedAtOnce { service, code: exit_code(&status) }),
        _ => Ok(()),
    }
}

/// Stops the service and waits up to 30 s for its end. Returns its exit code.
///
/// # Errors
///
/// [`ServiceError`].
pub fn stop(service: &'static Description) -> Result<ExitCode, ServiceError> {
    stop_and_wait(service, &open(service, ServiceAccess::QUERY_STATUS | ServiceAccess::STOP)?)
}

fn stop_and_wait(service: &'static Description, opened: &Service) -> Result<ExitCode, ServiceError> {
    match opened.stop().map_err(refused(service, "stop the service")) {
        Ok(_) => {}
        // It is already starting or stopping; wait for the outcome.
        Err(ServiceError::System { source, .. }) if is_busy(&source) => {}
        Err(error) => return Err(error),
    }
    let status = wait_while(service, opened, STOP_TIME_MAX, |state| state != ServiceState::Stopped)?;
    Ok(exit_code(&status))
}

/// Waits while the service is in a state for which the condition holds.
fn wait_while(
    service: &'static Description,
    opened: &Service,
    time_max: Duration,
    waits: impl Fn(ServiceState) -> bool,
) -> Result<ServiceStatus, ServiceError> {
    let deadline = Instant::now() + time_max;
    loop {
        let status = opened.query_status().map_err(refused(service, "query the state"))?;
        if !waits(status.current_state) {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            let (state, seconds) = (status.current_state.into(), time_max.as_secs());
            return Err(ServiceError::TimedOut { service, state, seconds });
        }
        thread::sleep(POLL_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a description with a name that no other test uses.
    fn described(role: &str) -> &'static Description {
        let name: &str = format!("etwsieve-{role}-test-{}", std::process::id()).leak();
        Box::leak(Box::new(Description {
            name,
            display_name: name,
            description: "Of a test.",
            account: Description::LOCAL_SERVICE,
            program: "etwsieve-test",
            by_hand: "run",
        }))
    }

    #[test]
    fn a_service_is_installed_described_and_removed() {
        let service = described("install");
        let program = Path::new(r"C:\Program Files\etwsieve\etwsieve.exe");
        let config = Path::new(r"C:\Program Files\etwsieve\live.toml");
        let installed = match create(service, program, Some(config), vec![]) {
            Ok(installed) => installed,
            Err(ServiceError::NotElevated) => return println!("skipped: not elevated"),
            Err(error) => panic!("{error}"),
        };
        println!("{installed:?}");
        let again = create(service, program, None, vec![]);
        let status = status(service);
        uninstall(service).unwrap();
        assert!(matches!(again, Err(ServiceError::AlreadyInstalled(_))), "{again:?}");
        let expected = r#""C:\Program Files\etwsieve\etwsieve.exe" service run --config "C:\Program Files\etwsieve\live.toml""#;
        assert_eq!(installed.command_line, expected);
        let status = status.unwrap();
        assert_eq!(status.command_line, expected);
        assert_eq!((status.state, status.process_id), (State::Stopped, None));
        assert!(status.account.to_lowercase().contains("localservice"), "{}", status.account);
        assert_eq!(status.start_type, "automatic");
        let text = status.to_string();
        assert!(text.starts_with("state: stopped\nprocess: -\nended last with: system code "), "{text}");
        assert!(matches!(super::status(service), Err(ServiceError::NotInstalled(_))));
        assert!(matches!(uninstall(service), Err(ServiceError::NotInstalled(_))));
    }

    #[test]
    fn a_missing_configuration_is_named() {
        let config = Path::new(r"C:\no such folder\live.toml");
        let error = install(described("missing"), Some(config), &[], true).unwrap_err();
        assert!(matches!(&error, ServiceError::Path { path, .. } if path.ends_with("live.toml")), "{error}");
    }
}
