//! `ProcessTrace`: plays the scenario and delivers the events that the session admits.

use crate::consumer::{self, Consumer};
use crate::deliver::{Delivery, Lost};
use crate::setting::{self, Code};
use etwsieve_tests::standin::feed::{Facts, Feed, POWERSHELL};
use etwsieve_tests::standin::hostile::Hostile;
use etwsieve_tests::standin::{Enabled, Ending, IncidentKind, Machine, Scenario, Session};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use uuid::Uuid;
use windows_sys::Win32::Foundation::{ERROR_BAD_CONFIGURATION, ERROR_WMI_INSTANCE_NOT_FOUND};

/// Interval in which the state of the machine is read.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const REPORT_EVERY: Duration = Duration::from_millis(250);
/// Number of events between two readings of the clock.
const BATCH: u64 = 64;
/// Maximum size of an event in bytes.
const EVENT_LEN_MAX: usize = 65_535;

/// Blocks until the session is stopped or the handle closed.
pub(crate) fn process(consumer: &Consumer) -> Result<(), Code> {
    let machine = setting::machine()?;
    let scenario = setting::scenario(&machine)?;
    let feed = Feed::open(&scenario).map_err(|error| {
        machine.report_failure(&error.to_string());
        Code(ERROR_BAD_CONFIGURATION)
    })?;
    let session = machine.session(&consumer.name)?;
    let session = session.filter(|session| session.incarnation == consumer.incarnation);
    let session = session.ok_or(Code(ERROR_WMI_INSTANCE_NOT_FOUND))?;
    let position = session.position;
    // The previous consumer has seen earlier incidents.
    let happened =
        if position == 0 { 0 } else { scenario.incidents.partition_point(|h| h.after <= position) };
    let mut run = Run {
        machine: &machine,
        scenario: &scenario,
        feed,
        position,
        happened,
        providers: Vec::new(),
        delivery: Delivery::new(consumer, session.logger_id),
        consumer,
        flushes: session.flushes,
        flushed_to: 0,
        stopped_at: None,
        bytes: 0,
        facts: None,
        session,
    };
    let result = run.run();
    run.delivery.report.ending = match result {
        Ok(ending) => ending,
        Err(_) => Ending::Running,
    };
    consumer.flush_pending(&machine)?;
    run.report()?;
    result.map(drop)
}

struct Run<'a> {
    machine: &'a Machine,
    scenario: &'a Scenario,
    consumer: &'a Consumer,
    feed: Feed,
    delivery: Delivery<'a>,
    session: Session,
    providers: Vec<(Uuid, Enabled)>,
    /// Events of the scenario that have been emitted and were delivered or filtered out.
    position: u64,
    /// Number of incidents that have happened.
    happened: usize,
    flushes: u32,
    /// Number of events that were flushed from the buffers.
    flushed_to: u64,
    /// Events emitted until the session was stopped.
    stopped_at: Option<u64>,
    /// Bytes in the open buffer.
    bytes: usize,
    /// Header of the last event, as a template for synthetic records.
    facts: Option<Facts>,
}

