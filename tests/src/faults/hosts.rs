//! A collector and a sensor, each with its disk, that can crash and be restarted.

use super::batch::Batch;
use super::programs::{Disk, Programs, Running, command, free_address, listens, wait_for};
use super::rng::Rng;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// A collector; by default with the embedded store.
#[derive(Debug)]
pub struct Collector {
    /// Its files.
    pub disk: Disk,
    /// The address on which it listens.
    pub address: SocketAddr,
    /// Standard output and standard error of all its processes.
    pub log: PathBuf,
    arguments: Vec<String>,
    /// URL of the cluster that is its store, if any.
    cluster: Option<String>,
    has_shim: bool,
    running: Option<Running>,
}

impl Collector {
    /// Prepares a collector with its files below `place`; `arguments` follow those that every collector needs. Does not
    /// start it.
    ///
    /// # Errors
    ///
    /// Errors of creating folders and of finding a free port.
    pub fn new(place: &Path, arguments: &[&str]) -> io::Result<Self> {
        // Without TLS all sensors have the same name, so the limit for one sensor applies to all of them together.
        let config = place.join("collector.toml");
        fs::write(&config, "[limits]\nconnections_per_sensor_max = 20000\n[nats]\nmax_gb = 1\n")?;
        Ok(Self {
            disk: Disk::new(place, "collector")?,
            address: free_address()?,
            log: place.join("collector.log"),
            arguments: std::iter::once(format!("--config={}", config.display()))
                .chain(arguments.iter().map(|&argument| argument.to_owned()))
                .collect(),
            cluster: None,
            has_shim: true,
            running: None,
        })
    }

    /// Uses a cluster as the store.
    #[must_use]
    pub fn before_cluster(mut self, url: &str) -> Self {
        self.cluster = Some(url.to_owned());
        self.without_shim()
    }

    /// With the disk as it is: real syncs, no image, no power losses.
    #[must_use]
    pub fn without_shim(mut self) -> Self {
        self.has_shim = false;
        self
    }

    /// Path of the embedded store.
    pub fn store(&self) -> PathBuf {
        self.disk.folder.join("hits.db")
    }

    /// Starts the collector unless it is running.
    ///
    /// # Errors
    ///
    /// Errors of starting it.
    pub fn start(&mut self) -> io::Result<()> {
        if self.runs() {
            return Ok(());
        }
        let mut command =
            command(&Programs::find().collector, ["serve", "--listen", &self.address.to_string(), "--store"]);
        match &self.cluster {
            Some(url) => command.arg(url),
            None => command.arg(self.store()),
        };
        command.args(&self.arguments);
        if self.has_shim {
            self.disk.attach(&mut command);
        }
        self.running = Some(Running::start(command, &self.log)?);
        Ok(())
    }

    /// Starts the collector and waits until it listens.
    ///
    /// # Errors
    ///
    /// Errors of starting it; `TimedOut` with its log if it does not listen within 20 seconds.
    pub fn start_and_wait(&mut self) -> io::Result<()> {
        self.start()?;
        let address = self.address;
        match wait_for(Duration::from_secs(20), || listens(address).then_some(())) {
            Some(()) => Ok(()),
            None => Err(io::Error::new(io::ErrorKind::TimedOut, tail(&self.log))),
        }
    }

    /// Returns whether its process runs.
    pub fn runs(&mut self) -> bool {
        self.running.as_mut().is_some_and(|running| running.ended().is_none())
    }

    /// Returns how its process ended, if it did so by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.running.as_mut().and_then(Running::ended)
    }

    /// Kills the process with SIGKILL. Returns whether it was running.
    pub fn kill(&mut self) -> bool {
        self.running.take().is_some_and(|mut running| running.kill())
    }

    /// Requests the collector to stop and waits for its end.
    ///
    /// # Errors
    ///
    /// `TimedOut` with its log if it does not end or fails.
    pub fn stop(&mut self) -> io::Result<()> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        running.terminate();
        match running.wait() {
            Some(status) if status.success() => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::TimedOut, tail(&self.log))),
        }
    }

    /// Processor time that the collector has used, in clock ticks.
    ///
    /// # Errors
    ///
    /// `NotFound` if it does not run.
    pub fn processor_ticks(&self) -> io::Result<u64> {
        let id = self.running.as_ref().ok_or(io::ErrorKind::NotFound)?.id();
        let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
        // The name may contain anything. State and numbers follow it; user and system time are fields 12 and 13.
        let numbers = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let times = numbers.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        let times: Result<Vec<u64>, _> = times.collect();
        times.map(|times| times.iter().sum()).map_err(io::Error::other)
    }

    /// Resident memory of the collector, in bytes.
    ///
    /// # Errors
    ///
    /// `NotFound` if it does not run.
    pub fn resident_bytes(&self) -> io::Result<u64> {
        let id = self.running.as_ref().ok_or(io::ErrorKind::NotFound)?.id();
        let status = fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes: u64 = line
            .and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
            .ok_or(io::ErrorKind::InvalidData)?;
        Ok(kilobytes * 1024)
    }
}

