//! Where the buffers of a file lie: one walk over their headers.
//!
//! Not compressed, all buffers but the first have one size, and a bad header costs one buffer: the next one starts at
//! the next multiple. Compressed, each header says where the next one lies; after a bad one the next plausible header
//! is searched. Either way the walk only moves forward.

use crate::buffer::{BUFFER_HEADER_LEN, BUFFER_LEN_MAX, BufferHeader};
use crate::bytes::all_zero;
use crate::damage::{Damage, DamageKind, DamageLog};
use crate::error::EtlError;
use crate::logfile::TraceInfo;

/// The stream of the first buffer, which comes before those of the processors.
const HEADER_STREAM: u32 = 0;

/// A buffer of the file. Kept small: a file can have one for each 0x48 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// File offset in bytes; a whole header lies there.
    pub(crate) offset: u64,
    sequence: i64,
    /// Bytes from here to the next buffer, or to the end of the file if it cuts this one.
    pub(crate) len: u32,
    /// Streams in the order in which they break ties of time.
    pub(crate) stream: u32,
}

/// Lists the buffers of a file by stream and within a stream by sequence number, and adds what it learns to `info`.
///
/// # Errors
///
/// [`EtlError::BufferSize`] if not even the size of the buffers can be told.
pub(crate) fn index(
    bytes: &[u8],
    info: &mut TraceInfo,
    damage: &mut DamageLog,
) -> Result<Vec<Entry>, EtlError> {
    let mut walk = Walk::new(bytes, info)?;
    walk.first(info, damage);
    while walk.at < bytes.len() {
        if walk.nominal.is_some() { walk.fixed(info, damage) } else { walk.varying(info, damage) }
    }
    walk.end(info, damage);
    let mut entries = walk.entries;
    entries.sort_unstable_by_key(|entry| (entry.stream, entry.sequence, entry.offset));
    Ok(entries)
}

