//! What `etwsieve doctor` concludes from the facts of a machine.
//!
//! No function here calls the system; `sys/windows/doctor.rs` collects the facts.

use super::counters::LossCounts;
use super::policy::{Edition, EditionPolicy, Logging, Policy};
use super::provider::{ProviderState, Registration, SessionCount};
use super::session::SessionState;
use crate::event::POWERSHELL;
use etwsieve_event::FileTime;
use std::fmt::{self, Display};
use std::io;
use uuid::Uuid;

/// 2024-01-01: a clock before that is wrong.
const CLOCK_MIN: FileTime = FileTime(133_485_408_000_000_000);
/// Number of sessions that Windows allows on one provider.
const SESSIONS_PER_PROVIDER_MAX: usize = 8;

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// As it should be.
    Good,
    /// The sensor works, but receives fewer events than it could.
    Warning,
    /// The sensor would receive no events.
    Bad,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Severity of the finding.
    pub status: Status,
    /// The examined part of the machine.
    pub subject: &'static str,
    /// Result of the examination, and advice.
    pub text: String,
}

impl Finding {
    /// Creates a finding.
    pub fn new(status: Status, subject: &'static str, text: impl Display) -> Self {
        Self { status, subject, text: text.to_string() }
    }
}

/// Why a process may start event tracing sessions, or that it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It runs as LocalSystem (S-1-5-18).
    LocalSystem,
    /// It runs as LocalService (S-1-5-19).
    LocalService,
    /// It runs as NetworkService (S-1-5-20).
    NetworkService,
    /// It runs as an elevated administrator (S-1-5-32-544).
    Administrators,
    /// It runs as a member of Performance Log Users (S-1-5-32-559).
    PerformanceLogUsers,
    /// None of these: `StartTrace` would fail with access denied.
    Denied,
}

impl Access {
    /// Returns whether sessions may be started.
    pub fn is_granted(self) -> bool {
        self != Self::Denied
    }
}

impl Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LocalSystem => "runs as LocalSystem",
            Self::LocalService => "runs as LocalService",
            Self::NetworkService => "runs as NetworkService",
            Self::Administrators => "runs as an elevated administrator",
            Self::PerformanceLogUsers => "is a member of Performance Log Users",
            Self::Denied => "is neither an elevated administrator nor a member of Performance Log Users",
        })
    }
}

/// Judges the rights of the account.
pub fn rights(access: io::Result<Access>) -> Finding {
    let subject = "rights";
    match access {
        Ok(access) if access.is_granted() => {
            Finding::new(Status::Good, subject, format_args!("this account {access}"))
        }
        Ok(_) => Finding::new(
            Status::Bad,
            subject,
            "this account may not start event tracing sessions: use an elevated prompt, or install the service",
        ),
        Err(error) => Finding::new(Status::Warning, subject, format_args!("unknown: {error}")),
    }
}

/// Judges the clock.
pub fn clock(now: FileTime) -> Finding {
    if now >= CLOCK_MIN {
        Finding::new(Status::Good, "clock", now)
    } else {
        let text = format_args!("{now} is wrong, and so will be the time of detections; set the clock");
        Finding::new(Status::Warning, "clock", text)
    }
}

/// Judges the registrations of the providers of Windows PowerShell and of PowerShell 7. If neither is registered, no
/// event can arrive.
pub fn registrations(
    windows_powershell: io::Result<Option<Registration>>,
    powershell7: io::Result<Option<Registration>>,
) -> [Finding; 2] {
    let is_registered = |result: &io::Result<Option<Registration>>| matches!(result, Ok(Some(_)));
    let is_any = is_registered(&windows_powershell) || is_registered(&powershell7);
    let mut findings = [
        registration(
            windows_powershell,
            "Windows PowerShell provider",
            "it is part of Windows PowerShell 5.1",
        ),
        registration(
            powershell7,
            "PowerShell 7 provider",
            "run RegisterManifest.ps1 in the folder of PowerShell 7 to register it",
        ),
    ];
    if !is_any {
        for finding in &mut findings {
            finding.status = Status::Bad;
        }
    }
    findings
}

