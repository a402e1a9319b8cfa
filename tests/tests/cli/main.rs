//! The command line: formats, exit codes, summaries, stores, files and terminals.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod demo;
mod files;
mod replay;
mod store;
mod trace;
