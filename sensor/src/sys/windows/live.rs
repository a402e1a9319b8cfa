//! The live sensor on Windows: an event tracing session as the source of a [`Watch`].

use super::machine;
use super::provider;
use super::session::SessionError;
use super::source::{EtwSource, GuardSettings, LiveContext};
use crate::event::{POWERSHELL, POWERSHELL_CORE};
use crate::live::config::Config;
use crate::live::report::LiveSummary;
use crate::live::rule_files::RuleFiles;
use crate::live::watch::{Watch, WatchError};
use crate::output::Format;
use crate::stop::Stop;
use etwsieve_matcher::Matcher;
use std::time::Duration;

/// Why the live sensor cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// An output or the metrics server failed.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The session failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Neither edition of PowerShell has registered its provider.
    #[error(
        "no PowerShell provider is registered on this machine: check Windows PowerShell with \
         `wevtutil gp Microsoft-Windows-PowerShell`, or run RegisterManifest.ps1 in the folder of PowerShell 7"
    )]
    NotRegistered,
}

/// Runs the sensor until `stop` is requested.
///
/// # Errors
///
/// [`LiveError`] before the first event. Later failures are logged, counted and retried.
pub fn run_live(
    config: Config,
    format: Format,
    matcher: Matcher,
    rule_files: RuleFiles,
    stop: Stop,
) -> Result<LiveSummary, LiveError> {
    check_registration()?;
    let guard = GuardSettings {
        check_every: Duration::from_secs(config.guardian.check_seconds),
        report_every: Duration::from_secs(config.guardian.report_every_seconds),
        restart_delay_max: Duration::from_secs(config.guardian.restart_delay_max_seconds),
    };
    let settings = config.session.clone();
    let watch = Watch::new(config, format, machine::name(), matcher, rule_files, stop)?;
    let handles = watch.handles();
    let source = EtwSource::start(LiveContext {
        settings,
        guard,
        rules: handles.rules,
        counters: handles.counters,
        progress: handles.progress,
        notices: handles.notices,
        stop: handles.stop,
    })?;
    if source.took_over() {
        tracing::warn!("the session of a crashed sensor was taken over");
    }
    tracing::info!(session = ?source.state(), "watching");
    Ok(watch.run(Box::new(source)))
}

/// Fails if neither provider is registered; logs if one is not.
fn check_registration() -> Result<(), LiveError> {
    let mut registered = 0;
    for (id, name) in [(POWERSHELL, "Microsoft-Windows-PowerShell"), (POWERSHELL_CORE, "PowerShellCore")] {
        match provider::registration(&id) {
            Ok(Some(_)) => registered += 1,
            Ok(None) => tracing::info!(
                "provider {name} is not registered: that edition of PowerShell is not installed"
            ),
            // The sensor starts if it cannot find out.
            Err(error) => {
                tracing::warn!("cannot determine whether provider {name} is registered: {error}");
                registered += 1;
            }
        }
    }
    if registered == 0 { Err(LiveError::NotRegistered) } else { Ok(()) }
}
