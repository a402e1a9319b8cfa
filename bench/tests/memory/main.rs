//! Memory and allocations of the whole process: bounded for hostile input, and the same however many events pass.

mod blocks;
mod decoders;
mod pipeline;
mod views;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Keeps the other tests of this program waiting while the guard lives: the counters are those of the process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
