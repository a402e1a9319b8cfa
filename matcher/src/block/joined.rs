//! A joined block as one payload, and which of its units were which in the script.

use super::GAP;
use super::open::{Kept, StoredFragment};
use crate::field::{EventKind, Fields};
use std::ops::Range;

/// Capacity that is kept from block to block, in bytes.
const KEPT_CAPACITY_MAX: usize = 1 << 20;

/// A block in the layout of its event: numbers, text, id, path.
///
/// What is missing is a [`GAP`] in the text. Memory that one thread reuses from block to block.
#[derive(Debug, Default)]
pub struct Joined {
    bytes: Vec<u8>,
    /// Script, id and path, in units from the text offset.
    strings: [Option<Range<usize>>; 3],
    pieces: Vec<Piece>,
    units: usize,
}

/// A stretch of the script that is there without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it stands in the script, in UTF-16 units. What was never seen counts as the length of a [`GAP`].
    pub original: Range<usize>,
    /// Where it stands in the joined text.
    joined: usize,
}

impl Piece {
    /// Where it stands in the joined text.
    pub fn joined(&self) -> Range<usize> {
        self.joined..self.joined + self.original.len()
    }
}

impl Joined {
    /// User data as one event would have it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its fields.
    pub fn fields(&self) -> Fields<'_> {
        Fields::of_ranges(EventKind::ScriptBlock, &self.bytes, self.strings.clone())
    }

    /// What is there, ascending, with something missing between any two pieces.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Length of the script in UTF-16 units; what was never seen counts as the length of a [`GAP`].
    pub fn units(&self) -> usize {
        self.units
    }

    /// Whether nothing is missing.
    pub fn is_whole(&self) -> bool {
        let text_units = self.strings[0].as_ref().map_or(0, Range::len);
        match &self.pieces[..] {
            [] => text_units == 0,
            [piece] => piece.original == (0..text_units) && self.units == text_units,
            _ => false,
        }
    }

    /// Where units of the joined text stand in the script; `None` if they are not all in one piece.
    pub fn original(&self, units: Range<usize>) -> Option<Range<usize>> {
        let piece = self.pieces.iter().rev().find(|piece| piece.joined <= units.start)?;
        let start = piece.original.start + (units.start - piece.joined);
        let end = start + units.len();
        (end <= piece.original.end).then_some(start..end)
    }

    /// Whether the script holds a U+0000 before a unit of the joined text.
    pub fn has_nul_before(&self, unit: usize) -> bool {
        let units: &[[u8; 2]] =
            self.bytes.get(EventKind::ScriptBlock.text_offset()..).unwrap_or_default().as_chunks().0;
        let before = |piece: &Piece| piece.joined.min(unit)..piece.joined().end.min(unit);
        let has_nul = |piece| units.get(before(piece)).is_some_and(|units| units.contains(&[0, 0]));
        self.pieces.iter().any(has_nul)
    }

    pub(super) fn write(&mut self, total: i32, parts: &[StoredFragment], id: &[u8], path: Option<&[u8]>) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_CAPACITY_MAX);
        self.pieces.clear();
        self.units = 0;
        self.bytes.extend_from_slice(&1i32.to_le_bytes());
        self.bytes.extend_from_slice(&total.to_le_bytes());
        let mut before = None;
        for part in parts {
            if !follows(before, part.number) {
                self.gap(GAP.len());
            }
            match part.kept {
                Kept::Whole | Kept::Needed => self.piece(part.text()),
                Kept::Ends { units, end_units, .. } => {
                    let (head, tail) = part.text().split_at(2 * end_units);
                    self.piece(head);
                    self.gap(units - 2 * end_units);
                    self.piece(tail);
                }
            }
            before = Some(part.number);
        }
        if before.is_some_and(|last| last < total) {
            self.gap(GAP.len());
        }
        let text = 0..self.text_units();
        self.bytes.extend_from_slice(&[0, 0]);
        let start = self.text_units();
        self.bytes.extend_from_slice(id);
        let id = start..self.text_units();
        self.bytes.extend_from_slice(&[0, 0]);
        let path = path.map(|path| {
            let start = self.text_units();
            self.bytes.extend_from_slice(path);
            let path = start..self.text_units();
            self.bytes.extend_from_slice(&[0, 0]);
            path
        });
        self.strings = [Some(text), Some(id), path];
    }

    fn text_units(&self) -> usize {
        (self.bytes.len() - EventKind::ScriptBlock.text_offset()) / 2
    }

    fn piece(&mut self, text: &[u8]) {
        let joined = self.text_units();
        self.bytes.extend_from_slice(text);
        let units = text.len() / 2;
        if units == 0 {
            return;
        }
        let original = self.units..self.units + units;
        self.units = original.end;
        match self.pieces.last_mut() {
            // In both: where a gap has no length in one, it still has in the other.
            Some(last)
                if last.original.end == original.start && last.joined + last.original.len() == joined =>
            {
                last.original.end = original.end;
            }
            _ => self.pieces.push(Piece { original, joined }),
        }
    }

    fn gap(&mut self, units: usize) {
        self.bytes.extend(GAP.iter().flat_map(|unit| unit.to_le_bytes()));
        self.units += units;
    }
}

/// Whether a fragment joins what stands before it without a gap. Numbers below 1 lie, so that nothing is known to be
/// missing before the first of them.
pub(super) fn follows(before: Option<i32>, number: i32) -> bool {
    match before {
        None => number <= 1,
        Some(before) => before.checked_add(1) == Some(number),
    }
}
