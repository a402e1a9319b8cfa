//! The server, its SQLite back end and its certificates, in the process of the test.

#![allow(clippy::unwrap_used, clippy::panic_in_result_fn, reason = "a panic in a test is its verdict")]

#[path = "../support/collector.rs"]
mod collector;
#[path = "../../../tests/common/mod.rs"]
mod common;
mod feed;
mod isolation;
mod pki;
mod protocol;
mod store;
mod tls;