struct Walk<'a> {
    bytes: &'a [u8],
    entries: Vec<Entry>,
    at: usize,
    /// The size of every buffer but the first; `None` in compressed files.
    nominal: Option<usize>,
    first_len: usize,
    logger_id: u16,
    filled_max: u32,
    /// Where the zeros before `at` start.
    zeros_from: Option<usize>,
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a [u8], info: &TraceInfo) -> Result<Self, EtlError> {
        let size_at = |at: u32| {
            let header = BufferHeader::read(bytes.get(at as usize..)?)?;
            BufferHeader::is_size_valid(header.size).then_some(header.size)
        };
        let first = BufferHeader::read(bytes);
        let own = size_at(0);
        let told = Some(info.buffer_size).filter(|size| BufferHeader::is_size_valid(*size));
        let (first_len, nominal) = match (own, told) {
            // A compressed file: only the first buffer's own size can say where the second one is.
            (Some(own), _) if info.is_compressed() => (own, None),
            (None, Some(told)) if info.is_compressed() => (told, None),
            (Some(own), told) => match (size_at(own), told) {
                // No buffer is larger than the header says, and one is where it says.
                (_, Some(told)) if own > told && size_at(told) == Some(told) => (told, Some(told)),
                // The second buffer decides: it agrees with the first one or, in merged files, with the header.
                (Some(second), _) if second == own => (own, Some(own)),
                (Some(second), Some(told)) if second == told => (own, Some(told)),
                (_, Some(told)) if size_at(told) == Some(told) => (told, Some(told)),
                (_, told) => (own, Some(told.unwrap_or(own))),
            },
            (None, Some(told)) => (told, Some(told)),
            (None, None) => {
                return Err(EtlError::BufferSize {
                    min: BUFFER_HEADER_LEN as u32,
                    max: BUFFER_LEN_MAX,
                    found: info.buffer_size,
                });
            }
        };
        Ok(Self {
            bytes,
            entries: Vec::new(),
            at: 0,
            nominal: nominal.map(|size| size as usize),
            first_len: first_len as usize,
            logger_id: first.map_or(0, |header| header.logger_id),
            filled_max: info.filled_max(),
            zeros_from: None,
        })
    }

    fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    fn header_at(&self, at: usize) -> Option<BufferHeader> {
        BufferHeader::read(self.bytes.get(at..)?)
    }

    fn report(&self, damage: &mut DamageLog, kind: DamageKind, expected: usize, found: u64) {
        let offset = self.at as u64;
        damage.report(Damage { kind, offset, position: 0, expected: expected as u64, found });
    }

    /// Takes the buffer at `at`, which ends after `len` bytes or with the file.
    fn take(&mut self, header: BufferHeader, len: usize, info: &mut TraceInfo, damage: &mut DamageLog) {
        self.close_zeros(damage);
        let present = len.min(self.left());
        if present < len {
            self.report(damage, DamageKind::Cut, len, present as u64);
        }
        info.buffers_found += 1;
        info.buffers_compressed += u64::from(header.is_compressed());
        info.buffers_marking_loss += u64::from(header.marks_loss());
        let stream = if self.at == 0 { HEADER_STREAM } else { u32::from(header.processor) + 1 };
        self.entries.push(Entry {
            offset: self.at as u64,
            sequence: header.sequence,
            len: present as u32,
            stream,
        });
        self.at += len;
    }

    fn first(&mut self, info: &mut TraceInfo, damage: &mut DamageLog) {
        let Some(header) = self.header_at(0) else {
            self.at = self.bytes.len();
            return;
        };
        if self.nominal.is_none() && !self.leads_on(self.first_len) {
            // A size that leads nowhere, or a file that ends in its first buffer.
            let end = self.first_len.min(self.bytes.len());
            self.first_len = self.find(BUFFER_HEADER_LEN, end).unwrap_or(self.first_len);
        }
        if header.size as usize != self.first_len {
            self.report(damage, DamageKind::BufferSize, self.first_len, header.size.into());
        }
        self.take(header, self.first_len, info, damage);
    }

    /// One step in a file that is not compressed.
    fn fixed(&mut self, info: &mut TraceInfo, damage: &mut DamageLog) {
        let nominal = self.nominal.unwrap_or(usize::MAX);
        match self.header_at(self.at) {
            Some(header) if header.size as usize == nominal => self.take(header, nominal, info, damage),
            Some(_) if self.starts_with_zeros() => self.pass_zeros(nominal),
            Some(header) => {
                self.close_zeros(damage);
                self.report(damage, DamageKind::BufferSize, nominal, header.size.into());
                self.at += nominal;
            }
            None => self.rest(info, damage),
        }
    }

    /// One step in a compressed file.
    fn varying(&mut self, info: &mut TraceInfo, damage: &mut DamageLog) {
        let Some(header) = self.header_at(self.at) else {
            return self.rest(info, damage);
        };
        if self.starts_with_zeros() {
            let zeros = self.bytes[self.at..].iter().take_while(|byte| **byte == 0).count();
            // The first bytes of a size can be zeros too.
            let next = self.find((self.at + zeros).saturating_sub(3), self.bytes.len());
            let end =
                next.unwrap_or(if self.at + zeros == self.bytes.len() { self.bytes.len() } else { self.at });
            if end > self.at {
                return self.pass_zeros(end - self.at);
            }
        }
        let len = header.size as usize;
        let is_plausible = header.is_plausible(self.logger_id, self.filled_max);
        if BufferHeader::is_size_valid(header.size) && self.leads_on(self.at + len) {
            return self.take(header, len, info, damage);
        }
        let from = self.at + if is_plausible { BUFFER_HEADER_LEN } else { 1 };
        let next = self.find(from, self.bytes.len());
        if is_plausible {
            // Where only the size is wrong, the next header shows it.
            let near =
                next.filter(|next| *next < self.at + len + BUFFER_HEADER_LEN).map(|next| next - self.at);
            if let Some(real_len) = near {
                self.report(damage, DamageKind::BufferSize, real_len, header.size.into());
            }
            return self.take(header, near.unwrap_or(len), info, damage);
        }
        self.close_zeros(damage);
        let next = next.unwrap_or(self.bytes.len());
        self.report(damage, DamageKind::BufferSize, next - self.at, header.size.into());
        self.at = next;
    }

    /// True when a buffer, the end of the file or unused space is at `at`.
    fn leads_on(&self, at: usize) -> bool {
        match self.header_at(at) {
            Some(header) => {
                header.is_plausible(self.logger_id, self.filled_max)
                    || all_zero(&self.bytes[at..at + BUFFER_HEADER_LEN])
            }
            None => at == self.bytes.len() || self.bytes.get(at..).is_some_and(all_zero),
        }
    }

    /// The first plausible header from `from` on that starts before `end` and leads on to another one.
    ///
    /// # Complexity
    ///
    /// Linear in the bytes that it passes over.
    fn find(&self, from: usize, end: usize) -> Option<usize> {
        (from..end).find(|at| {
            self.header_at(*at).is_some_and(|header| {
                header.is_plausible(self.logger_id, self.filled_max)
                    && self.leads_on(at + header.size as usize)
            })
        })
    }

    fn starts_with_zeros(&self) -> bool {
        self.bytes.get(self.at..self.at + BUFFER_HEADER_LEN).is_some_and(all_zero)
    }

    fn pass_zeros(&mut self, len: usize) {
        self.zeros_from.get_or_insert(self.at);
        self.at += len;
    }

    /// Reports zeros that something else follows.
    fn close_zeros(&mut self, damage: &mut DamageLog) {
        if let Some(from) = self.zeros_from.take() {
            let (kind, found) = (DamageKind::Zeroed, (self.at - from) as u64);
            damage.report(Damage { kind, offset: from as u64, position: 0, expected: 0, found });
        }
    }

    /// Fewer bytes than a header has.
    fn rest(&mut self, info: &TraceInfo, damage: &mut DamageLog) {
        let left = self.left();
        if info.may_end_unused() && all_zero(&self.bytes[self.at..]) {
            self.pass_zeros(left);
        } else {
            self.close_zeros(damage);
            self.report(damage, DamageKind::Cut, BUFFER_HEADER_LEN, left as u64);
            self.at = self.bytes.len();
        }
    }

    /// Zeros at the end are space that was never used, unless the file was closed.
    fn end(&mut self, info: &mut TraceInfo, damage: &mut DamageLog) {
        self.at = self.bytes.len();
        if info.may_end_unused() {
            info.unused_bytes = self.zeros_from.take().map_or(0, |from| (self.at - from) as u64);
        }
        self.close_zeros(damage);
    }
}
