//! Bodies of the fuzz targets: each takes arbitrary bytes and asserts invariants.
//!
//! The targets themselves are in `tests/fuzz`; an ordinary test replays their findings.

pub mod amsi;
pub mod etl;
pub mod evtx;
pub mod fold_cost;
pub mod frame;
pub mod jsonl;
pub mod payload;
pub mod rule;
pub mod views;
mod work;
