//! A campaign: a collector and some sensors work while faults happen at random moments.

use super::account::{Account, Balance};
use super::batch::Batch;
use super::hosts::{Collector, Sensor, tail};
use super::ledger::Ledger;
use super::programs::{PATIENCE, Programs};
use super::proxy::{Acks, NetworkFaults, Proxy};
use super::rng::Rng;
use serde::Serialize;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(5);

/// The faults that may happen. Their numbers are weights: the relative probability of each when a fault is due.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seed of all random decisions.
    pub seed: u64,
    /// Number of faults after which the campaign ends.
    pub faults_max: u64,
    /// Time after which it ends at the latest.
    pub time: Duration,
    /// Number of sensors.
    pub sensors: usize,
    /// Minimum and maximum number of hits in a trace.
    pub hits: (u64, u64),
    /// Minimum and maximum time between two faults, in milliseconds.
    pub pause_ms: (u64, u64),
    /// SIGKILL of a sensor.
    pub kill_sensor: u64,
    /// SIGKILL of the collector.
    pub kill_collector: u64,
    /// Power loss of a sensor.
    pub power_sensor: u64,
    /// Power loss of the collector.
    pub power_collector: u64,
    /// The disk of a sensor or of the collector is full for a while.
    pub disk_full: u64,
    /// Syncs of a sensor or of the collector fail, once or for a while.
    pub sync_errors: u64,
    /// All connections of a sensor are closed.
    pub cut: u64,
    /// Faults of the network between sensors and collector.
    pub network: NetworkFaults,
    /// The collector acknowledges hits before it syncs them. The campaign must detect that.
    pub negative_control: bool,
}

impl Plan {
    /// A plan without faults.
    pub fn without_faults(seed: u64) -> Self {
        Self {
            seed,
            faults_max: 0,
            time: Duration::from_mins(1),
            sensors: 2,
            hits: (50, 300),
            pause_ms: (30, 300),
            kill_sensor: 0,
            kill_collector: 0,
            power_sensor: 0,
            power_collector: 0,
            disk_full: 0,
            sync_errors: 0,
            cut: 0,
            network: NetworkFaults::default(),
            negative_control: false,
        }
    }

    /// A plan with all kinds of faults.
    pub fn with_all_faults(seed: u64, time: Duration) -> Self {
        Self {
            faults_max: u64::MAX,
            time,
            sensors: 3,
            kill_sensor: 30,
            kill_collector: 20,
            power_sensor: 15,
            power_collector: 15,
            disk_full: 8,
            sync_errors: 8,
            cut: 8,
            network: NetworkFaults {
                cut: 30,
                half_open: 2,
                within_bytes: 400_000,
                delay_ms_max: 3,
                acks: Acks { dropped: 5, swapped: 5, doubled: 5, stale: 5 },
            },
            ..Self::without_faults(seed)
        }
    }
}

/// The faults that happened, and the balance at the end.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Running processes that were killed, including those killed by power losses.
    pub kills: u64,
    /// Power losses of sensors and of the collector.
    pub power_losses: u64,
    /// Of these, power losses that changed a file.
    pub torn: u64,
    /// Number of times that a disk was full and writes failed.
    pub disk_full: u64,
    /// Number of times that syncs failed.
    pub sync_errors: u64,
    /// Connections of sensors.
    pub connections: u64,
    /// Connections that the network closed.
    pub cut: u64,
    /// Connections that stayed open but no longer carried data.
    pub half_open: u64,
    /// ACKs that were dropped, delayed, duplicated or stale.
    pub acks: u64,
    /// Programs that ended by themselves with an error.
    pub failed_starts: u64,
    /// Hits that sensors dropped and reported with a GAP.
    pub given_up: u64,
    /// Hits that were sent, stored, lost, doubled or corrupt.
    #[serde(flatten)]
    pub balance: Balance,
}

/// A running campaign.
struct Campaign<'p> {
    plan: &'p Plan,
    place: PathBuf,
    rng: Rng,
    collector: Collector,
    sensors: Vec<SensorNode>,
    account: Account,
    outcome: Outcome,
    batches: u64,
    once: u64,
}

