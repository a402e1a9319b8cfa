//! Reads the events of one processor from its buffers in sequence.

use crate::buffer::{BUFFER_HEADER_LEN, BufferHeader};
use crate::codec::{self, EXPANSION_MAX};
use crate::damage::{Damage, DamageKind};
use crate::decode::{self, Fault, Head, Step};
use crate::event::{Event, EventLocation};
use crate::index::Entry;
use crate::source::Bytes;
use crate::trace::Trace;
use crate::walk_state::WalkState;
use crate::work::{BUFFER_STEPS, BYTES_PER_STEP, EVENT_STEPS};
use etwsieve_budget::Exhausted;
use std::ops::Range;

/// The position in a stream.
pub(crate) struct Stream {
    /// Entries of the index that have not been opened yet.
    left: Range<usize>,
    open: Open,
    head: Option<Head>,
    /// Raw time stamp by which the current event is merged. Never decreases within a stream, unlike time stamps.
    key: Option<i64>,
    /// Memory for the events of a buffer that cannot be used in place. Reused, and as long as the longest buffer so
    /// far.
    scratch: Vec<u8>,
}

/// The buffer that is being read. Offsets are relative to the end of its header.
#[derive(Default)]
struct Open {
    offset: u64,
    processor: u16,
    is_compressed: bool,
    /// End of the events.
    len: usize,
    /// Start of the events in the view.
    from: usize,
    /// Start of the next event.
    at: usize,
    view: View,
    /// Later time stamps are damaged.
    flushed: Option<i64>,
    is_cut: bool,
}

/// Location of the events in the view.
enum View {
    /// A part of the trace in memory.
    Memory(Range<usize>),
    /// A part of the scratch memory.
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
    /// Creates the stream of the entries `left`, before its first event.
    pub(crate) fn new(left: Range<usize>) -> Self {
        Self { left, open: Open::default(), head: None, key: None, scratch: Vec::new() }
    }

    /// Moves to the next event. Returns the time stamp by which it is merged, or `None` at the end of the stream or of
    /// the budget.
    pub(crate) fn advance(&mut self, state: &mut WalkState<'_>) -> Option<i64> {
        let mut opening = None;
        let result = self.next_event(state, &mut opening);
        if let Err(reason) = result
            && reason != Exhausted::Stopped
        {
            self.report_unread(opening, state);
        }
        let due = result.ok().flatten();
        if due.is_none() {
            self.head = None;
            self.open = Open::default();
            self.left = 0..0;
            state.scratch_left += self.scratch.capacity();
            self.scratch = Vec::new();
        }
        due
    }

    fn next_event(
        &mut self,
        state: &mut WalkState<'_>,
        opening: &mut Option<usize>,
    ) -> Result<Option<i64>, Exhausted> {
        loop {
            state.budget.charge(EVENT_STEPS)?;
            let (from, in_view) = (self.open.from, self.open.view.len());
            let is_more = from + in_view < self.open.len;
            match decode::step(self.view(state.trace), self.open.at - from) {
                Step::Event(mut head) => {
                    head.at += from as u32;
                    self.open.at = head.next_at();
                    self.head = Some(head);
                    return Ok(Some(self.schedule(&head, state)));
                }
                Step::Skip { fault, next_at } => {
                    self.report(fault, state);
                    self.open.at = from + next_at;
                    continue;
                }
                // The event, or the next one, is beyond the view.
                Step::Beyond(_) if is_more => {
                    self.refill(state)?;
                    continue;
                }
                Step::End if is_more && self.open.at >= from + in_view => {
                    self.refill(state)?;
                    continue;
                }
                Step::Bad(fault) => self.report(fault, state),
                // The truncation of the file has been reported.
                Step::Beyond(fault) if !self.open.is_cut => self.report(fault, state),
                Step::Beyond(_) | Step::End => {}
            }
            self.open = Open::default();
            *opening = self.left.next();
            let Some(next) = *opening else { return Ok(None) };
            self.open(next, state)?;
            *opening = None;
        }
    }

