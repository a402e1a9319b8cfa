//! Hits, their wire format and their stores.
//!
//! [`hit`] is what a detection carries, [`wire`] is how it looks as bytes (`docs/wire.md` is the same for
//! other languages), [`store`] keeps hits in one SQLite file, [`output`] is how programs read them. [`spool`] and
//! [`sender`] take hits to a collector, which is the crate `etwsieve-collector`. This crate knows
//! neither rules nor event sources: who fills a [`hit::HitV1`] and why is not its business.

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
pub mod sender;
pub mod spool;
pub mod stop;
pub mod store;
pub mod wire;

/// Time in the formats of the store and of the outputs.
pub use etwsieve_event::time;
