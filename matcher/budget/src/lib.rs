//! A bound on the work and memory that one input may cost.
//!
//! Every loop whose length depends on the input gets a [`Budget`] and charges it *before* it does the work. The cost of
//! an input is therefore bounded by construction, and tests and fuzz targets can compare the amount spent with the
//! length of the input.
//!
//! A step is about one byte or one UTF-16 unit read, compared or written: a few nanoseconds at most. Work with a larger
//! constant is charged as the equivalent number of steps.

#![forbid(unsafe_code)]

use std::fmt;

/// Steps between two calls of the stop function: about 100 microseconds.
const STEPS_BETWEEN_POLLS: u64 = 1 << 16;

/// The reason why a budget refuses more work. Only the first reason is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// All steps are spent.
    #[error("the budget of work is exhausted")]
    Steps,
    /// All memory is spent.
    #[error("the budget of memory is exhausted")]
    Memory,
    /// The caller stopped the work.
    #[error("the work was stopped")]
    Stopped,
}

/// The work and memory that one input may still use.
///
/// Freed memory is not returned to the budget: the sum of all allocations is bounded, and with it peak memory and the
/// time to clear and copy it.
pub struct Budget<'a> {
    steps: u64,
    steps_left: u64,
    bytes: u64,
    bytes_left: u64,
    next_poll: u64,
    stop: Option<&'a dyn Fn() -> bool>,
    exhausted: Option<Exhausted>,
}

impl<'a> Budget<'a> {
    /// Creates a budget of this many steps and allocated bytes.
    pub fn new(steps: u64, bytes: u64) -> Self {
        let next_poll = steps.saturating_sub(STEPS_BETWEEN_POLLS);
        Self { steps, steps_left: steps, bytes, bytes_left: bytes, next_poll, stop: None, exhausted: None }
    }

    /// Ends the budget as [`Exhausted::Stopped`] soon after `stop` returns true.
    #[must_use]
    pub fn until(mut self, stop: &'a dyn Fn() -> bool) -> Self {
        self.stop = Some(stop);
        self
    }

    /// Charges work before it is done.
    ///
    /// # Errors
    ///
    /// Returns [`Exhausted`] if fewer steps are left. The budget is then exhausted, and every later call fails with the
    /// same reason.
    #[inline]
    pub fn charge(&mut self, steps: usize) -> Result<(), Exhausted> {
        match self.steps_left.checked_sub(steps as u64) {
            Some(left) if self.exhausted.is_none() => {
                self.steps_left = left;
                if left < self.next_poll { self.poll() } else { Ok(()) }
            }
            _ => Err(self.exhaust(Exhausted::Steps)),
        }
    }

    /// Charges memory before it is allocated, and one step per eight bytes.
    ///
    /// # Errors
    ///
    /// Returns [`Exhausted`] as [`Budget::charge`] does.
    #[inline]
    pub fn allocate(&mut self, bytes: usize) -> Result<(), Exhausted> {
        self.charge(bytes / 8)?;
        match self.bytes_left.checked_sub(bytes as u64) {
            Some(left) => {
                self.bytes_left = left;
                Ok(())
            }
            None => Err(self.exhaust(Exhausted::Memory)),
        }
    }

    /// Returns the steps charged so far; all of them once the budget is exhausted.
    pub fn steps_spent(&self) -> u64 {
        self.steps - self.steps_left
    }

    /// Returns the steps that may still be charged.
    pub fn steps_left(&self) -> u64 {
        self.steps_left
    }

    /// Returns the bytes charged so far.
    pub fn bytes_spent(&self) -> u64 {
        self.bytes - self.bytes_left
    }

    /// Returns the reason why no more work is done, if there is one.
    pub fn exhausted(&self) -> Option<Exhausted> {
        self.exhausted
    }

    #[cold]
    fn poll(&mut self) -> Result<(), Exhausted> {
        self.next_poll = self.steps_left.saturating_sub(STEPS_BETWEEN_POLLS);
        match self.stop {
            Some(stop) if stop() => Err(self.exhaust(Exhausted::Stopped)),
            _ => Ok(()),
        }
    }

    #[cold]
    fn exhaust(&mut self, reason: Exhausted) -> Exhausted {
        self.steps_left = 0;
        *self.exhausted.get_or_insert(reason)
    }
}

impl fmt::Debug for Budget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("steps_left", &self.steps_left)
            .field("bytes_left", &self.bytes_left)
            .field("exhausted", &self.exhausted)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exhausted_budget_refuses_all_further_work() {
        let mut budget = Budget::new(10, 100);
        assert_eq!(budget.charge(7), Ok(()));
        assert_eq!(budget.steps_spent(), 7);
        assert_eq!(budget.charge(4), Err(Exhausted::Steps));
        assert_eq!(budget.charge(0), Err(Exhausted::Steps), "even work without steps is refused afterwards");
        assert_eq!(budget.allocate(1), Err(Exhausted::Steps));
        assert_eq!((budget.steps_spent(), budget.exhausted()), (10, Some(Exhausted::Steps)));
    }

    #[test]
    fn memory_is_charged_as_memory_and_as_steps() {
        let mut budget = Budget::new(100, 64);
        assert_eq!(budget.allocate(48), Ok(()));
        assert_eq!((budget.steps_spent(), budget.bytes_spent()), (6, 48));
        assert_eq!(budget.allocate(17), Err(Exhausted::Memory));
        assert_eq!(budget.charge(1), Err(Exhausted::Memory), "the first reason is kept");
    }

    #[test]
    fn a_stop_takes_effect_between_steps() {
        let stopped = std::cell::Cell::new(false);
        let stop = || stopped.get();
        let mut budget = Budget::new(u64::MAX, 0).until(&stop);
        for _ in 0..4 {
            assert_eq!(budget.charge(STEPS_BETWEEN_POLLS as usize), Ok(()));
        }
        stopped.set(true);
        let spent = budget.steps_spent();
        let result = (0..).find_map(|_| budget.charge(1).err());
        assert_eq!(result, Some(Exhausted::Stopped));
        assert!(budget.exhausted().is_some() && spent > 0);
    }
}
