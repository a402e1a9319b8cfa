//! Script blocks whose fragments are joined: see [`block`](crate::block).

use super::{Matcher, Scratch};
use crate::block::{Assembly, Closed, Facts, FoundNeedles, Fragment, Joined};
use crate::rule::Rule;

impl Scratch {
    /// What the search just done with this scratch has found, for an [`Assembly`]. Any other search
    /// with this scratch changes it. Allocates if anything was found.
    pub fn found_needles(&self) -> FoundNeedles {
        FoundNeedles::of(&self.text.found)
    }
}

impl Matcher {
    /// Takes a fragment that [`find_fragment`](Self::find_fragment) has searched; `reported` are the rules, ascending, that were reported for it. Its buffer may be kept: another one of no less capacity
    /// then lies there, empty.
    ///
    /// # Complexity
    ///
    /// Constant, but for a copy of at most half a buffer, and for what has to be given up.
    pub fn take_fragment<T: Facts>(
        &self,
        assembly: &mut Assembly<T>,
        fragment: Fragment,
        payload: &mut Vec<u8>,
        reported: &[u32],
        scratch: &mut Scratch,
        facts: impl FnOnce() -> T,
    ) {
        assembly.take(fragment, payload, reported, self.blocks(), &mut scratch.block, facts);
    }

    /// The rules were exchanged: what `old` rules have said of the fragments so far counts for the same rules among
    /// those of this matcher, and the fragments are searched anew if their block comes to be searched.
    pub fn adopt<T: Facts>(&self, assembly: &mut Assembly<T>, old: &[Rule]) {
        assembly.change_rules(old, &self.rules, self.identity);
    }

    /// The rules that match the joined block and were not reported for one of its fragments, ascending. `joined` then
    /// holds the block; if there are none, it may hold another.
    ///
    /// # Complexity
    ///
    /// A few units for each border; the text only if a rule that was not reported becomes a candidate.
    pub fn find_joined<'s, T>(
        &self,
        closed: &Closed<T>,
        scratch: &'s mut Scratch,
        joined: &mut Joined,
    ) -> &'s [u32] {
        self.blocks().find_joined(closed, &mut scratch.text, &mut scratch.block, joined)
    }
}

#[cfg(test)]
mod tests;
