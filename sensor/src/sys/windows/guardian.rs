//! Runs the guardian: queries the session every few seconds, and carries out what
//! [`live::guardian`](crate::live::guardian) decides. Also stops the session at the end of the run, and changes its
//! event filter when the rules have changed.

use super::source::{LiveContext, kinds};
use super::{control, policy, provider};
use crate::event::providers;
use crate::live::guardian::{Action, Guardian, ProviderSnapshot, SessionSnapshot};
use crate::live::session::{EnableParameters, SessionState, is_enabled};
use crate::pipeline::Tally;
use crate::stop::Stop;
use etwsieve_event::FileTime;
use etwsieve_matcher::EventKind;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Time between two attempts to stop a session.
const STOP_RETRY: Duration = Duration::from_secs(1);

/// Queries the sessions of a run, one after another, and keeps the guardian's memory between them.
pub(super) struct SessionProbe {
    guardian: Guardian,
}

impl SessionProbe {
    pub(super) fn new(report_every: Duration) -> Self {
        Self { guardian: Guardian::new(report_every) }
    }

    pub(super) fn new_session(&mut self) {
        self.guardian.new_session();
    }

    /// Guards a session until `ended`, a child of the run's stop, is requested.
    pub(super) fn guard(&mut self, context: &LiveContext, session: &SessionState, ended: &Stop) {
        let start = Instant::now();
        let mut checked = start;
        let mut generation = context.rules.generation();
        let mut parameters =
            EnableParameters { kinds: kinds(&context.rules), user_sid: context.settings.user_sid };
        loop {
            let wait = context.guard.check_every.saturating_sub(checked.elapsed());
            if ended.wait_unless(wait, || context.rules.generation() != generation) {
                break;
            }
            if context.rules.generation() != generation {
                generation = context.rules.generation();
                let kinds = kinds(&context.rules);
                if kinds != parameters.kinds {
                    parameters.kinds = kinds;
                    for provider in providers(context.settings.amsi) {
                        enable(session, provider, &parameters);
                    }
                }
            }
            if checked.elapsed() >= context.guard.check_every {
                checked = Instant::now();
                self.check(context, session, &parameters, start.elapsed());
            }
        }
        if context.stop.requested() {
            stop(context);
        }
    }

    fn check(
        &mut self,
        context: &LiveContext,
        session: &SessionState,
        parameters: &EnableParameters,
        age: Duration,
    ) {
        let losses = match control::query(&context.settings.name) {
            Ok(Some(state)) => state.losses,
            // `ProcessTrace` returns now, and the source reports it.
            Ok(None) => return,
            Err(error) => {
                tracing::warn!("cannot query the session: {error}");
                return;
            }
        };
        context.counters.queried(losses);
        let ledger = context.progress.tallies.first().map(Tally::read).unwrap_or_default();
        let effective = policy::read().effective();
        let snapshot = SessionSnapshot {
            time: FileTime::now(),
            age,
            losses,
            dropped: ledger.dropped.values().sum(),
            // Without the scanner's events: only PowerShell's own events show that PowerShell writes any.
            events: ledger.events_selected.saturating_sub(ledger.amsi.map_or(0, |amsi| amsi.events_selected)),
            providers: providers(context.settings.amsi)
                .iter()
                .filter_map(|id| provider_snapshot(id, session, parameters))
                .collect(),
            logging: effective.windows_powershell,
            encrypted: effective.encrypted,
            script_blocks: parameters.kinds.contains(&EventKind::ScriptBlock),
        };
        for action in self.guardian.check(&snapshot) {
            match action {
                Action::Notice(notice) => {
                    tracing::warn!("{}", notice.detail);
                    let _ = context.notices.try_send(notice);
                }
                Action::Reassert(provider) => enable(session, &provider, parameters),
                Action::Enable(provider) => {
                    enable(session, &provider, parameters);
                    context.counters.reenabled.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// Stops the session, so that `ProcessTrace` returns after it has delivered the events in its buffers.
fn stop(context: &LiveContext) {
    loop {
        match control::stop(&context.settings.name) {
            // The last state has the final losses.
            Ok(Some(last)) => return context.counters.queried(last.losses),
            Ok(None) => return,
            Err(error) => {
                tracing::error!("cannot stop the session, will retry: {error}");
                thread::sleep(STOP_RETRY);
            }
        }
    }
}

fn enable(session: &SessionState, provider: &Uuid, parameters: &EnableParameters) {
    if let Err(error) = control::enable(session.handle, provider, parameters) {
        tracing::error!(%provider, "cannot enable the provider: {error}");
    }
}

/// Returns `None` if no process has the provider registered: the system then knows nothing about it.
fn provider_snapshot(
    id: &Uuid,
    session: &SessionState,
    parameters: &EnableParameters,
) -> Option<ProviderSnapshot> {
    let state = match provider::enabled_sessions(id) {
        Ok(state) => state,
        Err(error) => {
            tracing::debug!(provider = %id, "cannot query the provider's sessions: {error}");
            return None;
        }
    };
    let is_known = !state.registered_processes.is_empty() && parameters.ids(id).next().is_some();
    let enabled = is_known.then(|| is_enabled(id, &state, session.logger_id()));
    Some(ProviderSnapshot { id: *id, hosts: state.registered_processes, enabled })
}
