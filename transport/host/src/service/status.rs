//! What the service manager knows of the service.

use super::error::{ServiceError, refused};
use super::{Description, open};
use std::fmt;
use windows_service::service::{
    ServiceAccess, ServiceExitCode, ServiceStartType, ServiceState, ServiceStatus,
};

/// Where the service stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does not run.
    Stopped,
    /// It is being started.
    Starting,
    /// It runs.
    Running,
    /// It is being stopped.
    Stopping,
    /// It pauses, or is about to or to go on; our services never do.
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

/// How the service ended last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCode {
    /// A code of Windows; 0 = well, 1077 = never started since Windows was.
    System(u32),
    /// A code of the program itself.
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

/// What the service manager knows of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where it stands.
    pub state: State,
    /// Its process while it runs.
    pub process_id: Option<u32>,
    /// How it ended last.
    pub exit_code: ExitCode,
    /// The account it runs as.
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

/// Tells where the service stands and how it is configured.
///
/// # Errors
///
/// [`ServiceError`].
pub fn status(service: &'static Description) -> Result<Status, ServiceError> {
    let refused = |action| refused(service, action);
    let service = open(service, ServiceAccess::QUERY_STATUS | ServiceAccess::QUERY_CONFIG)?;
    let status = service.query_status().map_err(refused("tell the state"))?;
    let config = service.query_config().map_err(refused("tell the configuration"))?;
    Ok(Status {
        state: status.current_state.into(),
        process_id: status.process_id,
        exit_code: exit_code(&status),
        account: config.account_name.unwrap_or_default().to_string_lossy().into_owned(),
        start_type: match config.start_type {
            ServiceStartType::OnDemand => "manual",
            ServiceStartType::Disabled => "disabled",
            // The other two are for drivers.
            ServiceStartType::AutoStart | ServiceStartType::BootStart | ServiceStartType::SystemStart => {
                "automatic"
            }
        },
        command_line: config.executable_path.to_string_lossy().into_owned(),
    })
}