impl Run<'_> {
    fn run(&mut self) -> Result<Ending, Code> {
        let mut rings = u64::MAX;
        let (mut looked, mut reported) = (Instant::now(), Instant::now());
        loop {
            let now_rings = consumer::generation();
            if rings != now_rings || looked.elapsed() >= LOOK_EVERY {
                (rings, looked) = (now_rings, Instant::now());
                self.look()?;
            }
            if reported.elapsed() >= REPORT_EVERY {
                reported = Instant::now();
                self.report()?;
            }
            let was_stopped = self.stopped_at.is_some();
            let is_idle = self.advance()?;
            let is_closing = self.consumer.is_closing.load(Ordering::Acquire);
            let is_fastest = self.scenario.pace.emitted(Duration::ZERO).is_none();
            if was_stopped && is_idle {
                return Ok(Ending::Stopped);
            }
            if is_closing && (is_idle || is_fastest) {
                return Ok(Ending::Closed);
            }
            if is_idle && !was_stopped {
                consumer::wait(rings, self.until_next());
            }
        }
    }

    /// Reads the state that other programs may have changed.
    fn look(&mut self) -> Result<(), Code> {
        self.consumer.flush_pending(self.machine)?;
        let session = self.machine.session(&self.consumer.name)?;
        match session.filter(|session| session.incarnation == self.consumer.incarnation) {
            Some(session) => {
                if session.flushes != self.flushes {
                    self.flushes = session.flushes;
                    self.flushed_to = self.emitted(0);
                }
                self.take(session);
            }
            None if self.stopped_at.is_none() => self.stopped_at = Some(self.emitted(0)),
            None => {}
        }
        Ok(())
    }

    fn take(&mut self, session: Session) {
        if session.providers != self.session.providers || self.providers.is_empty() {
            let uuid = |provider: &Enabled| Uuid::parse_str(&provider.guid).unwrap_or_default();
            self.providers = session.providers.iter().map(|p| (uuid(p), p.clone())).collect();
        }
        self.session = session;
    }

    fn elapsed(&self) -> Duration {
        if self.session.enabled_at == 0 { Duration::ZERO } else { setting::since(self.session.enabled_at) }
    }

    /// Number of events emitted so far. Without a pace: delivered events, buffered events, and `ahead`.
    fn emitted(&self, ahead: u64) -> u64 {
        if self.session.enabled_at == 0 {
            return 0;
        }
        let as_taken = self.position.saturating_add(self.scenario.hold).saturating_add(ahead);
        self.scenario.pace.emitted(self.elapsed()).unwrap_or(as_taken).min(self.feed.total())
    }

    /// Number of events that have left the buffers of the session.
    fn visible(&self) -> u64 {
        if let Some(all) = self.stopped_at {
            return all;
        }
        let emitted = self.emitted(BATCH);
        emitted.saturating_sub(self.scenario.hold).max(self.flushed_to.min(emitted))
    }

    /// Delivers at most one batch. Returns true if nothing is left to do for now.
    fn advance(&mut self) -> Result<bool, Code> {
        if self.session.enabled_at == 0 {
            return Ok(true);
        }
        let end = self.visible().min(self.position.saturating_add(BATCH));
        loop {
            if self.stopped_at.is_none() && self.happen()? {
                return Ok(false);
            }
            if self.position >= end {
                break;
            }
            self.emit();
        }
        self.consumer.pending.position.store(self.position, Ordering::Release);
        Ok(self.position >= self.visible())
    }

    /// Emits the next event.
    fn emit(&mut self) {
        let Some(event) = self.feed.event(self.position) else { return };
        let facts = event.facts;
        self.position += 1;
        self.delivery.report.emitted += 1;
        let provider = self.providers.iter().find(|(guid, _)| *guid == facts.provider);
        let admitted =
            provider.filter(|(_, provider)| provider.admits(facts.event_id, facts.level, facts.keywords));
        let len = event.stored_len();
        if self.facts.is_none() {
            self.facts = Some(facts.clone());
        }
        let Some((_, provider)) = admitted else {
            self.delivery.report.filtered += 1;
            return;
        };
        let room = self.session.buffer_room();
        if len > room || len > EVENT_LEN_MAX {
            self.delivery.report.too_large += 1;
            self.consumer.pending.events_lost.fetch_add(1, Ordering::AcqRel);
            return;
        }
        if self.bytes + len > room {
            self.bytes = 0;
            self.consumer.pending.buffers_written.fetch_add(1, Ordering::AcqRel);
        }
        self.bytes += len;
        self.delivery.event(&event, provider);
    }

    /// Plays the next incident that is due. Returns true if the state of the machine must be read again.
    fn happen(&mut self) -> Result<bool, Code> {
        let Some(incident) = self.scenario.incidents.get(self.happened) else { return Ok(false) };
        if incident.after > self.position {
            return Ok(false);
        }
        self.happened += 1;
        let name = &self.consumer.name;
        let time = setting::now().cast_signed();
        match &incident.kind {
            IncidentKind::EventsLost(count) => {
                self.machine.alter(name, |session| session.events_lost += count)?;
                self.delivery.lost(Lost::Event, time);
            }
            IncidentKind::BuffersLost(count) => {
                self.machine.alter(name, |session| session.real_time_buffers_lost += count)?;
                self.delivery.lost(Lost::Buffer, time);
            }
            IncidentKind::LogBuffersLost(count) => {
                self.machine.alter(name, |session| session.log_buffers_lost += count)?;
                self.delivery.lost(Lost::File, time);
            }
            IncidentKind::Hostile(kind) => self.hostile(*kind, time)?,
            IncidentKind::StopSession => {
                consumer::flush_pending(self.machine, name)?;
                self.machine.stop(name)?;
                self.look()?;
                return Ok(true);
            }
            IncidentKind::DisableProvider(guid) => {
                let is_kept = |provider: &Enabled| guid.is_some_and(|guid| provider.guid != guid.to_string());
                self.machine.alter(name, |session| session.providers.retain(is_kept))?;
                self.look()?;
            }
        }
        Ok(false)
    }

    fn hostile(&mut self, kind: Hostile, time: i64) -> Result<(), Code> {
        self.delivery.report.hostile += 1;
        if !self.providers.iter().any(|(guid, _)| *guid == POWERSHELL) {
            self.delivery.report.filtered += 1;
            return Ok(());
        }
        let facts = Facts {
            provider: POWERSHELL,
            event_id: 4104,
            version: 1,
            channel: 16,
            level: 5,
            opcode: 15,
            task: 2,
            keywords: 0,
            property: 0,
            is_32_bit: false,
            process_id: 6666,
            thread_id: 6667,
            time: self
                .facts
                .as_ref()
                .map_or(etwsieve_etl::FileTime(time.cast_unsigned()), |facts| facts.time),
            activity_id: Uuid::nil(),
            processor: 0,
        };
        self.delivery.hostile(kind, &facts, facts.time.0.cast_signed())
    }

    /// Returns the time until the next event or incident.
    fn until_next(&self) -> Duration {
        let elapsed = self.elapsed();
        // A sleep is accurate to a millisecond.
        let soon = self.scenario.pace.emitted(elapsed + Duration::from_millis(1));
        let is_due = soon.is_some_and(|soon| soon > self.position && self.position < self.feed.total());
        if is_due { Duration::from_millis(1) } else { LOOK_EVERY }
    }

    fn report(&mut self) -> Result<(), Code> {
        self.delivery.report.callback_ns = self.delivery.callback_ns();
        Ok(self.machine.write_report(&self.consumer.name, &self.delivery.report)?)
    }
}
