//! The collector: it takes hits from thousands of sensors and acknowledges them when they are durable.
//!
//! A connection is one task ([`server`], `connection`) that drives [`etwsieve_transport::protocol::CollectorConnection`].
//! Everything that needs an acknowledgement goes through one bounded queue to the `committer`, which passes
//! batches to a [`backend::Backend`] and reports to the connections when they are durable. [`sqlite`] is the embedded
//! back end, [`nats`] a JetStream cluster. [`pki::Register`] lists the sensors that may connect. A [`sink`] delivers
//! stored hits to a file or another program. The protocol is that of `docs/wire.md`.

#![forbid(unsafe_code)]

pub mod backend;
pub mod cli;
mod committer;
pub mod config;
mod connection;
pub mod counters;
pub mod drain;
pub mod files;
mod heartbeats;
mod identity;
mod log_limit;
pub mod nats;
pub mod pki;
mod rate;
pub mod server;
pub mod sink;
pub mod sqlite;
pub mod status;
pub mod tls;
