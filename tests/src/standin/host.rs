//! Runs Windows programs against the stand-in: natively, or under Wine.

use super::{DLL, Machine, SCENARIO_VARIABLE, STATE_VARIABLE, imports};
use crate::corpus::repository;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use tempfile::TempDir;

const TARGET: &str = "x86_64-pc-windows-gnu";
const PACKAGES: [&str; 2] = ["etwsieve", "etwsieve-etw-standin"];
/// The profile of the program that users run.
const PROFILE: &str = "release";
/// Environment variable: with the value `required`, missing tools are an error instead of a reason to skip tests.
const REQUIRED_VARIABLE: &str = "ETWSIEVE_STANDIN";

/// Paths of Windows programs and the stand-in, and the way to start them.
#[derive(Clone, Debug)]
pub struct Host {
    programs: PathBuf,
    /// The script that starts Wine; `None` on Windows.
    runner: Option<PathBuf>,
}

impl Host {
    /// Builds the sensor and the stand-in for Windows in the release profile, if they are not up to date.
    ///
    /// Returns `None`, with a message on standard error, without Wine, mingw or the standard library of the target. A test
    /// that runs under Wine builds nothing and uses the programs beside it.
    ///
    /// # Panics
    ///
    /// If they do not compile; or, with `ETWSIEVE_STANDIN=required` in the environment, instead of `None`.
    pub fn find() -> Option<Self> {
        let found = if cfg!(windows) { Self::beside() } else { Self::cross() };
        match found {
            Ok(host) => Some(host),
            Err(reason) => {
                let is_required = env::var_os(REQUIRED_VARIABLE).is_some_and(|value| value == "required");
                assert!(!is_required, "the ETW stand-in cannot be used: {reason}");
                eprintln!("skipped: the ETW stand-in cannot be used: {reason}");
                None
            }
        }
    }

    /// Creates a machine with a [`Scenario`](super::Scenario) in text form, which may be empty.
    ///
    /// # Errors
    ///
    /// Errors of creating files; `InvalidInput` if the text is not a scenario.
    pub fn lab(&self, scenario: &str) -> io::Result<Lab> {
        let folder = tempfile::Builder::new().prefix("etw-standin").tempdir()?;
        let machine = Machine::open(folder.path().join("machine"))?;
        let lab = Lab { host: self.clone(), machine, folder };
        lab.set_scenario(scenario)?;
        Ok(lab)
    }

    fn program(&self, name: &str) -> io::Result<PathBuf> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock();
        let folder = self.programs.join("with-etw-standin");
        let (source, stand_in) = (self.programs.join(format!("{name}.exe")), self.programs.join(DLL));
        let (copy, stand_in_copy) = (folder.join(format!("{name}.exe")), folder.join(DLL));
        let written = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified());
        // A copy is made after the program was compiled, and never changed.
        let is_current = |copy: &Path| -> io::Result<bool> {
            Ok(copy.exists() && written(copy)? > written(&source)? && written(copy)? > written(&stand_in)?)
        };
        let stand_in_is_current = stand_in_copy.exists() && written(&stand_in_copy)? > written(&stand_in)?;
        if is_current(&copy)? && stand_in_is_current {
            return Ok(copy);
        }
        fs::create_dir_all(&folder)?;
        let exports = fs::read(&stand_in)?;
        let mut program = fs::read(&source)?;
        let count = imports::rename(&mut program, "advapi32.dll", DLL, &exports).map_err(io::Error::other)?;
        if count == 0 {
            return Err(io::Error::other(format!("{name} imports nothing from advapi32.dll")));
        }
        if !stand_in_is_current {
            replace(&stand_in_copy, &exports)?;
        }
        replace(&copy, &program)?;
        Ok(copy)
    }

    /// Returns why programs cannot run against the stand-in; `None` if they can.
    pub fn missing() -> Option<String> {
        if cfg!(windows) { Self::beside().err() } else { cross_tools().err() }
    }

    fn cross() -> Result<Self, String> {
        cross_tools()?;
        let target_folder =
            profile_folder()?.parent().ok_or("the test is not in a target folder")?.to_owned();
        build(&target_folder, Some(TARGET));
        let runner = repository().join("tests/etw-standin/wine-runner");
        Ok(Self { programs: target_folder.join(TARGET).join(PROFILE), runner: Some(runner) })
    }

    fn beside() -> Result<Self, String> {
        let outer = profile_folder()?.parent().ok_or("the test is not in a target folder")?.to_owned();
        let is_triple = outer.file_name().is_some_and(|name| name.to_string_lossy().contains("-windows-"));
        let (target_folder, target) = match outer.parent() {
            Some(folder) if is_triple => (folder, outer.file_name().and_then(OsStr::to_str)),
            _ => (outer.as_path(), None),
        };
        let is_native = env::var_os("CARGO").is_some_and(|cargo| Path::new(&cargo).is_file());
        if is_native && env::var_os("WINEPREFIX").is_none() {
            build(target_folder, target);
        }
        let programs = outer.join(PROFILE);
        if !programs.join(DLL).exists() {
            return Err(format!("no {DLL} in {}", programs.display()));
        }
        Ok(Self { programs, runner: None })
    }
}

/// A machine with its scenario. Dropping it removes its folder, so the programs must have ended.
#[derive(Debug)]
pub struct Lab {
    host: Host,
    machine: Machine,
    folder: TempDir,
}