/// A sensor, the network in front of it, and the batch that it replays.
struct SensorNode {
    sensor: Sensor,
    proxy: Proxy,
    batch: Option<(Batch, PathBuf)>,
}

/// Runs a campaign with its files below `place`, which it does not clean up. Calls `progress` every second.
///
/// # Errors
///
/// Errors of the file system and of starting programs; `TimedOut` with logs if hits do not arrive after the last fault.
pub fn run(plan: &Plan, place: &Path, mut progress: impl FnMut(&Outcome)) -> io::Result<Outcome> {
    Programs::find();
    let mut campaign = Campaign::new(plan, place)?;
    let start = Instant::now();
    let (mut faults, mut next_fault) = (0, Duration::ZERO);
    let mut next_progress = Duration::from_secs(1);
    while faults < plan.faults_max && start.elapsed() < plan.time {
        campaign.work(true)?;
        if start.elapsed() >= next_fault {
            campaign.fault()?;
            faults += 1;
            let pause = campaign.rng.within(plan.pause_ms.0..plan.pause_ms.1 + 1);
            next_fault = start.elapsed() + Duration::from_millis(pause);
        }
        if start.elapsed() >= next_progress {
            next_progress += Duration::from_secs(1);
            campaign.count();
            progress(&campaign.outcome);
        }
        thread::sleep(TICK);
    }
    campaign.end_faults()?;
    campaign.settle()
}

impl<'p> Campaign<'p> {
    fn new(plan: &'p Plan, place: &Path) -> io::Result<Self> {
        let mut rng = Rng::new(plan.seed);
        let mut arguments = vec!["--insecure-loopback"];
        if plan.negative_control {
            arguments.push("--unsafe-ack-before-sync");
        }
        let mut collector = Collector::new(place, &arguments)?;
        collector.start_and_wait()?;
        let sensors = (0..plan.sensors).map(|number| {
            let sensor = Sensor::new(place, &format!("sensor{number}"), &["--insecure-loopback"])?;
            let proxy = Proxy::start(collector.address, plan.network, rng.fork())?;
            Ok(SensorNode { sensor, proxy, batch: None })
        });
        let sensors = sensors.collect::<io::Result<_>>()?;
        let outcome = Outcome { seed: plan.seed, ..Outcome::default() };
        let account = Account::default();
        Ok(Self {
            plan,
            place: place.to_owned(),
            rng,
            collector,
            sensors,
            account,
            outcome,
            batches: 0,
            once: 0,
        })
    }

    /// Starts programs that do not run; with `new`, also new batches. Returns whether something is still to be delivered.
    fn work(&mut self, new: bool) -> io::Result<bool> {
        if self.collector.ended().is_some() {
            self.outcome.failed_starts += 1;
            // Like a service manager, not in a tight loop.
            thread::sleep(Duration::from_millis(50));
        }
        self.collector.start()?;
        let mut is_busy = false;
        for node in &mut self.sensors {
            if let Some(status) = node.sensor.take_ended() {
                if status.success() {
                    if let Some((batch, trace)) = node.batch.take() {
                        self.account.due(&batch);
                        std::fs::remove_file(trace)?;
                    }
                } else {
                    self.outcome.failed_starts += 1;
                    thread::sleep(Duration::from_millis(20));
                }
            }
            if node.sensor.runs() {
                is_busy = true;
                continue;
            }
            if node.batch.is_none() && new {
                let count = self.rng.within(self.plan.hits.0..self.plan.hits.1 + 1) as usize;
                let batch = Batch::new(&format!("b{}", self.batches), count, 60..8000, &mut self.rng);
                self.batches += 1;
                self.account.offer(&batch);
                let trace = batch.write(&self.place)?;
                node.batch = Some((batch, trace));
            }
            if let Some((_, trace)) = &node.batch {
                node.sensor.start(trace, &[node.proxy.address()])?;
                is_busy = true;
            }
        }
        Ok(is_busy)
    }

