//! `etwsieve doctor`: would a sensor on this machine see anything, and if not, why.

use super::canary;
use super::control;
use super::elevation;
use super::machine;
use super::policy::{self, Edition, Logging};
use super::provider;
use super::session::{Claim, Session};
use crate::event::{EventRef, POWERSHELL, POWERSHELL_CORE};
use crate::live::counters::SessionCounters;
use crate::live::settings::SessionSettings;
use crate::source::{Damage, Sink};
use etwsieve_matcher::EventKind;
use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use uuid::Uuid;

/// How long the canary's event may take.
const CANARY_TIME_MAX: Duration = Duration::from_secs(30);
/// Name of the canary's own session.
const CANARY_SESSION: &str = "etwsieve-canary";
/// From 1970 to 2024: a clock before that is wrong.
const CLOCK_MIN: Duration = Duration::from_hours(24 * 365 * 54);

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// As it should be.
    Good,
    /// The sensor works, but sees less than it could.
    Warning,
    /// The sensor would see nothing.
    Bad,
}

/// One line of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub status: Status,
    /// What was looked at.
    pub subject: &'static str,
    /// What was found, and what to do about it.
    pub text: String,
}

fn finding(status: Status, subject: &'static str, text: impl Display) -> Finding {
    Finding { status, subject, text: text.to_string() }
}

/// Looks at everything. `session` is the name of the sensor's session.
pub fn examine(session: &str) -> Vec<Finding> {
    let mut findings = vec![finding(Status::Good, "machine", machine::name()), rights(), clock()];
    findings.extend(registrations());
    findings.extend(policies());
    findings.push(sessions());
    findings.push(own_session(session));
    findings.extend([POWERSHELL, POWERSHELL_CORE].iter().filter_map(room));
    findings
}

fn rights() -> Finding {
    match elevation::may_start_sessions() {
        Ok(access) if access.is_granted() => {
            finding(Status::Good, "rights", format_args!("this account {access}"))
        }
        Ok(_) => finding(
            Status::Bad,
            "rights",
            "this account may not start event tracing sessions: use an elevated prompt, or install the service",
        ),
        Err(error) => finding(Status::Warning, "rights", format_args!("cannot tell: {error}")),
    }
}

fn clock() -> Finding {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) if since >= CLOCK_MIN => finding(Status::Good, "clock", super::guardian::now().to_string()),
        _ => finding(Status::Warning, "clock", "the time of day is wrong, and so will be that of detections"),
    }
}

fn registrations() -> Vec<Finding> {
    let rows = [
        (POWERSHELL, "Windows PowerShell provider", "it comes with Windows PowerShell 5.1"),
        (
            POWERSHELL_CORE,
            "PowerShell 7 provider",
            "RegisterManifest.ps1 in the folder of PowerShell 7 registers it",
        ),
    ];
    let mut found = 0;
    let mut findings: Vec<Finding> = rows
        .into_iter()
        .map(|(id, subject, hint)| match provider::registration(&id) {
            Ok(Some(registration)) => {
                found += 1;
                let file = registration.resource_file.map(|file| file.display().to_string());
                let text = format!("registered as {}", registration.name);
                match (registration.resource_exists, file) {
                    (true, _) | (_, None) => finding(Status::Good, subject, text),
                    (false, Some(file)) => finding(
                        Status::Warning,
                        subject,
                        format_args!(
                            "{text}; its file {file} is missing, so other tools cannot decode its events"
                        ),
                    ),
                }
            }
            Ok(None) => finding(Status::Warning, subject, format_args!("not registered: {hint}")),
            Err(error) => finding(Status::Warning, subject, format_args!("cannot tell: {error}")),
        })
        .collect();
    if found == 0 {
        for finding in &mut findings {
            finding.status = Status::Bad;
        }
    }
    findings
}

fn policies() -> Vec<Finding> {
    let policy = policy::read();
    let effective = policy::effective(&policy);
    let mut findings: Vec<Finding> = [
        (Edition::WindowsPowerShell, effective.windows_powershell, &policy.windows_powershell),
        (Edition::PowerShell7, effective.powershell7, &policy.powershell7),
    ]
    .into_iter()
    .map(|(edition, logging, found)| {
        let subject = match edition {
            Edition::WindowsPowerShell => "script block logging of Windows PowerShell",
            Edition::PowerShell7 => "script block logging of PowerShell 7",
        };
        let place = found.script_blocks_found_in.as_deref().unwrap_or("no policy");
        let status = match logging {
            Logging::All => Status::Good,
            Logging::SuspiciousOnly => Status::Warning,
            Logging::Nothing => Status::Bad,
        };
        let hint = if logging == Logging::All {
            ""
        } else {
            "; switch on \"Turn on PowerShell Script Block Logging\" in the group policy"
        };
        finding(status, subject, format_args!("{logging} ({place}){hint}"))
    })
    .collect();
    let subject = "Protected Event Logging";
    findings.push(if effective.encrypted {
        finding(Status::Bad, subject, "on: the text of script blocks is encrypted and cannot be searched")
    } else {
        finding(Status::Good, subject, "off: script blocks are written in the clear")
    });
    let unreadable = policy
        .unreadable
        .iter()
        .map(|text| finding(Status::Warning, "policy", format_args!("cannot read {text}")));
    findings.extend(unreadable);
    findings
}

