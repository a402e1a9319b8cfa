//! A block that is being collected, and one that is closed.

use super::fields;
use super::joined::Joined;
use super::list::Links;
use super::owners::{Owner, Tier};
use crate::field::Field;
use std::ops::Range;

/// Identifies a block: its owner and a hash of its id.
pub(super) type Key = (Owner, u128);

/// A block that is not complete yet.
#[derive(Debug)]
pub(super) struct Block<T> {
    pub(super) key: Key,
    /// The caller's data for the first fragment received; id and path are also those of that fragment.
    pub(super) facts: T,
    pub(super) id: Box<[u8]>,
    pub(super) path: Option<Box<[u8]>>,
    /// The largest total that a fragment claimed.
    pub(super) total: i32,
    /// The fragments, by ascending number, each once.
    pub(super) parts: Vec<StoredFragment>,
    /// Rules that were reported for single fragments, ascending.
    pub(super) reported: Vec<u32>,
    /// The assembly's time at the last fragment.
    pub(super) last_seen: u64,
    /// Memory in bytes, as last counted.
    pub(super) bytes: usize,
    pub(super) tier: Tier,
    /// True if a view of some fragment could differ.
    pub(super) views_could_differ: bool,
    /// Links in the list of all blocks and in the list of its owner.
    pub(super) links: [Links; 2],
}

/// A fragment of an open block.
#[derive(Debug)]
pub(super) struct StoredFragment {
    pub(super) number: i32,
    /// The bytes that are kept; the text is at `text`.
    pub(super) bytes: Vec<u8>,
    pub(super) text: Range<usize>,
    /// The needles of the gate that the search of the event found, each with a position in the payload's strings.
    /// `None` if it was searched with other rules than the present ones.
    pub(super) found: Option<Vec<(u32, u32)>>,
    pub(super) kept: Kept,
}

/// The part of a fragment's text that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// The whole text.
    Whole,
    /// The whole text, because some rule may need it.
    Needed,
    /// Only the first and the last `end_units` of `units`. No rule needs the text between them, unless the rules have
    /// changed since (`is_known` is false then).
    Ends { units: usize, end_units: usize, is_known: bool },
}

impl StoredFragment {
    pub(super) fn text(&self) -> &[u8] {
        self.bytes.get(self.text.clone()).unwrap_or_default()
    }

    fn bytes_held(&self) -> usize {
        self.bytes.capacity()
            + self.found.as_ref().map_or(0, |found| found.capacity() * size_of::<(u32, u32)>())
    }
}

impl<T> Block<T> {
    /// Returns true if all numbers from 1 to the total are present.
    pub(super) fn is_complete(&self) -> bool {
        let below = self.parts.partition_point(|part| part.number < 1);
        let inside = self.parts.partition_point(|part| part.number <= self.total).saturating_sub(below);
        usize::try_from(self.total).is_ok_and(|total| total > 0 && inside == total)
    }

    /// Counts the memory in bytes, where `facts_heap` is what the facts own. Visits every fragment.
    pub(super) fn recount(&self, facts_heap: usize) -> usize {
        Self::OVERHEAD_BYTES
            + facts_heap
            + self.id.len()
            + self.path.as_ref().map_or(0, |path| path.len())
            + self.reported.capacity() * size_of::<u32>()
            + self.parts.capacity() * size_of::<StoredFragment>()
            + self.parts.iter().map(StoredFragment::bytes_held).sum::<usize>()
    }

    /// Memory of the block itself, of its entries in hash tables, which may be half empty, and of the allocator for
    /// each allocation.
    const OVERHEAD_BYTES: usize = size_of::<Self>()
        + 2 * (size_of::<Key>() + 2 * size_of::<u64>() + size_of::<Option<Box<Self>>>())
        + 96;

    /// Adds rules that were reported for a fragment.
    pub(super) fn report(&mut self, rules: &[u32]) {
        for &rule in rules {
            if let Err(place) = self.reported.binary_search(&rule) {
                self.reported.insert(place, rule);
            }
        }
    }
}

/// A block that is complete or was closed early.
#[derive(Debug)]
pub struct Closed<T> {
    pub(super) block: Box<Block<T>>,
    pub(super) is_complete: bool,
}

impl<T> Closed<T> {
    /// Returns the caller's data for the first fragment received.
    pub fn facts(&self) -> &T {
        &self.block.facts
    }

    /// Returns the number of fragments received.
    pub fn fragments(&self) -> usize {
        self.block.parts.len()
    }

    /// Returns the total length of the texts kept, in bytes.
    pub fn text_bytes(&self) -> usize {
        self.block.parts.iter().map(|part| part.text.len()).sum()
    }

    /// Returns the number of fragments that the block should have: the largest total claimed.
    pub fn message_total(&self) -> i32 {
        self.block.total
    }

    /// Returns true if some text was missing when the block closed, or was trimmed for other rules than the present
    /// ones.
    pub fn is_partial(&self) -> bool {
        let is_unknown = |part: &StoredFragment| matches!(part.kept, Kept::Ends { is_known: false, .. });
        !self.is_complete || self.block.parts.iter().any(is_unknown)
    }

    /// Returns the rules that were reported for single fragments, ascending.
    pub fn reported(&self) -> &[u32] {
        &self.block.reported
    }

    /// Writes the joined block as one payload.
    pub fn join(&self, joined: &mut Joined) {
        let block = &self.block;
        joined.write(block.total, &block.parts, &block.id, block.path.as_deref());
    }

    /// Returns true if a view of some fragment could differ, as
    /// [`Fragment::views_could_differ`](super::Fragment::views_could_differ) said.
    pub fn views_could_differ(&self) -> bool {
        self.block.views_could_differ
    }

    /// Returns the text around each border between two fragments, at most `units` units from either side.
    pub fn borders(&self, units: usize) -> impl Iterator<Item = Vec<[u8; 2]>> {
        self.block.parts.windows(2).map(move |pair| {
            let (left, right): (&[[u8; 2]], &[[u8; 2]]) =
                (pair[0].text().as_chunks().0, pair[1].text().as_chunks().0);
            [&left[left.len().saturating_sub(units)..], &right[..right.len().min(units)]].concat()
        })
    }
}

/// Id, path and text of a fragment's payload.
pub(super) struct FragmentFields<'a> {
    pub(super) id: &'a [u8],
    pub(super) path: Option<&'a [u8]>,
    /// The range of the text, in bytes of the payload.
    pub(super) text: Range<usize>,
}

impl<'a> FragmentFields<'a> {
    /// Returns `None` if the payload has no text or no id.
    pub(super) fn of(payload: &'a [u8]) -> Option<Self> {
        let fields = fields(payload);
        let units = fields.range(Field::ScriptBlockText)?;
        let offset = fields.kind().text_offset();
        let id = fields.text(Field::ScriptBlockId).filter(|id| !id.is_empty())?;
        let text = offset + 2 * units.start..offset + 2 * units.end;
        Some(Self { id, path: fields.text(Field::Path), text })
    }
}
