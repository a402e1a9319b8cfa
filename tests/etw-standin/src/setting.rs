//! The machine and scenario from the environment, and Windows error codes.

use etwsieve_tests::standin::{Machine, SCENARIO_VARIABLE, STATE_VARIABLE, Scenario};
use std::env;
use std::fs;
use std::io;
use std::time::Duration;
use windows_sys::Win32::Foundation::{ERROR_BAD_CONFIGURATION, ERROR_INTERNAL_ERROR};

/// A Windows error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) u32);

impl From<io::Error> for Code {
    fn from(error: io::Error) -> Self {
        eprintln!("etw stand-in: {error}");
        Self(error.raw_os_error().map_or(ERROR_INTERNAL_ERROR, i32::cast_unsigned))
    }
}

/// The machine.
pub(crate) fn machine() -> Result<Machine, Code> {
    let Some(folder) = env::var_os(STATE_VARIABLE) else {
        eprintln!("etw stand-in: {STATE_VARIABLE} names no folder");
        return Err(Code(ERROR_BAD_CONFIGURATION));
    };
    Ok(Machine::open(folder)?)
}

/// The scenario; an empty one if the environment has none.
pub(crate) fn scenario(machine: &Machine) -> Result<Scenario, Code> {
    let Some(path) = env::var_os(SCENARIO_VARIABLE) else { return Ok(Scenario::default()) };
    let text = fs::read_to_string(&path).map_err(|error| error.to_string());
    text.and_then(|text| Scenario::parse(&text).map_err(|error| error.to_string())).map_err(|problem| {
        machine.report_failure(&problem);
        Code(ERROR_BAD_CONFIGURATION)
    })
}

/// Current time, in 100 ns since 1601.
pub(crate) fn now() -> u64 {
    etwsieve_event::FileTime::now().0
}

/// Time since `ticks`, which are 100 ns since 1601.
pub(crate) fn since(ticks: u64) -> Duration {
    Duration::from_nanos(now().saturating_sub(ticks).saturating_mul(100))
}
