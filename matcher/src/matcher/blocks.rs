//! Joins the fragments of script blocks: see [`block`](crate::block).

use super::{Matcher, Scratch};
use crate::block::{Assembly, Closed, Facts, FoundNeedles, Fragment, Joined};
use crate::rule::Rule;

impl Scratch {
    /// Returns the needles that the last search with this scratch found, for an [`Assembly`]. Allocates if there are
    /// any.
    pub fn found_needles(&self) -> FoundNeedles {
        FoundNeedles::of(&self.text.found)
    }
}

impl Matcher {
    /// Adds a fragment that [`find_fragment`](Self::find_fragment) has searched to an assembly. `reported` are the
    /// rules that were reported for it, ascending. The assembly may keep the buffer; `payload` is then an empty buffer
    /// of at least the same capacity.
    ///
    /// # Complexity
    ///
    /// Constant, except for copying at most half a buffer and for closing blocks when memory runs out.
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

    /// Lets an assembly continue with the rules of this matcher. Rules of `old` that were reported already and are in
    /// this matcher too stay reported; the fragments are searched again when their block is.
    pub fn adopt<T: Facts>(&self, assembly: &mut Assembly<T>, old: &[Rule]) {
        assembly.change_rules(old, &self.rules, self.identity);
    }

    /// Returns the rules that match the joined block and were not reported for one of its fragments, ascending. If
    /// there are any, `joined` contains the block afterwards.
    ///
    /// # Complexity
    ///
    /// A few units per border; the whole text only if a rule that was not reported becomes a candidate.
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
