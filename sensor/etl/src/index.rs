//! Finds the buffers of a file by reading their headers once, from start to end.
//!
//! In an uncompressed file all buffers except the first have the same size, so an invalid header costs one buffer: the
//! next one starts at the next multiple. In a compressed file each header states where the next one is; after an
//! invalid header the next plausible one is searched for. In both cases the reader only moves forward, and so does the
//! search, which remembers its position: no byte is searched twice, however many headers are invalid.

mod search;

use crate::buffer::{BUFFER_HEADER_LEN, BUFFER_LEN_MAX, BufferHeader};
use crate::bytes::all_zero;
use crate::damage::{Damage, DamageKind, DamageLog};
use crate::error::EtlError;
use crate::logfile::TraceInfo;
use crate::source::{Bytes, Missing, Window};
use crate::work::BYTES_PER_STEP;
use etwsieve_budget::{Budget, Exhausted};
use search::{HeaderPattern, Search};

/// Number of the stream of the first buffer, which precedes the streams of the processors.
const HEADER_STREAM: u32 = 0;
const HEADER_LEN: u64 = BUFFER_HEADER_LEN as u64;
/// Steps of reading a header.
const HEADER_STEPS: usize = 24;
/// Steps per buffer of sorting the list.
const SORT_STEPS: usize = 32;
/// Number of bytes that are checked for zeros at a time.
const ZEROS_STEP: usize = 1 << 10;

/// A buffer of the file. Small, because a file can have one per 0x48 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// File offset in bytes of a complete header.
    pub(crate) offset: u64,
    pub(crate) sequence: i64,
    /// See [`len`](Self::len); the highest bit is set if the buffer is compressed.
    len_and_flag: u32,
    /// Number of the stream. Events with equal times are ordered by it.
    pub(crate) stream: u32,
}

impl Entry {
    const COMPRESSED: u32 = 1 << 31;

    /// Returns the number of bytes to the next buffer, or to the end of the file if it truncates this one.
    pub(crate) fn len(&self) -> u32 {
        self.len_and_flag & !Self::COMPRESSED
    }

    pub(crate) fn is_compressed(&self) -> bool {
        self.len_and_flag & Self::COMPRESSED != 0
    }
}

/// Lists the buffers of a file by stream and sequence number, and adds their counts to `info`.
///
/// # Errors
///
/// [`EtlError::BufferSize`] if the size of the buffers cannot be determined, [`EtlError::Stopped`] after a stop.
pub(crate) fn index(
    bytes: Bytes<'_>,
    info: &mut TraceInfo,
    damage: &mut DamageLog,
    budget: &mut Budget<'_>,
) -> Result<Vec<Entry>, EtlError> {
    let mut walk = Walk::new(bytes, info, damage, budget)?;
    match walk.run() {
        Err(Exhausted::Stopped) => return Err(EtlError::Stopped),
        Err(_) => {
            let left = walk.left();
            walk.report(DamageKind::WorkLimit, 0, left);
        }
        Ok(()) => {}
    }
    walk.end();
    let mut entries = walk.entries;
    entries.sort_unstable_by_key(|entry| (entry.stream, entry.sequence, entry.offset));
    Ok(entries)
}

/// The state of the search for buffers.
struct Walk<'a, 'w, 'b> {
    /// Views of the current buffer and of the next one, which are read alternately.
    near: Window<'a>,
    far: Window<'a>,
    search: Search<'a>,
    info: &'w mut TraceInfo,
    damage: &'w mut DamageLog,
    budget: &'w mut Budget<'b>,
    entries: Vec<Entry>,
    at: u64,
    /// Length of the file, or less if the file has been truncated meanwhile.
    len: u64,
    /// The size of every buffer except the first; `None` in compressed files.
    nominal: Option<u64>,
    first_len: u64,
    /// Start of the zeros before `at`.
    zeros_from: Option<u64>,
}

