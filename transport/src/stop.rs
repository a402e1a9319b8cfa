//! A request to stop that any thread can make, check and wait for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A flag that is set once and never cleared. Clones share it.
///
/// Checking the flag is one load, cheap enough for every event. Waiting uses a condition variable, so a waiting thread
/// sees the request at once.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    requested: Arc<AtomicBool>,
    /// The flag of the parent, if this is a child.
    parent: Option<Arc<AtomicBool>>,
    /// Shared by parent and children, so that a request to the parent wakes the threads that wait for a child.
    signal: Arc<Signal>,
}

#[derive(Debug, Default)]
struct Signal {
    /// Held while a flag changes, so that no change falls between the check and the wait of another thread.
    lock: Mutex<()>,
    changed: Condvar,
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stop {
    /// Requests the stop and wakes all threads that wait for it.
    pub fn request(&self) {
        let guard = self.signal.lock();
        self.requested.store(true, Ordering::Release);
        drop(guard);
        self.signal.changed.notify_all();
    }

    /// Returns true once the stop was requested.
    pub fn requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
            || self.parent.as_ref().is_some_and(|parent| parent.load(Ordering::Acquire))
    }

    /// Returns a flag for a part of the work: it is set by a request to the child or to `self`, and a request to the
    /// child leaves `self` unset. Call it on a flag without a parent: grandparents are not followed.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            requested: Arc::default(),
            parent: Some(Arc::clone(&self.requested)),
            signal: Arc::clone(&self.signal),
        }
    }

    /// Blocks until the stop is requested or `timeout` has passed. Returns whether it was requested.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.wait_unless(timeout, || false)
    }

    /// Like [`wait`](Self::wait), and returns early once `is_due` returns true. `is_due` is checked at the start and
    /// after each [`wake`](Self::wake).
    pub fn wait_unless(&self, timeout: Duration, is_due: impl Fn() -> bool) -> bool {
        let guard = self.signal.lock();
        let waited =
            self.signal.changed.wait_timeout_while(guard, timeout, |()| !self.requested() && !is_due());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.requested()
    }

    /// Wakes threads in [`wait_unless`](Self::wait_unless) so that they check their condition again.
    pub fn wake(&self) {
        drop(self.signal.lock());
        self.signal.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::Stop;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Duration;

    /// Longer than any test runs: a wait that is not woken fails the test by its timeout.
    const FOREVER: Duration = Duration::from_hours(1);

    #[test]
    fn a_request_ends_the_wait_of_clones_and_children() {
        let stop = Stop::default();
        let (clone, child) = (stop.clone(), stop.child());
        thread::scope(|scope| {
            let waiting = [scope.spawn(|| clone.wait(FOREVER)), scope.spawn(|| child.wait(FOREVER))];
            stop.request();
            for thread in waiting {
                assert!(thread.join().unwrap());
            }
        });
        assert!(stop.child().requested(), "a later child is set as well");
    }

    #[test]
    fn a_child_leaves_its_parent_unset() {
        let stop = Stop::default();
        let (one, other) = (stop.child(), stop.child());
        one.request();
        assert!(one.wait(FOREVER) && !other.requested() && !stop.requested());
        assert!(!stop.wait(Duration::ZERO));
    }

    #[test]
    fn a_condition_ends_the_wait_after_a_wake() {
        let (stop, is_due) = (Stop::default(), AtomicBool::new(false));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| stop.wait_unless(FOREVER, || is_due.load(Ordering::Acquire)));
            is_due.store(true, Ordering::Release);
            stop.wake();
            assert!(!waiting.join().unwrap());
        });
    }
}
