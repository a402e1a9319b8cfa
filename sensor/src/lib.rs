//! The sensor: event sources, and the pipeline between them and the hits.

pub mod event;
pub mod sid;
pub mod source;
