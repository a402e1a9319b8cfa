//! Allocations of the hot paths, counted per thread, and the cost of the worst scripts, counted in steps.

mod intake;
mod search;
mod worst;
