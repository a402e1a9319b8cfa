//! What our programs need of the Windows they run on: life as a `service`, the `event_log`, the `registry`, and who
//! can change a file (`exposure`).
//!
//! Sensor and collector share it. Each file wraps a few functions of Windows in safe ones; nothing of their types is
//! seen outside. Elsewhere than on Windows the crate is empty.

#![cfg(windows)]

pub mod event_log;
pub mod exposure;
pub mod registry;
pub mod service;
pub mod wide;
