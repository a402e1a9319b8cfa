//! The live sensor on the stand-in of the ETW API: the release program for Windows, run natively or under Wine.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod measure;
mod session;
mod standin;
mod watch;
mod watching;