    /// Returns the event that [`advance`](Self::advance) found.
    pub(crate) fn event<'s>(&'s self, trace: &'s Trace<'_>) -> Option<Event<'s>> {
        let head = self.head.as_ref()?;
        let at = (head.at as usize).checked_sub(self.open.from)?;
        let event = self.view(trace).get(at..at + usize::from(head.size))?;
        let raw_time = head.raw_time.unwrap_or(self.key.unwrap_or(0));
        let location = EventLocation {
            time: trace.info().clock.file_time(raw_time),
            processor: self.open.processor,
            buffer_offset: self.open.offset,
            position: head.at + BUFFER_HEADER_LEN as u32,
        };
        Some(Event::new(head, event, location))
    }

    fn view<'s>(&'s self, trace: &'s Trace<'_>) -> &'s [u8] {
        match (&self.open.view, trace.bytes()) {
            (View::Memory(range), Bytes::Memory(bytes)) => bytes.get(range.clone()),
            (View::Memory(_), Bytes::Source(_)) => None,
            (View::Scratch(range), _) => self.scratch.get(range.clone()),
        }
        .unwrap_or_default()
    }

    /// Returns the time stamp by which an event is merged: its own, but not before its predecessor, and not after the
    /// flush of its buffer, so that a wrong bit in a time stamp does not delay the following events.
    fn schedule(&mut self, head: &Head, state: &mut WalkState<'_>) -> i64 {
        let previous = self.key;
        let mut key = head.raw_time.or(previous).unwrap_or(state.trace.info().clock.raw_start);
        if let Some(flushed) = self.open.flushed
            && key > flushed
        {
            let fault = Fault {
                kind: DamageKind::TimeStamp,
                expected: flushed.cast_unsigned(),
                found: key.cast_unsigned(),
            };
            state.damage.report(self.damage(fault, head.at as usize));
            state.out_of_order += 1;
            key = previous.map_or(flushed, |previous| previous.max(flushed));
        } else if let Some(previous) = previous
            && key < previous
        {
            state.out_of_order += 1;
            key = previous;
        }
        self.key = Some(key);
        key
    }

    fn damage(&self, fault: Fault, at: usize) -> Damage {
        let Fault { kind, expected, found } = fault;
        let position = (BUFFER_HEADER_LEN + at) as u32;
        // Positions within a compressed buffer have no file offset.
        let offset = self.open.offset + if self.open.is_compressed { 0 } else { u64::from(position) };
        Damage { kind, offset, position, expected, found }
    }

    fn report(&self, fault: Fault, state: &mut WalkState<'_>) {
        state.damage.report(self.damage(fault, self.open.at));
    }

    /// Reports the rest of this stream as exceeding the budget, including the buffer that could not be opened.
    fn report_unread(&mut self, opening: Option<usize>, state: &mut WalkState<'_>) {
        let left = self.open.len.saturating_sub(self.open.at) as u64;
        if left > 0 && opening.is_none() {
            self.report(Fault { kind: DamageKind::WorkLimit, expected: 0, found: left }, state);
        }
        for entry in opening.into_iter().chain(self.left.by_ref()) {
            let Some(entry) = state.trace.entries().get(entry) else { continue };
            let (kind, offset, found) = (DamageKind::WorkLimit, entry.offset, entry.len().into());
            state.damage.report(Damage { kind, offset, position: 0, expected: 0, found });
        }
    }

    /// Opens a buffer, and decompresses it if necessary. It is empty if it cannot be read.
    fn open(&mut self, entry: usize, state: &mut WalkState<'_>) -> Result<(), Exhausted> {
        let Some(entry) = state.trace.entries().get(entry).copied() else { return Ok(()) };
        state.budget.charge(BUFFER_STEPS + entry.len() as usize / BYTES_PER_STEP)?;
        state.bytes_consumed += u64::from(entry.len());
        self.open.offset = entry.offset;
        self.open.is_compressed = entry.is_compressed();
        if entry.is_compressed() {
            let stored = state.stored(&entry)?;
            let result = match state.header(&entry, stored.bytes()) {
                Some(header) => self.decompress(&entry, header, stored.bytes(), state),
                None => Ok(()),
            };
            state.give_back(stored);
            return result;
        }
        match state.trace.bytes() {
            Bytes::Memory(bytes) => {
                let start = entry.offset as usize;
                let bytes = bytes.get(start..start + entry.len() as usize).unwrap_or_default();
                let Some(header) = state.header(&entry, bytes) else { return Ok(()) };
                self.open.len = self.events_len(&entry, header, state);
                let start = start + BUFFER_HEADER_LEN;
                self.open.view = View::Memory(start..start + self.open.len);
            }
            Bytes::Source(_) => {
                // Reads the header together with all events, or with the first events of a large buffer.
                let wanted = (entry.len() as usize).min(BUFFER_HEADER_LEN + state.view_len);
                let filled = self.read(entry.offset, wanted, state)?;
                let Some(header) = state.header(&entry, &self.scratch[..filled]) else { return Ok(()) };
                self.open.len = self.events_len(&entry, header, state);
                let in_view = self.open.len.min(filled - BUFFER_HEADER_LEN);
                self.open.view = View::Scratch(BUFFER_HEADER_LEN..BUFFER_HEADER_LEN + in_view);
                if filled < wanted {
                    self.cut_at(in_view);
                }
            }
        }
        Ok(())
    }

    /// Stores the fields of a buffer header.
    fn take_header(&mut self, entry: &Entry, header: BufferHeader, state: &WalkState<'_>) {
        let len = entry.len();
        self.open.processor = header.processor;
        self.open.is_cut = header.size > len && entry.offset + u64::from(len) == state.trace.len();
        // The first buffer has no flush time. A flush before the last event of the stream is damaged itself.
        let earliest = self.key.unwrap_or(state.trace.info().clock.raw_start);
        self.open.flushed = Some(header.flushed).filter(|flushed| *flushed != 0 && *flushed >= earliest);
    }

    /// Returns the length of the events of an uncompressed buffer.
    fn events_len(&mut self, entry: &Entry, header: BufferHeader, state: &mut WalkState<'_>) -> usize {
        self.take_header(entry, header, state);
        let (filled, len) = (header.filled() as usize, entry.len() as usize);
        let filled_max = if self.open.is_cut { header.size as usize } else { len };
        if filled < BUFFER_HEADER_LEN {
            report(state, entry, DamageKind::FilledBytes, BUFFER_HEADER_LEN, filled);
            return 0;
        }
        if filled > filled_max {
            report(state, entry, DamageKind::FilledBytes, filled_max, filled);
        }
        filled.min(len).saturating_sub(BUFFER_HEADER_LEN)
    }

    /// Decompresses the buffer `bytes`, which includes its header.
    fn decompress(
        &mut self,
        entry: &Entry,
        header: BufferHeader,
        bytes: &[u8],
        state: &mut WalkState<'_>,
    ) -> Result<(), Exhausted> {
        self.take_header(entry, header, state);
        self.open.is_cut |= bytes.len() < entry.len() as usize;
        let (filled, filled_max) = (header.filled() as usize, state.trace.info().filled_max() as usize);
        if filled < BUFFER_HEADER_LEN {
            report(state, entry, DamageKind::FilledBytes, BUFFER_HEADER_LEN, filled);
            return Ok(());
        }
        if filled > filled_max {
            report(state, entry, DamageKind::FilledBytes, filled_max, filled);
            return Ok(());
        }
        let stored = bytes.get(BUFFER_HEADER_LEN..).unwrap_or_default();
        let len = filled - BUFFER_HEADER_LEN;
        if len == 0 {
            return Ok(());
        }
        if !self.open.is_cut && len as u64 > EXPANSION_MAX * stored.len() as u64 {
            report(state, entry, DamageKind::Compressed, len, stored.len());
            return Ok(());
        }
        if !self.reserve(len, state)? {
            report(state, entry, DamageKind::ScratchLimit, state.scratch_left, len);
            return Ok(());
        }
        let output = &mut self.scratch[..len];
        match codec::decompress(stored, output, self.open.is_cut, &mut state.budget)? {
            Some(written) => {
                self.open.len = written;
                self.open.view = View::Scratch(0..written);
            }
            // The truncated part is too short to be recognised. The truncation has been reported.
            None if self.open.is_cut => {}
            None => report(state, entry, DamageKind::Compressed, len, stored.len()),
        }
        Ok(())
    }

    /// Moves the view of an uncompressed buffer to the next event.
    fn refill(&mut self, state: &mut WalkState<'_>) -> Result<(), Exhausted> {
        let wanted = (self.open.len - self.open.at).min(state.view_len);
        state.budget.charge(wanted / BYTES_PER_STEP)?;
        let filled =
            self.read(self.open.offset + (BUFFER_HEADER_LEN + self.open.at) as u64, wanted, state)?;
        self.open.from = self.open.at;
        self.open.view = View::Scratch(0..filled);
        if filled < wanted {
            self.cut_at(self.open.at + filled);
        }
        Ok(())
    }

    /// Reads a part of the file into the scratch memory. Returns the number of bytes, and reports missing ones.
    fn read(&mut self, offset: u64, wanted: usize, state: &mut WalkState<'_>) -> Result<usize, Exhausted> {
        if self.reserve(wanted, state)? {
            return Ok(state.fill(offset, &mut self.scratch[..wanted]));
        }
        let (kind, expected) = (DamageKind::ScratchLimit, state.scratch_left as u64);
        state.damage.report(Damage { kind, offset, position: 0, expected, found: wanted as u64 });
        Ok(0)
    }

    /// Ends the events of the buffer at the end of the file, which has been reported.
    fn cut_at(&mut self, len: usize) {
        self.open.len = len;
        self.open.is_cut = true;
    }

    /// Reserves scratch memory for `len` bytes. Returns false if that exceeds the limit of all streams.
    fn reserve(&mut self, len: usize, state: &mut WalkState<'_>) -> Result<bool, Exhausted> {
        if len <= self.scratch.len() {
            return Ok(true);
        }
        let held = self.scratch.capacity();
        let room = held + state.scratch_left;
        if len > room {
            return Ok(false);
        }
        // Doubles the memory, so that slowly growing buffers do not cause many allocations.
        let len = (2 * held).min(state.trace.info().filled_max() as usize).min(room).max(len);
        state.budget.allocate(len)?;
        // A new allocation is cheaper than growing, because the old bytes need not be copied.
        self.scratch = Vec::new();
        self.scratch.reserve_exact(len);
        self.scratch.resize(len, 0);
        state.scratch_left = room.saturating_sub(self.scratch.capacity());
        Ok(true)
    }
}

fn report(state: &mut WalkState<'_>, entry: &Entry, kind: DamageKind, expected: usize, found: usize) {
    let (expected, found) = (expected as u64, found as u64);
    state.damage.report(Damage { kind, offset: entry.offset, position: 0, expected, found });
}
