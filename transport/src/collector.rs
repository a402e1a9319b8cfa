//! The collector: takes hits from thousands of sensors, and acknowledges what is durable.
//!
//! A connection is one task ([`server`], `connection`); `protocol` judges its frames without knowing sockets or clocks.
//! What asks to be acknowledged goes through one bounded queue to the `committer`, which gives batches to a
//! [`backend::Backend`] and tells the connections when they are durable. [`sqlite`] is the embedded backend, [`nats`] a cluster;
//! [`crate::pki::Register`] is the list of those who may
//! connect; [`sinks`] hand on what is stored. The protocol is that of `docs/wire.md`, to the letter.

pub mod backend;
pub mod cli;
mod committer;
pub mod config;
mod connection;
pub mod counters;
pub mod drain;
pub mod feed;
pub mod files;
mod frames;
mod heartbeats;
mod identity;
mod limits;
pub mod nats;
mod protocol;
mod quota;
pub mod server;
pub mod sinks;
pub mod sqlite;
pub mod status;
pub mod tls;
