//! The sender's thread, which connects to one collector after the other.

use super::link::{Link, Security};
use super::route::{Route, Step};
use super::{SenderSettings, Shared, now_ms};
use crate::protocol::sensor::{CloseReason, Introduction, SensorConnection, SensorEvent, SpoolAt};
use crate::spool::SpoolError;
use crate::wire::message::StatusV1;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A certificate that expires within this time causes warnings.
const EXPIRY_WARNING: Duration = Duration::from_hours(30 * 24);
/// Interval of these warnings.
const EXPIRY_WARNING_EVERY: Duration = Duration::from_hours(24);
/// Pause after the spool could not be read.
const SPOOL_RETRY: Duration = Duration::from_secs(1);
/// Minimum interval between warnings about failed connections, after the first one.
const FAILURE_WARNING_EVERY: Duration = Duration::from_mins(1);

/// The reason why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Protocol(#[from] CloseReason),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Closed(String),
    #[error("the sender is stopping")]
    Stopped,
}

struct Runner<'a> {
    settings: &'a SenderSettings,
    security: Security,
    shared: &'a Arc<Shared>,
    route: Route,
    start: Instant,
    /// When the last warning about the certificate was logged.
    expiry_warned: Option<Instant>,
    /// When the last warning about a failed connection was logged.
    failure_warned: Option<Instant>,
}

pub(super) fn run(settings: &SenderSettings, security: Security, shared: &Arc<Shared>) {
    let route = Route::new(settings.collectors.len());
    let mut runner = Runner {
        settings,
        security,
        shared,
        route,
        start: Instant::now(),
        expiry_warned: None,
        failure_warned: None,
    };
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
            tracing::warn!("cannot reload the bundle, the previous one stays in use: {error}");
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
            Ended::Protocol(CloseReason::Busy(busy)) => {
                let time = Duration::from_millis(busy.retry_after_ms.into());
                self.route.rest(number, time, Instant::now(), random());
            }
            Ended::Protocol(CloseReason::Spool(error)) if !matches!(error, SpoolError::Repaired { .. }) => {
                self.shared.inbox.sleep(Instant::now() + SPOOL_RETRY);
            }
            _ => {}
        }
        if is_welcome || self.failure_warned.is_none_or(|warned| warned.elapsed() >= FAILURE_WARNING_EVERY) {
            self.failure_warned = Some(Instant::now());
            tracing::warn!(collector = %address, "no connection: {ended}; hits stay in the spool");
        } else {
            tracing::debug!(collector = %address, "no connection: {ended}");
        }
    }

    fn connection(&mut self, number: usize, is_welcome: &mut bool) -> Ended {
        match self.talk(number, is_welcome) {
            Ok(never) => match never {},
            Err(ended) if self.shared.stop.load(Ordering::Acquire) => {
                tracing::debug!("the connection ended because the sender is stopping: {ended}");
                Ended::Stopped
            }
            Err(ended) => ended,
        }
    }

    fn talk(&mut self, number: usize, is_welcome: &mut bool) -> Result<std::convert::Infallible, Ended> {
        let shared = self.shared;
        let address = &self.settings.collectors[number];
        let mut link = Link::connect(address, &self.security, shared)?;
        let mut connection = {
            let mut spool = shared.spool();
            spool.rewind();
            let introduction = Introduction {
                instance: spool.instance(),
                software: self.settings.software.clone(),
                computer: self.settings.computer.clone(),
            };
            let backlog = SpoolAt { spool: &mut spool, now_ms: now_ms() };
            SensorConnection::new(introduction, &backlog, Instant::now())?
        };
        loop {
            // Before the spool is locked, because reading the counts locks it, too.
            let status = connection.is_status_due(Instant::now()).then(|| self.status());
            let has_more = {
                let mut spool = shared.spool();
                let mut backlog = SpoolAt { spool: &mut spool, now_ms: now_ms() };
                connection.fill_output(&mut backlog, status, Instant::now())?
            };
            let output = connection.take_output();
            if !output.is_empty() {
                link.send(&output)?;
            }
            let until = if has_more { Instant::now() } else { connection.deadline() };
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
                let received = connection.receive(&found.bytes, &mut backlog, now);
                drop(spool);
                while let Some(event) = connection.poll_event() {
                    self.handle(&event, number, is_welcome);
                }
                received?;
            } else if let Some(reason) = found.closed {
                return Err(Ended::Closed(reason));
            }
            connection.check_timeouts(now)?;
        }
    }

    fn handle(&mut self, event: &SensorEvent, number: usize, is_welcome: &mut bool) {
        match event {
            SensorEvent::Welcomed if *is_welcome => {}
            SensorEvent::Welcomed => {
                *is_welcome = true;
                self.failure_warned = None;
                self.shared.counters.connected();
                tracing::info!(collector = %self.settings.collectors[number], "connected");
            }
            SensorEvent::Acknowledged => {
                self.route.progressed();
                self.shared.queue.acknowledged();
            }
            SensorEvent::Refused(refused) => tracing::error!(
                "the collector cannot store hits {} to {} and they are lost: {}",
                refused.from,
                refused.to,
                // Foreign text must not control the terminal.
                refused.detail.escape_debug()
            ),
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
        if expires == 0 || self.expiry_warned.is_some_and(|warned| warned.elapsed() < EXPIRY_WARNING_EVERY) {
            return;
        }
        let left = expires.saturating_sub(now_ms() / 1000);
        if left == 0 {
            tracing::error!(
                "the sensor's certificate has expired and collectors reject it; replace the bundle"
            );
        } else if left < EXPIRY_WARNING.as_secs() {
            tracing::warn!("the sensor's certificate expires in {} days", left / 86_400);
        } else {
            return;
        }
        self.expiry_warned = Some(Instant::now());
    }
}

/// Returns a number for jitter. If the random number generator of the system fails, it is derived from the clock.
fn random() -> u32 {
    getrandom::u32().unwrap_or_else(|_| now_ms() as u32 ^ std::process::id())
}
