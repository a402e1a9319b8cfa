//! The sensor: event sources, the pipeline between them and the hits, and the command line.
//!
//! Data flow one way: a [`source`] offers events, the [`pipeline`] carries their raw payloads to the matcher,
//! [`detect`] decodes what matched into a hit, [`sorter`] puts hits in order, [`output`] writes them.

pub mod amsi;
pub mod cli;
pub mod delivery;
pub mod detect;
pub mod event;
pub mod input;
pub mod ledger;
pub mod live;
pub mod output;
pub mod payload;
pub mod pipeline;
pub mod rules;
pub mod search;
pub mod sorter;
pub mod source;
pub mod sys;

pub use etwsieve_transport::stop;
