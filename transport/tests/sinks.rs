//! Sinks: nothing is lost when the other side fails, is slow, refuses, or when we are stopped in the middle.
//!
//! Splunk and Elastic are stand-ins here (`sinks/http.rs`): small servers that demand what the documented APIs demand. The
//! syslog receiver is a real rsyslogd with TLS.

#![cfg(feature = "collector")]
#![expect(clippy::unwrap_used, reason = "a panic is the verdict of a test")]

#[path = "sinks/bounds.rs"]
mod bounds;
#[path = "common/mod.rs"]
mod common;
#[path = "sinks/dead_letter.rs"]
mod dead_letter;
#[path = "sinks/elastic.rs"]
mod elastic;
#[path = "sinks/feed.rs"]
mod feed;
#[path = "sinks/file.rs"]
mod file;
#[path = "sinks/http.rs"]
mod http;
#[path = "sinks/splunk.rs"]
mod splunk;
#[path = "sinks/syslog.rs"]
mod syslog;
