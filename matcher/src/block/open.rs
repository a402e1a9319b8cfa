//! A block whose fragments are coming, and one that has closed.

use super::fields;
use super::joined::Joined;
use super::list::Links;
use super::owners::{Owner, Tier};
use crate::field::Field;
use std::ops::Range;

/// What names a block.
pub(super) type Key = (Owner, u128);

/// A block that is not complete yet.
#[derive(Debug)]
pub(super) struct Block<T> {
    pub(super) key: Key,
    /// Of the first fragment seen, as are id and path.
    pub(super) facts: T,
    pub(super) id: Box<[u8]>,
    pub(super) path: Option<Box<[u8]>>,
    /// The largest that a fragment claimed.
    pub(super) total: i32,
    /// By ascending number, each once.
    pub(super) parts: Vec<StoredFragment>,
    /// Rules that were reported for single fragments, ascending.
    pub(super) reported: Vec<u32>,
    /// The assembly's time at the last fragment.
    pub(super) last_seen: u64,
    /// What it holds, all in all, as last counted.
    pub(super) bytes: usize,
    pub(super) tier: Tier,
    /// Whether another view of some fragment could differ.
    pub(super) views_could_differ: bool,
    /// Among all blocks, and among those of its owner.
    pub(super) links: [Links; 2],
}

/// A fragment.
#[derive(Debug)]
pub(super) struct StoredFragment {
    pub(super) number: i32,
    /// What is kept: the text stands at `text`.
    pub(super) bytes: Vec<u8>,
    pub(super) text: Range<usize>,
    /// Needles of the gate that the search of the event found, and a unit of the payload's strings at which each
    /// stands. `None`: searched with other rules than those of today.
    pub(super) found: Option<Vec<(u32, u32)>>,
    pub(super) kept: Kept,
}

/// How much of a fragment's text is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// All.
    Whole,
    /// All, since something in it may be needed.
    Needed,
    /// The first and the last units, of so many; between them is nothing that a rule could need, unless rules have been
    /// exchanged since.
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
    /// Whether every number from 1 to the total is there.
    pub(super) fn is_complete(&self) -> bool {
        let below = self.parts.partition_point(|part| part.number < 1);
        let inside = self.parts.partition_point(|part| part.number <= self.total).saturating_sub(below);
        usize::try_from(self.total).is_ok_and(|total| total > 0 && inside == total)
    }

    /// Bytes that it holds, `facts_heap` being those of its facts: counted anew, which takes a look at each part.
    pub(super) fn recount(&self, facts_heap: usize) -> usize {
        Self::OVERHEAD_BYTES
            + facts_heap
            + self.id.len()
            + self.path.as_ref().map_or(0, |path| path.len())
            + self.reported.capacity() * size_of::<u32>()
            + self.parts.capacity() * size_of::<StoredFragment>()
            + self.parts.iter().map(StoredFragment::bytes_held).sum::<usize>()
    }

    /// The block itself, its places in the tables, which may be half empty, and what an allocator needs for each of
    /// its pieces.
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

/// A block that is complete, or has been given up.
#[derive(Debug)]
pub struct Closed<T> {
    pub(super) block: Box<Block<T>>,
    pub(super) is_complete: bool,
}

impl<T> Closed<T> {
    /// The facts of its first fragment seen.
    pub fn facts(&self) -> &T {
        &self.block.facts
    }

    /// Number of its fragments that are there.
    pub fn fragments(&self) -> usize {
        self.block.parts.len()
    }

    /// Bytes of its fragments' texts, as far as they are there.
    pub fn text_bytes(&self) -> usize {
        self.block.parts.iter().map(|part| part.text.len()).sum()
    }

    /// Number of its fragments, as the largest claim has it.
    pub fn message_total(&self) -> i32 {
        self.block.total
    }

    /// Whether some of it was missing, or unknown to the rules of today, when it closed.
    pub fn is_partial(&self) -> bool {
        let is_unknown = |part: &StoredFragment| matches!(part.kept, Kept::Ends { is_known: false, .. });
        !self.is_complete || self.block.parts.iter().any(is_unknown)
    }

    /// The rules that were reported for single fragments, ascending.
    pub fn reported(&self) -> &[u32] {
        &self.block.reported
    }

    /// Writes the whole as one payload.
    pub fn join(&self, joined: &mut Joined) {
        let block = &self.block;
        joined.write(block.total, &block.parts, &block.id, block.path.as_deref());
    }

    /// Whether another view of some fragment could differ, as was said when it came.
    pub fn views_could_differ(&self) -> bool {
        self.block.views_could_differ
    }

    /// What stands around each border of two fragments, at most so many units of either.
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
    /// In bytes of the payload.
    pub(super) text: Range<usize>,
}

impl<'a> FragmentFields<'a> {
    /// `None` if the payload has no text, or no id.
    pub(super) fn of(payload: &'a [u8]) -> Option<Self> {
        let fields = fields(payload);
        let units = fields.range(Field::ScriptBlockText)?;
        let offset = fields.kind().text_offset();
        let id = fields.text(Field::ScriptBlockId).filter(|id| !id.is_empty())?;
        let text = offset + 2 * units.start..offset + 2 * units.end;
        Some(Self { id, path: fields.text(Field::Path), text })
    }
}
