//! The sender's thread: from collector to collector, one connection at a time.

use super::link::{Link, Security};
use super::route::{Route, Step};
use super::session::{End, Introduction, Session, SpoolAt};
use super::{SenderSettings, Shared, now_ms};
use crate::spool::SpoolError;
use crate::wire::message::StatusV1;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long before its end a certificate is warned of, and how often.
const EXPIRY_WARNING: Duration = Duration::from_hours(30 * 24);
const EXPIRY_WARNING_EVERY: Duration = Duration::from_hours(24);
/// How long a spool that cannot be read is left alone.
const SPOOL_RETRY: Duration = Duration::from_secs(1);
/// Failures after the first are told at most so often.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Session(#[from] End),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Closed(String),
    #[error("the sender ends")]
    Stopped,
}

struct Runner<'a> {
    settings: &'a SenderSettings,
    security: Security,
    shared: &'a Arc<Shared>,
    route: Route,
    start: Instant,
    warned: Option<Instant>,
    told: Option<Instant>,
}

pub(super) fn run(settings: &SenderSettings, security: Security, shared: &Arc<Shared>) {
    let route = Route::new(settings.collectors.len());
    let mut runner =
        Runner { settings, security, shared, route, start: Instant::now(), warned: None, told: None };
    while !shared.stop.load(Ordering::Acquire) {
        runner.warn_of_expiry();
        match runner.route.step(Instant::now(), random()) {
            Step::Wait(until) => shared.inbox.sleep(until),
            Step::Connect(number) => runner.attempt(number),
        }
    }
}

impl Runner<'_> {
    fn attempt(&mut self, number: usize) {
        if let Err(error) = self.security.reload() {
            tracing::warn!("the bundle is not read again, the former one stays: {error}");
        }
        self.shared.counters.certificate(self.security.expires_unix());
        let Some(address) = self.settings.collectors.get(number) else { return };
        let mut is_welcome = false;
        let ended = self.connection(number, &mut is_welcome);
        self.shared.spool().rewind();
        let is_stopped = matches!(ended, Ended::Stopped);
        self.shared.counters.ended(is_welcome || is_stopped);
        match &ended {
            Ended::Stopped => return,
            Ended::Session(End::Busy(busy)) => {
                let time = Duration::from_millis(busy.retry_after_ms.into());
                self.route.rest(number, time, Instant::now(), random());
            }
            Ended::Session(End::Spool(error)) if !matches!(error, SpoolError::Repaired { .. }) => {
                self.shared.inbox.sleep(Instant::now() + SPOOL_RETRY);
            }
            _ => {}
        }
        if is_welcome || self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            tracing::warn!(collector = %address, "no connection: {ended}; hits wait in the spool");
        } else {
            tracing::debug!(collector = %address, "no connection: {ended}");
        }
    }

    fn connection(&mut self, number: usize, is_welcome: &mut bool) -> Ended {
        match self.talk(number, is_welcome) {
            Ok(never) => match never {},
            Err(ended) if self.shared.stop.load(Ordering::Acquire) => {
                tracing::debug!("the connection ends with the sender: {ended}");
                Ended::Stopped
            }
            Err(ended) => ended,
        }
    }

    fn talk(&mut self, number: usize, is_welcome: &mut bool) -> Result<std::convert::Infallible, Ended> {
        let shared = self.shared;
        let address = &self.settings.collectors[number];
        let mut link = Link::connect(address, &self.security, shared)?;
        let mut session = {
            let mut spool = shared.spool();
            spool.rewind();
            let introduction = Introduction {
                instance: spool.instance(),
                software: self.settings.software.clone(),
                computer: self.settings.computer.clone(),
            };
            let backlog = SpoolAt { spool: &mut spool, now_ms: now_ms() };
            Session::new(introduction, &backlog, Instant::now())?
        };
        loop {
            // Before the spool is locked: the counts lock it too.
            let status = session.is_status_due(Instant::now()).then(|| self.status());
            let has_more = {
                let mut spool = shared.spool();
                let mut backlog = SpoolAt { spool: &mut spool, now_ms: now_ms() };
                session.fill(&mut backlog, status, Instant::now())?
            };
            let out = session.take_out();
            if !out.is_empty() {
                link.send(&out)?;
            }
            let until = if has_more { Instant::now() } else { session.deadline() };
            let found = shared.inbox.wait(until);
            if shared.stop.load(Ordering::Acquire) {
                return Err(Ended::Stopped);
            }
            if found.wants_write {
                link.send(&[])?;
            }
            let now = Instant::now();
            if !found.bytes.is_empty() {
                let mut spool = shared.spool();
                let mut backlog = SpoolAt { spool: &mut spool, now_ms: now_ms() };
                let received = session.receive(&found.bytes, &mut backlog, now);
                drop(spool);
                if session.is_acknowledged() {
                    self.route.progressed();
                    shared.queue.acknowledged();
                }
                if session.is_welcome() && !*is_welcome {
                    *is_welcome = true;
                    self.told = None;
                    shared.counters.connected();
                    tracing::info!(collector = %address, "connected");
                }
                received?;
            } else if let Some(reason) = found.closed {
                return Err(Ended::Closed(reason));
            }
            session.check(now)?;
        }
    }

    fn status(&self) -> StatusV1 {
        let now = now_ms();
        let mut counts = self.shared.counters.read(self.shared.spool().counts()).for_status(now);
        counts.extend((self.settings.more_counts)());
        StatusV1 {
            time: etwsieve_event::FileTime::from_unix(Duration::from_millis(now)).0,
            uptime_seconds: self.start.elapsed().as_secs(),
            counts,
        }
    }

    fn warn_of_expiry(&mut self) {
        let expires = self.security.expires_unix();
        if expires == 0 || self.warned.is_some_and(|warned| warned.elapsed() < EXPIRY_WARNING_EVERY) {
            return;
        }
        let left = expires.saturating_sub(now_ms() / 1000);
        if left == 0 {
            tracing::error!(
                "the sensor's certificate has expired: collectors refuse it; put a new bundle in its place"
            );
        } else if left < EXPIRY_WARNING.as_secs() {
            tracing::warn!("the sensor's certificate expires in {} days", left / 86_400);
        } else {
            return;
        }
        self.warned = Some(Instant::now());
    }
}

/// For jitter; a system without random numbers jitters by the clock.
fn random() -> u32 {
    getrandom::u32().unwrap_or_else(|_| now_ms() as u32 ^ std::process::id())
}
