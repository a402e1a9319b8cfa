//! One schedule: the faults, the events in the order of simulated time, and the oracle.

use super::collector::{CollectorNode, Connected, Entry, Ticket};
use super::network::{Cut, Delivery, Network, Time, To};
use super::sensor::{ModelSpool, SensorNode, epoch_index};
use etwsieve_transport::protocol::collector::{HelloError, SensorTimeout};
use etwsieve_transport::protocol::sensor::{CloseReason, Introduction, SensorEvent};
use etwsieve_transport::protocol::{
    CollectorConnection, CollectorSettings, Request, SEQUENCE_MAX, SensorConnection,
};
use etwsieve_transport::sender::route::{Route, Step};
use etwsieve_transport::spool::Keep;
use etwsieve_transport::wire::message::{BusyReason, StatusV1};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;
use std::rc::Rc;
use std::time::{Duration, Instant};

const SECOND: Time = 1_000_000;
/// Simulated time after the last fault within which everything must be acknowledged.
const RECOVERY_MAX: Time = 900 * SECOND;
/// Maximum number of events of a schedule.
const EVENTS_MAX: u64 = 200_000;

/// Something that is planned for a time.
#[derive(Clone, Copy, Debug)]
enum Planned {
    Hit,
    Commit,
    Cut,
    RestartSensor,
    /// The collector says BUSY and closes its connections.
    StopCollector,
    /// The collector disappears, with everything that is not durable.
    KillCollector,
}

/// Number of occurrences of each kind of fault.
#[derive(Clone, Copy, Debug, Default)]
pub struct Coverage {
    pub events: u64,
    pub hits: u64,
    pub cuts: u64,
    pub late_deliveries: u64,
    pub repeated: u64,
    pub refused: u64,
    pub lost: u64,
    pub busy: u64,
    pub timeouts: u64,
    pub sensor_restarts: u64,
    pub collector_restarts: u64,
    pub failed_batches: u64,
    pub epochs_continued: u64,
}

impl AddAssign for Coverage {
    fn add_assign(&mut self, other: Self) {
        let Self { events, hits, cuts, late_deliveries, repeated, refused, lost, busy, .. } = other;
        self.events += events;
        self.hits += hits;
        self.cuts += cuts;
        self.late_deliveries += late_deliveries;
        self.repeated += repeated;
        self.refused += refused;
        self.lost += lost;
        self.busy += busy;
        self.timeouts += other.timeouts;
        self.sensor_restarts += other.sensor_restarts;
        self.collector_restarts += other.collector_restarts;
        self.failed_batches += other.failed_batches;
        self.epochs_continued += other.epochs_continued;
    }
}

impl Coverage {
    /// Checks that the schedules contain everything that they are meant to test.
    pub fn assert_complete(&self) {
        let counts = [
            self.hits,
            self.cuts,
            self.late_deliveries,
            self.repeated,
            self.refused,
            self.lost,
            self.busy,
            self.timeouts,
            self.sensor_restarts,
            self.collector_restarts,
            self.failed_batches,
            self.epochs_continued,
        ];
        assert!(counts.iter().all(|count| *count > 0), "some faults did not occur: {self:?}");
    }
}

pub struct Simulation {
    rng: Rng,
    start: Instant,
    now: Time,
    plan: BTreeMap<(Time, u64), Planned>,
    planned: u64,
    network: Network,
    sensor: SensorNode,
    collector: CollectorNode,
    settings: CollectorSettings,
    /// One of this many hits is refused; 0: none.
    poison: u64,
    /// One of this many batches fails during the faults; 0: none.
    failing: u64,
    commit_max: Time,
    /// When the faults end.
    calm: Time,
    is_commit_planned: bool,
    next_hit: u64,
    /// Numbers that the collector refused at least once.
    refused: BTreeSet<(usize, u64)>,
    /// Numbers that the sensor has counted as refused.
    counted_refused: BTreeSet<(usize, u64)>,
    coverage: Coverage,
}

