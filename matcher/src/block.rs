//! Script blocks whose fragments are joined, so that rules see what no single event shows.
//!
//! PowerShell splits a long script at any UTF-16 unit and writes one event 4104 per fragment. An [`Assembly`] collects
//! fragments that have been searched on their own until their block is complete, and returns [`Closed`] blocks whose
//! joined text is then searched. Fragments may arrive in any order, twice, without the first one, or with wrong
//! numbers; none of this panics or lets memory grow without bound.
//!
//! * A block is identified by source, process and script block id. Its fragments are joined in the order of their
//!   numbers.
//! * A block is complete when it has all numbers from 1 to its total, which is the largest total that any fragment
//!   claims. Other numbers keep their order, but never make a block complete.
//! * A missing fragment is replaced by a [`GAP`], which no needle crosses.
//! * The first of two fragments with the same number counts.
//! * A block that is closed early (for its age, for lack of memory, or at the end of the source) is searched with the
//!   fragments it has, and reported as partial.
//!
//! The module has no clock: the time comes with the fragments.
//!
//! No text is searched twice for the same needle. The search of each event has recorded where the needles of the gate
//! occur. When a block closes, only a few units on either side of each border are searched, and the text is joined only
//! if that makes some rule a candidate.

mod assembly;
mod joined;
mod list;
mod open;
mod owners;
pub(crate) mod search;
pub(crate) mod trim;

pub use assembly::{Assembly, FoundNeedles, Fragment};
pub use joined::{Joined, Piece};
pub use open::Closed;

use crate::field::{EventKind, Fields};

/// Maximum memory of one [`Assembly`] in bytes: texts and bookkeeping.
pub const ASSEMBLY_BYTES_MAX: usize = 32 << 20;
/// Most open blocks of one [`Assembly`].
pub const ASSEMBLY_BLOCKS_MAX: usize = 1 << 16;
/// Maximum number of bytes of one block. The joined text takes as much again while it is searched.
pub const BLOCK_BYTES_MAX: usize = 16 << 20;
/// Maximum number of fragments of one block; the most that has been seen from PowerShell is 28.
pub const BLOCK_FRAGMENTS_MAX: usize = 1024;
/// Time that a block waits for its next fragment, in ticks of 100 ns: five minutes. PowerShell writes all fragments
/// within milliseconds.
pub const BLOCK_AGE_TICKS_MAX: u64 = 5 * 60 * 10_000_000;

/// UTF-16 units that replace missing text between two fragments. No word, line or run of white space extends across
/// them.
pub const GAP: [u16; 3] = [0, 0x0A, 0];

/// The bounds of an [`Assembly`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum memory in bytes, as [`Assembly::bytes`] counts it.
    pub bytes: usize,
    /// Most open blocks.
    pub blocks: usize,
    /// Maximum number of bytes of one block.
    pub block_bytes: usize,
    /// Maximum time without a new fragment, in the unit of the fragments' times.
    pub age: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: ASSEMBLY_BYTES_MAX,
            blocks: ASSEMBLY_BLOCKS_MAX,
            block_bytes: BLOCK_BYTES_MAX,
            age: BLOCK_AGE_TICKS_MAX,
        }
    }
}

/// Data that the caller attaches to a block with its first fragment and gets back when the block closes.
pub trait Facts {
    /// Returns the bytes that it owns beyond its own size.
    fn heap_bytes(&self) -> usize {
        0
    }
}

impl Facts for () {}
impl Facts for u64 {}

/// Counters of an [`Assembly`], in fragments or in blocks.
///
/// `fragments = duplicates + unplaced + fragments of joined, partial, evicted and open blocks`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockCounts {
    /// Fragments received.
    pub fragments: u64,
    /// Fragments whose number the block already had: not joined.
    pub duplicates: u64,
    /// Fragments with an impossible number or total: below 1, greater than the total, or a total that differs from an
    /// earlier one. They are joined in the order of their numbers nevertheless.
    pub inconsistent: u64,
    /// Fragments without a block id: not joined.
    pub unplaced: u64,
    /// Blocks that became complete.
    pub joined: u64,
    /// Incomplete blocks closed for their age or at the end of the source.
    pub partial: u64,
    /// Incomplete blocks closed for lack of memory.
    pub evicted: u64,
    /// Fragments of which only the ends are kept, for lack of memory, because no rule needs the rest.
    pub trimmed: u64,
}

impl BlockCounts {
    /// Returns the difference to earlier counts.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            fragments: self.fragments - earlier.fragments,
            duplicates: self.duplicates - earlier.duplicates,
            inconsistent: self.inconsistent - earlier.inconsistent,
            unplaced: self.unplaced - earlier.unplaced,
            joined: self.joined - earlier.joined,
            partial: self.partial - earlier.partial,
            evicted: self.evicted - earlier.evicted,
            trimmed: self.trimmed - earlier.trimmed,
        }
    }
}

/// Returns the fields of a fragment: script, id and path.
fn fields(bytes: &[u8]) -> Fields<'_> {
    Fields::split(EventKind::ScriptBlock, bytes)
}
