//! The open blocks of one thread.

use super::list::{Linked, Links, List};
use super::open::{Block, Closed, FragmentFields, Kept, Key, StoredFragment};
use super::owners::{OWNER_BYTES, Owners, Tier};
use super::search::{BlockMatcher, BlockScratch};
use super::{BLOCK_FRAGMENTS_MAX, BlockCounts, Facts, Limits};
use crate::engine::gate::Found;
use crate::hash::SecretHash;
use crate::rule::Rule;
use std::collections::HashMap;

/// Maximum number of spare buffers, which replace the buffers taken from fragments.
const SPARES_MAX: usize = 32;

/// Joins fragments to blocks, within [`Limits`]; see the [module](super).
#[derive(Debug)]
pub struct Assembly<T> {
    limits: Limits,
    slots: HashMap<Key, u32>,
    blocks: Slab<T>,
    free: Vec<u32>,
    /// All blocks, the least recently used first.
    all: List,
    owners: Owners,
    /// Bytes of all blocks and owners.
    bytes: usize,
    spares: Vec<Vec<u8>>,
    spare_bytes: usize,
    /// The latest time of any fragment.
    now: u64,
    /// Identity of the matcher that searched the fragments.
    matcher: u64,
    closed: Vec<Closed<T>>,
    counts: BlockCounts,
    hash: SecretHash,
}

#[derive(Debug)]
struct Slab<T>(Vec<Option<Box<Block<T>>>>);

/// One of the two kinds of lists that blocks are linked into.
struct Table<'a, T> {
    blocks: &'a mut Slab<T>,
    which: usize,
}

impl<T> Linked for Table<'_, T> {
    fn links(&mut self, slot: u32) -> &mut Links {
        match self.blocks.0.get_mut(slot as usize) {
            Some(Some(block)) => &mut block.links[self.which],
            // Lists contain open blocks only.
            _ => unreachable!("slot {slot} of a list is empty"),
        }
    }
}

impl<T> Slab<T> {
    fn get(&mut self, slot: u32) -> &mut Block<T> {
        match self.0.get_mut(slot as usize) {
            Some(Some(block)) => block,
            // Slots come from tables that contain open blocks only.
            _ => unreachable!("slot {slot} is empty"),
        }
    }

    fn all(&mut self) -> Table<'_, T> {
        Table { blocks: self, which: 0 }
    }

    fn owned(&mut self) -> Table<'_, T> {
        Table { blocks: self, which: 1 }
    }
}

/// A fragment, without its payload.
#[derive(Clone, Debug)]
pub struct Fragment {
    /// The source of the event; no block spans two sources.
    pub source: u32,
    /// The process that wrote it.
    pub process_id: Option<u32>,
    /// The time of the event.
    pub time: u64,
    /// True if a view of the fragment could differ from its text: the whole text is then kept, whatever the rules find
    /// in it.
    pub views_could_differ: bool,
    /// The needles that its search found; see [`Scratch::found_needles`](crate::Scratch::found_needles).
    pub found_needles: FoundNeedles,
}

/// The needles of the gate that the search of a fragment found, and their positions.
#[derive(Clone, Debug, Default)]
pub struct FoundNeedles(pub(super) Vec<(u32, u32)>);

impl FoundNeedles {
    pub(crate) fn of(found: &Found) -> Self {
        let mut places = Vec::with_capacity(found.list().len());
        found.each(|needle, place| places.push((needle, place as u32)));
        Self(places)
    }
}

