//! A joined block as one payload, with the mapping back to the original script.

use super::GAP;
use super::open::{Kept, StoredFragment};
use crate::field::{EventKind, Fields};
use std::ops::Range;

/// Maximum capacity that is kept from block to block, in bytes.
const KEPT_CAPACITY_MAX: usize = 1 << 20;

/// A joined block in the layout of its event: numbers, text, id, path.
///
/// Missing text is replaced by a [`GAP`]. One thread reuses the memory from block to block.
#[derive(Debug, Default)]
pub struct Joined {
    bytes: Vec<u8>,
    /// Ranges of script, id and path, in units from the text offset.
    strings: [Option<Range<usize>>; 3],
    pieces: Vec<Piece>,
    units: usize,
}

/// A contiguous part of the script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its range in the script, in UTF-16 units. Text that was never received counts as the length of a [`GAP`].
    pub original: Range<usize>,
    /// Its start in the joined text.
    joined: usize,
}

impl Piece {
    /// Returns its range in the joined text.
    pub fn joined(&self) -> Range<usize> {
        self.joined..self.joined + self.original.len()
    }
}

impl Joined {
    /// Returns the payload, in the layout of a single event.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its fields.
    pub fn fields(&self) -> Fields<'_> {
        Fields::of_ranges(EventKind::ScriptBlock, &self.bytes, self.strings.clone())
    }

    /// Returns the parts of the script that are present, ascending, with missing text between any two.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Returns the length of the script in UTF-16 units. Text that was never received counts as the length of a
    /// [`GAP`].
    pub fn units(&self) -> usize {
        self.units
    }

    /// Returns true if nothing is missing.
    pub fn is_whole(&self) -> bool {
        let text_units = self.strings[0].as_ref().map_or(0, Range::len);
        match &self.pieces[..] {
            [] => text_units == 0,
            [piece] => piece.original == (0..text_units) && self.units == text_units,
            _ => false,
        }
    }

    /// Maps a range of the joined text to the script; `None` if it is not within one piece.
    pub fn original(&self, units: Range<usize>) -> Option<Range<usize>> {
        let piece = self.pieces.iter().rev().find(|piece| piece.joined <= units.start)?;
        let start = piece.original.start + (units.start - piece.joined);
        let end = start + units.len();
        (end <= piece.original.end).then_some(start..end)
    }

    /// Returns true if the script contains a U+0000 before this unit of the joined text.
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
            // Contiguous in both texts: a gap of length 0 in one may still have a length in the other.
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

/// Returns true if a fragment continues the one before it without a gap. Numbers below 1 are wrong, so nothing is known
/// to be missing before the first of them.
pub(super) fn follows(before: Option<i32>, number: i32) -> bool {
    match before {
        None => number <= 1,
        Some(before) => before.checked_add(1) == Some(number),
    }
}
