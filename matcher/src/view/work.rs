//! Budgets of the views of one event. Every loop whose length depends on the event is charged before it runs.
//!
//! A step is worth at most twenty instructions, and about ten on average. Work with a larger constant is charged as
//! several steps; the weights are defined beside the loops and were measured with callgrind (see `bench/README.md`).

use super::mapped::{Mapped, PIECE_LEN};
use etwsieve_budget::{Budget, Exhausted};

/// Steps of each budget for an event of any length, so that a short script may unpack a long one.
pub(crate) const STEPS_FREE: u64 = 1 << 20;
/// Additional steps per unit of the event's text.
pub(crate) const STEPS_PER_UNIT: u64 = 32;
/// Maximum number of steps to make texts for one event.
pub(crate) const MAKE_STEPS_MAX: u64 = 2_400_000;
/// Maximum number of steps to search the texts made for one event.
pub(crate) const SEARCH_STEPS_MAX: u64 = 1_100_000;
/// Maximum number of prefilter steps for one event. Beyond them, the prefilter assumes that a view could differ.
pub(crate) const PREFILTER_STEPS_MAX: u64 = 500_000;
/// Maximum number of bytes that the views of one event allocate, including those that are freed.
pub(crate) const BYTES_MAX: u64 = 32 << 20;
/// Maximum length of a folded value, in units.
pub(crate) const VALUE_UNITS_MAX: usize = 1 << 20;
/// Maximum length of a value in a text of any length, in units.
const VALUE_UNITS_FREE: usize = 1 << 16;
/// Increase of the maximum per unit of the text.
const VALUE_UNITS_PER_UNIT: usize = 16;

/// Units examined between two charges.
const SCAN_UNITS: usize = 8;

/// The work and memory that the views of one event may use, and have used so far.
///
/// The prefilter, making texts, and searching them have separate budgets, so that texts made before the second one is
/// exhausted are still searched. All of them are bounded for texts of any length.
#[derive(Debug)]
pub struct ViewBudget<'a> {
    pub(crate) prefilter: Budget<'a>,
    pub(super) make: Budget<'a>,
    pub(super) search: Budget<'a>,
    value_units_max: usize,
    is_cut: bool,
}

impl<'a> ViewBudget<'a> {
    /// Creates the budget of an event with a payload of this many bytes.
    pub fn new(payload_len: usize) -> Self {
        let units = payload_len / 2;
        let steps = STEPS_FREE + STEPS_PER_UNIT * units as u64;
        let value_units = VALUE_UNITS_FREE.saturating_add(units.saturating_mul(VALUE_UNITS_PER_UNIT));
        Self {
            prefilter: Budget::new(PREFILTER_STEPS_MAX, 0),
            make: Budget::new(steps.min(MAKE_STEPS_MAX), BYTES_MAX),
            search: Budget::new(steps.min(SEARCH_STEPS_MAX), BYTES_MAX),
            value_units_max: value_units.min(VALUE_UNITS_MAX),
            is_cut: false,
        }
    }

    /// Ends the budget soon after `stop` returns true.
    #[must_use]
    pub fn until(self, stop: &'a dyn Fn() -> bool) -> Self {
        Self {
            prefilter: self.prefilter.until(stop),
            make: self.make.until(stop),
            search: self.search.until(stop),
            ..self
        }
    }

    /// Returns true if some view was not made or searched completely: the budget was exhausted, the work was stopped,
    /// or the text is longer than the part that is viewed.
    pub fn is_cut(&self) -> bool {
        self.is_cut || self.make.exhausted().is_some() || self.search.exhausted().is_some()
    }

    /// Returns true if the work was stopped.
    pub fn is_stopped(&self) -> bool {
        [&self.prefilter, &self.make, &self.search]
            .iter()
            .any(|budget| budget.exhausted() == Some(Exhausted::Stopped))
    }

    /// Returns the steps charged so far.
    pub fn steps(&self) -> u64 {
        self.prefilter.steps_spent() + self.make.steps_spent() + self.search.steps_spent()
    }

    /// Returns the bytes allocated so far, including those that were freed.
    pub fn bytes(&self) -> u64 {
        self.make.bytes_spent() + self.search.bytes_spent()
    }

    /// Returns the maximum number of steps that any event is charged.
    pub const fn steps_max() -> u64 {
        PREFILTER_STEPS_MAX + MAKE_STEPS_MAX + SEARCH_STEPS_MAX
    }

    /// Records that part of the text is not viewed.
    pub(super) fn cut(&mut self) {
        self.is_cut = true;
    }

    /// Returns the budgets for making texts and for searching them.
    pub(super) fn parts(&mut self) -> (Work<'_, 'a>, &mut Budget<'a>) {
        let work = Work { budget: &mut self.make, value_units_max: self.value_units_max };
        (work, &mut self.search)
    }
}

/// The budget for making texts. Once it is exhausted, nothing more is made: functions return `None`, which their
/// callers pass on.
#[derive(Debug)]
pub(super) struct Work<'w, 'b> {
    budget: &'w mut Budget<'b>,
    /// Maximum length of a value, in units, in proportion to the event's text.
    pub(super) value_units_max: usize,
}

impl Work<'_, '_> {
    /// Charges work before it is done.
    #[inline]
    pub(super) fn charge(&mut self, steps: usize) -> Option<()> {
        self.budget.charge(steps).ok()
    }

    /// Charges memory before it is allocated, with the steps that it takes to fill it.
    #[inline]
    pub(super) fn allocate(&mut self, bytes: usize) -> Option<()> {
        self.budget.allocate(bytes).ok()
    }

    /// Returns true if nothing is left.
    pub(super) fn is_exhausted(&self) -> bool {
        self.budget.exhausted().is_some()
    }

    /// Charges a text made from another one, for the units that are copied.
    pub(super) fn copy(&mut self, source: &Mapped) -> Option<()> {
        self.allocate(2 * source.units().len() + PIECE_LEN * source.pieces())
    }

    /// Returns the position of the first unit from `from` on that satisfies `is_found`; the end of the text if there is
    /// none.
    #[inline]
    pub(super) fn find(
        &mut self,
        text: &[u16],
        from: usize,
        is_found: impl Fn(u16) -> bool,
    ) -> Option<usize> {
        let mut at = from;
        for units in text.get(from..).unwrap_or_default().chunks(SCAN_UNITS) {
            self.charge(units.len())?;
            if let Some(own) = units.iter().position(|unit| is_found(*unit)) {
                return Some(at + own);
            }
            at += units.len();
        }
        Some(text.len().max(from))
    }

    /// Returns the last unit before `at` that satisfies `is_found`.
    pub(super) fn find_before(
        &mut self,
        text: &[u16],
        at: usize,
        is_found: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        for units in text.get(..at).unwrap_or_default().rchunks(SCAN_UNITS) {
            self.charge(units.len())?;
            if let Some(unit) = units.iter().rev().find(|unit| is_found(**unit)) {
                return Some(*unit);
            }
        }
        None
    }
}
