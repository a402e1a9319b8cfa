//! Runs the programs as a user does, and reads their output.

use crate::corpus::repository;
use serde_json::Value;
use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

/// A program of the workspace that belongs to another package than the test.
///
/// Cargo sets `CARGO_BIN_EXE_…` only in the package that owns the program, so tests of other packages find it here. Use
/// it like a path: `Command::new(Program::Etwsieve)`, [`run(Program::Collector, …)`](run).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The sensor, `etwsieve`.
    Etwsieve,
    /// The collector, `etwsieve-collector`.
    Collector,
}

impl Program {
    /// Returns the path of the program and builds all programs of the workspace when it is first called.
    ///
    /// # Panics
    ///
    /// Panics if the programs do not compile.
    pub fn path(self) -> &'static Path {
        static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
            build(&["--workspace", "--bin", "etwsieve", "--bin", "etwsieve-collector"]);
            profile_folder()
        });
        static PATHS: LazyLock<[PathBuf; 2]> = LazyLock::new(|| {
            ["etwsieve", "etwsieve-collector"]
                .map(|name| FOLDER.join(name).with_extension(env::consts::EXE_EXTENSION))
        });
        &PATHS[self as usize]
    }
}

impl AsRef<OsStr> for Program {
    fn as_ref(&self) -> &OsStr {
        self.path().as_os_str()
    }
}

/// Returns the folder with the programs of the profile and target for which this program was built.
///
/// # Panics
///
/// Panics if this program is not in a target folder of Cargo.
pub fn profile_folder() -> PathBuf {
    let this = env::current_exe().expect("this program has a path");
    let folder = this.parent().expect("a program is in a folder");
    let is_test = folder.file_name().is_some_and(|name| name == "deps");
    if is_test { folder.parent().expect("`deps` is in the profile's folder") } else { folder }.to_owned()
}

/// Runs `cargo build` with `what`, for the profile and target of this program.
///
/// # Panics
///
/// Panics if it fails.
pub fn build(what: &[&str]) {
    let folder = profile_folder();
    let profile = folder.file_name().and_then(OsStr::to_str).expect("a profile has a name");
    let mut outer = folder.parent().expect("the profile's folder is in the target folder");
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--quiet"]).args(what).current_dir(repository());
    // The profile `dev` has another name than its folder.
    command.args(["--profile", if profile == "debug" { "dev" } else { profile }]);
    // With `--target`, a folder of that name is between the two.
    let triple = outer.file_name().and_then(OsStr::to_str).unwrap_or_default();
    if triple.split('-').count() >= 3 {
        command.args(["--target", triple]);
        outer = outer.parent().unwrap_or(outer);
    }
    command.arg("--target-dir").arg(outer);
    // Cargo describes the package of the test to the test. A build script that reads this would run again.
    for (name, _) in env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            command.env_remove(name);
        }
    }
    let output = command.output().expect("cargo starts");
    assert!(output.status.success(), "cargo build failed:\n{}", String::from_utf8_lossy(&output.stderr));
}

/// The result of a run of a program.
#[derive(Debug)]
pub struct Run {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs a [`Program`], or the path in a `CARGO_BIN_EXE_…` of the test's package, with `args`.
///
/// # Panics
///
/// If it cannot be started, or if its output is not UTF-8.
pub fn run<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = A>) -> Run {
    let output = command(program, args).output().expect("the program starts");
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("output is UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("diagnostics are UTF-8"),
    }
}

/// Returns the command of [`run`], to start it in another way.
pub fn command<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(program);
    command.args(args).env_remove("ETWSIEVE_LOG").stdin(Stdio::null());
    command
}

impl Run {
    /// Parses standard output as JSON Lines.
    ///
    /// # Panics
    ///
    /// If a line is not JSON.
    pub fn lines(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.stdout.lines().map(parse).collect()
    }
}

/// Returns the value of a key as in a CSV file: text as it is, numbers in digits, null as an empty text.
pub fn cell(line: &Value, key: &str) -> String {
    match &line[key] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