/// A sensor that replays traces.
#[derive(Debug)]
pub struct Sensor {
    /// Its spool.
    pub disk: Disk,
    /// Standard error of all its processes.
    pub log: PathBuf,
    arguments: Vec<String>,
    has_shim: bool,
    running: Option<Running>,
}

impl Sensor {
    /// Prepares a sensor with its files below `place`; `arguments` follow those that every sensor needs.
    ///
    /// # Errors
    ///
    /// Errors of creating folders.
    pub fn new(place: &Path, name: &str, arguments: &[&str]) -> io::Result<Self> {
        Ok(Self {
            disk: Disk::new(place, name)?,
            log: place.join(format!("{name}.log")),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            has_shim: true,
            running: None,
        })
    }

    /// With the disk as it is: real syncs, no image, no power losses.
    #[must_use]
    pub fn without_shim(mut self) -> Self {
        self.has_shim = false;
        self
    }

    /// Path of the spool.
    pub fn spool(&self) -> PathBuf {
        self.disk.folder.join("spool.db")
    }

    /// Starts a replay of a trace that sends hits to one of these collectors.
    ///
    /// # Errors
    ///
    /// Errors of starting it.
    pub fn start(&mut self, trace: &Path, collectors: &[SocketAddr]) -> io::Result<()> {
        let mut command = command(&Programs::find().sensor, ["replay", "--format", "jsonl"]);
        for collector in collectors {
            command.args(["--collector", &collector.to_string()]);
        }
        command.arg("--spool").arg(self.spool()).args(&self.arguments).arg(trace);
        if self.has_shim {
            self.disk.attach(&mut command);
        }
        self.running = Some(Running::start(command, &self.log)?);
        Ok(())
    }

    /// Returns how its process ended, if it did so by itself, and forgets the process.
    pub fn take_ended(&mut self) -> Option<ExitStatus> {
        let ended = self.running.as_mut().and_then(Running::ended);
        if ended.is_some() {
            self.running = None;
        }
        ended
    }

    /// Waits for the end of its process.
    pub fn wait(&mut self) -> Option<ExitStatus> {
        self.running.as_mut().and_then(Running::wait)
    }

    /// Returns whether its process runs.
    pub fn runs(&mut self) -> bool {
        self.running.as_mut().is_some_and(|running| running.ended().is_none())
    }

    /// Kills the process with SIGKILL. Returns whether it was running.
    pub fn kill(&mut self) -> bool {
        self.running.take().is_some_and(|mut running| running.kill())
    }

    /// Replays a batch without faults; repeats the replay if it fails, at most twice.
    ///
    /// # Errors
    ///
    /// Errors of the file system; `TimedOut` with its log if no replay succeeds.
    pub fn deliver(&mut self, batch: &Batch, place: &Path, collectors: &[SocketAddr]) -> io::Result<()> {
        let trace = batch.write(place)?;
        for _ in 0..3 {
            self.start(&trace, collectors)?;
            if self.wait().is_some_and(|status| status.success()) {
                return Ok(());
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, tail(&self.log)))
    }

    /// Delivers the hits in the spool by replaying an empty trace.
    ///
    /// # Errors
    ///
    /// Same as [`deliver`](Self::deliver).
    pub fn drain(&mut self, place: &Path, collectors: &[SocketAddr]) -> io::Result<()> {
        self.deliver(&Batch::new("nothing", 0, 0..1, &mut Rng::new(0)), place, collectors)
    }
}

/// Returns the last 3,000 bytes of a log.
pub fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let from = text.floor_char_boundary(text.len().saturating_sub(3000));
    format!("{}:\n{}", log.display(), &text[from..])
}
