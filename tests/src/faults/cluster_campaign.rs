//! A campaign against a cluster: stateless collectors, sinks and three nats-servers are killed, changed, deleted or locked
//! out at random.
//!
//! The promise: an acknowledged hit reaches the sink, unless somebody deletes its stream first; a hit that is repeated
//! within the duplicate window is stored once. Sinks may receive a hit again after a crash.

mod admin;
mod audit;

use super::Cluster;
use super::batch::Batch;
use super::client::{Effort, deliver};
use super::hosts::{Collector, tail};
use super::programs::{PATIENCE, Programs, Running, command, wait_for};
use super::rng::Rng;
use admin::Admin;
use audit::Audit;
use serde::Serialize;
use std::collections::HashSet;
use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const NODES: usize = 3;
const COLLECTORS: usize = 2;
const DRAINS: usize = 2;
const SENSORS: usize = 4;
/// Number of hits in one epoch of a sensor.
const BATCH: usize = 100;
/// Minimum time between two killed nodes. After a restart an election takes 4 to 9 s, and three replicas tolerate the loss
/// of only one node.
const SETTLE_TIME: Duration = Duration::from_secs(12);
/// Maximum time for the sinks to deliver the rest at the end.
const DRAIN_TIME: Duration = Duration::from_mins(3);
/// Maximum time for the cluster to delete a stream and for a collector to create it again.
const DELETION_TIME: Duration = Duration::from_mins(1);
/// Maximum time for a sensor to deliver a batch; on a busy machine several elections may happen meanwhile.
const DELIVERY_TIME: Duration = Duration::from_mins(10);
/// Period in which a repeated hit is recognised, in seconds.
pub(super) const DUPLICATE_WINDOW: u64 = 120;
const PASSWORD: &str = "p:w@1";
const LOGIN: &str = "etwsieve:p%3Aw%401@";

/// An epoch and a sequence number in it.
pub(super) type Key = (u128, u64);

/// The faults that happened, and the result.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ClusterOutcome {
    /// The seed.
    pub seed: u64,
    /// Duration of the faults, in seconds.
    pub seconds: u64,
    /// Number of killed nats-servers.
    pub node_kills: u64,
    /// Number of killed collectors.
    pub collector_kills: u64,
    /// Number of killed drains.
    pub drain_kills: u64,
    /// Streams whose settings were changed in a way that would lose hits.
    pub streams_changed: u64,
    /// Streams that were deleted.
    pub streams_deleted: u64,
    /// Consumers that were deleted.
    pub consumers_deleted: u64,
    /// Number of times that the servers refused the collectors' login.
    pub lockouts: u64,
    /// Connections of sensors, including failed attempts.
    pub connections: u64,
    /// Acknowledged hits.
    pub sent: u64,
    /// Of these, the hits that sinks have received.
    pub delivered: u64,
    /// Of these, the hits that sinks had not received when somebody deleted their stream.
    pub forfeited: u64,
    /// Of these, the hits that are missing for no permitted reason.
    pub lost: u64,
    /// Hits that a stream contains twice although they were repeated within the duplicate window.
    pub doubled: u64,
    /// Hits that were repeated later and stored again, which is permitted.
    pub late: u64,
    /// Records that sinks received more than once, which is permitted.
    pub redelivered: u64,
}

impl ClusterOutcome {
    /// Returns true if no hit was lost or doubled.
    pub fn is_kept(&self) -> bool {
        self.lost == 0 && self.doubled == 0
    }
}

/// The hits that sensors have sent so far.
#[derive(Default)]
struct Sent {
    offered: HashSet<Key>,
    acknowledged: HashSet<Key>,
    forfeitable: HashSet<Key>,
    connections: u64,
}

/// The state that the threads of the sensors share.
struct Shared {
    sent: Mutex<Sent>,
    stop: AtomicBool,
    epochs: AtomicU64,
    addresses: Vec<SocketAddr>,
}

