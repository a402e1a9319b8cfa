//! The operating system, behind one set of names: the contract that each platform fulfils.
//!
//! Live capture needs Windows. Every other system uses `unsupported`, which compiles everywhere and refuses to start.
//! Code outside this module is the same on all systems and never asks which one it runs on. A platform supplies:
//!
//! | item | contract |
//! |---|---|
//! | `require(command)` | Returns an error that names the command if the platform cannot run it. |
//! | `run_live(config, format, matcher, rule_files, stop)` | Captures events until the stop; returns the summary, or a `LiveError` before the first event. |
//! | `record(recording, stop, progress)` | Records to a file until the stop, the time or the size is reached. Leaves no session behind. |
//! | `examine(session)` | Returns the findings of `etwsieve doctor`, in the order in which they are printed. |
//! | `canary(edition)` | Runs a canary script block and reports whether it arrived; `None` if the edition is not installed. |
//! | `exposure(path)` | Returns who besides administrators can change a file, as a message; `None` if nobody can. |
//! | `service` | Installs, removes, starts, stops, queries and runs the service. `run` calls back on the service's thread. |
//!
//! Decisions that need no system call (policies, findings, the guardian, the parser of provider queries) are in
//! [`live`](crate::live), where every system tests them.

#[cfg(not(windows))]
mod unsupported;
#[cfg(windows)]
mod windows;

#[cfg(not(windows))]
use unsupported as platform;
#[cfg(windows)]
use windows as platform;

pub use platform::{LiveError, canary, examine, exposure, record, require, run_live, service};

/// True if file names that differ only in case name the same file.
pub const FILE_NAMES_IGNORE_CASE: bool = cfg!(windows);
