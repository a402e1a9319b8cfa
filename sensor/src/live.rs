//! The live sensor, as far as it is the same on every system: configuration, the run, the guardian's judgement,
//! notices, and rules that change while events flow.
//!
//! What talks to Windows is in [`sys`](crate::sys).

pub mod config;
pub mod counters;
pub mod guardian;
pub mod notice;
pub mod report;
pub mod rule_folder;
pub mod settings;
pub mod watch;
