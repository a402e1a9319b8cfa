//! Hits, their wire format and their stores.
//!
//! A [`hit`] is a detection, [`wire`] is its form as bytes (`docs/wire.md` describes it for other languages), [`store`]
//! keeps hits in a SQLite file, and [`output`] formats them for other programs. [`protocol`] implements both sides of the
//! connection between sensor and collector without I/O; [`spool`] and [`sender`] are the sensor's side of the delivery.
//! This crate does not depend on rules or event sources; its caller fills the [`hit::HitV1`].

#![forbid(unsafe_code)]

pub mod diagnostics;
pub mod files;
pub mod hit;
pub mod identity;
pub mod lock;
pub mod metrics;
pub mod output;
pub mod printable;
pub mod private_file;
pub mod protocol;
pub mod sender;
pub mod spool;
pub mod stop;
pub mod store;
pub mod wire;

/// Time in the formats of the store and of the outputs.
pub use etwsieve_event::time;