impl<T: Facts> Assembly<T> {
    /// Creates an assembly without blocks.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            slots: HashMap::new(),
            blocks: Slab(Vec::new()),
            free: Vec::new(),
            all: List::default(),
            owners: Owners::default(),
            bytes: 0,
            spares: Vec::new(),
            spare_bytes: 0,
            now: 0,
            matcher: 0,
            closed: Vec::new(),
            counts: BlockCounts::default(),
            hash: SecretHash::new(),
        }
    }

    /// Returns the number of open blocks.
    pub fn open(&self) -> usize {
        self.slots.len()
    }

    /// Returns the memory in use, in bytes, as counted against the limit: texts and bookkeeping.
    pub fn bytes(&self) -> usize {
        self.bytes + self.spare_bytes + self.owners.len() * OWNER_BYTES
    }

    /// Returns the counts so far.
    pub fn counts(&self) -> BlockCounts {
        self.counts
    }

    /// Returns a closed block, if there is one. Call it until it returns `None` after every call that may close blocks.
    pub fn next_closed(&mut self) -> Option<Closed<T>> {
        self.closed.pop()
    }

    /// Adds a fragment that [`Matcher::find_fragment`](crate::Matcher::find_fragment) has searched. `reported` are the
    /// rules that were reported for it, ascending. The assembly may keep the buffer; `payload` is then an empty buffer
    /// of at least the same capacity.
    ///
    /// # Complexity
    ///
    /// Constant, except for copying at most half a buffer and for closing blocks when memory runs out.
    pub(crate) fn take(
        &mut self,
        fragment: Fragment,
        payload: &mut Vec<u8>,
        reported: &[u32],
        matcher: BlockMatcher<'_>,
        scratch: &mut BlockScratch,
        facts: impl FnOnce() -> T,
    ) {
        if self.matcher != matcher.identity {
            self.change_rules(&[], &[], matcher.identity);
        }
        self.counts.fragments += 1;
        self.advance(fragment.time);
        let Some((pieces, number, total)) = place(payload) else {
            self.counts.unplaced += 1;
            return;
        };
        let owner = (fragment.source, fragment.process_id);
        let id = self.hash.hash(pieces.id);
        let key: Key = (owner, id);
        let slot = match self.slots.get(&key) {
            Some(&slot) => slot,
            None => self.begin(key, total, &pieces, facts()),
        };
        let block = self.blocks.get(slot);
        block.last_seen = self.now;
        if number < 1 || number > total.max(block.total) || total != block.total {
            self.counts.inconsistent += 1;
        }
        block.total = block.total.max(total);
        block.views_could_differ |= fragment.views_could_differ;
        block.report(reported);
        match block.parts.binary_search_by_key(&number, |part| part.number) {
            // Even if the texts differ: a hit must not depend on who writes last.
            Ok(_) => self.counts.duplicates += 1,
            Err(at) => {
                let text = pieces.text;
                let (bytes, text) = if 2 * payload.len() >= payload.capacity() {
                    let spare = self.spare(payload.capacity());
                    (std::mem::replace(payload, spare), text)
                } else {
                    let copy = payload.get(text).unwrap_or_default().to_vec();
                    let text = 0..copy.len();
                    (copy, text)
                };
                let kept = if fragment.views_could_differ { Kept::Needed } else { Kept::Whole };
                let part =
                    StoredFragment { number, bytes, text, found: Some(fragment.found_needles.0), kept };
                self.blocks.get(slot).parts.insert(at, part);
            }
        }
        let tier = self.blocks.get(slot).tier;
        self.all.remove(slot, &mut self.blocks.all());
        self.all.push(slot, &mut self.blocks.all());
        self.blocks.get(slot).tier = Tier::Whole;
        self.owners.touch(owner, slot, (tier, Tier::Whole), &mut self.blocks.owned());
        self.recount(slot);
        let block = self.blocks.get(slot);
        if block.is_complete() {
            self.counts.joined += 1;
            self.close(slot, true);
        } else if block.bytes > self.limits.block_bytes || block.parts.len() >= BLOCK_FRAGMENTS_MAX {
            self.counts.evicted += 1;
            self.close(slot, false);
        }
        self.make_room(matcher, scratch);
    }

    /// Closes the blocks that have waited too long, given the time of another event.
    pub fn advance(&mut self, time: u64) {
        self.now = self.now.max(time);
        while let Some(slot) = self.all.first()
            && self.now - self.blocks.get(slot).last_seen > self.limits.age
        {
            self.counts.partial += 1;
            self.close(slot, false);
        }
    }

    /// Closes the least recently used block, as at the end of a source. Returns false if there is none.
    pub fn close_oldest(&mut self) -> bool {
        let Some(slot) = self.all.first() else { return false };
        self.counts.partial += 1;
        self.close(slot, false);
        true
    }

    /// Reuses the buffers of a block that has been searched.
    pub fn recycle(&mut self, closed: Closed<T>) {
        for part in closed.block.parts {
            let capacity = part.bytes.capacity();
            if self.spares.len() < SPARES_MAX && self.bytes() + capacity <= self.limits.bytes / 2 {
                self.spare_bytes += capacity;
                self.spares.push(part.bytes);
            }
        }
    }

    /// Continues with other rules. Rules that were reported already and are in both sets stay reported; the fragments
    /// are searched again when their block is.
    pub(crate) fn change_rules(&mut self, old: &[Rule], new: &[Rule], identity: u64) {
        self.matcher = identity;
        if self.slots.is_empty() {
            return;
        }
        let name = |rule: &Rule| (rule.id.clone(), rule.title.clone());
        let numbers: HashMap<_, u32> = new.iter().map(name).zip(0..).collect();
        for block in self.blocks.0.iter_mut().flatten() {
            let reported = std::mem::take(&mut block.reported);
            let of_new = |rule: u32| numbers.get(&name(old.get(rule as usize)?)).copied();
            block.report(&reported.into_iter().filter_map(of_new).collect::<Vec<_>>());
            for part in &mut block.parts {
                part.found = None;
                match &mut part.kept {
                    Kept::Ends { is_known, .. } => *is_known = false,
                    // A fragment that was needed may not be needed now, but the views still need theirs.
                    kept if !block.views_could_differ => *kept = Kept::Whole,
                    _ => {}
                }
            }
        }
    }

    /// Trims all open blocks, as if memory had run out.
    #[cfg(test)]
    pub(crate) fn trim_all(&mut self, matcher: BlockMatcher<'_>, scratch: &mut BlockScratch) {
        for slot in self.slots.values().copied().collect::<Vec<_>>() {
            if self.blocks.get(slot).tier == Tier::Whole {
                self.trim(slot, matcher, scratch);
            }
        }
    }

    fn begin(&mut self, key: Key, total: i32, pieces: &FragmentFields<'_>, facts: T) -> u32 {
        let block = Box::new(Block {
            key,
            facts,
            id: pieces.id.into(),
            path: pieces.path.map(Into::into),
            total,
            parts: Vec::new(),
            reported: Vec::new(),
            last_seen: self.now,
            bytes: 0,
            tier: Tier::Whole,
            views_could_differ: false,
            links: [Links::default(); 2],
        });
        let slot = self.free.pop().unwrap_or_else(|| {
            self.blocks.0.push(None);
            (self.blocks.0.len() - 1) as u32
        });
        self.blocks.0[slot as usize] = Some(block);
        self.slots.insert(key, slot);
        self.all.push(slot, &mut self.blocks.all());
        self.owners.add(key.0, slot, Tier::Whole, &mut self.blocks.owned());
        slot
    }

    /// Updates the count of a block's bytes.
    fn recount(&mut self, slot: u32) {
        let block = self.blocks.get(slot);
        let (owner, before) = (block.key.0, block.bytes);
        let now = block.recount(block.facts.heap_bytes());
        block.bytes = now;
        self.bytes = self.bytes - before + now;
        self.owners.recount(owner, before, now);
    }

    fn close(&mut self, slot: u32, is_complete: bool) {
        let block = self.blocks.get(slot);
        let (key, tier, bytes) = (block.key, block.tier, block.bytes);
        self.all.remove(slot, &mut self.blocks.all());
        self.owners.remove(key.0, slot, tier, bytes, &mut self.blocks.owned());
        self.slots.remove(&key);
        self.bytes -= bytes;
        if let Some(block) = self.blocks.0[slot as usize].take() {
            self.free.push(slot);
            self.closed.push(Closed { block, is_complete });
        }
    }

    /// Returns an empty buffer of this capacity.
    fn spare(&mut self, capacity: usize) -> Vec<u8> {
        let Some(mut spare) = self.spares.pop() else { return Vec::with_capacity(capacity) };
        self.spare_bytes -= spare.capacity();
        spare.clear();
        spare.reserve_exact(capacity);
        spare
    }

    /// Releases memory until the limits hold: spare buffers first, then texts that no rule needs, then whole blocks.
    fn make_room(&mut self, matcher: BlockMatcher<'_>, scratch: &mut BlockScratch) {
        while self.bytes() > self.limits.bytes || self.open() > self.limits.blocks {
            if self.spare_bytes > 0 {
                self.spares.clear();
                self.spare_bytes = 0;
                continue;
            }
            let may_trim = self.open() <= self.limits.blocks;
            let Some((slot, tier)) = self.owners.victim(may_trim) else { return };
            if may_trim && tier == Tier::Whole {
                self.trim(slot, matcher, scratch);
            } else {
                self.counts.evicted += 1;
                self.close(slot, false);
            }
        }
    }

    /// Keeps only the parts of a block that some rule could need.
    fn trim(&mut self, slot: u32, matcher: BlockMatcher<'_>, scratch: &mut BlockScratch) {
        let block = self.blocks.get(slot);
        let owner = block.key.0;
        for part in block.parts.iter_mut().filter(|part| part.kept == Kept::Whole) {
            if part.trim(matcher, scratch) {
                self.counts.trimmed += 1;
            }
        }
        block.tier = Tier::Trimmed;
        self.owners.touch(owner, slot, (Tier::Whole, Tier::Trimmed), &mut self.blocks.owned());
        self.recount(slot);
    }
}

/// Returns the fields of a fragment, its number and the total.
fn place(payload: &[u8]) -> Option<(FragmentFields<'_>, i32, i32)> {
    let (number, rest) = payload.split_first_chunk()?;
    let (total, _) = rest.split_first_chunk()?;
    Some((FragmentFields::of(payload)?, i32::from_le_bytes(*number), i32::from_le_bytes(*total)))
}
