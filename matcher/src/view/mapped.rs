//! A text made from another, with the origin of each of its units.

use super::transformation::Transformations;
use std::ops::Range;

/// Maximum length of a text that is viewed, in units; only the first part of a longer one, such as a joined block, is
/// viewed.
pub(crate) const VIEW_UNITS_MAX: usize = 1 << 20;
/// Size of a piece, in bytes.
pub(super) const PIECE_LEN: usize = size_of::<Piece>();

/// A text with its origin.
#[derive(Clone, Debug, Default)]
pub(super) struct Mapped {
    units: Vec<u16>,
    /// Ascending; each extends to the beginning of the next one, and the last to the end.
    pieces: Vec<Piece>,
    /// Length of the original, in units.
    original_len: u32,
}

/// A part of a text that comes from a part of the original.
#[derive(Clone, Copy, Debug)]
struct Piece {
    at: u32,
    from: u32,
    /// Length in the original, in units.
    len: u32,
    /// The transformations; none for an exact copy.
    done: Transformations,
}

impl Mapped {
    /// Creates a copy of the original, or of the first [`VIEW_UNITS_MAX`] units of it, so that 32 bits suffice for
    /// positions.
    pub(super) fn original(units: &[[u8; 2]]) -> Self {
        let units: Vec<u16> =
            units.iter().take(VIEW_UNITS_MAX).map(|unit| u16::from_le_bytes(*unit)).collect();
        let len = units.len() as u32;
        let pieces = vec![Piece { at: 0, from: 0, len, done: Transformations::NONE }];
        Self { units, pieces, original_len: len }
    }

    /// Creates a text that is made entirely from one part of `source`.
    pub(super) fn made(source: &Self, part: Range<usize>, units: Vec<u16>, done: Transformations) -> Self {
        let (from, before) = source.origin(&part);
        let piece = Piece { at: 0, from: from.start as u32, len: from.len() as u32, done: before.and(done) };
        Self { units, pieces: vec![piece], original_len: source.original_len }
    }

    /// Returns true if it differs from the original.
    pub(super) fn is_made(&self) -> bool {
        !matches!(&self.pieces[..], [piece] if piece.done.is_none() && piece.len == self.original_len)
    }

    pub(super) fn units(&self) -> &[u16] {
        &self.units
    }

    /// Returns the number of pieces.
    pub(super) fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Returns the number of pieces that a part overlaps, which [`origin`](Self::origin) visits.
    pub(super) fn pieces_in(&self, part: &Range<usize>) -> usize {
        let before = |at: usize| self.pieces.partition_point(|piece| (piece.at as usize) < at);
        1 + before(part.end.max(part.start + 1)) - before(part.start)
    }

    /// Returns the origin of a part and the transformations. If the part overlaps the value of an expression, its
    /// origin includes the whole expression. Linear in [`pieces_in`](Self::pieces_in).
    pub(super) fn origin(&self, part: &Range<usize>) -> (Range<usize>, Transformations) {
        let first = self.pieces.partition_point(|piece| piece.at as usize <= part.start).saturating_sub(1);
        let (mut start, mut end, mut done) = (usize::MAX, 0, Transformations::NONE);
        for piece in &self.pieces[first..] {
            let at = piece.at as usize;
            if at >= part.end.max(part.start + 1) {
                break;
            }
            let from = piece.from as usize;
            let whole = from..from + piece.len as usize;
            let own = if piece.done.is_none() {
                from + part.start.saturating_sub(at)..(from + part.end.saturating_sub(at)).min(whole.end)
            } else {
                whole
            };
            (start, end) = (start.min(own.start), end.max(own.end));
            done = done.and(piece.done);
        }
        (start.min(end)..end, done)
    }
}

/// Makes a text from another, from beginning to end.
pub(super) struct Builder<'a> {
    source: &'a Mapped,
    made: Mapped,
    /// The source's piece at which the last copy ended.
    piece: usize,
    /// The position in the source up to which it has been processed.
    at: usize,
    changed: bool,
}

impl<'a> Builder<'a> {
    pub(super) fn new(source: &'a Mapped) -> Self {
        let made = Mapped { original_len: source.original_len, ..Mapped::default() };
        Self { source, made, piece: 0, at: 0, changed: false }
    }