fn registration(result: io::Result<Option<Registration>>, subject: &'static str, hint: &str) -> Finding {
    match result {
        Ok(Some(registration)) => {
            let text = format!("registered as {}", registration.name);
            match registration.resource_file {
                Some(file) if !registration.resource_exists => Finding::new(
                    Status::Warning,
                    subject,
                    format_args!(
                        "{text}; its file {} is missing, so other tools cannot decode its events",
                        file.display()
                    ),
                ),
                _ => Finding::new(Status::Good, subject, text),
            }
        }
        Ok(None) => Finding::new(Status::Warning, subject, format_args!("not registered: {hint}")),
        Err(error) => Finding::new(Status::Warning, subject, format_args!("unknown: {error}")),
    }
}

/// Judges the logging policies.
pub fn policies(policy: &Policy) -> Vec<Finding> {
    let effective = policy.effective();
    let mut findings = vec![
        script_block_logging(
            "script block logging of Windows PowerShell",
            effective.windows_powershell,
            &policy.windows_powershell,
        ),
        script_block_logging(
            "script block logging of PowerShell 7",
            effective.powershell7,
            &policy.powershell7,
        ),
    ];
    let subject = "Protected Event Logging";
    findings.push(if effective.encrypted {
        Finding::new(
            Status::Bad,
            subject,
            "on: the text of script blocks is encrypted and cannot be searched",
        )
    } else {
        Finding::new(Status::Good, subject, "off: script blocks are written as plain text")
    });
    let unreadable = policy.unreadable.iter();
    findings.extend(
        unreadable.map(|text| Finding::new(Status::Warning, "policy", format_args!("cannot read {text}"))),
    );
    findings
}

fn script_block_logging(subject: &'static str, logging: Logging, policy: &EditionPolicy) -> Finding {
    let key = policy.script_blocks_found_in.as_deref().unwrap_or("no policy");
    let status = match logging {
        Logging::All => Status::Good,
        Logging::SuspiciousOnly => Status::Warning,
        Logging::Nothing => Status::Bad,
    };
    let hint = if logging == Logging::All {
        ""
    } else {
        "; enable \"Turn on PowerShell Script Block Logging\" in the group policy"
    };
    Finding::new(status, subject, format_args!("{logging} ({key}){hint}"))
}

/// Judges whether the machine has room for another session.
pub fn sessions(count: io::Result<SessionCount>) -> Finding {
    let subject = "event tracing sessions";
    match count {
        Ok(SessionCount { used, max }) if used < max => {
            Finding::new(Status::Good, subject, format_args!("{used} of {max} are in use"))
        }
        Ok(SessionCount { used, max }) => Finding::new(
            Status::Bad,
            subject,
            format_args!("{used} of {max} are in use: stop one (`logman query -ets` lists them)"),
        ),
        Err(error) => Finding::new(Status::Warning, subject, format_args!("cannot count them: {error}")),
    }
}

/// Judges the sensor's own session. `is_held`: a running sensor has claimed its name.
pub fn own_session(name: &str, state: io::Result<Option<SessionState>>, is_held: bool) -> Finding {
    let subject = "the sensor's session";
    let state = match state {
        Ok(None) => {
            let text = format_args!("{name:?} is not running; the name is available");
            return Finding::new(Status::Good, subject, text);
        }
        Ok(Some(state)) => state,
        Err(error) => {
            return Finding::new(Status::Warning, subject, format_args!("cannot query {name:?}: {error}"));
        }
    };
    let LossCounts { events, real_time_buffers, .. } = state.losses;
    let text = format!(
        "{name:?} is running with {} buffers of {} KB; {events} events and {real_time_buffers} real-time buffers lost",
        state.buffers, state.buffer_kb
    );
    if !is_held {
        let hint = "a crashed sensor left it behind, and the next start takes it over";
        return Finding::new(Status::Warning, subject, format_args!("{text}; {hint}"));
    }
    let status = if state.losses.is_lossless() { Status::Good } else { Status::Warning };
    Finding::new(status, subject, format_args!("{text}; its sensor is running"))
}

