//! What the hot paths allocate, counted for each thread, and the worst cost of a script, counted in steps.

mod intake;
mod search;
mod worst;
