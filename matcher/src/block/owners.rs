//! Memory by owner. When memory runs out, the process that uses most loses its least recently used block first, so that
//! a flood evicts its own blocks and not those of others.

use super::list::{Linked, List};
use std::collections::{BTreeSet, HashMap};

/// A process of a source; `None` covers all events without a process id.
pub(super) type Owner = (u32, Option<u32>);

/// Approximate bytes that an owner takes itself.
pub(super) const OWNER_BYTES: usize = 2 * (size_of::<Owner>() + size_of::<Share>()) + 64;

/// The list of its owner in which a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tier {
    /// Not trimmed.
    Whole,
    /// Trimmed to what some rule could still need.
    Trimmed,
}

#[derive(Debug, Default)]
struct Share {
    bytes: usize,
    blocks: usize,
    whole: List,
    trimmed: List,
}

/// The owners of open blocks.
#[derive(Debug, Default)]
pub(super) struct Owners {
    shares: HashMap<Owner, Share>,
    by_bytes: BTreeSet<(usize, Owner)>,
}

impl Owners {
    pub(super) fn len(&self) -> usize {
        self.shares.len()
    }

    /// Adds a block, which has no memory yet.
    pub(super) fn add(&mut self, owner: Owner, slot: u32, tier: Tier, blocks: &mut impl Linked) {
        let share = self.shares.entry(owner).or_insert_with(|| {
            self.by_bytes.insert((0, owner));
            Share::default()
        });
        share.blocks += 1;
        share.list(tier).push(slot, blocks);
    }

    /// Moves a block to the end of a list.
    pub(super) fn touch(
        &mut self,
        owner: Owner,
        slot: u32,
        (from, to): (Tier, Tier),
        blocks: &mut impl Linked,
    ) {
        if let Some(share) = self.shares.get_mut(&owner) {
            share.list(from).remove(slot, blocks);
            share.list(to).push(slot, blocks);
        }
    }

    /// Updates the memory of an owner.
    pub(super) fn recount(&mut self, owner: Owner, before: usize, now: usize) {
        if before == now {
            return;
        }
        if let Some(share) = self.shares.get_mut(&owner) {
            self.by_bytes.remove(&(share.bytes, owner));
            share.bytes = share.bytes - before + now;
            self.by_bytes.insert((share.bytes, owner));
        }
    }

    /// Removes a block that takes this many bytes.
    pub(super) fn remove(
        &mut self,
        owner: Owner,
        slot: u32,
        tier: Tier,
        bytes: usize,
        blocks: &mut impl Linked,
    ) {
        self.recount(owner, bytes, 0);
        if let Some(share) = self.shares.get_mut(&owner) {
            share.list(tier).remove(slot, blocks);
            share.blocks -= 1;
            if share.blocks == 0 {
                self.by_bytes.remove(&(share.bytes, owner));
                self.shares.remove(&owner);
            }
        }
    }

    /// Returns the least recently used block of the owner with most memory. If `whole_first`, trimmed blocks are only
    /// returned if there are no others.
    pub(super) fn victim(&self, whole_first: bool) -> Option<(u32, Tier)> {
        let (_, owner) = self.by_bytes.last()?;
        let share = self.shares.get(owner)?;
        let whole = share.whole.first().map(|slot| (slot, Tier::Whole));
        let trimmed = share.trimmed.first().map(|slot| (slot, Tier::Trimmed));
        if whole_first { whole.or(trimmed) } else { trimmed.or(whole) }
    }
}

impl Share {
    fn list(&mut self, tier: Tier) -> &mut List {
        match tier {
            Tier::Whole => &mut self.whole,
            Tier::Trimmed => &mut self.trimmed,
        }
    }
}