impl Shared {
    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a sensor: delivers one epoch after the other, each completely.
    fn send(&self, number: usize, mut rng: Rng) -> io::Result<()> {
        while !self.stop.load(Ordering::Acquire) {
            let epoch =
                u128::from(self.epochs.fetch_add(1, Ordering::Relaxed)) << 64 | u128::from(rng.word());
            let batch = Batch::new(&format!("s{number}-{epoch:x}"), BATCH, 50..2000, &mut rng);
            let keys = |last: usize| (1..=last as u64).map(move |sequence| (epoch, sequence));
            self.sent().offered.extend(keys(BATCH));
            let hits = batch.hits();
            let Effort { connections, failures } =
                deliver(&self.addresses, epoch.to_be_bytes(), &hits, DELIVERY_TIME, &mut rng)?;
            let mut sent = self.sent();
            sent.acknowledged.extend(keys(BATCH));
            sent.connections += connections + failures;
            drop(sent);
            thread::sleep(Duration::from_millis(rng.within(0..100)));
        }
        Ok(())
    }
}

struct Drain {
    config: PathBuf,
    file: PathBuf,
    log: PathBuf,
    running: Option<Running>,
}

impl Drain {
    fn keep_running(&mut self) -> io::Result<()> {
        if self.running.as_mut().is_none_or(|running| running.ended().is_some()) {
            let mut drain = command(&Programs::find().collector, ["drain", "--config"]);
            drain.arg(&self.config);
            self.running = Some(Running::start(drain, &self.log)?);
        }
        Ok(())
    }
}

struct Campaign {
    place: PathBuf,
    rng: Rng,
    cluster: Cluster,
    collectors: Vec<Collector>,
    drains: Vec<Drain>,
    admin: Admin,
    audit: Audit,
    shared: Arc<Shared>,
    sensors: Vec<JoinHandle<io::Result<()>>>,
    outcome: ClusterOutcome,
    last_node_kill: Option<Instant>,
}

/// Runs a campaign with its files below `place`. Returns `None` if nats-server is not installed.
///
/// # Errors
///
/// Errors of the file system and of starting programs; `TimedOut` with logs if hits do not arrive after the last fault.
pub fn run_cluster(seed: u64, time: Duration, place: &Path) -> io::Result<Option<ClusterOutcome>> {
    Programs::find();
    let Some(cluster) = Cluster::start_with(place, NODES, &users(PASSWORD)) else { return Ok(None) };
    let mut campaign = Campaign::new(seed, place, cluster)?;
    let start = Instant::now();
    while start.elapsed() < time {
        campaign.fault()?;
        let pause = Duration::from_millis(campaign.rng.within(300..2000));
        let until = Instant::now() + pause;
        while Instant::now() < until {
            campaign.supervise()?;
            thread::sleep(Duration::from_millis(50));
        }
    }
    campaign.outcome.seconds = start.elapsed().as_secs();
    campaign.settle().map(Some)
}

/// Configuration with a user for the collectors, who has this password, and a user for the campaign itself.
fn users(password: &str) -> String {
    format!(
        "authorization {{ users: [ {{ user: etwsieve, password: {password:?} }}, {{ user: admin, password: admin }} ] }}"
    )
}

impl Campaign {
    fn new(seed: u64, place: &Path, cluster: Cluster) -> io::Result<Self> {
        let mut rng = Rng::new(seed);
        let url = cluster.url_with(LOGIN);
        let nats = format!("replicas = {NODES}\nduplicate_window_seconds = {DUPLICATE_WINDOW}\n");
        let mut collectors = Vec::new();
        for number in 0..COLLECTORS {
            let folder = place.join(format!("c{number}"));
            fs::create_dir_all(&folder)?;
            let collector = Collector::new(&folder, &["--insecure-loopback"])?.before_cluster(&url);
            let mut config = fs::OpenOptions::new().append(true).open(folder.join("collector.toml"))?;
            write!(config, "{nats}[[sink]]\ntype = 'jsonl'\nname = 'file'\npath = 'unused.jsonl'\n")?;
            collectors.push(collector);
        }
        for collector in &mut collectors {
            collector.start_and_wait()?;
        }
        let mut drains = Vec::new();
        for number in 0..DRAINS {
            let name = |what: &str| place.join(format!("drain{number}{what}"));
            let (config, file, log) = (name(".toml"), name(".jsonl"), name(".log"));
            let text = format!(
                "store = '{url}'\n[nats]\nmax_gb = 1\n{nats}[[sink]]\ntype = 'jsonl'\nname = 'file'\npath = '{}'\n",
                file.display()
            );
            fs::write(&config, text)?;
            drains.push(Drain { config, file, log, running: None });
        }
        let shared = Arc::new(Shared {
            sent: Mutex::default(),
            stop: AtomicBool::new(false),
            epochs: AtomicU64::new(1),
            addresses: collectors.iter().map(|collector| collector.address).collect(),
        });
        let sensors = (0..SENSORS).map(|number| {
            let (shared, rng) = (Arc::clone(&shared), rng.fork());
            thread::spawn(move || shared.send(number, rng))
        });
        let sensors = sensors.collect();
        let admin = Admin::connect(&cluster.url_with("admin:admin@"))?;
        let audit = Audit::start(&admin);
        let outcome = ClusterOutcome { seed, ..ClusterOutcome::default() };
        let place = place.to_owned();
        let last_node_kill = None;
        Ok(Self {
            place,
            rng,
            cluster,
            collectors,
            drains,
            admin,
            audit,
            shared,
            sensors,
            outcome,
            last_node_kill,
        })
    }

