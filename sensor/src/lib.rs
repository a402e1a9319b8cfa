//! The sensor: event sources, the pipeline from events to hits, and the command line.
//!
//! Data flow in one direction: a [`source`] offers events, the [`pipeline`] passes their raw payloads to the matcher,
//! [`detect`] decodes matching events into hits, [`sorter`] sorts hits, and [`output`] writes them.

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