impl<'a, 'w, 'b> Walk<'a, 'w, 'b> {
    fn new(
        bytes: Bytes<'a>,
        info: &'w mut TraceInfo,
        damage: &'w mut DamageLog,
        budget: &'w mut Budget<'b>,
    ) -> Result<Self, EtlError> {
        let (mut near, mut far) = (Window::new(bytes), Window::new(bytes));
        let first = near.view(0, BUFFER_HEADER_LEN, budget).ok().and_then(BufferHeader::read);
        let mut size_at = |at: u32| {
            let header = BufferHeader::read(far.view(at.into(), BUFFER_HEADER_LEN, budget).ok()?)?;
            BufferHeader::is_size_valid(header.size).then_some(header.size)
        };
        let own = size_at(0);
        let stated = Some(info.buffer_size).filter(|size| BufferHeader::is_size_valid(*size));
        let (first_len, nominal) = match (own, stated) {
            // In a compressed file only the size in the first buffer states where the second one is.
            (Some(own), _) if info.is_compressed() => (own, None),
            (None, Some(stated)) if info.is_compressed() => (stated, None),
            (Some(own), stated) => match (size_at(own), stated) {
                // No buffer is larger than the log file header states, and there is a buffer at that offset.
                (_, Some(stated)) if own > stated && size_at(stated) == Some(stated) => {
                    (stated, Some(stated))
                }
                // The second buffer decides: its size equals that of the first one or, in merged files, the stated
                // size.
                (Some(second), _) if second == own => (own, Some(own)),
                (Some(second), Some(stated)) if second == stated => (own, Some(stated)),
                (_, Some(stated)) if size_at(stated) == Some(stated) => (stated, Some(stated)),
                (_, stated) => (own, Some(stated.unwrap_or(own))),
            },
            (None, Some(stated)) => (stated, Some(stated)),
            (None, None) => {
                return Err(EtlError::BufferSize {
                    min: BUFFER_HEADER_LEN as u32,
                    max: BUFFER_LEN_MAX,
                    found: info.buffer_size,
                });
            }
        };
        let logger_id = first.map_or(0, |header| header.logger_id);
        let pattern = HeaderPattern { logger_id, filled_max: info.filled_max() };
        Ok(Self {
            near,
            far,
            search: Search::new(bytes, pattern),
            entries: Vec::new(),
            at: 0,
            len: bytes.len(),
            nominal: nominal.map(u64::from),
            first_len: first_len.into(),
            zeros_from: None,
            info,
            damage,
            budget,
        })
    }

    fn run(&mut self) -> Result<(), Exhausted> {
        self.first()?;
        self.shorten();
        while self.at < self.len {
            match self.nominal {
                Some(nominal) => self.fixed(nominal)?,
                None => self.varying()?,
            }
            self.shorten();
        }
        self.budget.charge(SORT_STEPS * self.entries.len())
    }

    /// Ends the file at the first missing byte.
    fn shorten(&mut self) {
        for window in [&mut self.near, &mut self.far, &mut self.search.window] {
            let Some((offset, missing)) = window.take_missing() else { continue };
            if offset < self.len {
                let (kind, found) = match missing {
                    Missing::Gone => (DamageKind::Changed, 0),
                    Missing::Failed(error) => (DamageKind::ReadError, os_code(&error)),
                };
                self.damage.report(Damage { kind, offset, position: 0, expected: self.len - offset, found });
                self.len = offset;
            }
        }
    }

    fn left(&self) -> u64 {
        self.len.saturating_sub(self.at)
    }

    /// Reads the header at `at`.
    fn header(&mut self) -> Result<Option<BufferHeader>, Exhausted> {
        self.budget.charge(HEADER_STEPS)?;
        Ok(BufferHeader::read(self.near.view(self.at, BUFFER_HEADER_LEN, self.budget)?))
    }

    fn report(&mut self, kind: DamageKind, expected: u64, found: u64) {
        self.damage.report(Damage { kind, offset: self.at, position: 0, expected, found });
    }

    /// Adds the buffer at `at`, which ends after `len` bytes or with the file.
    fn take(&mut self, header: BufferHeader, len: u64) -> Result<(), Exhausted> {
        self.close_zeros();
        let present = len.min(self.left());
        if present < len {
            self.report(DamageKind::Cut, len, present);
        }
        self.info.buffers_found += 1;
        self.info.buffers_compressed += u64::from(header.is_compressed());
        self.info.buffers_marking_loss += u64::from(header.marks_loss());
        let stream = if self.at == 0 { HEADER_STREAM } else { u32::from(header.processor) + 1 };
        if self.entries.len() == self.entries.capacity() {
            // The list doubles its capacity.
            self.budget.allocate(2 * self.entries.len().max(4) * size_of::<Entry>())?;
        }
        // No buffer is longer than 16 MiB.
        let flag = if header.is_compressed() { Entry::COMPRESSED } else { 0 };
        let len_and_flag = present as u32 | flag;
        self.entries.push(Entry { offset: self.at, sequence: header.sequence, len_and_flag, stream });
        self.at += len;
        Ok(())
    }

    fn first(&mut self) -> Result<(), Exhausted> {
        let Some(header) = self.header()? else {
            self.at = self.len;
            return Ok(());
        };
        if self.nominal.is_none() && !self.is_boundary(self.first_len)? {
            // The size is wrong, or the file ends within its first buffer.
            let end = self.first_len.min(self.len);
            let found = self.search.find(HEADER_LEN, HEADER_LEN, end, self.budget)?;
            self.first_len = found.unwrap_or(self.first_len);
        }
        if u64::from(header.size) != self.first_len {
            self.report(DamageKind::BufferSize, self.first_len, header.size.into());
        }
        self.take(header, self.first_len)
    }

