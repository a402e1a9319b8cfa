//! The refused numbers that are not acknowledged yet.
//!
//! A frame can be refused again after a connection was lost before the ACK. Its hits must be counted once.

/// Maximum number of ranges that are remembered. A collector refuses single frames, of which at most its window is not
/// acknowledged, so more come only from one that misbehaves.
const RANGES_MAX: usize = 4096;

/// Disjoint ranges of refused numbers, each with the number of its epoch. Beyond [`RANGES_MAX`] the oldest is forgotten;
/// hits in it are counted again if they are refused again.
#[derive(Clone, Debug, Default)]
pub(super) struct RefusedNumbers(Vec<(u32, u64, u64)>);

impl RefusedNumbers {
    /// Adds the numbers `from` to `to` of an epoch. Returns how many of them are new.
    pub(super) fn add(&mut self, id: u32, from: u64, to: u64) -> u64 {
        let (mut first, mut last, mut known) = (from, to, 0);
        self.0.retain(|(other, start, end)| {
            if *other != id || *start > to || *end < from {
                return true;
            }
            known += (*end).min(to) - (*start).max(from) + 1;
            (first, last) = (first.min(*start), last.max(*end));
            false
        });
        if self.0.len() == RANGES_MAX {
            self.0.remove(0);
        }
        self.0.push((id, first, last));
        to - from + 1 - known
    }

    /// Forgets the numbers of an epoch up to and including `through`.
    pub(super) fn forget(&mut self, id: u32, through: u64) {
        self.0.retain_mut(|(other, start, end)| {
            if *other == id {
                *start = (*start).max(through + 1);
            }
            start <= end
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_once_until_they_are_acknowledged() {
        let mut refused = RefusedNumbers::default();
        // Epoch, first and last number, how many are new.
        let rows = [(1, 4, 4, 1), (1, 2, 2, 1), (1, 4, 4, 0), (2, 4, 4, 1), (1, 1, 6, 4), (1, 6, 7, 1)];
        for (id, from, to, new) in rows {
            assert_eq!(refused.add(id, from, to), new, "{id}: {from} to {to}");
        }
        refused.forget(1, 5);
        assert_eq!(refused.add(1, 1, 7), 5, "6 and 7 are still known");
        refused.forget(1, 7);
        refused.forget(2, 7);
        assert!(refused.0.is_empty());
    }

    #[test]
    fn the_number_of_ranges_is_bounded() {
        let mut refused = RefusedNumbers::default();
        for number in 0..RANGES_MAX as u64 + 2 {
            assert_eq!(refused.add(1, 2 * number + 1, 2 * number + 1), 1);
        }
        assert_eq!(refused.0.len(), RANGES_MAX);
        assert_eq!(refused.add(1, 1, 1), 1, "the oldest range is forgotten");
        assert_eq!(refused.add(1, 9, 9), 0, "others are known");
    }
}
