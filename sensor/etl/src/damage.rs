//! What could not be read, where, and how often.

use std::fmt;

/// How many [`Damage`] records a [`DamageLog`] keeps. All of them are counted.
pub const DAMAGE_KEPT_MAX: usize = 1_000;

/// What is wrong with a part of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DamageKind {
    /// `BufferSize` of a buffer leads to no other buffer. Expected and found: bytes.
    BufferSize,
    /// The file ends inside a buffer. Expected and found: bytes of the buffer.
    Cut,
    /// Zeros where buffers should be. Expected: 0; found: bytes of zeros.
    Zeroed,
    /// `FilledBytes` lies outside its buffer. Expected: the limit in bytes; found: the field.
    FilledBytes,
    /// A compressed buffer fits no known format or not its length. Expected: bytes it claims to hold; found:
    /// bytes that are stored.
    Compressed,
    /// A compressed buffer does not fit into the scratch memory that is left. Expected: bytes left; found: bytes
    /// needed.
    ScratchLimit,
    /// No event starts like this. Expected: 0; found: the marker.
    Marker,
    /// An event is smaller than its header or larger than the rest of its buffer. Expected: the bound that it
    /// breaks, in bytes; found: its size.
    EventSize,
    /// An extended data item does not fit its event; the event is passed over. Expected: the bound that it
    /// breaks, in bytes; found: its size.
    ExtendedItem,
    /// An event is younger than the flush of its buffer; it is delivered where it stands. Expected and found:
    /// raw time stamps.
    TimeStamp,
    /// The file changed while it was read. Expected: bytes that are no longer there; found: 0. Of a buffer that was
    /// overwritten, expected and found: sequence numbers.
    Changed,
    /// The system failed to read a part of the file. Expected: bytes; found: the system's error code.
    ReadError,
    /// The file costs more work than one of its length may; this buffer, or the rest of it, is not read. Expected: 0;
    /// found: bytes that are not read.
    WorkLimit,
}

impl DamageKind {
    /// Every kind, in the order of [`DamageLog::counts`].
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

    /// A short fixed word to count by.
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
    /// What is wrong.
    pub kind: DamageKind,
    /// File offset in bytes. Inside a compressed buffer, which has no file offsets: that of the buffer.
    pub offset: u64,
    /// Offset in the (decompressed) buffer, header included; 0 when the buffer as a whole is meant.
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
            DamageKind::Marker => write!(f, ": no event starts with {found:#010x}"),
            DamageKind::Zeroed => write!(f, ": {found} bytes of zeros"),
            DamageKind::Changed if *found == 0 => {
                write!(f, ": the file changed while it was read, {expected} bytes are gone")
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
                    ": {found} bytes are not read, because the file costs more work than its length allows"
                )
            }
            _ => write!(f, ": expected {expected}, found {found}"),
        }
    }
}

/// Damage found so far: all of it counted, the first [`DAMAGE_KEPT_MAX`] records kept.
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

    /// The first records, in the order in which they were found.
    pub fn kept(&self) -> &[Damage] {
        &self.kept
    }

    /// How often a kind was found.
    pub fn count(&self, kind: DamageKind) -> u64 {
        DamageKind::ALL.iter().position(|k| *k == kind).map_or(0, |at| self.counts[at])
    }

    /// Kinds that were found, with how often.
    pub fn counts(&self) -> impl Iterator<Item = (DamageKind, u64)> + '_ {
        DamageKind::ALL.into_iter().zip(self.counts).filter(|(_, count)| *count > 0)
    }

    /// How many parts were unreadable.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// True when nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::{DAMAGE_KEPT_MAX, Damage, DamageKind, DamageLog};

    #[test]
    fn counts_all_and_keeps_the_first() {
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