    /// Restarts programs that have ended, as a service manager does.
    fn supervise(&mut self) -> io::Result<()> {
        self.collectors.iter_mut().try_for_each(Collector::start)?;
        self.drains.iter_mut().try_for_each(Drain::keep_running)?;
        match self.sensors.iter().position(JoinHandle::is_finished) {
            Some(ended) => match self.sensors.swap_remove(ended).join() {
                Ok(Err(error)) => Err(error),
                _ => Err(io::Error::other("a sensor has ended")),
            },
            None => Ok(()),
        }
    }

    fn fault(&mut self) -> io::Result<()> {
        match self.rng.within(0..100) {
            0..20 => self.kill_node(),
            20..45 => {
                let at = self.rng.within(0..COLLECTORS as u64) as usize;
                self.outcome.collector_kills += u64::from(self.collectors[at].kill());
            }
            45..65 => {
                let at = self.rng.within(0..DRAINS as u64) as usize;
                let killed = self.drains[at].running.take().is_some_and(|mut running| running.kill());
                self.outcome.drain_kills += u64::from(killed);
            }
            65..80 => self.outcome.streams_changed += u64::from(self.admin.change_stream(&mut self.rng)),
            80..86 => self.outcome.consumers_deleted += u64::from(self.admin.delete_consumer()),
            86..90 => self.outcome.streams_deleted += u64::from(self.admin.delete_side_stream(&mut self.rng)),
            90..93 => self.delete_stream()?,
            _ => self.lock_out(),
        }
        Ok(())
    }

    fn kill_node(&mut self) {
        if self.last_node_kill.is_some_and(|last| last.elapsed() < SETTLE_TIME) {
            return;
        }
        let node = self.rng.within(0..NODES as u64) as usize;
        self.cluster.kill(node);
        self.outcome.node_kills += 1;
        thread::sleep(Duration::from_millis(self.rng.within(100..900)));
        self.cluster.restart(node);
        self.last_node_kill = Some(Instant::now());
    }

    /// Deletes the stream. Hits that the sinks have not received at that moment, or that are in flight, may be lost.
    fn delete_stream(&mut self) -> io::Result<()> {
        let Some(life) = self.admin.life() else { return Ok(()) };
        // A request that timed out may still be executed later.
        self.admin.delete_stream();
        let begun = Instant::now();
        while self.admin.life().is_none_or(|now| now == life) {
            if begun.elapsed() > DELETION_TIME {
                return Ok(());
            }
            self.supervise()?;
            thread::sleep(Duration::from_millis(100));
        }
        self.outcome.streams_deleted += 1;
        thread::sleep(Duration::from_secs(1));
        let delivered = self.delivered()?.0;
        let mut sent = self.shared.sent();
        let missing: Vec<Key> = sent.offered.difference(&delivered).copied().collect();
        sent.forfeitable.extend(missing);
        Ok(())
    }

    fn lock_out(&mut self) {
        self.cluster.reconfigure(&users("changed"));
        thread::sleep(Duration::from_millis(self.rng.within(500..4000)));
        self.cluster.reconfigure(&users(PASSWORD));
        self.outcome.lockouts += 1;
    }

