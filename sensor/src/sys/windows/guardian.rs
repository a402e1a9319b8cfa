//! The guardian's eyes and hands: asks Windows about the session every few seconds, and does what
//! [`live::guardian`](crate::live::guardian) decides. Also stops the session when the run shall end, and changes
//! its filter when the rules have changed.

use super::control::{self, LEVEL, SessionState, Wanted, keywords};
use super::policy;
use super::provider;
use super::source::{Run, kinds};
use crate::event::providers;
use crate::live::guardian::{Action, Guardian, Logging, ProviderView, View};
use crate::pipeline::Tally;
use etwsieve_etl::FileTime;
use etwsieve_matcher::EventKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// How often the guardian looks for a stop, an end, and new rules.
const TICK: Duration = Duration::from_millis(50);

/// Time between two attempts to stop a session.
const STOP_RETRY: Duration = Duration::from_secs(1);

/// What the guardian remembers from session to session.
pub(super) struct Eyes {
    judge: Guardian,
}

impl Eyes {
    pub(super) fn new(report_every: Duration) -> Self {
        Self { judge: Guardian::new(report_every) }
    }

    pub(super) fn new_session(&mut self) {
        self.judge.new_session();
    }
}

/// Guards a session until it has `ended`.
pub(super) fn guard(source: &Run, session: &SessionState, eyes: &mut Eyes, ended: &AtomicBool) {
    let start = Instant::now();
    let mut looked = start;
    let mut generation = source.rules.generation();
    let mut wanted = Wanted { kinds: kinds(&source.rules), user_sid: source.settings.user_sid };
    while !ended.load(Ordering::Acquire) {
        if source.stop.requested() {
            // The last state has the last losses. What stands in the buffers is still delivered.
            match control::stop(&source.settings.name) {
                Ok(Some(last)) => source.counters.queried(last.losses),
                Ok(None) => {}
                Err(error) => {
                    // Without it `ProcessTrace` does not return.
                    tracing::error!("cannot stop the session, trying again: {error}");
                    thread::sleep(STOP_RETRY);
                    continue;
                }
            }
            return;
        }
        if source.rules.generation() != generation {
            generation = source.rules.generation();
            let now = kinds(&source.rules);
            if now != wanted.kinds {
                wanted.kinds = now;
                for provider in providers(source.settings.amsi) {
                    enable(session, provider, &wanted);
                }
            }
        }
        if looked.elapsed() >= source.guard.check_every {
            looked = Instant::now();
            look(source, session, &wanted, eyes, start.elapsed());
        }
        thread::sleep(TICK);
    }
}

fn look(source: &Run, session: &SessionState, wanted: &Wanted, eyes: &mut Eyes, age: Duration) {
    let name = &source.settings.name;
    let losses = match control::query(name) {
        Ok(Some(state)) => state.losses,
        // `ProcessTrace` returns now, and the source tells.
        Ok(None) => return,
        Err(error) => {
            tracing::warn!("cannot query the session: {error}");
            return;
        }
    };
    source.counters.queried(losses);
    let ledger = source.progress.tallies.first().map(Tally::read).unwrap_or_default();
    let effective = policy::effective(&policy::read());
    let view = View {
        time: now(),
        age,
        losses,
        dropped: ledger.dropped.values().sum(),
        // Silence is PowerShell's own; the scanner may still write.
        events: ledger.events_selected.saturating_sub(ledger.amsi.map_or(0, |amsi| amsi.events_selected)),
        providers: providers(source.settings.amsi)
            .iter()
            .filter_map(|id| provider_view(id, session, wanted))
            .collect(),
        logging: logging(effective),
        encrypted: effective.encrypted,
        script_blocks: wanted.kinds.contains(&EventKind::ScriptBlock),
    };
    for action in eyes.judge.look(&view) {
        match action {
            Action::Notice(notice) => {
                tracing::warn!("{}", notice.detail);
                let _ = source.notices.try_send(notice);
            }
            Action::Reassert(provider) => enable(session, &provider, wanted),
            Action::Enable(provider) => {
                enable(session, &provider, wanted);
                source.counters.reenabled.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn enable(session: &SessionState, provider: &Uuid, wanted: &Wanted) {
    if let Err(error) = control::enable(session.handle, provider, wanted) {
        tracing::error!(%provider, "cannot enable the provider: {error}");
    }
}

/// `None` if the system says nothing about the provider: no process has it registered.
fn provider_view(id: &Uuid, session: &SessionState, wanted: &Wanted) -> Option<ProviderView> {
    let state = match provider::enabled_sessions(id) {
        Ok(state) => state,
        Err(error) => {
            tracing::debug!(provider = %id, "cannot ask for the provider's sessions: {error}");
            return None;
        }
    };
    let ours = state.sessions.iter().find(|other| other.logger_id == session.logger_id());
    // A mask of 0 means all.
    let enabled = ours.is_some_and(|ours| {
        let keywords = keywords(id);
        ours.level >= LEVEL && (ours.any_keyword == 0 || ours.any_keyword & keywords == keywords)
    });
    let known = !state.registered_processes.is_empty() && wanted.ids(id).next().is_some();
    Some(ProviderView { id: *id, hosts: state.registered_processes, enabled: known.then_some(enabled) })
}

fn logging(effective: policy::Effective) -> Logging {
    match effective.windows_powershell {
        policy::Logging::All => Logging::On,
        policy::Logging::SuspiciousOnly => Logging::SuspiciousOnly,
        policy::Logging::Nothing => Logging::Off,
    }
}

/// The time of day as a FILETIME.
pub(super) fn now() -> FileTime {
    /// Seconds from 1601-01-01 to 1970-01-01.
    const EPOCH: u64 = 11_644_473_600;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    FileTime((since.as_secs() + EPOCH) * 10_000_000 + u64::from(since.subsec_nanos()) / 100)
}
