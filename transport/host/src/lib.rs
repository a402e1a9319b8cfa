//! Windows functions that sensor and collector share: running as a `service`, the `event_log`, the `registry`, and
//! checking who can change a file (`exposure`).
//!
//! Each module wraps a few Windows functions in a safe interface that exposes no Windows types. On other systems the
//! crate is empty.

#![cfg(windows)]

pub mod event_log;
pub mod exposure;
pub mod registry;
pub mod service;
pub mod wide;