    /// Returns the hits in the files of the sinks, and the number of records that repeat one.
    fn delivered(&self) -> io::Result<(HashSet<Key>, u64)> {
        let (mut found, mut again) = (HashSet::new(), 0);
        for drain in &self.drains {
            let Ok(file) = fs::File::open(&drain.file) else { continue };
            for line in io::BufReader::new(file).lines() {
                // The last line may be incomplete.
                let Ok(line) = serde_json::from_str::<serde_json::Value>(&line?) else { continue };
                let epoch = line["epoch"].as_str().and_then(|text| u128::from_str_radix(text, 16).ok());
                let (Some(epoch), Some(sequence)) = (epoch, line["sequence"].as_u64()) else {
                    return Err(io::Error::other(format!("a record without a sequence number: {line}")));
                };
                again += u64::from(!found.insert((epoch, sequence)));
            }
        }
        Ok((found, again))
    }

    /// Ends the campaign: without further faults everything must arrive.
    fn settle(mut self) -> io::Result<ClusterOutcome> {
        self.shared.stop.store(true, Ordering::Release);
        let limit = Instant::now() + DELIVERY_TIME;
        while !self.sensors.iter().all(JoinHandle::is_finished) {
            self.collectors.iter_mut().try_for_each(Collector::start)?;
            self.drains.iter_mut().try_for_each(Drain::keep_running)?;
            if Instant::now() > limit {
                return Err(self.stuck("the sensors cannot deliver their hits"));
            }
            thread::sleep(Duration::from_millis(50));
        }
        for sensor in std::mem::take(&mut self.sensors) {
            sensor.join().map_err(|_| io::Error::other("a sensor has panicked"))??;
        }
        // Until nothing is missing, or until nothing has arrived for so long that the rest is lost.
        let (mut best, mut since) = (0, Instant::now());
        let missing = |campaign: &Self| -> io::Result<(usize, usize, u64)> {
            let (delivered, again) = campaign.delivered()?;
            let sent = campaign.shared.sent();
            let missing = sent.acknowledged.difference(&delivered);
            let (excused, lost): (Vec<Key>, Vec<Key>) =
                missing.partition(|key| sent.forfeitable.contains(key));
            Ok((lost.len(), excused.len(), again))
        };
        let outcome = loop {
            self.drains.iter_mut().try_for_each(Drain::keep_running)?;
            let (lost, forfeited, again) = missing(&self)?;
            let delivered = self.delivered()?.0.len();
            if delivered > best {
                (best, since) = (delivered, Instant::now());
            }
            if (lost == 0 && since.elapsed() > Duration::from_secs(5)) || since.elapsed() > DRAIN_TIME {
                break (lost, forfeited, again);
            }
            thread::sleep(Duration::from_millis(500));
        };
        let (lost, forfeited, again) = outcome;
        let repeated = self.audit.finish(Duration::from_secs(30));
        {
            let sent = self.shared.sent();
            self.outcome.sent = sent.acknowledged.len() as u64;
            self.outcome.connections = sent.connections;
        }
        self.outcome.delivered = self.outcome.sent - lost as u64 - forfeited as u64;
        (self.outcome.lost, self.outcome.forfeited) = (lost as u64, forfeited as u64);
        (self.outcome.doubled, self.outcome.late) = (repeated.doubled, repeated.late);
        self.outcome.redelivered = again;
        if lost > 0 {
            eprintln!("{}", self.stuck("hits are missing"));
        }
        for collector in &mut self.collectors {
            let ended = wait_for(PATIENCE, || collector.stop().ok());
            if ended.is_none() {
                eprintln!("a collector does not end: {}", tail(&collector.log));
            }
        }
        Ok(self.outcome)
    }

    fn stuck(&self, what: &str) -> io::Error {
        let logs = self.collectors.iter().map(|it| &it.log).chain(self.drains.iter().map(|it| &it.log));
        let logs: Vec<String> = logs.map(|log| tail(log)).collect();
        let place = self.place.display();
        io::Error::new(io::ErrorKind::TimedOut, format!("{what} ({place})\n{}", logs.join("\n")))
    }
}
