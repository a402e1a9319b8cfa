//! Collects the facts for `etwsieve doctor`, and runs its canary.

use super::session::{Claim, Session};
use super::{control, elevation, machine, policy, provider};
use crate::event::{EventRef, POWERSHELL, POWERSHELL_CORE};
use crate::live::canary as powershell;
use crate::live::counters::SessionCounters;
use crate::live::doctor::{self, Finding, Status};
use crate::live::policy::Edition;
use crate::live::settings::SessionSettings;
use crate::source::{Damage, Sink};
use crate::stop::Stop;
use etwsieve_event::FileTime;
use etwsieve_matcher::EventKind;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Maximum time until the canary's event arrives.
const CANARY_TIME_MAX: Duration = Duration::from_secs(30);
/// Name of the canary's session.
const CANARY_SESSION: &str = "etwsieve-canary";

/// Examines the machine. `session` is the name of the sensor's session.
pub fn examine(session: &str) -> Vec<Finding> {
    let mut findings = vec![
        Finding::new(Status::Good, "machine", machine::name()),
        doctor::rights(elevation::may_start_sessions()),
        doctor::clock(FileTime::now()),
    ];
    findings.extend(doctor::registrations(
        provider::registration(&POWERSHELL),
        provider::registration(&POWERSHELL_CORE),
    ));
    findings.extend(doctor::policies(&policy::read()));
    findings.push(doctor::sessions(provider::session_count()));
    findings.push(doctor::own_session(session, control::query(session), Session::is_held(session)));
    findings.extend([POWERSHELL, POWERSHELL_CORE].iter().filter_map(|id| {
        let state = provider::enabled_sessions(id).ok()?;
        Some(doctor::sessions_on_provider(id, &state))
    }));
    findings
}

/// Starts PowerShell with a script block that contains a random word, and waits for it in a separate session. `None` if
/// the edition is not installed.
pub fn canary(edition: Edition) -> Option<Finding> {
    powershell::program(edition)?;
    let subject = doctor::canary_subject(edition);
    let start = Instant::now();
    let word = format!("canary{:016x}", fastrand::u64(..));
    let settings = SessionSettings { name: CANARY_SESSION.into(), ..SessionSettings::default() };
    let counters = Arc::new(SessionCounters::default());
    let session = Claim::new(CANARY_SESSION).and_then(|claim| {
        Session::start(&settings, &[EventKind::ScriptBlock], &counters, &claim)
            .map(|session| (session, claim))
    });
    let (mut session, _claim) = match session {
        Ok(session) => session,
        Err(error) => return Some(Finding::new(Status::Bad, subject, error)),
    };
    let mut child = match powershell::spawn(edition, &word) {
        Ok(child) => child,
        Err(error) => {
            let text = format_args!("cannot start PowerShell: {error}");
            return Some(Finding::new(Status::Warning, subject, text));
        }
    };
    let arrived = AtomicU64::new(0);
    let done = Stop::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            done.wait(CANARY_TIME_MAX.saturating_sub(start.elapsed()));
            let _ = control::stop(CANARY_SESSION);
        });
        let word = word.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut sink = CanarySink { word, start, arrived: &arrived, done: &done };
        if let Err(error) = session.process(&mut sink) {
            tracing::warn!("the canary's session failed: {error}");
        }
        done.request();
    });
    let _ = child.kill();
    let _ = child.wait();
    Some(match arrived.load(Ordering::Acquire) {
        0 => Finding::new(
            Status::Bad,
            subject,
            format_args!(
                "its script block did not arrive within {} s: see the lines above",
                start.elapsed().as_secs()
            ),
        ),
        millis => {
            Finding::new(Status::Good, subject, format_args!("its script block arrived after {millis} ms"))
        }
    })
}

/// Looks for the canary's word in each payload.
struct CanarySink<'a> {
    /// UTF-16LE.
    word: Vec<u8>,
    start: Instant,
    /// Milliseconds until the word arrived, at least 1; 0 before.
    arrived: &'a AtomicU64,
    /// Requested when the word has arrived.
    done: &'a Stop,
}

impl Sink for CanarySink<'_> {
    fn wants(&self, _provider: &Uuid, event_id: u16) -> bool {
        event_id == EventKind::ScriptBlock.event_id()
    }

    fn event(&mut self, event: &EventRef<'_>) -> ControlFlow<()> {
        if event.payload.windows(self.word.len()).any(|window| window == self.word) {
            let millis = self.start.elapsed().as_millis().max(1) as u64;
            let _ = self.arrived.compare_exchange(0, millis, Ordering::AcqRel, Ordering::Relaxed);
            self.done.request();
        }
        ControlFlow::Continue(())
    }

    fn unwanted(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn damaged(&mut self, _damage: &Damage) {}

    fn progress(&mut self, _bytes: u64) {}
}