    /// Injects one fault.
    fn fault(&mut self) -> io::Result<()> {
        let plan = self.plan;
        let weights = [
            plan.kill_sensor,
            plan.kill_collector,
            plan.power_sensor,
            plan.power_collector,
            plan.disk_full,
            plan.sync_errors,
            plan.cut,
        ];
        let mut drawn = self.rng.within(0..weights.iter().sum::<u64>());
        let kind = weights.iter().position(|weight| {
            let is_this = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            is_this
        });
        let which = self.rng.within(0..self.sensors.len() as u64) as usize;
        match kind {
            Some(0) => self.outcome.kills += u64::from(self.sensors[which].sensor.kill()),
            Some(1) => self.outcome.kills += u64::from(self.collector.kill()),
            Some(2) => {
                self.outcome.kills += u64::from(self.sensors[which].sensor.kill());
                let loss = self.sensors[which].sensor.disk.lose_power(&mut self.rng)?;
                self.outcome.power_losses += 1;
                self.outcome.torn += u64::from(loss.files > 0);
            }
            Some(3) => {
                self.outcome.kills += u64::from(self.collector.kill());
                let loss = self.collector.disk.lose_power(&mut self.rng)?;
                self.outcome.power_losses += 1;
                self.outcome.torn += u64::from(loss.files > 0);
            }
            Some(4) => self.disk(which, "write=enospc")?,
            Some(5) => {
                self.once += 1;
                let words = if self.rng.chance(50) {
                    format!("sync=eio-once:{}", self.once)
                } else {
                    "sync=eio".to_owned()
                };
                self.disk(which, &words)?;
            }
            Some(6) => self.sensors[which].proxy.cut_all(),
            _ => {}
        }
        Ok(())
    }

    /// Makes the disk of a sensor or of the collector fail for a moment.
    fn disk(&mut self, which: usize, words: &str) -> io::Result<()> {
        let is_collector = self.rng.chance(60);
        let millis = self.rng.within(20..500);
        let disk = if is_collector { &self.collector.disk } else { &self.sensors[which].sensor.disk };
        let disk = disk.clone();
        let before = disk.injected();
        disk.control(words)?;
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(millis) {
            self.work(true)?;
            thread::sleep(TICK);
        }
        disk.control("")?;
        let after = disk.injected();
        self.outcome.sync_errors += u64::from(after.0 > before.0);
        self.outcome.disk_full += u64::from(after.1 > before.1);
        Ok(())
    }

    fn count(&mut self) {
        let sum = |of: fn(&Proxy) -> u64| self.sensors.iter().map(|node| of(&node.proxy)).sum();
        self.outcome.connections = sum(|proxy| proxy.counts().connections.load(Ordering::Relaxed));
        self.outcome.cut = sum(|proxy| proxy.counts().cut.load(Ordering::Relaxed));
        self.outcome.half_open = sum(|proxy| proxy.counts().half_open.load(Ordering::Relaxed));
        self.outcome.acks = sum(|proxy| proxy.counts().acks.load(Ordering::Relaxed));
    }

    /// Ends all faults and waits until every batch is delivered.
    fn end_faults(&mut self) -> io::Result<()> {
        self.collector.disk.control("")?;
        for node in &self.sensors {
            node.sensor.disk.control("")?;
            node.proxy.set_faults(NetworkFaults::default());
            node.proxy.cut_all();
        }
        let start = Instant::now();
        while self.work(false)? {
            if start.elapsed() > PATIENCE {
                return Err(io::Error::new(io::ErrorKind::TimedOut, self.to_string()));
            }
            thread::sleep(TICK);
        }
        Ok(())
    }

    fn settle(mut self) -> io::Result<Outcome> {
        self.count();
        self.collector.stop()?;
        let store = self.collector.store();
        let ledger = Ledger::read(&store).map_err(io::Error::other)?;
        self.outcome.given_up = ledger.lost_by_gaps;
        let mut balance =
            self.account.compare_with_store(&store, ledger.lost_by_gaps).map_err(io::Error::other)?;
        balance.corrupt += ledger.dangling + ledger.conflicts;
        self.outcome.balance = balance;
        Ok(self.outcome)
    }
}

impl fmt::Display for Campaign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "hits do not arrive; {:?}", self.outcome)?;
        writeln!(f, "{}", tail(&self.collector.log))?;
        for node in self.sensors.iter().filter(|node| node.batch.is_some()) {
            writeln!(f, "{}", tail(&node.sensor.log))?;
        }
        Ok(())
    }
}
