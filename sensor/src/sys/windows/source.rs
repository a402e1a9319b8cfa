//! The live session as a source of events: started, guarded, and restarted when another program stops it.

use super::control;
use super::guardian::SessionProbe;
use super::session::{Claim, Session, SessionError};
use crate::live::counters::SessionCounters;
use crate::live::notice::{Notice, NoticeKind};
use crate::live::session::SessionState;
use crate::live::settings::SessionSettings;
use crate::pipeline::Progress;
use crate::rules::ActiveRules;
use crate::source::{Sink, Source, SourceError};
use crate::stop::Stop;
use crossbeam_channel::Sender;
use etwsieve_event::FileTime;
use etwsieve_matcher::EventKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

/// Delay before the first restart of a session.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// A session that ran for this long was stable: the delay starts again at [`RESTART_DELAY`].
const STABLE_AFTER: Duration = Duration::from_mins(1);

/// Intervals of the guardian.
#[derive(Clone, Debug)]
pub(super) struct GuardSettings {
    /// Time between two checks of the session.
    pub(super) check_every: Duration,
    /// Minimum time between two reports of losses.
    pub(super) report_every: Duration,
    /// Maximum delay before a restart of the session.
    pub(super) restart_delay_max: Duration,
}

/// Handles that the threads of a live run share.
#[derive(Clone)]
pub(super) struct LiveContext {
    /// Settings of each session.
    pub(super) settings: SessionSettings,
    /// Intervals of the guardian.
    pub(super) guard: GuardSettings,
    /// The active rules, which determine the event filter of the session.
    pub(super) rules: Arc<ActiveRules>,
    /// Counters of losses and restarts.
    pub(super) counters: Arc<SessionCounters>,
    /// Counts of the pipeline that this source feeds, as its first source.
    pub(super) progress: Arc<Progress>,
    /// Receives the notices of the guardian.
    pub(super) notices: Sender<Notice>,
    /// Ends the run.
    pub(super) stop: Stop,
}

/// A real-time session on the PowerShell providers.
pub(super) struct EtwSource {
    context: LiveContext,
    /// The first session, until the source runs.
    session: Option<Session>,
    /// Declared after the session, so that the name is released last.
    claim: Claim,
}

impl EtwSource {
    /// Starts the session. Its events wait in ETW's buffers until the source runs.
    ///
    /// # Errors
    ///
    /// [`SessionError`]. Later failures are logged and retried.
    pub(super) fn start(context: LiveContext) -> Result<Self, SessionError> {
        let claim = Claim::new(&context.settings.name)?;
        let kinds = kinds(&context.rules);
        let session = Session::start(&context.settings, &kinds, &context.counters, &claim)?;
        Ok(Self { context, session: Some(session), claim })
    }

    /// Returns the state of the session when it started; `None` after the source has run.
    pub(super) fn state(&self) -> Option<&SessionState> {
        self.session.as_ref().map(Session::state)
    }

    /// Returns whether a session that a crashed sensor left behind was stopped first.
    pub(super) fn took_over(&self) -> bool {
        self.session.as_ref().is_some_and(Session::was_taken_over)
    }
}

impl LiveContext {
    fn notify(&self, kind: NoticeKind, detail: String) {
        tracing::warn!("{detail}");
        // Does not wait for the writer of notices: the log has this one already.
        let _ = self.notices.try_send(Notice { kind, time: FileTime::now(), detail });
    }

    /// Runs one session to its end, with a guardian on another thread. Returns how long it ran.
    fn run_session(&self, mut session: Session, probe: &mut SessionProbe, sink: &mut dyn Sink) -> Duration {
        let start = Instant::now();
        let ended = self.stop.child();
        let state = session.state().clone();
        let result = thread::scope(|scope| {
            scope.spawn(|| probe.guard(self, &state, &ended));
            let result = session.process(sink);
            ended.request();
            result
        });
        if let Err(error) = result {
            tracing::error!(session = self.settings.name, "ProcessTrace failed: {error}");
        }
        // Stops the session whatever ended the processing, so that none is left behind.
        if let Ok(Some(last)) = control::stop(&self.settings.name) {
            self.counters.queried(last.losses);
        }
        self.counters.session_ended();
        start.elapsed()
    }
}

impl Source for EtwSource {
    fn name(&self) -> String {
        self.context.settings.name.clone()
    }

    fn len(&self) -> u64 {
        0
    }

    fn run(&mut self, sink: &mut dyn Sink) -> Result<(), SourceError> {
        let context = &self.context;
        let mut delay = RESTART_DELAY;
        let mut probe = SessionProbe::new(context.guard.report_every);
        let mut next = self.session.take();
        loop {
            if let Some(session) = next.take() {
                let ran = context.run_session(session, &mut probe, sink);
                if context.stop.requested() {
                    return Ok(());
                }
                if ran >= STABLE_AFTER {
                    delay = RESTART_DELAY;
                }
                context.notify(
                    NoticeKind::SessionStopped,
                    format!(
                        "another program stopped session {:?} after {} seconds; it restarts in {} seconds",
                        context.settings.name,
                        ran.as_secs(),
                        delay.as_secs()
                    ),
                );
            }
            if context.stop.wait(delay) {
                return Ok(());
            }
            delay = (delay * 2).min(context.guard.restart_delay_max.max(RESTART_DELAY));
            match Session::start(&context.settings, &kinds(&context.rules), &context.counters, &self.claim) {
                Ok(session) => {
                    context.counters.restarts.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(session = context.settings.name, "session restarted");
                    probe.new_session();
                    next = Some(session);
                }
                Err(error) => {
                    tracing::error!("{error}; will retry in {} seconds", delay.as_secs());
                }
            }
        }
    }
}

/// Returns the kinds of events that the active rules search.
pub(super) fn kinds(rules: &ActiveRules) -> Vec<EventKind> {
    EventKind::ALL.into_iter().filter(|kind| rules.want(*kind)).collect()
}
