//! The buffers of one processor, in sequence, and the event that comes next in them.

use crate::buffer::{BUFFER_HEADER_LEN, BufferHeader};
use crate::codec::{self, EXPANSION_MAX};
use crate::damage::{Damage, DamageKind, DamageLog};
use crate::decode::{self, Fault, Head, Step};
use crate::event::{Event, Place};
use crate::index::Entry;
use crate::trace::Trace;
use std::ops::Range;

/// What the streams of a walk share.
pub(crate) struct Shared<'t> {
    pub(crate) trace: &'t Trace<'t>,
    pub(crate) damage: DamageLog,
    /// Bytes of scratch memory that may still be allocated.
    pub(crate) scratch_left: usize,
    /// Bytes of the buffers that were opened.
    pub(crate) bytes_consumed: u64,
    /// Events whose own time lies before that of their predecessor, or is damaged.
    pub(crate) out_of_order: u64,
}

/// One stream: where it stands.
pub(crate) struct Stream {
    /// Entries of the index that are still to be opened.
    left: Range<usize>,
    open: Open,
    head: Option<Head>,
    /// When the event is due. Within a stream this never goes back, whatever the time stamps say.
    key: Option<i64>,
    /// Decompressed events of the open buffer, kept for the next one. As long as the longest so far.
    scratch: Vec<u8>,
}

/// The buffer that is being read.
#[derive(Default)]
struct Open {
    offset: u64,
    processor: u16,
    /// Where its events are in the file, or how many bytes of the scratch memory they fill.
    data: Data,
    /// Where the next event starts.
    at: usize,
    /// Time stamps above this are damaged.
    flushed: Option<i64>,
    is_cut: bool,
}

enum Data {
    File(Range<usize>),
    Scratch(usize),
}

impl Default for Data {
    fn default() -> Self {
        Self::File(0..0)
    }
}

impl Stream {
    /// The stream of the entries `left`, before its first event.
    pub(crate) fn new(left: Range<usize>) -> Self {
        Self { left, open: Open::default(), head: None, key: None, scratch: Vec::new() }
    }

    /// Goes to the next event; returns when it is due, or `None` at the end of the stream.
    pub(crate) fn advance(&mut self, shared: &mut Shared<'_>) -> Option<i64> {
        loop {
            let step = decode::step(self.data(shared.trace), self.open.at);
            match step {
                Step::Event(head) => {
                    self.open.at = head.next_at();
                    self.head = Some(head);
                    return Some(self.schedule(&head, shared));
                }
                Step::Skip { fault, next_at } => {
                    self.report(fault, shared);
                    self.open.at = next_at;
                    continue;
                }
                Step::Bad(fault) => self.report(fault, shared),
                // The cut of the file has been reported.
                Step::Beyond(fault) if !self.open.is_cut => self.report(fault, shared),
                Step::Beyond(_) | Step::End => {}
            }
            let Some(next) = self.left.next() else {
                self.head = None;
                shared.scratch_left += self.scratch.capacity();
                self.scratch = Vec::new();
                return None;
            };
            self.open(next, shared);
        }
    }

