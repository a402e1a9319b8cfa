//! Windows: the event tracing session, policies, registrations and the service. The parts that the collector uses too
//! are in `transport/host`.
//!
//! This is the only part of the sensor with unsafe code. Each file wraps a few Windows functions in safe ones; none of
//! their types is visible outside.

mod control;
mod doctor;
mod elevation;
mod guardian;
mod live;
mod machine;
mod policy;
mod provider;
mod record;
mod recorder;
pub mod service;
mod session;
mod source;

pub use doctor::{canary, examine};
pub use live::{LiveError, run_live};
pub use recorder::record;

use etwsieve_host::exposure::exposures;
use std::convert::Infallible;
use std::path::Path;

/// Accepts every command.
///
/// # Errors
///
/// Never.
pub fn require(_command: &'static str) -> Result<(), Infallible> {
    Ok(())
}

/// Returns who besides administrators can change the file or a folder above it, as a message; `None` if no one can, or
/// if the system does not say.
pub fn exposure(path: &Path) -> Option<String> {
    exposures(path).unwrap_or_default().first().map(|exposure| {
        format!(
            "{} is not used: {} may change {}; restrict write access to administrators, or name a file with --config",
            path.display(),
            exposure.group,
            exposure.path.display()
        )
    })
}
