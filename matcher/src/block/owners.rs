//! Who holds how much: when room runs out, the process that holds the most gives some up, its stillest block first.
//! So a flood pushes out itself, and not the blocks of others.

use super::list::{Linked, List};
use std::collections::{BTreeSet, HashMap};

/// A process of a source; `None`: events that do not tell theirs.
pub(super) type Owner = (u32, Option<u32>);

/// Bytes that an owner costs by itself, about.
pub(super) const OWNER_BYTES: usize = 2 * (size_of::<Owner>() + size_of::<Share>()) + 64;

/// Which of its owner's lists a block is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tier {
    /// As it came.
    Whole,
    /// Reduced to what some rule could still need.
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

    /// Adds a block, which holds nothing yet.
    pub(super) fn add(&mut self, owner: Owner, slot: u32, tier: Tier, blocks: &mut impl Linked) {
        let share = self.shares.entry(owner).or_insert_with(|| {
            self.by_bytes.insert((0, owner));
            Share::default()
        });
        share.blocks += 1;
        share.list(tier).push(slot, blocks);
    }

    /// Puts a block behind all others of a list.
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

    /// The owner holds other bytes than before.
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

    /// Takes a block of so many bytes away.
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

    /// The stillest block of the owner that holds the most: one that is whole, if there is one and `whole_first`.
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
