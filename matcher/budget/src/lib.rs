//! A bound on the work and the memory that one input may cost.
//!
//! Every loop whose length an input decides is given a [`Budget`] and charges it *before* it does the work. What an
//! input may cost is therefore bounded by construction, whatever the input is, and the amount spent can be compared
//! with the length of the input in tests and fuzz targets.
//!
//! A step is about one byte or one UTF-16 unit read, compared or written: a few nanoseconds at most. Work with a
//! larger constant is charged as the number of steps that take as long.

#![forbid(unsafe_code)]

use std::fmt;

/// Steps after which a budget asks whether to stop: some 100 microseconds.
const STEPS_BETWEEN_POLLS: u64 = 1 << 16;

/// Why a budget refuses more work. The first reason stays the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// All steps are spent.
    #[error("the budget of work is exhausted")]
    Steps,
    /// All memory is spent.
    #[error("the budget of memory is exhausted")]
    Memory,
    /// Whoever waits for the work wants it to stop.
    #[error("the work was stopped")]
    Stopped,
}

/// What one input may still cost.
///
/// Memory that is freed is not given back: the sum of all allocations is bounded, so that neither peak memory nor the
/// time to clear and copy it can grow beyond the bound.
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
    /// A budget of this many steps and of this many allocated bytes.
    pub fn new(steps: u64, bytes: u64) -> Self {
        let next_poll = steps.saturating_sub(STEPS_BETWEEN_POLLS);
        Self { steps, steps_left: steps, bytes, bytes_left: bytes, next_poll, stop: None, exhausted: None }
    }

    /// The same budget, which ends as [`Exhausted::Stopped`] soon after `stop` returns true.
    #[must_use]
    pub fn until(mut self, stop: &'a dyn Fn() -> bool) -> Self {
        self.stop = Some(stop);
        self
    }

    /// Charges work, before it is done.
    ///
    /// # Errors
    ///
    /// [`Exhausted`] if that much is not left; then nothing is left, and every later call fails with the same reason.
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

    /// Charges memory, before it is allocated, and a step for each eight bytes of it.
    ///
    /// # Errors
    ///
    /// As [`Budget::charge`].
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

    /// Steps charged so far; all of them once the budget is exhausted.
    pub fn steps_spent(&self) -> u64 {
        self.steps - self.steps_left
    }

    /// Steps that may still be charged.
    pub fn steps_left(&self) -> u64 {
        self.steps_left
    }

    /// Bytes charged so far.
    pub fn bytes_spent(&self) -> u64 {
        self.bytes - self.bytes_left
    }

    /// Why no more work is done, if that is so.
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
    fn work_that_exceeds_the_budget_is_refused_for_good() {
        let mut budget = Budget::new(10, 100);
        assert_eq!(budget.charge(7), Ok(()));
        assert_eq!(budget.steps_spent(), 7);
        assert_eq!(budget.charge(4), Err(Exhausted::Steps));
        assert_eq!(budget.charge(0), Err(Exhausted::Steps), "nothing is free afterwards");
        assert_eq!(budget.allocate(1), Err(Exhausted::Steps));
        assert_eq!((budget.steps_spent(), budget.exhausted()), (10, Some(Exhausted::Steps)));
    }

    #[test]
    fn memory_is_charged_as_memory_and_as_steps() {
        let mut budget = Budget::new(100, 64);
        assert_eq!(budget.allocate(48), Ok(()));
        assert_eq!((budget.steps_spent(), budget.bytes_spent()), (6, 48));
        assert_eq!(budget.allocate(17), Err(Exhausted::Memory));
        assert_eq!(budget.charge(1), Err(Exhausted::Memory), "the first reason stays");
    }

    #[test]
    fn a_stop_is_honoured_between_steps() {
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