fn sessions() -> Finding {
    let subject = "event tracing sessions";
    match provider::session_count() {
        Ok(count) => {
            let text = format!("{} of {} are in use", count.used, count.max);
            if count.used < count.max {
                finding(Status::Good, subject, text)
            } else {
                let hint = "stop one (`logman query -ets` lists them)";
                finding(Status::Bad, subject, format_args!("{text}: none is left; {hint}"))
            }
        }
        Err(error) => finding(Status::Warning, subject, format_args!("cannot count them: {error}")),
    }
}

fn own_session(name: &str) -> Finding {
    let subject = "the sensor's session";
    match control::query(name) {
        Ok(None) => finding(Status::Good, subject, format_args!("{name:?} does not run; its name is free")),
        Ok(Some(state)) => {
            let losses = state.losses;
            let text = format!(
                "{name:?} runs with {} buffers of {} KB; {} events and {} real-time buffers lost",
                state.buffers, state.buffer_kb, losses.events, losses.real_time_buffers
            );
            let status = if losses.is_lossless() { Status::Good } else { Status::Warning };
            if Session::is_held(name) {
                finding(status, subject, format_args!("{text}; its sensor runs"))
            } else {
                let hint = "no sensor runs: it was left by a crash, and the next start takes it over";
                finding(Status::Warning, subject, format_args!("{text}; {hint}"))
            }
        }
        Err(error) => finding(Status::Warning, subject, format_args!("cannot be queried: {error}")),
    }
}

/// Windows allows eight sessions on a provider.
fn room(id: &Uuid) -> Option<Finding> {
    const SESSIONS_MAX: usize = 8;
    let subject =
        if *id == POWERSHELL { "sessions on Windows PowerShell" } else { "sessions on PowerShell 7" };
    let state = provider::enabled_sessions(id).ok()?;
    let used = state.sessions.len();
    let status = if used < SESSIONS_MAX { Status::Good } else { Status::Bad };
    let hosts = state.registered_processes.len();
    Some(finding(status, subject, format_args!("{used} of {SESSIONS_MAX} in use; {hosts} hosts run now")))
}

/// Starts PowerShell with a script block that holds a random word, and waits for it in a session of its own.
pub fn canary(edition: Edition) -> Finding {
    let subject = match edition {
        Edition::WindowsPowerShell => "canary in Windows PowerShell",
        Edition::PowerShell7 => "canary in PowerShell 7",
    };
    let start = Instant::now();
    // The random keys of the standard library's hash maps: the word must only be new.
    let word = format!("canary{:016x}", RandomState::new().hash_one(start));
    let settings = SessionSettings { name: CANARY_SESSION.into(), ..SessionSettings::default() };
    let counters = Arc::new(SessionCounters::default());
    let session = Claim::new(CANARY_SESSION).and_then(|claim| {
        Session::start(&settings, &[EventKind::ScriptBlock], &counters, &claim)
            .map(|session| (session, claim))
    });
    let (mut session, _claim) = match session {
        Ok(session) => session,
        Err(error) => return finding(Status::Bad, subject, error),
    };
    let arrived = AtomicU64::new(0);
    let ended = AtomicBool::new(false);
    let mut child = match canary::spawn(edition, &word) {
        Ok(child) => child,
        Err(error) => return finding(Status::Warning, subject, format_args!("cannot start it: {error}")),
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            while arrived.load(Ordering::Acquire) == 0
                && start.elapsed() < CANARY_TIME_MAX
                && !ended.load(Ordering::Acquire)
            {
                thread::sleep(Duration::from_millis(20));
            }
            let _ = control::stop(CANARY_SESSION);
        });
        let word = word.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut waiting = Waiting { word, start, arrived: &arrived };
        if let Err(error) = session.process(&mut waiting) {
            tracing::warn!("the canary's session ended: {error}");
        }
        ended.store(true, Ordering::Release);
    });
    let _ = child.kill();
    let _ = child.wait();
    match arrived.load(Ordering::Acquire) {
        0 => finding(
            Status::Bad,
            subject,
            format_args!(
                "its script block did not arrive within {} s: see the lines above",
                start.elapsed().as_secs()
            ),
        ),
        millis => finding(Status::Good, subject, format_args!("its script block arrived after {millis} ms")),
    }
}

/// Waits for a word in a payload.
struct Waiting<'a> {
    /// UTF-16LE.
    word: Vec<u8>,
    start: Instant,
    /// Milliseconds until it came, at least 1.
    arrived: &'a AtomicU64,
}

impl Sink for Waiting<'_> {
    fn wants(&self, _provider: &Uuid, event_id: u16) -> bool {
        event_id == EventKind::ScriptBlock.event_id()
    }

    fn event(&mut self, event: &EventRef<'_>) -> ControlFlow<()> {
        if event.payload.windows(self.word.len()).any(|window| window == self.word) {
            let millis = self.start.elapsed().as_millis().max(1) as u64;
            let _ = self.arrived.compare_exchange(0, millis, Ordering::AcqRel, Ordering::Relaxed);
        }
        ControlFlow::Continue(())
    }

    fn unwanted(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn damaged(&mut self, _damage: &Damage) {}

    fn progress(&mut self, _bytes: u64) {}
}
