//! Hits, their wire format and their stores.
//!
//! [`hit`] is what a detection carries, [`wire`] is how it looks as bytes (`docs/wire.md` is the same for
//! other languages), [`store`] keeps hits in one SQLite file, [`output`] is how programs read them. [`spool`] and
//! [`sender`] take hits to a collector; `collector`, with the feature of that name, is the other end. This crate knows
//! neither rules nor event sources: who fills a [`hit::HitV1`] and why is not its business.

#![forbid(unsafe_code)]

#[cfg(feature = "collector")]
pub mod collector;
pub mod diagnostics;
pub mod files;
pub mod hit;
pub mod identity;
mod lock;
pub mod metrics;
pub mod output;
#[cfg(feature = "collector")]
pub mod pki;
pub mod printable;
pub mod private_file;
pub mod sender;
#[cfg(feature = "collector")]
pub mod sink;
pub mod spool;
pub mod stop;
pub mod store;
pub mod wire;

/// Time in the formats of the store and of the outputs.
pub use etwsieve_event::time;
