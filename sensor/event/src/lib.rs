//! Facts of a Windows event that every other crate shares: when it was written, by which provider, and for which user.
//!
//! This crate depends on nothing else in the workspace, touches no file and no clock except in [`FileTime::now`] and
//! [`time::unix_now`], and compiles on every system.

#![forbid(unsafe_code)]

mod header;
pub mod provider;
mod sid;
pub mod time;

pub use header::EventHeader;
pub use sid::{SID_LEN_MAX, SUB_AUTHORITIES_MAX, Sid};
pub use time::FileTime;