    /// Returns the number of units made so far.
    pub(super) fn len(&self) -> usize {
        self.made.units.len()
    }

    /// Copies the source up to this position.
    pub(super) fn copy_to(&mut self, to: usize) {
        while self.at < to {
            let Some(piece) = self.source.pieces.get(self.piece).copied() else { return };
            let next = self.source.pieces.get(self.piece + 1).map(|piece| piece.at as usize);
            let end = next.unwrap_or(self.source.units.len());
            if self.at >= end {
                if next.is_none() {
                    return;
                }
                self.piece += 1;
                continue;
            }
            let stop = end.min(to);
            let at = self.made.units.len() as u32;
            let inside = (self.at - piece.at as usize) as u32;
            self.made.pieces.push(if piece.done.is_none() {
                Piece { at, from: piece.from + inside, len: (stop - self.at) as u32, done: piece.done }
            } else {
                Piece { at, ..piece }
            });
            self.made.units.extend_from_slice(&self.source.units[self.at..stop]);
            self.at = stop;
        }
    }

    /// Replaces the source up to `to` with `units`.
    pub(super) fn put(&mut self, to: usize, units: impl IntoIterator<Item = u16>, done: Transformations) {
        let part = self.at..to;
        let (from, before) = self.source.origin(&part);
        let at = self.made.units.len() as u32;
        self.made.units.extend(units);
        if self.made.units.len() > at as usize {
            self.made.pieces.push(Piece {
                at,
                from: from.start as u32,
                len: from.len() as u32,
                done: before.and(done),
            });
        }
        self.at = to;
        self.changed = true;
    }

    /// Skips the source up to this position.
    pub(super) fn drop_to(&mut self, to: usize) {
        self.piece = self.source.pieces.partition_point(|piece| piece.at as usize <= to).saturating_sub(1);
        self.at = to;
    }

    /// Returns the text so far, without the rest of the source.
    pub(super) fn cut(self) -> Mapped {
        self.made
    }

    /// Copies the rest of the source. Returns `None` if nothing was changed.
    pub(super) fn finish(mut self) -> Option<Mapped> {
        self.copy_to(self.source.units.len());
        self.changed.then_some(self.made)
    }
}

#[cfg(test)]
mod tests {
    use super::{Builder, Mapped};
    use crate::view::transformation::{Transformation, Transformations};

    fn text(text: &str) -> Mapped {
        let units: Vec<[u8; 2]> = text.encode_utf16().map(u16::to_le_bytes).collect();
        Mapped::original(&units)
    }

    #[test]
    fn origins_through_two_changes() {
        let (dash, join) =
            (Transformations::only(Transformation::Dash), Transformations::only(Transformation::Join));
        let first = text("abcdefghij");
        let mut builder = Builder::new(&first);
        builder.copy_to(2);
        builder.put(4, [u16::from(b'X'); 3], dash);
        let second = builder.finish().unwrap();
        assert_eq!(String::from_utf16(second.units()).unwrap(), "abXXXefghij");
        let mut builder = Builder::new(&second);
        builder.copy_to(3);
        builder.put(6, [u16::from(b'Y')], join);
        let third = builder.finish().unwrap();
        assert_eq!(String::from_utf16(third.units()).unwrap(), "abXYfghij");
        let rows = [
            (0..2, 0..2, Transformations::NONE),
            (1..3, 1..4, dash),
            (2..3, 2..4, dash),
            (3..4, 2..5, dash.and(join)),
            (3..5, 2..6, dash.and(join)),
            (4..9, 5..10, Transformations::NONE),
            (8..9, 9..10, Transformations::NONE),
            (0..9, 0..10, dash.and(join)),
        ];
        for (part, from, done) in rows {
            assert_eq!(third.origin(&part), (from, done), "{part:?}");
        }
    }

    #[test]
    fn an_unchanged_text_is_not_copied() {
        let source = text("abc");
        assert!(Builder::new(&source).finish().is_none());
        let source = text("");
        assert!(Builder::new(&source).finish().is_none());
    }
}
