//! Sinks: nothing is lost when the other side fails, is slow, refuses, or when we are stopped in the middle.
//!
//! Splunk and Elastic are stand-ins here (`sinks/http.rs`): small servers that demand what the documented APIs demand. The
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
