//! The buffers of one processor, in sequence, and the event that comes next in them.

use crate::buffer::{BUFFER_HEADER_LEN, BufferHeader};
use crate::codec::{self, EXPANSION_MAX};
use crate::damage::{Damage, DamageKind};
use crate::decode::{self, Fault, Head, Step};
use crate::event::{Event, Place};
use crate::index::Entry;
use crate::shared::Shared;
use crate::source::Bytes;
use crate::trace::Trace;
use crate::work::{BUFFER_STEPS, BYTES_PER_STEP, EVENT_STEPS};
use etwsieve_budget::Exhausted;
use std::ops::Range;

/// One stream: how far it has been read.
pub(crate) struct Stream {
    /// Entries of the index that are still to be opened.
    left: Range<usize>,
    open: Open,
    head: Option<Head>,
    /// When the event is due. Within a stream this never goes back, whatever the time stamps say.
    key: Option<i64>,
    /// Events of the open buffer that are not used in place; kept for the next one. As long as the longest so far.
    scratch: Vec<u8>,
}

/// The buffer that is being read. Offsets count from the end of its header.
#[derive(Default)]
struct Open {
    offset: u64,
    processor: u16,
    is_compressed: bool,
    /// Where its events end.
    len: usize,
    /// Where the events in view start.
    from: usize,
    /// Where the next event starts.
    at: usize,
    view: View,
    /// Time stamps above this are damaged.
    flushed: Option<i64>,
    is_cut: bool,
}

/// Where the events in view are.
enum View {
    /// In memory: a part of the trace.
    Memory(Range<usize>),
    /// In the scratch memory.
    Scratch(Range<usize>),
}

impl Default for View {
    fn default() -> Self {
        Self::Scratch(0..0)
    }
}

impl View {
    fn len(&self) -> usize {
        match self {
            Self::Memory(range) | Self::Scratch(range) => range.len(),
        }
    }
}

impl Stream {
    /// The stream of the entries `left`, before its first event.
    pub(crate) fn new(left: Range<usize>) -> Self {
        Self { left, open: Open::default(), head: None, key: None, scratch: Vec::new() }
    }

    /// Goes to the next event; returns when it is due, or `None` at the end of the stream or of the budget.
    pub(crate) fn advance(&mut self, shared: &mut Shared<'_>) -> Option<i64> {
        let mut opening = None;
        let result = self.next_event(shared, &mut opening);
        if let Err(reason) = result
            && reason != Exhausted::Stopped
        {
            self.report_unread(opening, shared);
        }
        let due = result.ok().flatten();
        if due.is_none() {
            self.head = None;
            self.open = Open::default();
            self.left = 0..0;
            shared.scratch_left += self.scratch.capacity();
            self.scratch = Vec::new();
        }
        due
    }

    fn next_event(
        &mut self,
        shared: &mut Shared<'_>,
        opening: &mut Option<usize>,
    ) -> Result<Option<i64>, Exhausted> {
        loop {
            shared.budget.charge(EVENT_STEPS)?;
            let (from, in_view) = (self.open.from, self.open.view.len());
            let is_more = from + in_view < self.open.len;
            match decode::step(self.view(shared.trace), self.open.at - from) {
                Step::Event(mut head) => {
                    head.at += from as u32;
                    self.open.at = head.next_at();
                    self.head = Some(head);
                    return Ok(Some(self.schedule(&head, shared)));
                }
                Step::Skip { fault, next_at } => {
                    self.report(fault, shared);
                    self.open.at = from + next_at;
                    continue;
                }
                // The event, or the next one, is behind what is in view.
                Step::Beyond(_) if is_more => {
                    self.refill(shared)?;
                    continue;
                }
                Step::End if is_more && self.open.at >= from + in_view => {
                    self.refill(shared)?;
                    continue;
                }
                Step::Bad(fault) => self.report(fault, shared),
                // The cut of the file has been reported.
                Step::Beyond(fault) if !self.open.is_cut => self.report(fault, shared),
                Step::Beyond(_) | Step::End => {}
            }
            self.open = Open::default();
            *opening = self.left.next();
            let Some(next) = *opening else { return Ok(None) };
            self.open(next, shared)?;
            *opening = None;
        }
    }

