//! The command line, run as the program that users run.

#![allow(clippy::unwrap_used, clippy::panic_in_result_fn, reason = "a panic in a test is its verdict")]

#[cfg(not(windows))]
mod service;
