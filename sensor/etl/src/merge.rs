//! The events of all streams, in the order of time.

use crate::damage::DamageLog;
use crate::event::Event;
use crate::shared::Shared;
use crate::stream::Stream;
use crate::trace::Trace;
use etwsieve_budget::{Budget, Exhausted};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// The most memory for the events of buffers that a walk holds at a time, in bytes, for all streams together:
/// decompressed ones, and in files those that are read.
///
/// One buffer per processor is open at a time: 1 MiB each on 256 processors. Buffers beyond it are damage of kind
/// [`ScratchLimit`](crate::DamageKind::ScratchLimit); a file can claim 65,536 processors and 16 MiB for each.
pub const SCRATCH_LEN_MAX: usize = 256 << 20;

/// A walk over the events of a trace, in the order of time.
///
/// Events come from one stream per processor. Within a stream they keep their stored order; streams are merged by
/// time stamp, at equal stamps by processor, the file's first buffer before all. An event whose stamp lies before
/// that of its predecessor in the stream is delivered right behind it, see [`out_of_order`](Self::out_of_order).
///
/// # Complexity
///
/// Per event logarithmic in the number of streams, and nothing is allocated; per buffer linear in its decompressed
/// length, in memory that is kept for the next one and limited by [`SCRATCH_LEN_MAX`]. All in all, the walk costs at
/// most [`WALK_STEPS_PER_BYTE_MAX`](crate::WALK_STEPS_PER_BYTE_MAX) steps per byte of the file and
/// [`STEPS_FREE`](crate::STEPS_FREE) more; what is left then is damage of kind
/// [`WorkLimit`](crate::DamageKind::WorkLimit).
pub struct Events<'t> {
    shared: Shared<'t>,
    streams: Vec<Stream>,
    /// When the next event of a stream is due, and which stream it is.
    due: BinaryHeap<Reverse<(i64, u32)>>,
    /// The event at the top of `due` has been delivered.
    is_delivered: bool,
}

impl<'t> Events<'t> {
    pub(crate) fn new(trace: &'t Trace<'t>, budget: Budget<'t>) -> Self {
        let mut streams: Vec<Stream> = trace.streams().map(Stream::new).collect();
        let mut shared = Shared::new(trace, budget, streams.len());
        let mut due = BinaryHeap::with_capacity(streams.len());
        for (stream, number) in streams.iter_mut().zip(0..) {
            due.extend(stream.advance(&mut shared).map(|key| Reverse((key, number))));
        }
        Self { shared, streams, due, is_delivered: false }
    }

    /// The next event; `None` at the end. It borrows the walk, as its payload may lie in a buffer that the next
    /// one overwrites.
    #[expect(clippy::should_implement_trait, reason = "an `Iterator` cannot lend from itself")]
    #[inline]
    pub fn next(&mut self) -> Option<Event<'_>> {
        if self.is_delivered {
            self.advance();
        }
        if self.is_stopped() {
            return None;
        }
        let Reverse((_, number)) = *self.due.peek()?;
        self.is_delivered = true;
        self.streams.get(number as usize)?.event(self.shared.trace)
    }

    /// Passes the event at the top.
    fn advance(&mut self) {
        self.is_delivered = false;
        if let Some(mut top) = self.due.peek_mut() {
            let Reverse((_, number)) = *top;
            let key =
                self.streams.get_mut(number as usize).and_then(|stream| stream.advance(&mut self.shared));
            if let Some(key) = key {
                *top = Reverse((key, number));
            } else {
                PeekMut::pop(top);
            }
        }
    }

    /// What could not be read so far, the trace's own [`damage`](Trace::damage) included. Complete at the end.
    pub fn damage(&self) -> &DamageLog {
        &self.shared.damage
    }

    /// How many bytes of the file have been consumed: those of the buffers opened so far, all of them at the end.
    pub fn bytes_consumed(&self) -> u64 {
        let is_at_end = self.due.is_empty() && !self.is_stopped();
        if is_at_end { self.shared.trace.len() } else { self.shared.bytes_consumed }
    }

    /// True once the walk has ended because somebody wanted it to stop, see
    /// [`events_until`](crate::Trace::events_until).
    pub fn is_stopped(&self) -> bool {
        self.shared.budget.exhausted() == Some(Exhausted::Stopped)
    }

    /// What the walk has cost so far: steps of work, and bytes allocated in all.
    pub fn cost(&self) -> (u64, u64) {
        (self.shared.budget.steps_spent(), self.shared.budget.bytes_spent())
    }

    /// How many events so far have a time stamp that is older than that of their predecessor in the stream, or
    /// younger than the flush of their buffer. Such a time stamp is delivered as it is; for all others,
    /// [`Event::time`] never goes back.
    pub fn out_of_order(&self) -> u64 {
        self.shared.out_of_order
    }

    /// Bytes of memory that hold events of buffers now, at most [`SCRATCH_LEN_MAX`].
    pub fn scratch_len(&self) -> usize {
        SCRATCH_LEN_MAX - self.shared.scratch_left
    }
}
