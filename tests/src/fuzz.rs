//! Bodies of the fuzz targets: each takes any bytes and asserts what must hold for all of them.
//!
//! The targets themselves are in `tests/fuzz`; what they found is replayed by an ordinary test.

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
