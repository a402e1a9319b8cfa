//! What the views of one event may cost: every loop over what an event decides is charged here before it runs.
//!
//! A step is worth at most twenty instructions, on average about ten. Work with a larger constant is charged as that many
//! steps; the weights are beside the loops and were measured with callgrind (see `bench/README.md`).

use super::mapped::{Mapped, PIECE_LEN};
use etwsieve_budget::{Budget, Exhausted};

/// Steps of each budget for an event of any length, so that a short script may unpack a long one.
pub(crate) const STEPS_FREE: u64 = 1 << 20;
/// Further steps for each unit of the event's text.
pub(crate) const STEPS_PER_UNIT: u64 = 32;
/// Most steps for making texts of one event.
pub(crate) const MAKE_STEPS_MAX: u64 = 2_400_000;
/// Most steps for searching the texts that were made of one event.
pub(crate) const SEARCH_STEPS_MAX: u64 = 1_100_000;
/// Most steps of the prefilter for one event. Beyond them it answers that a view could differ.
pub(crate) const PREFILTER_STEPS_MAX: u64 = 500_000;
/// Most bytes that the views of one event allocate, freed ones included.
pub(crate) const BYTES_MAX: u64 = 32 << 20;
/// Longest value of a folded expression, in units.
pub(crate) const VALUE_UNITS_MAX: usize = 1 << 20;
/// Longest value for a text of any length, in units.
const VALUE_UNITS_FREE: usize = 1 << 16;
/// What the longest value grows by for each unit of the text.
const VALUE_UNITS_PER_UNIT: usize = 16;

/// Units that are looked at between two charges.
const SCAN_UNITS: usize = 8;

/// The work and memory that the views of one event may cost, and what they have cost so far.
///
/// There is a budget for the prefilter, one for making texts and one for searching them, so that what was made before the
/// second ended is still searched. All of them are bounded whatever the length of the text.
#[derive(Debug)]
pub struct ViewBudget<'a> {
    pub(crate) prefilter: Budget<'a>,
    pub(super) make: Budget<'a>,
    pub(super) search: Budget<'a>,
    value_units_max: usize,
    is_cut: bool,
}

impl<'a> ViewBudget<'a> {
    /// The budget of an event whose payload has this many bytes.
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

    /// The same budget, which ends soon after `stop` returns true.
    #[must_use]
    pub fn until(self, stop: &'a dyn Fn() -> bool) -> Self {
        Self {
            prefilter: self.prefilter.until(stop),
            make: self.make.until(stop),
            search: self.search.until(stop),
            ..self
        }
    }

    /// Whether some view was not made or not searched to its end: the budget was exhausted, the work was stopped, or the
    /// text is longer than what is viewed.
    pub fn is_cut(&self) -> bool {
        self.is_cut || self.make.exhausted().is_some() || self.search.exhausted().is_some()
    }

    /// Whether the work was stopped before its end.
    pub fn is_stopped(&self) -> bool {
        [&self.prefilter, &self.make, &self.search]
            .iter()
            .any(|budget| budget.exhausted() == Some(Exhausted::Stopped))
    }

    /// Steps charged so far.
    pub fn steps(&self) -> u64 {
        self.prefilter.steps_spent() + self.make.steps_spent() + self.search.steps_spent()
    }

    /// Bytes allocated so far, freed ones included.
    pub fn bytes(&self) -> u64 {
        self.make.bytes_spent() + self.search.bytes_spent()
    }

    /// Most steps that any event is charged.
    pub const fn steps_max() -> u64 {
        PREFILTER_STEPS_MAX + MAKE_STEPS_MAX + SEARCH_STEPS_MAX
    }

    /// A part of the text is not viewed.
    pub(super) fn cut(&mut self) {
        self.is_cut = true;
    }

    /// The budgets for making texts and for searching them.
    pub(super) fn parts(&mut self) -> (Work<'_, 'a>, &mut Budget<'a>) {
        let work = Work { budget: &mut self.make, value_units_max: self.value_units_max };
        (work, &mut self.search)
    }
}

/// The making of texts: what it may still cost. Nothing is made once that is exhausted, so whoever is refused passes the
/// `None` on.
#[derive(Debug)]
pub(super) struct Work<'w, 'b> {
    budget: &'w mut Budget<'b>,
    /// Longest value, in units: in proportion to the event's text.
    pub(super) value_units_max: usize,
}

impl Work<'_, '_> {
    /// Charges work, before it is done.
    #[inline]
    pub(super) fn charge(&mut self, steps: usize) -> Option<()> {
        self.budget.charge(steps).ok()
    }

    /// Charges memory, before it is allocated, and the steps that it takes to fill it.
    #[inline]
    pub(super) fn allocate(&mut self, bytes: usize) -> Option<()> {
        self.budget.allocate(bytes).ok()
    }

    /// Whether nothing is left.
    pub(super) fn is_exhausted(&self) -> bool {
        self.budget.exhausted().is_some()
    }

    /// Charges a text made from another one, as far as units are copied.
    pub(super) fn copy(&mut self, source: &Mapped) -> Option<()> {
        self.allocate(2 * source.units().len() + PIECE_LEN * source.pieces())
    }

    /// Where the first unit from `from` on stands that is asked for; the end of the text if there is none.
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

    /// The last unit before `at` that is asked for.
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
