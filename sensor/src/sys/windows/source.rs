//! The live session as a source of events: started, guarded, and started again when somebody stops it.

use super::control::{self, SessionState};
use super::guardian::{self, Eyes};
use super::session::{Claim, Session, SessionError};
use crate::live::counters::SessionCounters;
use crate::live::notice::{Notice, NoticeKind};
use crate::live::settings::SessionSettings;
use crate::pipeline::Progress;
use crate::rules::ActiveRules;
use crate::source::{Sink, Source, SourceError};
use crate::stop::Stop;
use crossbeam_channel::Sender;
use etwsieve_matcher::EventKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The first delay before a session is started again.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// A session that has run so long was well: the delay begins anew.
const WELL: Duration = Duration::from_mins(1);
/// How often a wait looks whether it shall end.
const TICK: Duration = Duration::from_millis(50);

/// How the session is guarded.
#[derive(Clone, Debug)]
pub struct GuardSettings {
    /// Time between two looks.
    pub check_every: Duration,
    /// Least time between two reports of losses.
    pub report_every: Duration,
    /// Longest delay before a session is started again.
    pub restart_delay_max: Duration,
}

/// What the threads of a run share.
#[derive(Clone)]
pub struct Run {
    /// How sessions are started.
    pub settings: SessionSettings,
    /// How they are guarded.
    pub guard: GuardSettings,
    /// The rules; they decide on the filter of the session.
    pub rules: Arc<ActiveRules>,
    /// Where losses and restarts are counted.
    pub counters: Arc<SessionCounters>,
    /// The counts of the pipeline that this source feeds, as its first source.
    pub progress: Arc<Progress>,
    /// Takes what the guardian detects.
    pub notices: Sender<Notice>,
    /// Ends the run.
    pub stop: Stop,
}

/// A real-time session on the PowerShell providers.
pub struct EtwSource {
    run: Run,
    /// Started, and not processed yet.
    session: Option<Session>,
    /// Behind the session: the name is given up last.
    claim: Claim,
}

impl EtwSource {
    /// Starts the session. Its events wait in ETW's buffers until the source runs.
    ///
    /// # Errors
    ///
    /// [`SessionError`]. Later failures are retried instead, and told as notices.
    pub fn start(run: Run) -> Result<Self, SessionError> {
        let claim = Claim::new(&run.settings.name)?;
        let session = Session::start(&run.settings, &kinds(&run.rules), &run.counters, &claim)?;
        Ok(Self { run, session: Some(session), claim })
    }

    /// The session, as it was when it started.
    pub fn state(&self) -> Option<&SessionState> {
        self.session.as_ref().map(Session::state)
    }

    /// Whether a session that a crash had left was stopped to make room.
    pub fn took_over(&self) -> bool {
        self.session.as_ref().is_some_and(Session::was_taken_over)
    }
}

impl Run {
    fn tell(&self, kind: NoticeKind, detail: String) {
        tracing::warn!("{detail}");
        // Never waits: whoever prints notices may be behind, and the log has it.
        let _ = self.notices.try_send(Notice { kind, time: guardian::now(), detail });
    }

    /// Waits, unless the stop is requested. Returns whether to go on.
    fn wait(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while !self.stop.requested() && Instant::now() < end {
            thread::sleep(TICK);
        }
        !self.stop.requested()
    }

    /// Runs one session to its end, with a guardian beside it. Returns how long it ran.
    fn run_session(&self, mut session: Session, eyes: &mut Eyes, sink: &mut dyn Sink) -> Duration {
        let start = Instant::now();
        let ended = AtomicBool::new(false);
        let state = session.state().clone();
        let result = thread::scope(|scope| {
            scope.spawn(|| guardian::guard(self, &state, eyes, &ended));
            let result = session.process(sink);
            ended.store(true, Ordering::Release);
            result
        });
        if let Err(error) = result {
            tracing::error!(session = self.settings.name, "ProcessTrace ended: {error}");
        }
        // Whatever ended the processing: no session is left behind.
        if let Ok(Some(last)) = control::stop(&self.settings.name) {
            self.counters.queried(last.losses);
        }
        self.counters.session_ended();
        start.elapsed()
    }
}

impl Source for EtwSource {
    fn name(&self) -> String {
        self.run.settings.name.clone()
    }

    fn len(&self) -> u64 {
        0
    }

    fn run(&mut self, sink: &mut dyn Sink) -> Result<(), SourceError> {
        let run = &self.run;
        let mut delay = RESTART_DELAY;
        let mut eyes = Eyes::new(run.guard.report_every);
        let mut next = self.session.take();
        loop {
            if let Some(session) = next.take() {
                let ran = run.run_session(session, &mut eyes, sink);
                if run.stop.requested() {
                    return Ok(());
                }
                if ran >= WELL {
                    delay = RESTART_DELAY;
                }
                run.tell(
                    NoticeKind::SessionStopped,
                    format!(
                        "session {:?} was stopped from outside after {} seconds; it is started again in {} seconds",
                        run.settings.name,
                        ran.as_secs(),
                        delay.as_secs()
                    ),
                );
            }
            if !run.wait(delay) {
                return Ok(());
            }
            delay = (delay * 2).min(run.guard.restart_delay_max.max(RESTART_DELAY));
            match Session::start(&run.settings, &kinds(&run.rules), &run.counters, &self.claim) {
                Ok(session) => {
                    run.counters.restarts.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(session = run.settings.name, "session started again");
                    eyes.new_session();
                    next = Some(session);
                }
                Err(error) => {
                    tracing::error!("{error}; next attempt in {} seconds", delay.as_secs());
                }
            }
        }
    }
}

/// The kinds of events that the active rules are about.
pub(super) fn kinds(rules: &ActiveRules) -> Vec<EventKind> {
    EventKind::ALL.into_iter().filter(|kind| rules.want(*kind)).collect()
}
