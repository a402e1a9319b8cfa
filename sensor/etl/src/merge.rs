//! Merges the events of all streams in time order.

use crate::damage::DamageLog;
use crate::event::Event;
use crate::stream::Stream;
use crate::trace::Trace;
use crate::walk_state::WalkState;
use etwsieve_budget::{Budget, Exhausted};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// Maximum memory in bytes for the buffers of all streams together that are open at the same time, decompressed or read
/// from a file.
///
/// One buffer per processor is open at a time, so this allows 1 MiB each on 256 processors. A file can state 65,536
/// processors and 16 MiB for each; buffers that exceed the limit are damage of kind
/// [`ScratchLimit`](crate::DamageKind::ScratchLimit).
pub const SCRATCH_LEN_MAX: usize = 256 << 20;

/// The events of a trace in time order.
///
/// There is one stream of events per processor. Within a stream events keep their stored order. Streams are merged by
/// time stamp; equal time stamps are ordered by processor, with the first buffer of the file before all others. An
/// event whose time stamp is before that of its predecessor in the stream is delivered directly after it, see
/// [`out_of_order`](Self::out_of_order).
///
/// # Complexity
///
/// Per event logarithmic in the number of streams, without allocation. Per buffer linear in its decompressed length, in
/// memory that is reused and limited by [`SCRATCH_LEN_MAX`]. All events together cost at most
/// [`WALK_STEPS_PER_BYTE_MAX`](crate::WALK_STEPS_PER_BYTE_MAX) steps per byte of the file and
/// [`STEPS_FREE`](crate::STEPS_FREE) more; the rest is then damage of kind [`WorkLimit`](crate::DamageKind::WorkLimit).
pub struct Events<'t> {
    state: WalkState<'t>,
    streams: Vec<Stream>,
    /// Raw time stamp of the next event of each stream, and the index of the stream.
    due: BinaryHeap<Reverse<(i64, u32)>>,
    /// True if the event at the top of `due` has been delivered.
    is_delivered: bool,
}

impl<'t> Events<'t> {
    pub(crate) fn new(trace: &'t Trace<'t>, budget: Budget<'t>) -> Self {
        let mut streams: Vec<Stream> = trace.streams().map(Stream::new).collect();
        let mut state = WalkState::new(trace, budget, streams.len());
        let mut due = BinaryHeap::with_capacity(streams.len());
        for (stream, number) in streams.iter_mut().zip(0..) {
            due.extend(stream.advance(&mut state).map(|key| Reverse((key, number))));
        }
        Self { state, streams, due, is_delivered: false }
    }

    /// Returns the next event; `None` at the end. It borrows `self`, because its payload may be in a buffer that the
    /// next event overwrites.
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
        self.streams.get(number as usize)?.event(self.state.trace)
    }

    /// Moves the stream at the top to its next event.
    fn advance(&mut self) {
        self.is_delivered = false;
        if let Some(mut top) = self.due.peek_mut() {
            let Reverse((_, number)) = *top;
            let key =
                self.streams.get_mut(number as usize).and_then(|stream| stream.advance(&mut self.state));
            if let Some(key) = key {
                *top = Reverse((key, number));
            } else {
                PeekMut::pop(top);
            }
        }
    }

    /// Returns the damage found so far, including that of the trace ([`Trace::damage`]). Complete at the end.
    pub fn damage(&self) -> &DamageLog {
        &self.state.damage
    }

    /// Returns the number of bytes consumed: those of the buffers opened so far, and all bytes of the file at the end.
    pub fn bytes_consumed(&self) -> u64 {
        let is_at_end = self.due.is_empty() && !self.is_stopped();
        if is_at_end { self.state.trace.len() } else { self.state.bytes_consumed }
    }

    /// Returns whether the events ended because of a stop, see [`events_until`](crate::Trace::events_until).
    pub fn is_stopped(&self) -> bool {
        self.state.budget.exhausted() == Some(Exhausted::Stopped)
    }

    /// Returns the cost so far: steps of work, and bytes allocated in total.
    pub fn cost(&self) -> (u64, u64) {
        (self.state.budget.steps_spent(), self.state.budget.bytes_spent())
    }

    /// Returns the number of events so far whose time stamp is before that of their predecessor in the stream, or after
    /// the flush of their buffer. They keep their time stamp; for all other events [`Event::time`] never decreases.
    pub fn out_of_order(&self) -> u64 {
        self.state.out_of_order
    }

    /// Returns the current memory of buffers in bytes, at most [`SCRATCH_LEN_MAX`].
    pub fn scratch_len(&self) -> usize {
        SCRATCH_LEN_MAX - self.state.scratch_left
    }
}
