//! The sources of a replay: .etl, .evtx and JSON Lines give the same events, and count what they lose.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod amsi;
mod evtx;
mod evtx_work;
mod losses;
mod three_sources;
