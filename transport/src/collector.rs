//! The collector: takes hits from thousands of sensors, and acknowledges what is durable.
//!
//! [`backend`] is what a store must promise; [`sensors`] is the list of those who may connect.
//! The protocol is that of `docs/wire.md`, which this module follows to the letter.

pub mod backend;
pub mod sensors;
