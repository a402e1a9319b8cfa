//! Runs the program as a user does, and reads what it prints.

use serde_json::Value;
use std::ffi::OsStr;
use std::process::{Command, Stdio};

/// What a run of the program gave.
#[derive(Debug)]
pub struct Run {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `program`, which is `env!("CARGO_BIN_EXE_etwsieve-under-test")`, with `args`.
///
/// # Panics
///
/// If it cannot be started, or prints what is not UTF-8.
pub fn run<A: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = A>) -> Run {
    let output = command(program, args).output().expect("the program starts");
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("output is UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("diagnostics are UTF-8"),
    }
}

/// The command of [`run`], to be started in another way.
pub fn command<A: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(program);
    command.args(args).env_remove("ETWSIEVE_LOG").stdin(Stdio::null());
    command
}

impl Run {
    /// Standard output as JSON Lines.
    ///
    /// # Panics
    ///
    /// If a line is not JSON.
    pub fn lines(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.stdout.lines().map(parse).collect()
    }
}

/// The value of a key as a CSV file has it: text as it is, numbers in digits, null as nothing.
pub fn cell(line: &Value, key: &str) -> String {
    match &line[key] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
