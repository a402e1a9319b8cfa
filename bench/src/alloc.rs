//! An allocator that counts, for promises like "an event without a hit allocates nothing".
//!
//! It hands every call to the system's allocator. Growing counts as allocating, freeing does not. The counts
//! cost a few nanoseconds an allocation, which is little beside the allocation itself.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The counting allocator. Effective where it is the `#[global_allocator]`, as in everything that links this crate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counting;

/// Allocations of all threads so far.
static OF_PROCESS: AtomicU64 = AtomicU64::new(0);
/// Bytes that all threads hold now, and the most since [`most_held`] was last asked to begin anew.
static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST_HELD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    // Constant and without a destructor: touching it neither allocates nor can come too late.
    static OF_THREAD: Cell<u64> = const { Cell::new(0) };
}

/// Allocations of this thread while `work` runs, and what `work` returns.
pub fn of_thread<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let before = OF_THREAD.get();
    let result = work();
    (OF_THREAD.get() - before, result)
}

/// Allocations of all threads while `work` runs, and what `work` returns.
pub fn of_process<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let before = OF_PROCESS.load(Ordering::Relaxed);
    let result = work();
    (OF_PROCESS.load(Ordering::Relaxed) - before, result)
}

/// The most bytes that all threads together hold while `work` runs, beyond what they held before, and what `work`
/// returns.
pub fn most_held<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = HELD.load(Ordering::Relaxed);
    MOST_HELD.store(before, Ordering::Relaxed);
    let result = work();
    (MOST_HELD.load(Ordering::Relaxed).saturating_sub(before), result)
}

fn hold(bytes: usize) {
    let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST_HELD.fetch_max(held, Ordering::Relaxed);
}

fn let_go(bytes: usize) {
    HELD.fetch_sub(bytes, Ordering::Relaxed);
}

fn count() {
    OF_PROCESS.fetch_add(1, Ordering::Relaxed);
    OF_THREAD.set(OF_THREAD.get() + 1);
}

#[expect(unsafe_code, reason = "the trait of global allocators is unsafe to implement and to call")]
// SAFETY: every call goes to `System` with the arguments of the caller and its result goes back unchanged, so what
// `System` guarantees holds here. Counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        hold(layout.size());
        // SAFETY: the caller guarantees a layout of nonzero size, as `System` asks.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        hold(layout.size());
        // SAFETY: as for `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        hold(new_size);
        let_go(layout.size());
        // SAFETY: the caller guarantees that `block` came from here, so from `System`, with this layout, and that
        // the new size is neither zero nor too large.
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let_go(layout.size());
        // SAFETY: the caller guarantees that `block` came from here, so from `System`, with this layout.
        unsafe { System.dealloc(block, layout) }
    }
}
