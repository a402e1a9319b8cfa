//! Reports of unreadable parts of a trace.

use std::fmt;

/// Maximum number of [`Damage`] records that a [`DamageLog`] keeps. All of them are counted.
pub const DAMAGE_KEPT_MAX: usize = 1_000;

/// Kinds of damage, with the meaning of [`Damage::expected`] and [`Damage::found`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DamageKind {
    /// `BufferSize` is wrong: no buffer follows at that distance. Expected and found: bytes.
    BufferSize,
    /// The file ends within a buffer. Expected and found: bytes of the buffer.
    Cut,
    /// Zeros in place of buffers. Expected: 0; found: number of zeros.
    Zeroed,
    /// `FilledBytes` is outside its buffer. Expected: the limit in bytes; found: the field.
    FilledBytes,
    /// A compressed buffer has an unknown format or the wrong length. Expected: stated bytes; found: stored bytes.
    Compressed,
    /// A buffer exceeds the scratch memory. Expected: bytes left; found: bytes needed.
    ScratchLimit,
    /// The marker of an event is invalid. Expected: 0; found: the marker.
    Marker,
    /// An event is smaller than its header or larger than the rest of its buffer. Expected: the violated bound in
    /// bytes; found: the size.
    EventSize,
    /// An extended data item does not fit its event, which is skipped. Expected: the violated bound in bytes; found:
    /// the size.
    ExtendedItem,
    /// An event is newer than the flush of its buffer; it is delivered in stored order. Expected and found: raw time
    /// stamps.
    TimeStamp,
    /// The file changed while it was read. Expected: number of missing bytes; found: 0. For a buffer that was
    /// overwritten, expected and found: sequence numbers.
    Changed,
    /// The system failed to read a part of the file. Expected: bytes; found: error code of the system.
    ReadError,
    /// The file exceeds the work limit for its length, so this buffer, or the rest of it, is not read. Expected: 0;
    /// found: bytes that are not read.
    WorkLimit,
}

impl DamageKind {
    /// All kinds in the order of [`DamageLog::counts`].
    pub const ALL: [Self; 13] = [
        Self::BufferSize,
        Self::Cut,
        Self::Zeroed,
        Self::FilledBytes,
        Self::Compressed,
        Self::ScratchLimit,
        Self::Marker,
        Self::EventSize,
        Self::ExtendedItem,
        Self::TimeStamp,
        Self::Changed,
        Self::ReadError,
        Self::WorkLimit,
    ];

    /// Returns a short fixed name by which damage is counted.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BufferSize => "buffer size",
            Self::Cut => "cut",
            Self::Zeroed => "zeroed",
            Self::FilledBytes => "filled bytes",
            Self::Compressed => "compressed data",
            Self::ScratchLimit => "scratch limit",
            Self::Marker => "event marker",
            Self::EventSize => "event size",
            Self::ExtendedItem => "extended item",
            Self::TimeStamp => "time stamp",
            Self::Changed => "changed file",
            Self::ReadError => "read error",
            Self::WorkLimit => "work limit",
        }
    }
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An unreadable part of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Kind of the damage.
    pub kind: DamageKind,
    /// File offset in bytes. For damage within a compressed buffer, the offset of the buffer.
    pub offset: u64,
    /// Offset in the (decompressed) buffer including its header; 0 for damage of the whole buffer.
    pub position: u32,
    /// See [`DamageKind`].
    pub expected: u64,
    /// See [`DamageKind`].
    pub found: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, offset, position, expected, found } = self;
        write!(f, "{kind} at offset {offset:#x}")?;
        if *position > 0 {
            write!(f, " (position {position:#x} of its buffer)")?;
        }
        match kind {
            DamageKind::Marker => write!(f, ": {found:#010x} does not start an event"),
            DamageKind::Zeroed => write!(f, ": {found} bytes of zeros"),
            DamageKind::Changed if *found == 0 => {
                write!(f, ": the file changed while it was read, {expected} bytes are missing")
            }
            DamageKind::Changed => {
                write!(f, ": the file changed while it was read, buffer {expected} is now buffer {found}")
            }
            DamageKind::ReadError => {
                write!(f, ": the system cannot read {expected} bytes: ")?;
                match i32::try_from(*found) {
                    Ok(code) if code != 0 => write!(f, "{}", std::io::Error::from_raw_os_error(code)),
                    _ => f.write_str("unknown error"),
                }
            }
            DamageKind::WorkLimit => {
                write!(
                    f,
                    ": {found} bytes are not read, because the file exceeds the work limit for its length"
                )
            }
            _ => write!(f, ": expected {expected}, found {found}"),
        }
    }
}

/// The damage found so far: counts of all damage, and the first [`DAMAGE_KEPT_MAX`] records.
#[derive(Clone, Debug, Default)]
pub struct DamageLog {
    kept: Vec<Damage>,
    counts: [u64; DamageKind::ALL.len()],
}

impl DamageLog {
    pub(crate) fn report(&mut self, damage: Damage) {
        if let Some(at) = DamageKind::ALL.iter().position(|kind| *kind == damage.kind) {
            self.counts[at] += 1;
        }
        if self.kept.len() < DAMAGE_KEPT_MAX {
            self.kept.push(damage);
        }
    }

    /// Returns the first records in the order in which they were found.
    pub fn kept(&self) -> &[Damage] {
        &self.kept
    }

    /// Returns the count of a kind.
    pub fn count(&self, kind: DamageKind) -> u64 {
        DamageKind::ALL.iter().position(|k| *k == kind).map_or(0, |at| self.counts[at])
    }

    /// Returns all kinds that were found, with their counts.
    pub fn counts(&self) -> impl Iterator<Item = (DamageKind, u64)> + '_ {
        DamageKind::ALL.into_iter().zip(self.counts).filter(|(_, count)| *count > 0)
    }

    /// Returns the total number of damaged parts.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns whether no damage was found.
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::{DAMAGE_KEPT_MAX, Damage, DamageKind, DamageLog};

    #[test]
    fn all_damage_is_counted_and_the_first_records_are_kept() {
        let mut log = DamageLog::default();
        for offset in 0..DAMAGE_KEPT_MAX as u64 + 5 {
            let kind = DamageKind::ALL[offset as usize % DamageKind::ALL.len()];
            log.report(Damage { kind, offset, position: 0, expected: 1, found: 2 });
        }
        assert_eq!(log.total(), DAMAGE_KEPT_MAX as u64 + 5);
        assert_eq!(log.kept().len(), DAMAGE_KEPT_MAX);
        assert_eq!(log.count(DamageKind::BufferSize), 78);
        assert_eq!(log.counts().map(|(_, count)| count).sum::<u64>(), log.total());
        assert_eq!(log.kept()[0].to_string(), "buffer size at offset 0x0: expected 1, found 2");
    }
}