    /// The event that [`advance`](Self::advance) found.
    pub(crate) fn event<'s>(&'s self, trace: &'s Trace<'_>) -> Option<Event<'s>> {
        let head = self.head.as_ref()?;
        let at = (head.at as usize).checked_sub(self.open.from)?;
        let event = self.view(trace).get(at..at + usize::from(head.size))?;
        let raw_time = head.raw_time.unwrap_or(self.key.unwrap_or(0));
        let place = Place {
            time: trace.info().clock.file_time(raw_time),
            processor: self.open.processor,
            buffer_offset: self.open.offset,
            position: head.at + BUFFER_HEADER_LEN as u32,
        };
        Some(Event::new(head, event, place))
    }

    fn view<'s>(&'s self, trace: &'s Trace<'_>) -> &'s [u8] {
        match (&self.open.view, trace.bytes()) {
            (View::Memory(range), Bytes::Memory(bytes)) => bytes.get(range.clone()),
            (View::Memory(_), Bytes::Source(_)) => None,
            (View::Scratch(range), _) => self.scratch.get(range.clone()),
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
        // The inside of a compressed buffer has no place in the file.
        let offset = self.open.offset + if self.open.is_compressed { 0 } else { u64::from(position) };
        Damage { kind, offset, position, expected, found }
    }

    fn report(&self, fault: Fault, shared: &mut Shared<'_>) {
        shared.damage.report(self.damage(fault, self.open.at));
    }

    /// Reports what is left of this stream, from the buffer that could not be opened on, as beyond the budget.
    fn report_unread(&mut self, opening: Option<usize>, shared: &mut Shared<'_>) {
        let left = self.open.len.saturating_sub(self.open.at) as u64;
        if left > 0 && opening.is_none() {
            self.report(Fault { kind: DamageKind::WorkLimit, expected: 0, found: left }, shared);
        }
        for entry in opening.into_iter().chain(self.left.by_ref()) {
            let Some(entry) = shared.trace.entries().get(entry) else { continue };
            let (kind, offset, found) = (DamageKind::WorkLimit, entry.offset, entry.len().into());
            shared.damage.report(Damage { kind, offset, position: 0, expected: 0, found });
        }
    }

    /// Opens a buffer: its events in the file, or decompressed. Nothing is left of it if it cannot be read.
    fn open(&mut self, entry: usize, shared: &mut Shared<'_>) -> Result<(), Exhausted> {
        let Some(entry) = shared.trace.entries().get(entry).copied() else { return Ok(()) };
        shared.budget.charge(BUFFER_STEPS + entry.len() as usize / BYTES_PER_STEP)?;
        shared.bytes_consumed += u64::from(entry.len());
        self.open.offset = entry.offset;
        self.open.is_compressed = entry.is_compressed();
        if entry.is_compressed() {
            let stored = shared.stored(&entry)?;
            let result = match shared.header(&entry, stored.bytes()) {
                Some(header) => self.decompress(&entry, header, stored.bytes(), shared),
                None => Ok(()),
            };
            shared.give_back(stored);
            return result;
        }
        match shared.trace.bytes() {
            Bytes::Memory(bytes) => {
                let start = entry.offset as usize;
                let bytes = bytes.get(start..start + entry.len() as usize).unwrap_or_default();
                let Some(header) = shared.header(&entry, bytes) else { return Ok(()) };
                self.open.len = self.events_len(&entry, header, shared);
                let start = start + BUFFER_HEADER_LEN;
                self.open.view = View::Memory(start..start + self.open.len);
            }
            Bytes::Source(_) => {
                // Header and events at once; of a large buffer, the first events.
                let wanted = (entry.len() as usize).min(BUFFER_HEADER_LEN + shared.view_len);
                let filled = self.read(entry.offset, wanted, shared)?;
                let Some(header) = shared.header(&entry, &self.scratch[..filled]) else { return Ok(()) };
                self.open.len = self.events_len(&entry, header, shared);
                let in_view = self.open.len.min(filled - BUFFER_HEADER_LEN);
                self.open.view = View::Scratch(BUFFER_HEADER_LEN..BUFFER_HEADER_LEN + in_view);
                if filled < wanted {
                    self.cut_at(in_view);
                }
            }
        }
        Ok(())
    }

    /// Takes over what the header of a buffer says.
    fn take_header(&mut self, entry: &Entry, header: BufferHeader, shared: &Shared<'_>) {
        let len = entry.len();
        self.open.processor = header.processor;
        self.open.is_cut = header.size > len && entry.offset + u64::from(len) == shared.trace.len();
        // The first buffer has no time of its flush. One from before the stream's last event is damaged itself.
        let earliest = self.key.unwrap_or(shared.trace.info().clock.raw_start);
        self.open.flushed = Some(header.flushed).filter(|flushed| *flushed != 0 && *flushed >= earliest);
    }

    /// Bytes of the events of a buffer that is not compressed.
    fn events_len(&mut self, entry: &Entry, header: BufferHeader, shared: &mut Shared<'_>) -> usize {
        self.take_header(entry, header, shared);
        let (filled, len) = (header.filled() as usize, entry.len() as usize);
        let filled_max = if self.open.is_cut { header.size as usize } else { len };
        if filled < BUFFER_HEADER_LEN {
            report(shared, entry, DamageKind::FilledBytes, BUFFER_HEADER_LEN, filled);
            return 0;
        }
        if filled > filled_max {
            report(shared, entry, DamageKind::FilledBytes, filled_max, filled);
        }
        filled.min(len).saturating_sub(BUFFER_HEADER_LEN)
    }

    /// Decompresses the buffer `bytes`, its header included.
    fn decompress(
        &mut self,
        entry: &Entry,
        header: BufferHeader,
        bytes: &[u8],
        shared: &mut Shared<'_>,
    ) -> Result<(), Exhausted> {
        self.take_header(entry, header, shared);
        self.open.is_cut |= bytes.len() < entry.len() as usize;
        let (filled, filled_max) = (header.filled() as usize, shared.trace.info().filled_max() as usize);
        if filled < BUFFER_HEADER_LEN {
            report(shared, entry, DamageKind::FilledBytes, BUFFER_HEADER_LEN, filled);
            return Ok(());
        }
        if filled > filled_max {
            report(shared, entry, DamageKind::FilledBytes, filled_max, filled);
            return Ok(());
        }
        let stored = bytes.get(BUFFER_HEADER_LEN..).unwrap_or_default();
        let len = filled - BUFFER_HEADER_LEN;
        if len == 0 {
            return Ok(());
        }
        if !self.open.is_cut && len as u64 > EXPANSION_MAX * stored.len() as u64 {
            report(shared, entry, DamageKind::Compressed, len, stored.len());
            return Ok(());
        }
        if !self.reserve(len, shared)? {
            report(shared, entry, DamageKind::ScratchLimit, shared.scratch_left, len);
            return Ok(());
        }
        let output = &mut self.scratch[..len];
        match codec::decompress(stored, output, self.open.is_cut, &mut shared.budget)? {
            Some(written) => {
                self.open.len = written;
                self.open.view = View::Scratch(0..written);
            }
            // Too little of it is there to tell; its cut has been reported.
            None if self.open.is_cut => {}
            None => report(shared, entry, DamageKind::Compressed, len, stored.len()),
        }
        Ok(())
    }

    /// Reads the events of a buffer that is not compressed, from the next one on, as many as are kept in view.
    fn refill(&mut self, shared: &mut Shared<'_>) -> Result<(), Exhausted> {
        let wanted = (self.open.len - self.open.at).min(shared.view_len);
        shared.budget.charge(wanted / BYTES_PER_STEP)?;
        let filled =
            self.read(self.open.offset + (BUFFER_HEADER_LEN + self.open.at) as u64, wanted, shared)?;
        self.open.from = self.open.at;
        self.open.view = View::Scratch(0..filled);
        if filled < wanted {
            self.cut_at(self.open.at + filled);
        }
        Ok(())
    }

    /// Reads a part of the file into the scratch memory. Returns how much is there; why it is less has been reported.
    fn read(&mut self, offset: u64, wanted: usize, shared: &mut Shared<'_>) -> Result<usize, Exhausted> {
        if self.reserve(wanted, shared)? {
            return Ok(shared.fill(offset, &mut self.scratch[..wanted]));
        }
        let (kind, expected) = (DamageKind::ScratchLimit, shared.scratch_left as u64);
        shared.damage.report(Damage { kind, offset, position: 0, expected, found: wanted as u64 });
        Ok(0)
    }

    /// Ends the events of the buffer where the file does. That has been reported.
    fn cut_at(&mut self, len: usize) {
        self.open.len = len;
        self.open.is_cut = true;
    }

    /// Makes room for `len` bytes; false if that exceeds what the streams may use together.
    fn reserve(&mut self, len: usize, shared: &mut Shared<'_>) -> Result<bool, Exhausted> {
        if len <= self.scratch.len() {
            return Ok(true);
        }
        let held = self.scratch.capacity();
        let room = held + shared.scratch_left;
        if len > room {
            return Ok(false);
        }
        // Twice as long as before, so that buffers that grow little by little are cheap.
        let len = (2 * held).min(shared.trace.info().filled_max() as usize).min(room).max(len);
        shared.budget.allocate(len)?;
        // The old bytes are of no use: growing in place would only copy them.
        self.scratch = Vec::new();
        self.scratch.reserve_exact(len);
        self.scratch.resize(len, 0);
        shared.scratch_left = room.saturating_sub(self.scratch.capacity());
        Ok(true)
    }
}

fn report(shared: &mut Shared<'_>, entry: &Entry, kind: DamageKind, expected: usize, found: usize) {
    let (expected, found) = (expected as u64, found as u64);
    shared.damage.report(Damage { kind, offset: entry.offset, position: 0, expected, found });
}
