//! Answers of contestants, and their comparison with the expected answers.

use std::fmt;

/// Pairs of an event and a rule that matches it, by their indices in the workload and in the rule set.
pub type Pair = (u32, u32);

/// A digest of an answer, cheap enough to be computed while the clock runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Number of pairs.
    pub pairs: u64,
    /// Sum of the hashes of the pairs, which does not depend on their order.
    pub sum: u64,
}

impl Answer {
    /// Adds a pair.
    #[inline]
    pub fn add(&mut self, (event, rule): Pair) {
        self.pairs += 1;
        self.sum = self.sum.wrapping_add(mix(u64::from(event) << 32 | u64::from(rule)));
    }

    /// Returns the answer that consists of these pairs.
    pub fn of<'a>(pairs: impl IntoIterator<Item = &'a Pair>) -> Self {
        let mut answer = Self::default();
        pairs.into_iter().for_each(|pair| answer.add(*pair));
        answer
    }
}

/// A bijection that spreads its input over all bits: the finaliser of SplitMix64 (Steele, Lea, Flood, 2014).
pub(crate) fn mix(mut value: u64) -> u64 {
    value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ value >> 31
}

/// The difference between an answer and the expected one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Number of expected pairs.
    pub expected: u64,
    /// Number of found pairs.
    pub found: u64,
    /// An expected pair that was not found.
    pub missing: Option<Pair>,
    /// A found pair that is not expected.
    pub extra: Option<Pair>,
}

impl Difference {
    /// Compares two sets of pairs; a pair that was found twice is one too many. Returns `None` if they are equal.
    pub fn between(expected: &[Pair], found: &[Pair]) -> Option<Self> {
        let sorted = |pairs: &[Pair]| {
            let mut pairs = pairs.to_vec();
            pairs.sort_unstable();
            pairs
        };
        let (expected, found) = (sorted(expected), sorted(found));
        if expected == found {
            return None;
        }
        Some(Self {
            expected: expected.len() as u64,
            found: found.len() as u64,
            missing: expected.iter().find(|pair| found.binary_search(pair).is_err()).copied(),
            extra: found.iter().find(|pair| expected.binary_search(pair).is_err()).copied(),
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {} pairs of event and rule, found {}", self.expected, self.found)?;
        if let Some((event, rule)) = self.missing {
            write!(f, "; event {event} with rule {rule} is missing")?;
        }
        if let Some((event, rule)) = self.extra {
            write!(f, "; event {event} with rule {rule} is one too many")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, Difference};

    #[test]
    fn answers_differ_when_sets_do() {
        let sets: [&[(u32, u32)]; 6] =
            [&[], &[(0, 0)], &[(0, 1)], &[(1, 0)], &[(0, 0), (1, 1)], &[(0, 1), (1, 0)]];
        for (at, a) in sets.iter().enumerate() {
            for (other, b) in sets.iter().enumerate() {
                assert_eq!(Answer::of(*a) == Answer::of(*b), at == other, "{a:?} {b:?}");
                assert_eq!(Difference::between(a, b).is_none(), at == other, "{a:?} {b:?}");
            }
        }
        assert_eq!(Answer::of(&[(3, 4), (1, 2)]), Answer::of(&[(1, 2), (3, 4)]));
    }

    #[test]
    fn differences_name_a_pair() {
        let difference = Difference::between(&[(1, 1), (2, 2)], &[(2, 2), (3, 3), (3, 3)]).unwrap();
        assert_eq!((difference.missing, difference.extra), (Some((1, 1)), Some((3, 3))));
        let twice = Difference::between(&[(1, 1)], &[(1, 1), (1, 1)]).unwrap();
        assert_eq!((twice.expected, twice.found, twice.missing, twice.extra), (1, 2, None, None));
    }
}
