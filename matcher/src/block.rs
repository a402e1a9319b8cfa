//! Whole script blocks: fragments joined as they come, so that rules see what no single event shows.
//!
//! PowerShell cuts a long script at any UTF-16 unit and writes a 4104 for each fragment. An [`Assembly`] takes every
//! fragment after its own search, keeps it until the block is complete, and hands out [`Closed`] blocks, which are
//! searched on the joined text. Fragments may come in any order, twice, without the first, or with numbers that lie;
//! nothing here panics or grows without bound on any of that.
//!
//! * One block is one source, process and script block id. Fragments are joined in the order of their numbers.
//! * A block is complete when all numbers from 1 to its total are there; the largest total that a fragment claimed
//!   counts. Other numbers stay in their order as well, but a block that consists of them alone never is complete.
//! * Where a number is missing stands a [`GAP`], which no needle crosses.
//! * Of two fragments with one number the first counts.
//! * What is given up (for its age, for want of room, at the end) is searched as far as it goes, and is partial.
//!
//! Nothing has a clock: time comes with the fragments.
//!
//! No text is searched twice for the same needle. The search of each event has told where the gate's needles stand;
//! when a block closes, only a few units on either side of each border are looked at, and the text is joined only if
//! that makes some rule a candidate.

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

/// Most bytes that one [`Assembly`] holds: texts, and what it knows of them.
pub const ASSEMBLY_BYTES_MAX: usize = 32 << 20;
/// Most open blocks of one [`Assembly`].
pub const ASSEMBLY_BLOCKS_MAX: usize = 1 << 16;
/// Most bytes of one block. Joined, it is held once more while it is searched.
pub const BLOCK_BYTES_MAX: usize = 16 << 20;
/// Most fragments of one block; PowerShell's have been seen with 28.
pub const BLOCK_FRAGMENTS_MAX: usize = 1024;
/// How long a block waits for its next fragment, in ticks of 100 ns: five minutes. PowerShell writes all of them
/// within milliseconds.
pub const BLOCK_AGE_TICKS_MAX: u64 = 5 * 60 * 10_000_000;

/// UTF-16 units that stand for what is missing between two fragments: neither a word, a line nor white space goes on
/// across it.
pub const GAP: [u16; 3] = [0, 0x0A, 0];

/// The bounds of an [`Assembly`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes, as the assembly counts them.
    pub bytes: usize,
    /// Most open blocks.
    pub blocks: usize,
    /// Most bytes of one block.
    pub block_bytes: usize,
    /// Most time without a fragment, in the unit of the fragments' times.
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

/// What the caller wants to know again of the first fragment when its block closes.
pub trait Facts {
    /// Bytes that it holds beyond its own size.
    fn heap_bytes(&self) -> usize {
        0
    }
}

impl Facts for () {}
impl Facts for u64 {}

/// Counts of an [`Assembly`], in fragments or in blocks.
///
/// `fragments = duplicates + unplaced + those in blocks that were joined, reported up, or are open`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockCounts {
    /// Fragments taken.
    pub fragments: u64,
    /// Fragments whose number was there already: not joined.
    pub duplicates: u64,
    /// Fragments with a number or a total that cannot be: below 1, beyond the total, or another total than before.
    /// Joined all the same, in the order of their numbers.
    pub inconsistent: u64,
    /// Fragments that name no block: not joined.
    pub unplaced: u64,
    /// Blocks that became complete.
    pub joined: u64,
    /// Blocks given up incomplete, for their age or at the end.
    pub partial: u64,
    /// Blocks given up incomplete for want of room.
    pub evicted: u64,
    /// Fragments of which only the ends are kept, for want of room, since no rule needs the rest.
    pub trimmed: u64,
}

impl BlockCounts {
    /// What has been counted since.
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

/// Where script, id and path of a fragment lie.
fn fields(bytes: &[u8]) -> Fields<'_> {
    Fields::split(EventKind::ScriptBlock, bytes)
}
