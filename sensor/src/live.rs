//! The parts of the live sensor that are the same on every system: configuration, the run, the decisions of the
//! guardian and of `doctor`, notices, and rules that are replaced while events arrive.
//!
//! The calls to Windows are in [`sys`](crate::sys).

pub mod canary;
pub mod config;
pub mod counters;
pub mod doctor;
pub mod guardian;
pub mod notice;
pub mod policy;
pub mod provider;
pub mod recording;
pub mod report;
pub mod rule_files;
pub mod session;
pub mod settings;
pub mod watch;
