//! State and configuration of a service.

use super::error::{ServiceError, refused};
use super::{Description, open};
use std::fmt;
use windows_service::service::{
    ServiceAccess, ServiceExitCode, ServiceStartType, ServiceState, ServiceStatus,
};

/// The state of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not running.
    Stopped,
    /// Starting.
    Starting,
    /// Running.
    Running,
    /// Stopping.
    Stopping,
    /// Paused, pausing or resuming. These services are never paused.
    Paused,
}

impl From<ServiceState> for State {
    fn from(state: ServiceState) -> Self {
        match state {
            ServiceState::Stopped => Self::Stopped,
            ServiceState::StartPending => Self::Starting,
            ServiceState::Running => Self::Running,
            ServiceState::StopPending => Self::Stopping,
            ServiceState::ContinuePending | ServiceState::PausePending | ServiceState::Paused => Self::Paused,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Paused => "paused",
        })
    }
}

/// The last exit code of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCode {
    /// A Windows error code: 0 = success, 1077 = not started since the last boot.
    System(u32),
    /// An exit code of the program.
    Own(u32),
}

impl fmt::Display for ExitCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(code) => write!(f, "system code {code}"),
            Self::Own(code) => write!(f, "exit code {code}"),
        }
    }
}

pub(super) fn exit_code(status: &ServiceStatus) -> ExitCode {
    match status.exit_code {
        ServiceExitCode::Win32(code) => ExitCode::System(code),
        ServiceExitCode::ServiceSpecific(code) => ExitCode::Own(code),
    }
}

/// State and configuration of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The state.
    pub state: State,
    /// Its process id, if it is running.
    pub process_id: Option<u32>,
    /// The last exit code.
    pub exit_code: ExitCode,
    /// The account of the service.
    pub account: String,
    /// `automatic`, `manual` or `disabled`.
    pub start_type: &'static str,
    /// Its command line.
    pub command_line: String,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let process = self.process_id.map_or_else(|| "-".into(), |id| id.to_string());
        write!(
            f,
            "state: {}\nprocess: {process}\nended last with: {}\naccount: {}\nstart: {}\ncommand: {}",
            self.state, self.exit_code, self.account, self.start_type, self.command_line
        )
    }
}

/// Returns state and configuration of the service.
///
/// # Errors
///
/// [`ServiceError`].
pub fn status(service: &'static Description) -> Result<Status, ServiceError> {
    let refused = |action| refused(service, action);
    let service = open(service, ServiceAccess::QUERY_STATUS | ServiceAccess::QUERY_CONFIG)?;
    let status = service.query_status().map_err(refused("query the state"))?;
    let config = service.query_config().map_err(refused("query the configuration"))?;
    Ok(Status {
        state: status.current_state.into(),
        process_id: status.process_id,
        exit_code: exit_code(&status),
        account: config.account_name.unwrap_or_default().to_string_lossy().into_owned(),
        start_type: match config.start_type {
            ServiceStartType::OnDemand => "manual",
            ServiceStartType::Disabled => "disabled",
            // Boot start and system start are for drivers.
            ServiceStartType::AutoStart | ServiceStartType::BootStart | ServiceStartType::SystemStart => {
                "automatic"
            }
        },
        command_line: config.executable_path.to_string_lossy().into_owned(),
    })
}
