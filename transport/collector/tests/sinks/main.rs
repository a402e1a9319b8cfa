//! Sinks lose no hits when the receiver fails, is slow or refuses records, or when they are stopped during a delivery.
//!
//! Splunk and Elasticsearch are simulated by small servers (`sinks/http.rs`) that enforce the documented APIs. The
//! syslog receiver is a real rsyslogd with TLS.

#![expect(clippy::unwrap_used, reason = "a panic is the verdict of a test")]

mod bounds;
#[path = "../../../tests/common/mod.rs"]
mod common;
mod dead_letter;
mod elastic;
mod feed;
mod file;
mod http;
mod splunk;
mod syslog;
