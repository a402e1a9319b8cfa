//! The programs under test as processes: built as users build them, started, killed, waited for.

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

/// Longest time until a program must have done what is waited for. A test that gets there has failed.
pub const PATIENCE: Duration = Duration::from_mins(2);
const TICK: Duration = Duration::from_millis(5);

/// Where the programs lie.
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

/// A folder of a program's files whose power can be cut.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The files.
    pub folder: PathBuf,
    image: PathBuf,
    control: PathBuf,
}

impl Disk {
    /// An empty one below `place`.
    ///
    /// # Errors
    ///
    /// Those of making folders.
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

    /// Puts the shim between a program and these files.
    pub fn attach(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &Programs::find().shim);
        command.env("ETWSIEVE_FAULT_FOLDER", &self.folder);
        command.env("ETWSIEVE_FAULT_IMAGE", &self.image);
        command.env("ETWSIEVE_FAULT_CONTROL", &self.control);
    }

    /// What goes wrong from now on, in the words of the shim.
    ///
    /// # Errors
    ///
    /// Those of writing the file.
    pub fn control(&self, words: &str) -> io::Result<()> {
        // By a rename, so that no call sees half of it.
        let part = self.control.with_extension("part");
        fs::write(&part, words)?;
        fs::rename(part, &self.control)
    }

    /// Errors that were made up so far: of syncs, of writes.
    pub fn injected(&self) -> (u64, u64) {
        let marks = fs::read(self.image.join("injected")).unwrap_or_default();
        let count = |mark| marks.iter().map(|byte| u64::from(*byte == mark)).sum::<u64>();
        (count(b's'), count(b'w'))
    }

    /// The power is cut; the program must have been killed.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn lose_power(&self, rng: &mut Rng) -> io::Result<Loss> {
        lose_power(&self.folder, &self.image, rng)
    }
}

/// A program that runs; dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Standard error.
    pub log: PathBuf,
}

impl Running {
    /// Starts a program; what it says goes to `log`, behind what is there.
    ///
    /// # Errors
    ///
    /// Those of starting it.
    pub fn start(mut command: Command, log: &Path) -> io::Result<Self> {
        let file = fs::OpenOptions::new().append(true).create(true).open(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(Self { child: command.spawn()?, log: log.to_owned() })
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end, as long as [`PATIENCE`] lasts; `None`: it goes on.
    pub fn wait(&mut self) -> Option<ExitStatus> {
        wait_for(PATIENCE, || self.ended())
    }

    /// SIGKILL; whether it was still running.
    pub fn kill(&mut self) -> bool {
        let was_running = self.ended().is_none();
        let _ = self.child.kill();
        let _ = self.child.wait();
        was_running
    }

    /// SIGTERM: a polite request to end.
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

/// Asks again and again, until there is an answer or the time is up.
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

/// A port of the loopback interface that is free at this moment.
///
/// # Errors
///
/// Those of listening.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Whether somebody listens there.
pub fn listens(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

/// A command without settings of whoever runs the tests.
pub fn command<A: AsRef<OsStr>>(program: &Path, args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(program);
    command.args(args).env_remove("ETWSIEVE_LOG");
    command
}
