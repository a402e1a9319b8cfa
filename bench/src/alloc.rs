//! A counting allocator, to check promises such as "an event without a hit allocates nothing".
//!
//! It forwards every call to the system allocator. Growing counts as an allocation, freeing does not. Counting costs a few
//! nanoseconds per allocation, which is little compared with the allocation itself.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The counting allocator. It is the `#[global_allocator]` of every program that links this crate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counting;

/// Allocations of all threads so far.
static OF_PROCESS: AtomicU64 = AtomicU64::new(0);
/// Bytes that all threads hold now, and their maximum since [`most_held`] was last called.
static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST_HELD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    // It is constant and has no destructor, so access never allocates and is possible until the thread ends.
    static OF_THREAD: Cell<u64> = const { Cell::new(0) };
}

/// Returns the number of allocations of this thread while `work` runs, and the result of `work`.
pub fn of_thread<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let before = OF_THREAD.get();
    let result = work();
    (OF_THREAD.get() - before, result)
}

/// Returns the number of allocations of all threads while `work` runs, and the result of `work`.
pub fn of_process<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let before = OF_PROCESS.load(Ordering::Relaxed);
    let result = work();
    (OF_PROCESS.load(Ordering::Relaxed) - before, result)
}

/// Returns the maximum number of bytes that all threads together hold while `work` runs, less those held before, and the
/// result of `work`.
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
