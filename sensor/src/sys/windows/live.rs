//! The live sensor on Windows: a session as the source of a [`Watch`].

use super::machine;
use super::provider;
use super::session::SessionError;
use super::source::{EtwSource, GuardSettings, Run};
use crate::event::{POWERSHELL, POWERSHELL_CORE};
use crate::live::config::Config;
use crate::live::report::LiveSummary;
use crate::live::rule_folder::RuleFolder;
use crate::live::watch::{Watch, WatchError};
use crate::output::Format;
use crate::stop::Stop;
use etwsieve_matcher::Matcher;
use std::time::Duration;

/// Why the live sensor cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// Outputs or metrics.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The session.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Neither edition of PowerShell is known to this Windows.
    #[error(
        "no PowerShell provider is registered on this machine: Windows PowerShell registers \
         Microsoft-Windows-PowerShell when it is installed (`wevtutil gp Microsoft-Windows-PowerShell`), PowerShell 7 \
         registers PowerShellCore with RegisterManifest.ps1 in its folder"
    )]
    NotRegistered,
}

/// Runs the sensor until `stop` is requested.
///
/// # Errors
///
/// [`LiveError`], before the first event. Afterwards trouble is logged, counted and retried.
pub fn run(
    config: Config,
    format: Format,
    matcher: Matcher,
    folder: RuleFolder,
    stop: Stop,
) -> Result<LiveSummary, LiveError> {
    check_registration()?;
    let guard = GuardSettings {
        check_every: Duration::from_secs(config.guardian.check_seconds),
        report_every: Duration::from_secs(config.guardian.report_every_seconds),
        restart_delay_max: Duration::from_secs(config.guardian.restart_delay_max_seconds),
    };
    let settings = config.session.clone();
    let watch = Watch::new(config, format, machine::name(), matcher, folder, stop)?;
    let shared = watch.shared();
    let source = EtwSource::start(Run {
        settings,
        guard,
        rules: shared.rules,
        counters: shared.counters,
        progress: shared.progress,
        notices: shared.notices,
        stop: shared.stop,
    })?;
    if source.took_over() {
        tracing::warn!("a session that an earlier sensor had left behind was taken over");
    }
    tracing::info!(session = ?source.state(), "watching");
    Ok(watch.run(Box::new(source)))
}

/// Fails if neither provider is registered; tells if one is not.
fn check_registration() -> Result<(), LiveError> {
    let mut registered = 0;
    for (id, name) in [(POWERSHELL, "Microsoft-Windows-PowerShell"), (POWERSHELL_CORE, "PowerShellCore")] {
        match provider::registration(&id) {
            Ok(Some(_)) => registered += 1,
            Ok(None) => tracing::info!("provider {name} is not registered: that edition is not installed"),
            // Not knowing is no reason to stay blind.
            Err(error) => {
                tracing::warn!("cannot tell whether provider {name} is registered: {error}");
                registered += 1;
            }
        }
    }
    if registered == 0 { Err(LiveError::NotRegistered) } else { Ok(()) }
}
