//! Names of cmdlets that make it worthwhile to read the calls of a text.

use crate::frequency;
use crate::rule::{Calls, Rule};
use crate::scan::narrow::narrow_unit;
use crate::scan::triggers::{ByteSets, PLACES};
use crate::view::chars::{DASH, is_word, lower};
use crate::view::work::Work;
use memchr::memmem;

/// Units searched for one name per step.
const NAME_UNITS_PER_STEP: usize = 4;

/// The names and aliases of the cmdlets in the rules, each with the position of the units that are scanned for.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// The name in lower case, and the position of those units. A name that is shorter may be followed by anything.
    list: Vec<(Vec<u8>, usize)>,
}

impl Names {
    /// Collects the names of the cmdlets in the rules of the call-aware view.
    pub(crate) fn of(rules: &[Rule]) -> Self {
        let mut list: Vec<(Vec<u8>, usize)> = Vec::new();
        for rule in rules.iter().filter(|rule| rule.calls != Calls::No) {
            for name in rule.expr.cmdlet_names() {
                let name = name.to_ascii_lowercase().into_bytes();
                let rarer = |a: &usize, b: &usize| {
                    frequency::bits(&name[*a..a + PLACES]).total_cmp(&frequency::bits(&name[*b..b + PLACES]))
                };
                let start = (0..(name.len() + 1).saturating_sub(PLACES)).max_by(rarer).unwrap_or(0);
                if !list.iter().any(|(known, _)| *known == name) {
                    list.push((name, start));
                }
            }
        }
        Self { list }
    }

    pub(in crate::view) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.list.iter().map(|(name, _)| &name[..])
    }

    /// Returns the sequence that accepts those units of all names.
    pub(in crate::view) fn byte_sets(&self) -> ByteSets {
        let own = |place: usize| self.list.iter().map(move |(name, start)| name.get(start + place).copied());
        let first = std::array::from_fn(|place| own(place).flatten().collect());
        ByteSets { first, last: own(PLACES - 1).collect() }
    }

    /// Returns true if one of the names occurs in a text in light normalisation; `None` if the work is exhausted.
    /// `narrow` is scratch memory.
    pub(in crate::view) fn stand_in(
        &self,
        units: &[u16],
        narrow: &mut Vec<u8>,
        work: &mut Work<'_, '_>,
    ) -> Option<bool> {
        work.charge(units.len() / 2 + units.len() / NAME_UNITS_PER_STEP * self.list.len())?;
        narrow.clear();
        narrow.extend(units.iter().map(|unit| narrow_unit(*unit)));
        Some(self.list.iter().any(|(name, _)| memmem::find(narrow, name).is_some()))
    }

    /// Returns true if one of the names occurs with those units at this position.
    pub(in crate::view) fn stands(&self, units: &[[u8; 2]], at: usize) -> bool {
        let unit = |at: usize| units.get(at).map_or(0, |unit| lower(u16::from_le_bytes(*unit)));
        self.list.iter().any(|(name, own)| {
            at.checked_sub(*own).is_some_and(|start| {
                let borders = [start.checked_sub(1).map_or(0, unit), unit(start + name.len())];
                name.iter().enumerate().all(|(at, byte)| u16::from(*byte) == unit(start + at))
                    && borders.iter().all(|unit| !is_word(*unit) && *unit != DASH)
            })
        })
    }
}
