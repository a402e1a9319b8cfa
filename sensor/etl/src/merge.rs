//! The events of all streams, in the order of time.

use crate::damage::DamageLog;
use crate::event::Event;
use crate::stream::{Shared, Stream};
use crate::trace::Trace;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// The most memory for decompressed buffers that a walk holds at a time, in bytes, for all streams together.
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
/// Per event logarithmic in the number of streams, and nothing is allocated; per compressed buffer linear in its
/// decompressed length, in memory that is kept for the next one and limited by [`SCRATCH_LEN_MAX`].
pub struct Events<'t> {
    shared: Shared<'t>,
    streams: Vec<Stream>,
    /// When the next event of a stream is due, and which stream it is.
    due: BinaryHeap<Reverse<(i64, u32)>>,
    /// The event at the top of `due` has been delivered.
    is_delivered: bool,
}

impl<'t> Events<'t> {
    pub(crate) fn new(trace: &'t Trace<'t>) -> Self {
        let mut shared = Shared {
            trace,
            damage: trace.damage().clone(),
            scratch_left: SCRATCH_LEN_MAX,
            bytes_consumed: 0,
            out_of_order: 0,
        };
        let mut streams: Vec<Stream> = trace.streams().map(Stream::new).collect();
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
        if self.due.is_empty() { self.shared.trace.len() } else { self.shared.bytes_consumed }
    }

    /// How many events so far have a time stamp that is older than that of their predecessor in the stream, or
    /// younger than the flush of their buffer. Such a time stamp is delivered as it is; for all others,
    /// [`Event::time`] never goes back.
    pub fn out_of_order(&self) -> u64 {
        self.shared.out_of_order
    }

    /// Bytes of memory that hold decompressed buffers now, at most [`SCRATCH_LEN_MAX`].
    pub fn scratch_len(&self) -> usize {
        SCRATCH_LEN_MAX - self.shared.scratch_left
    }
}