impl Lab {
    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// A folder for files of the test. [`windows_path`] converts their paths for a program.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces the scenario for programs and consumers that start from now on.
    ///
    /// # Errors
    ///
    /// Errors of writing the file; `InvalidInput` if the text is not a scenario.
    pub fn set_scenario(&self, text: &str) -> io::Result<()> {
        super::Scenario::parse(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        fs::write(self.folder().join("scenario.txt"), text)
    }

    /// Returns the path of a copy of the program `name`, such as `etwsieve`, that imports the stand-in. All machines share
    /// it.
    ///
    /// # Errors
    ///
    /// Errors of copying; `Other` if the program imports a function that the stand-in does not export.
    pub fn program(&self, name: &str) -> io::Result<PathBuf> {
        self.host.program(name)
    }

    /// Returns a command that runs the program `name`, such as `etwsieve`, on this machine. Its process is the program
    /// itself, also under Wine, so killing the process kills the program.
    ///
    /// # Errors
    ///
    /// Same as [`program`](Self::program).
    pub fn command<A: AsRef<OsStr>>(
        &self,
        name: &str,
        args: impl IntoIterator<Item = A>,
    ) -> io::Result<Command> {
        let program = self.program(name)?;
        let mut command = match &self.host.runner {
            Some(runner) => {
                prepare(runner)?;
                let mut command = Command::new(runner);
                command.arg(program).env("ETWSTANDIN_PATCHED", "1");
                command
            }
            None => Command::new(program),
        };
        command.args(args).stdin(Stdio::null()).current_dir(self.folder()).env_remove("ETWSIEVE_LOG");
        command.env(STATE_VARIABLE, windows_path(self.machine.folder()));
        command.env(SCENARIO_VARIABLE, windows_path(&self.folder().join("scenario.txt")));
        Ok(command)
    }
}

/// Checks for the tools to build and run Windows programs on another system.
fn cross_tools() -> Result<(), String> {
    let lib = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    let lib = lib.map_err(|error| format!("rustc: {error}"))?.stdout;
    if !Path::new(String::from_utf8_lossy(&lib).trim()).is_dir() {
        return Err(format!("the Rust target {TARGET} is not installed"));
    }
    let paths = env::var_os("PATH").unwrap_or_default();
    let has = |name: &str| env::split_paths(&paths).any(|folder| folder.join(name).exists());
    if !has("x86_64-w64-mingw32-gcc") {
        return Err("mingw is not installed".into());
    }
    if !Path::new("/usr/lib/wine/wine64").exists() && !has("wine64") && !has("wine") {
        return Err("Wine is not installed".into());
    }
    Ok(())
}

/// Returns `path` as a Windows program sees it; under Wine, drive Z is the root of the file system.
pub fn windows_path(path: &Path) -> String {
    let text = path.display().to_string();
    if cfg!(windows) { text } else { format!("Z:{}", text.replace('/', "\\")) }
}

/// Sends Ctrl-C to a program under Wine, which is `SIGINT`.
///
/// # Errors
///
/// `Unsupported` on Windows, where the test would receive it too; errors of starting `kill`.
pub fn interrupt(child: &Child) -> io::Result<()> {
    if cfg!(windows) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("kill failed")) }
}

/// Builds the Wine prefix once, so that this does not count as run time of a program.
fn prepare(runner: &Path) -> io::Result<()> {
    static IS_PREPARED: Mutex<bool> = Mutex::new(false);
    let mut is_prepared = IS_PREPARED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*is_prepared {
        *is_prepared = Command::new(runner).arg("--prepare").status()?.success();
    }
    if *is_prepared { Ok(()) } else { Err(io::Error::other("the Wine prefix could not be prepared")) }
}

/// Replaces a file that other processes may be executing; they keep the old one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = path.with_extension(format!("part{}", std::process::id()));
    fs::write(&part, bytes)?;
    fs::rename(&part, path)
}

/// Returns the folder of the build profile, above the folder `deps` of this test.
fn profile_folder() -> Result<PathBuf, String> {
    let test = env::current_exe().map_err(|error| error.to_string())?;
    let folder = test.parent().ok_or("the test has no folder")?;
    let is_deps = folder.file_name().is_some_and(|name| name == "deps");
    Ok(if is_deps { folder.parent().unwrap_or(folder) } else { folder }.to_owned())
}

/// Compiles the sensor and the stand-in separately, so that the features of one do not change the other.
fn build(target_folder: &Path, target: Option<&str>) {
    static IS_BUILT: Mutex<bool> = Mutex::new(false);
    let mut is_built = IS_BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if *is_built {
        return;
    }
    for package in PACKAGES {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .args(["build", "--quiet", "--profile", PROFILE, "--package", package])
            .current_dir(repository());
        command.arg("--target-dir").arg(target_folder);
        if let Some(target) = target {
            command.args(["--target", target]);
        }
        let output = command.output().expect("cargo starts");
        assert!(output.status.success(), "{package} compiles:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    *is_built = true;
}

#[cfg(all(test, not(windows)))]
mod tests {
    use super::windows_path;
    use std::path::Path;

    #[test]
    fn the_root_is_drive_z() {
        assert_eq!(windows_path(Path::new("/data/a b/c.etl")), r"Z:\data\a b\c.etl");
    }
}