    /// The event that [`advance`](Self::advance) found.
    pub(crate) fn event<'s>(&'s self, trace: &'s Trace<'_>) -> Option<Event<'s>> {
        let head = self.head.as_ref()?;
        let at = head.at as usize;
        let event = self.data(trace).get(at..at + usize::from(head.size))?;
        let raw_time = head.raw_time.unwrap_or(self.key.unwrap_or(0));
        let place = Place {
            time: trace.info().clock.file_time(raw_time),
            processor: self.open.processor,
            buffer_offset: self.open.offset,
            position: head.at + BUFFER_HEADER_LEN as u32,
        };
        Some(Event::new(head, event, place))
    }

    fn data<'s>(&'s self, trace: &'s Trace<'_>) -> &'s [u8] {
        match &self.open.data {
            Data::File(range) => trace.bytes().get(range.clone()),
            Data::Scratch(len) => self.scratch.get(..*len),
        }
        .unwrap_or_default()
    }

    /// When an event is due: at its time stamp, but not before its predecessor, nor long after what follows it
    /// because a bit of its time stamp is wrong.
    fn schedule(&mut self, head: &Head, shared: &mut Shared<'_>) -> i64 {
        let previous = self.key;
        let mut key = head.raw_time.or(previous).unwrap_or(shared.trace.info().clock.raw_start);
        if let Some(flushed) = self.open.flushed
            && key > flushed
        {
            let fault = Fault {
                kind: DamageKind::TimeStamp,
                expected: flushed.cast_unsigned(),
                found: key.cast_unsigned(),
            };
            shared.damage.report(self.damage(fault, head.at as usize));
            shared.out_of_order += 1;
            key = previous.map_or(flushed, |previous| previous.max(flushed));
        } else if let Some(previous) = previous
            && key < previous
        {
            shared.out_of_order += 1;
            key = previous;
        }
        self.key = Some(key);
        key
    }

    fn damage(&self, fault: Fault, at: usize) -> Damage {
        let Fault { kind, expected, found } = fault;
        let position = (BUFFER_HEADER_LEN + at) as u32;
        let offset = match self.open.data {
            Data::File(_) => self.open.offset + u64::from(position),
            Data::Scratch(_) => self.open.offset,
        };
        Damage { kind, offset, position, expected, found }
    }

    fn report(&self, fault: Fault, shared: &mut Shared<'_>) {
        shared.damage.report(self.damage(fault, self.open.at));
    }

    /// Opens a buffer: its events in the file, or decompressed. Nothing is left of it if it cannot be read.
    fn open(&mut self, entry: usize, shared: &mut Shared<'_>) {
        self.open = Open::default();
        let Some(&Entry { offset, len, .. }) = shared.trace.entries().get(entry) else {
            return;
        };
        shared.bytes_consumed += u64::from(len);
        let start = offset as usize;
        let bytes = shared.trace.bytes().get(start..start + len as usize).unwrap_or_default();
        let Some(header) = BufferHeader::read(bytes) else {
            return;
        };
        self.open.offset = offset;
        self.open.processor = header.processor;
        self.open.is_cut = header.size > len && start + bytes.len() == shared.trace.bytes().len();
        // The first buffer has no time of its flush. One from before the stream's last event is damaged itself.
        let earliest = self.key.unwrap_or(shared.trace.info().clock.raw_start);
        self.open.flushed = Some(header.flushed).filter(|flushed| *flushed != 0 && *flushed >= earliest);
        let filled = header.filled() as usize;
        let filled_max = if header.is_compressed() {
            shared.trace.info().filled_max() as usize
        } else if self.open.is_cut {
            header.size as usize
        } else {
            bytes.len()
        };
        let report = |shared: &mut Shared<'_>, kind, expected: usize, found: usize| {
            let (expected, found) = (expected as u64, found as u64);
            shared.damage.report(Damage { kind, offset, position: 0, expected, found });
        };
        if filled < BUFFER_HEADER_LEN {
            return report(shared, DamageKind::FilledBytes, BUFFER_HEADER_LEN, filled);
        }
        if filled > filled_max {
            report(shared, DamageKind::FilledBytes, filled_max, filled);
        }
        if !header.is_compressed() {
            self.open.data = Data::File(start + BUFFER_HEADER_LEN..start + filled.min(bytes.len()));
            return;
        }
        let stored = bytes.get(BUFFER_HEADER_LEN..).unwrap_or_default();
        let data_len = filled - BUFFER_HEADER_LEN;
        if filled > filled_max || data_len == 0 {
            return;
        }
        let is_expansion_possible =
            self.open.is_cut || data_len as u64 <= EXPANSION_MAX * stored.len() as u64;
        if !is_expansion_possible {
            return report(shared, DamageKind::Compressed, data_len, stored.len());
        }
        if !self.reserve(data_len, shared) {
            return report(shared, DamageKind::ScratchLimit, shared.scratch_left, data_len);
        }
        match codec::decompress(stored, &mut self.scratch[..data_len], self.open.is_cut) {
            Some(written) => self.open.data = Data::Scratch(written),
            // Too little of it is there to tell; its cut has been reported.
            None if self.open.is_cut => {}
            None => report(shared, DamageKind::Compressed, data_len, stored.len()),
        }
    }

    /// Makes room for `len` bytes; false if that exceeds what the streams may use together.
    fn reserve(&mut self, len: usize, shared: &mut Shared<'_>) -> bool {
        if len <= self.scratch.len() {
            return true;
        }
        let held = self.scratch.capacity();
        if len > held + shared.scratch_left {
            return false;
        }
        // The old bytes are of no use: growing in place would only copy them.
        self.scratch = Vec::new();
        self.scratch.reserve_exact(len);
        self.scratch.resize(len, 0);
        shared.scratch_left = (held + shared.scratch_left).saturating_sub(self.scratch.capacity());
        true
    }
}