    /// Reads the next buffer of an uncompressed file.
    fn fixed(&mut self, nominal: u64) -> Result<(), Exhausted> {
        match self.header()? {
            Some(header) if u64::from(header.size) == nominal => self.take(header, nominal),
            Some(_) if self.starts_with_zeros()? => {
                self.skip_zeros(nominal);
                Ok(())
            }
            Some(header) => {
                self.close_zeros();
                self.report(DamageKind::BufferSize, nominal, header.size.into());
                self.at += nominal;
                Ok(())
            }
            None => self.rest(),
        }
    }

    /// Reads the next buffer of a compressed file.
    fn varying(&mut self) -> Result<(), Exhausted> {
        let Some(header) = self.header()? else {
            return self.rest();
        };
        if self.starts_with_zeros()? {
            let zeros_end = self.zeros_end()?;
            // The first bytes of a size may be zeros as well, so the next header may start up to three bytes earlier.
            let next = self.search.find(self.at, zeros_end.saturating_sub(3), self.len, self.budget)?;
            let end = next.unwrap_or(if zeros_end >= self.len { self.len } else { self.at });
            if end > self.at {
                self.skip_zeros(end - self.at);
                return Ok(());
            }
        }
        let len = u64::from(header.size);
        let is_plausible = self.search.pattern.is_plausible(&header);
        if BufferHeader::is_size_valid(header.size) && self.is_boundary(self.at + len)? {
            return self.take(header, len);
        }
        let from = self.at + if is_plausible { HEADER_LEN } else { 1 };
        let next = self.search.find(from, from, self.len, self.budget)?;
        if is_plausible {
            // If only the size is wrong, the position of the next header shows the correct one.
            let near = next.filter(|next| *next < self.at + len + HEADER_LEN).map(|next| next - self.at);
            if let Some(real_len) = near {
                self.report(DamageKind::BufferSize, real_len, header.size.into());
            }
            return self.take(header, near.unwrap_or(len));
        }
        self.close_zeros();
        let next = next.unwrap_or(self.len);
        self.report(DamageKind::BufferSize, next - self.at, header.size.into());
        self.at = next;
        Ok(())
    }

    /// Returns whether a buffer, the end of the file or unused space is at `at`.
    fn is_boundary(&mut self, at: u64) -> Result<bool, Exhausted> {
        self.budget.charge(HEADER_STEPS)?;
        let bytes = self.far.view(at, BUFFER_HEADER_LEN, self.budget)?;
        Ok(self.search.pattern.is_boundary(bytes, at <= self.len))
    }

    fn starts_with_zeros(&mut self) -> Result<bool, Exhausted> {
        let bytes = self.near.view(self.at, BUFFER_HEADER_LEN, self.budget)?;
        Ok(bytes.len() == BUFFER_HEADER_LEN && all_zero(bytes))
    }

    /// Returns the end of the zeros at `at`.
    fn zeros_end(&mut self) -> Result<u64, Exhausted> {
        let mut end = self.at;
        loop {
            self.budget.charge(ZEROS_STEP / BYTES_PER_STEP)?;
            let bytes = self.near.view(end, ZEROS_STEP, self.budget)?;
            let zeros = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
            end += zeros as u64;
            if zeros < ZEROS_STEP {
                return Ok(end);
            }
        }
    }

    fn skip_zeros(&mut self, len: u64) {
        self.zeros_from.get_or_insert(self.at);
        self.at += len;
    }

    /// Reports zeros that are followed by other data.
    fn close_zeros(&mut self) {
        if let Some(from) = self.zeros_from.take() {
            let (kind, found) = (DamageKind::Zeroed, self.at.saturating_sub(from));
            self.damage.report(Damage { kind, offset: from, position: 0, expected: 0, found });
        }
    }

    /// Ends a file whose rest is shorter than a header.
    fn rest(&mut self) -> Result<(), Exhausted> {
        let is_blank = all_zero(self.near.view(self.at, BUFFER_HEADER_LEN, self.budget)?);
        let left = self.left();
        if self.info.may_end_unused() && is_blank {
            self.skip_zeros(left);
        } else {
            self.close_zeros();
            self.report(DamageKind::Cut, HEADER_LEN, left);
            self.at = self.len;
        }
        Ok(())
    }

    /// Ends the search. Zeros at the end are unused space, unless the file was closed.
    fn end(&mut self) {
        self.at = self.len;
        if self.info.may_end_unused() {
            self.info.unused_bytes = self.zeros_from.take().map_or(0, |from| self.at.saturating_sub(from));
        }
        self.close_zeros();
    }
}

/// Returns the error code of the system; 0 if there is none.
pub(crate) fn os_code(error: &std::io::Error) -> u64 {
    error.raw_os_error().map_or(0, |code| u64::from(code.cast_unsigned()))
}
