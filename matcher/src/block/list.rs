//! Doubly linked lists of open blocks, the least recently used first. The links are in the blocks, so that a block is
//! removed in constant time.

/// The end of a list.
const NONE: u32 = u32::MAX;

/// A block's neighbours in one list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    before: u32,
    behind: u32,
}

impl Default for Links {
    fn default() -> Self {
        Self { before: NONE, behind: NONE }
    }
}

/// Access to the links of a block.
pub(super) trait Linked {
    fn links(&mut self, slot: u32) -> &mut Links;
}

/// The ends of a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    first: u32,
    last: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { first: NONE, last: NONE }
    }
}

impl List {
    /// Returns the least recently used block.
    pub(super) fn first(self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    /// Appends a block that is not in a list of this kind.
    pub(super) fn push(&mut self, slot: u32, blocks: &mut impl Linked) {
        *blocks.links(slot) = Links { before: self.last, behind: NONE };
        if self.last == NONE {
            self.first = slot;
        } else {
            blocks.links(self.last).behind = slot;
        }
        self.last = slot;
    }

    /// Removes a block that is in this list.
    pub(super) fn remove(&mut self, slot: u32, blocks: &mut impl Linked) {
        let Links { before, behind } = std::mem::take(blocks.links(slot));
        if before == NONE {
            self.first = behind;
        } else {
            blocks.links(before).behind = behind;
        }
        if behind == NONE {
            self.last = before;
        } else {
            blocks.links(behind).before = before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Linked, Links, List};

    struct Table(Vec<Links>);

    impl Linked for Table {
        fn links(&mut self, slot: u32) -> &mut Links {
            &mut self.0[slot as usize]
        }
    }

    #[test]
    fn any_block_can_be_removed() {
        for leaving in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
            let mut table = Table(vec![Links::default(); 3]);
            let mut list = List::default();
            (0..3).for_each(|slot| list.push(slot, &mut table));
            let mut left = vec![0, 1, 2];
            for slot in leaving {
                list.remove(slot, &mut table);
                left.retain(|other| *other != slot);
                assert_eq!(list.first(), left.first().copied(), "{leaving:?}");
            }
            list.push(1, &mut table);
            assert_eq!(list.first(), Some(1));
        }
    }
}
