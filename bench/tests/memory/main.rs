//! Memory and allocations of the whole process are bounded for hostile input, and do not grow with the number of events.

mod blocks;
mod decoders;
mod pipeline;
mod views;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Blocks the other tests of this program while the guard lives, because the counters belong to the process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
