//! The programs under test as processes: builds, starts, kills them and waits for them.

use super::rng::Rng;
use super::{lose_power, power::Loss};
use crate::program::{Program, build, profile_folder};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// Maximum time to wait for a program. A test that reaches it has failed.
pub const PATIENCE: Duration = Duration::from_mins(2);
const TICK: Duration = Duration::from_millis(5);

/// Paths of the programs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The sensor.
    pub sensor: PathBuf,
    /// The collector.
    pub collector: PathBuf,
    /// The fault shim.
    pub shim: PathBuf,
}

impl Programs {
    /// Builds the programs when it is first called, in the profile of this program, and returns their paths.
    ///
    /// # Panics
    ///
    /// Panics if they do not compile.
    pub fn find() -> &'static Self {
        static PROGRAMS: OnceLock<Programs> = OnceLock::new();
        PROGRAMS.get_or_init(|| {
            build(&["--package", "etwsieve-fault-shim"]);
            Self {
                sensor: Program::Etwsieve.path().to_owned(),
                collector: Program::Collector.path().to_owned(),
                shim: profile_folder().join("libetwsieve_fault_shim.so"),
            }
        })
    }
}

/// The folder of a program's files, which can lose power.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The files.
    pub folder: PathBuf,
    image: PathBuf,
    control: PathBuf,
}

impl Disk {
    /// Creates an empty folder below `place`.
    ///
    /// # Errors
    ///
    /// Errors of creating folders.
    pub fn new(place: &Path, name: &str) -> io::Result<Self> {
        let disk = Self {
            folder: place.join(name),
            image: place.join(format!("{name}.image")),
            control: place.join(format!("{name}.control")),
        };
        fs::create_dir_all(&disk.folder)?;
        fs::create_dir_all(&disk.image)?;
        fs::write(&disk.control, "")?;
        Ok(disk)
    }

    /// Makes a program use these files through the fault shim.
    pub fn attach(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &Programs::find().shim);
        command.env("ETWSIEVE_FAULT_FOLDER", &self.folder);
        command.env("ETWSIEVE_FAULT_IMAGE", &self.image);
        command.env("ETWSIEVE_FAULT_CONTROL", &self.control);
    }

    /// Sets the faults that happen from now on, in the words of the shim.
    ///
    /// # Errors
    ///
    /// Errors of writing the file.
    pub fn control(&self, words: &str) -> io::Result<()> {
        // A rename is atomic, so no call reads a part of the words.
        let part = self.control.with_extension("part");
        fs::write(&part, words)?;
        fs::rename(part, &self.control)
    }

    /// Returns the numbers of injected errors so far, of syncs and of writes.
    pub fn injected(&self) -> (u64, u64) {
        let marks = fs::read(self.image.join("injected")).unwrap_or_default();
        let count = |mark| marks.iter().map(|byte| u64::from(*byte == mark)).sum::<u64>();
        (count(b's'), count(b'w'))
    }

    /// Simulates a power loss; the program must have been killed.
    ///
    /// # Errors
    ///
    /// Errors of the file system.
    pub fn lose_power(&self, rng: &mut Rng) -> io::Result<Loss> {
        lose_power(&self.folder, &self.image, rng)
    }
}

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Standard error.
    pub log: PathBuf,
}

impl Running {
    /// Starts a program and appends its output to `log`.
    ///
    /// # Errors
    ///
    /// Errors of starting it.
    pub fn start(mut command: Command, log: &Path) -> io::Result<Self> {
        let file = fs::OpenOptions::new().append(true).create(true).open(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(Self { child: command.spawn()?, log: log.to_owned() })
    }

    /// Returns how the program ended; `None` if it is running.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until the program ends, for at most [`PATIENCE`]; `None` if it is still running.
    pub fn wait(&mut self) -> Option<ExitStatus> {
        wait_for(PATIENCE, || self.ended())
    }

    /// Kills the program with SIGKILL. Returns whether it was still running.
    pub fn kill(&mut self) -> bool {
        let was_running = self.ended().is_none();
        let _ = self.child.kill();
        let _ = self.child.wait();
        was_running
    }

    /// Requests the program to end with SIGTERM.
    pub fn terminate(&self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Calls `answer` repeatedly until it returns a value, for at most `limit`.
pub fn wait_for<T>(limit: Duration, mut answer: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = answer() {
            return Some(answer);
        }
        if start.elapsed() > limit {
            return None;
        }
        thread::sleep(TICK);
    }
}

/// Returns an address of the loopback interface whose port is free at this moment.
///
/// # Errors
///
/// Errors of listening.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Returns whether a program listens on this address.
pub fn listens(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

/// Returns a command without environment variables that would change the output.
pub fn command<A: AsRef<OsStr>>(program: &Path, args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(program);
    command.args(args).env_remove("ETWSIEVE_LOG");
    command
}
