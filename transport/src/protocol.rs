//! The protocol between sensor and collector (`docs/wire.md`) as two state machines without I/O.
//!
//! [`SensorConnection`] and [`CollectorConnection`] are the two sides of one connection. Their owners do the I/O: they
//! pass received bytes, the time and the progress of the store as arguments, send the bytes of `take_output`, and act on
//! the events returned. Neither side uses a socket, a clock or a thread, so that a test can run both in memory under
//! simulated time (`tests/protocol/`).

pub mod collector;
mod frame_buffer;
pub mod sensor;
mod sequence;
mod settlement;
mod violation;

pub use collector::{CollectorConnection, CollectorSettings, Request};
pub use frame_buffer::FrameBuffer;
pub use sensor::SensorConnection;
pub use sequence::SequenceTracker;
pub use settlement::{Settlement, SettlementReport};
pub use violation::ProtocolViolation;

use std::time::Duration;

/// The highest sequence number, 2^63 - 1: the stores have signed integers, and no sensor sends as many hits.
pub const SEQUENCE_MAX: u64 = i64::MAX as u64;
/// Maximum time from the first byte of a frame to its last.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(30);