/// Judges whether another session can enable this PowerShell provider.
pub fn sessions_on_provider(provider: &Uuid, state: &ProviderState) -> Finding {
    let subject =
        if *provider == POWERSHELL { "sessions on Windows PowerShell" } else { "sessions on PowerShell 7" };
    let used = state.sessions.len();
    let status = if used < SESSIONS_PER_PROVIDER_MAX { Status::Good } else { Status::Bad };
    let hosts = state.registered_processes.len();
    let text = format_args!("{used} of {SESSIONS_PER_PROVIDER_MAX} in use; {hosts} hosts are running");
    Finding::new(status, subject, text)
}

/// Names the canary of an edition in the report.
pub fn canary_subject(edition: Edition) -> &'static str {
    match edition {
        Edition::WindowsPowerShell => "canary in Windows PowerShell",
        Edition::PowerShell7 => "canary in PowerShell 7",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::policy::Setting;

    fn statuses(findings: &[Finding]) -> Vec<Status> {
        findings.iter().map(|finding| finding.status).collect()
    }

    fn registered(resource_exists: bool) -> Registration {
        let resource_file = Some(r"C:\missing.dll".into());
        Registration { name: "X".into(), resource_file, resource_exists }
    }

    #[test]
    fn one_registered_provider_is_enough() {
        use Status::{Bad, Good, Warning};
        assert_eq!(statuses(&registrations(Ok(Some(registered(true))), Ok(None))), [Good, Warning]);
        assert_eq!(statuses(&registrations(Ok(None), Ok(Some(registered(false))))), [Warning, Warning]);
        assert_eq!(statuses(&registrations(Ok(None), Ok(None))), [Bad, Bad]);
        assert_eq!(
            statuses(&registrations(Err(io::ErrorKind::PermissionDenied.into()), Ok(None))),
            [Bad, Bad]
        );
    }

    #[test]
    fn policies_that_hide_script_blocks_are_bad() {
        let mut policy = Policy::default();
        assert_eq!(statuses(&policies(&policy)), [Status::Warning, Status::Warning, Status::Good]);
        policy.windows_powershell.script_blocks = Setting::On;
        policy.powershell7.script_blocks = Setting::Off;
        (policy.protected, policy.certificate) = (Setting::On, true);
        policy.unreadable.push("HKLM".into());
        let found = policies(&policy);
        assert_eq!(statuses(&found), [Status::Good, Status::Bad, Status::Bad, Status::Warning]);
        assert!(found[1].text.contains("group policy"), "{}", found[1].text);
    }

    #[test]
    fn sessions_are_judged_by_room_owner_and_losses() {
        assert_eq!(sessions(Ok(SessionCount { used: 63, max: 64 })).status, Status::Good);
        assert_eq!(sessions(Ok(SessionCount { used: 64, max: 64 })).status, Status::Bad);
        let session = |events| SessionState {
            handle: 1,
            buffer_kb: 128,
            buffers: 4,
            mode: 0,
            losses: LossCounts { events, ..LossCounts::default() },
            file: String::new(),
        };
        let own = |state, is_held| own_session("etwsieve", Ok(state), is_held).status;
        assert_eq!(own(None, false), Status::Good);
        assert_eq!(own(Some(session(0)), true), Status::Good);
        assert_eq!(own(Some(session(1)), true), Status::Warning);
        assert_eq!(own(Some(session(0)), false), Status::Warning);
        let denied = io::ErrorKind::PermissionDenied;
        assert_eq!(own_session("etwsieve", Err(denied.into()), false).status, Status::Warning);
    }

    #[test]
    fn accounts_without_the_right_and_wrong_clocks_are_reported() {
        assert_eq!(rights(Ok(Access::LocalService)).status, Status::Good);
        assert_eq!(rights(Ok(Access::Denied)).status, Status::Bad);
        assert_eq!(clock(FileTime(CLOCK_MIN.0 - 1)).status, Status::Warning);
        assert_eq!(CLOCK_MIN.to_string(), "2024-01-01T00:00:00.0000000Z");
    }
}