impl Simulation {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let keep = if rng.bool() { Keep::Oldest } else { Keep::Newest };
        let one_of = |rng: &mut Rng, values: &[u64]| values[rng.usize(..values.len())];
        let spool = ModelSpool::new(one_of(&mut rng, &[2, 5, 20, 1000]) as usize, keep);
        let calm = one_of(&mut rng, &[SECOND, SECOND, 10 * SECOND, 60 * SECOND]);
        let settings = CollectorSettings {
            window: one_of(&mut rng, &[1, 2, 5, 64]) as u32,
            // A short interval makes many STATUS, so it goes with a short schedule.
            quiet_ms: one_of(&mut rng, if calm <= 10 * SECOND { &[400, 5_000] } else { &[5_000, 60_000] })
                as u32,
            hello_timeout: Duration::from_secs(10),
        };
        let network = Network::new(
            one_of(&mut rng, &[0, 1_000, 50_000, SECOND]),
            one_of(&mut rng, &[20, 100, 1 << 16, 1 << 16]) as usize,
        );
        let mut simulation = Self {
            start: Instant::now(),
            now: 0,
            plan: BTreeMap::new(),
            planned: 0,
            network,
            sensor: SensorNode { spool, route: Route::new(1), connection: None, retry: None },
            collector: CollectorNode::default(),
            settings,
            poison: one_of(&mut rng, &[0, 0, 3, 10]),
            failing: one_of(&mut rng, &[0, 0, 3, 10]),
            commit_max: one_of(&mut rng, &[0, 10_000, SECOND]),
            calm,
            is_commit_planned: false,
            next_hit: 0,
            refused: BTreeSet::new(),
            counted_refused: BTreeSet::new(),
            coverage: Coverage::default(),
            rng,
        };
        for _ in 0..simulation.rng.u64(1..40) {
            simulation.plan_randomly(Planned::Hit);
        }
        for _ in 0..simulation.rng.u64(0..6) {
            let fault = match simulation.rng.u64(0..8) {
                0..=4 => Planned::Cut,
                5 => Planned::RestartSensor,
                6 => Planned::StopCollector,
                _ => Planned::KillCollector,
            };
            simulation.plan_randomly(fault);
        }
        simulation
    }

    fn plan_randomly(&mut self, planned: Planned) {
        let time = self.rng.u64(0..self.calm);
        self.plan(time, planned);
    }

    fn plan(&mut self, time: Time, planned: Planned) {
        self.planned += 1;
        self.plan.insert((time, self.planned), planned);
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_micros(self.now)
    }

    fn time_of(&self, instant: Instant) -> Time {
        // Rounded up, so that an instant has passed when its time has come.
        (instant - self.start).as_nanos().div_ceil(1000) as Time
    }

    fn has_faults(&self) -> bool {
        self.now < self.calm
    }

    pub fn run(mut self) -> Coverage {
        self.run_sensor();
        while !self.is_done() {
            self.coverage.events += 1;
            assert!(self.coverage.events < EVENTS_MAX, "too many events");
            assert!(self.now < self.calm + RECOVERY_MAX, "not everything was acknowledged in time");
            self.step();
        }
        self.check_end();
        self.coverage
    }

    fn is_done(&self) -> bool {
        self.plan.is_empty() && self.sensor.spool.is_empty()
    }

    /// Advances to the next time at which anything happens, and handles one event.
    fn step(&mut self) {
        let sensor = match &self.sensor.connection {
            Some((_, protocol)) => Some(protocol.deadline()),
            None => self.sensor.retry,
        };
        let sensor = sensor.map(|instant| self.time_of(instant));
        let connections = self.collector.connections.values();
        let collector = connections.map(|connected| self.time_of(connected.protocol.deadline())).min();
        let planned = self.plan.first_key_value().map(|((time, _), _)| *time);
        let times = [sensor, collector, planned, self.network.next_arrival()];
        let next = times.into_iter().flatten().min().expect("something always happens");
        self.now = self.now.max(next);
        if !self.has_faults() {
            self.network.recover();
        }
        if let Some(delivery) = self.network.take_arrived(self.now) {
            self.deliver(delivery);
        } else if planned.is_some_and(|time| time <= self.now) {
            let (_, planned) = self.plan.pop_first().unwrap();
            self.act(planned);
        } else {
            self.check_collector_timeouts();
            self.run_sensor();
        }
    }

    fn act(&mut self, planned: Planned) {
        match planned {
            Planned::Hit => {
                self.next_hit += 1;
                self.coverage.hits += 1;
                self.sensor.spool.push(self.next_hit);
                self.run_sensor();
            }
            Planned::Commit => self.commit(),
            Planned::Cut => {
                let Some((connection, _)) = &self.sensor.connection else { return };
                let cut = [Cut::Noticed, Cut::HalfOpen, Cut::Silent][self.rng.usize(..3)];
                self.coverage.cuts += 1;
                self.network.cut(*connection, cut, self.now, &mut self.rng);
            }
            Planned::RestartSensor => {
                self.coverage.sensor_restarts += 1;
                self.close_sensor();
                self.sensor.spool.start_epoch();
                self.run_sensor();
            }
            Planned::StopCollector => {
                self.coverage.collector_restarts += 1;
                let connections: Vec<usize> = self.collector.connections.keys().copied().collect();
                for connection in connections {
                    self.settle(connection, false);
                    self.end_busy(connection, BusyReason::Stopping);
                }
                self.stop_collector();
            }
            Planned::KillCollector => {
                self.coverage.collector_restarts += 1;
                for connection in std::mem::take(&mut self.collector.connections).into_keys() {
                    self.network.cut(connection, Cut::Noticed, self.now, &mut self.rng);
                }
                self.stop_collector();
            }
        }
    }

    fn stop_collector(&mut self) {
        self.collector.queue.clear();
        self.collector.down_until = self.now + self.rng.u64(0..5 * SECOND);
    }

    fn deliver(&mut self, Delivery { connection, to, bytes }: Delivery) {
        match to {
            To::Sensor => {
                // Bytes of a connection that the sensor has closed are lost.
                let Some((current, protocol)) = &mut self.sensor.connection else { return };
                if *current != connection {
                    return;
                }
                let Some(bytes) = bytes else {
                    self.close_sensor();
                    return self.run_sensor();
                };
                let now = self.start + Duration::from_micros(self.now);
                let result = protocol.receive(&bytes, &mut self.sensor.spool, now);
                while let Some(event) = protocol.poll_event() {
                    match event {
                        SensorEvent::Acknowledged => self.sensor.route.progressed(),
                        SensorEvent::Refused(refused) => {
                            let number = (epoch_index(refused.epoch), refused.from);
                            assert!(
                                self.counted_refused.insert(number),
                                "{number:?} was counted as refused twice"
                            );
                        }
                        SensorEvent::Welcomed => {}
                    }
                }
                self.check_acknowledgements();
                if let Err(reason) = result {
                    self.end_sensor(&reason);
                }
                self.run_sensor();
            }
            To::Collector => {
                if !self.collector.connections.contains_key(&connection) {
                    return;
                }
                let is_current =
                    matches!(&self.sensor.connection, Some((current, _)) if *current == connection);
                self.coverage.late_deliveries += u64::from(!is_current && bytes.is_some());
                let now = self.instant();
                match bytes {
                    None => drop(self.collector.connections.remove(&connection)),
                    Some(bytes) => {
                        if let Some(connected) = self.collector.connections.get_mut(&connection) {
                            connected.protocol.receive(&bytes, now);
                        }
                        self.handle_requests(connection);
                    }
                }
            }
        }
    }

    // The sensor.

    /// Connects if it is time, and sends what may be sent.
    fn run_sensor(&mut self) {
        let now = self.instant();
        if self.sensor.connection.is_none() {
            match self.sensor.route.step(now, self.rng.u32(..)) {
                Step::Wait(until) => return self.sensor.retry = Some(until),
                Step::Connect(_) if self.now < self.collector.down_until => {
                    return self.run_sensor();
                }
                Step::Connect(_) => self.connect(),
            }
        }
        let Some((connection, protocol)) = &mut self.sensor.connection else { return };
        if let Err(reason) = protocol.check_timeouts(now) {
            self.end_sensor(&reason);
            return self.run_sensor();
        }
        loop {
            let status = protocol.is_status_due(now).then(StatusV1::default);
            let has_more = protocol.fill_output(&mut self.sensor.spool, status, now).unwrap();
            let output = protocol.take_output();
            self.network.send(*connection, To::Collector, &output, self.now, &mut self.rng);
            if !has_more {
                return;
            }
        }
    }

    fn connect(&mut self) {
        let now = self.instant();
        self.sensor.spool.rewind();
        let connection = self.network.connect();
        let protocol = SensorConnection::new(Introduction::default(), &self.sensor.spool, now).unwrap();
        self.sensor.connection = Some((connection, protocol));
        let protocol = CollectorConnection::new(self.settings, now);
        self.collector.connections.insert(connection, Connected { protocol, settlement: Rc::default() });
    }

    fn end_sensor(&mut self, reason: &CloseReason) {
        match reason {
            CloseReason::Busy(busy) => {
                self.coverage.busy += 1;
                let time = Duration::from_millis(busy.retry_after_ms.into());
                self.sensor.route.rest(0, time, self.instant(), self.rng.u32(..));
            }
            CloseReason::TimedOut(_) => self.coverage.timeouts += 1,
            CloseReason::Violation(_) | CloseReason::Encode(_) | CloseReason::Spool(_) => {
                panic!("the sensor closed the connection: {reason}")
            }
        }
        self.close_sensor();
    }

    /// Closes the sensor's connection. What it has sent may still arrive.
    fn close_sensor(&mut self) {
        let Some((connection, _)) = self.sensor.connection.take() else { return };
        self.sensor.spool.rewind();
        self.sensor.retry = None;
        if self.has_faults() && self.rng.bool() {
            self.network.lose(connection, To::Collector);
        }
        self.network.close(connection, To::Collector, self.now, &mut self.rng);
    }

    // The collector.

    fn handle_requests(&mut self, connection: usize) {
        loop {
            let now = self.instant();
            let Some(connected) = self.collector.connections.get_mut(&connection) else { return };
            if connected.protocol.is_window_full() && !self.settle(connection, false) {
                return;
            }
            let Some(connected) = self.collector.connections.get_mut(&connection) else { return };
            let request = connected.protocol.poll(now);
            let Some((request, _)) = request.expect("the sensor follows the protocol") else { break };
            match request {
                Request::Hello(hello) => {
                    if !self.settle(connection, false) {
                        return;
                    }
                    if self.has_faults() && self.rng.u8(..) < 20 {
                        return self.end_busy(connection, BusyReason::Overload);
                    }
                    let Some(connected) = self.collector.connections.get_mut(&connection) else { return };
                    match connected.protocol.check_hello(&hello) {
                        Ok(version) => {
                            self.coverage.epochs_continued += u64::from(connected.protocol.epoch().is_some());
                            connected.settlement = Rc::default();
                            let durable = self.collector.store.durable(hello.epoch);
                            connected.protocol.welcome(&hello, version, durable);
                        }
                        Err(error @ (HelloError::Violation(_) | HelloError::Version)) => panic!("{error}"),
                    }
                }
                Request::Hit { sequence, bytes, ack, .. } => {
                    assert!(sequence <= SEQUENCE_MAX);
                    self.queue(connection, Entry::Hit { sequence, bytes }, ack);
                }
                Request::Gap { gap, ack } => self.queue(connection, Entry::Gap(gap), ack),
                Request::Status(_) => {
                    if !self.settle(connection, true) {
                        return;
                    }
                }
            }
        }
        self.flush_collector(connection);
    }

    fn queue(&mut self, connection: usize, entry: Entry, ack: u64) {
        let Some(connected) = self.collector.connections.get_mut(&connection) else { return };
        let epoch = connected.protocol.epoch().expect("a frame follows a HELLO");
        let settlement = Rc::clone(&connected.settlement);
        connected.protocol.passed_to_store();
        self.collector.queue.push_back(Ticket { connection, epoch, entry, ack, settlement });
        self.plan_commit();
    }

    fn plan_commit(&mut self) {
        if !self.is_commit_planned && !self.collector.queue.is_empty() {
            self.is_commit_planned = true;
            let delay = self.rng.u64(0..=self.commit_max);
            self.plan(self.now + delay, Planned::Commit);
        }
    }

    /// Stores a batch, or fails to.
    fn commit(&mut self) {
        self.is_commit_planned = false;
        let len = self.rng.usize(1..10).min(self.collector.queue.len());
        let batch: Vec<Ticket> = self.collector.queue.drain(..len).collect();
        let fails = self.has_faults() && self.failing > 0 && self.rng.u64(..self.failing) == 0;
        // Either the whole batch, of which a part may be durable nevertheless, or single frames.
        let fails_as_a_whole = fails && self.rng.bool();
        self.coverage.failed_batches += u64::from(fails_as_a_whole);
        for ticket in &batch {
            let fails_alone = fails && self.rng.bool();
            if fails_as_a_whole {
                if fails_alone && !ticket.is_poison(self.poison) {
                    ticket.store(&mut self.collector.store);
                }
                ticket.settlement.borrow_mut().failed(BusyReason::StoreFailed);
            } else if fails_alone {
                ticket.settlement.borrow_mut().failed(BusyReason::Overload);
            } else if ticket.is_poison(self.poison) {
                let refused = ticket.refuse(&mut self.collector.store);
                let Entry::Hit { sequence, .. } = ticket.entry else { panic!("only hits are refused") };
                self.refused.insert((epoch_index(ticket.epoch), sequence));
                self.coverage.refused += 1;
                ticket.settlement.borrow_mut().refused(ticket.ack, refused);
            } else {
                ticket.store(&mut self.collector.store);
                ticket.settlement.borrow_mut().durable(ticket.ack);
            }
        }
        let connections: BTreeSet<usize> = batch.iter().map(|ticket| ticket.connection).collect();
        for connection in connections {
            if self.settle(connection, false) {
                self.flush_collector(connection);
            }
        }
        self.plan_commit();
    }

    /// Reports the progress of the store on a connection. Returns false if the connection was closed.
    fn settle(&mut self, connection: usize, is_status: bool) -> bool {
        let Some(connected) = self.collector.connections.get_mut(&connection) else { return false };
        let report = connected.settlement.borrow_mut().report();
        let result = if is_status {
            connected.protocol.answer_status(report)
        } else {
            connected.protocol.settle(report)
        };
        match result {
            Ok(()) => true,
            Err(reason) => {
                self.end_busy(connection, reason);
                false
            }
        }
    }

    fn end_busy(&mut self, connection: usize, reason: BusyReason) {
        if let Some(connected) = self.collector.connections.get_mut(&connection) {
            connected.protocol.busy(reason, self.rng.u32(0..3000));
        }
        self.flush_collector(connection);
        self.close_collector(connection);
    }

    fn close_collector(&mut self, connection: usize) {
        self.collector.connections.remove(&connection);
        self.network.close(connection, To::Sensor, self.now, &mut self.rng);
    }

    fn flush_collector(&mut self, connection: usize) {
        let Some(connected) = self.collector.connections.get_mut(&connection) else { return };
        let output = connected.protocol.take_output();
        self.network.send(connection, To::Sensor, &output, self.now, &mut self.rng);
    }

    fn check_collector_timeouts(&mut self) {
        let now = self.instant();
        let connections = self.collector.connections.iter();
        let late: Vec<(usize, SensorTimeout)> = connections
            .filter_map(|(connection, connected)| {
                Some((*connection, connected.protocol.check_timeouts(now).err()?))
            })
            .collect();
        for (connection, _) in late {
            self.coverage.timeouts += 1;
            self.close_collector(connection);
        }
    }

    // The oracle.

    /// Whatever was just acknowledged is durable, or its loss is.
    fn check_acknowledgements(&mut self) {
        for number in std::mem::take(&mut self.sensor.spool.newly_acknowledged) {
            assert!(self.collector.store.has(number), "{number:?} was acknowledged but is not durable");
        }
    }

    fn check_end(&mut self) {
        let (store, spool) = (&self.collector.store, &self.sensor.spool);
        let mut stored_hits = BTreeSet::new();
        for (number, offered) in &spool.offered {
            let is_stored = store.hits.contains_key(number);
            let is_lost = store.lost.contains(number);
            assert!(is_stored != is_lost, "{number:?} is stored: {is_stored}, lost: {is_lost}");
            let is_refused = self.refused.contains(number);
            let is_counted = self.counted_refused.contains(number);
            assert!(
                is_counted || !is_refused || offered.is_dropped,
                "{number:?} was refused but not counted"
            );
            assert!(!is_lost || offered.is_dropped || is_refused, "{number:?} was lost without a reason");
            if is_stored {
                assert!(stored_hits.insert(offered.hit), "hit {} is stored twice", offered.hit);
            }
        }
        assert_eq!(store.hits.len() + store.lost.len(), spool.offered.len(), "gaps add up");
        assert_eq!(spool.refused, self.counted_refused, "every counted hit is reported once");
        self.coverage.repeated += store.repeated;
        self.coverage.lost += store.lost.len() as u64;
    }
}
