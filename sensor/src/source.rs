//! Where events come from: recorded files here, the live session in [`sys`](crate::sys).
//!
//! A source pushes: it walks its input and offers each event to a [`Sink`], as the callback of a live session
//! does. What it cannot read it reports to the sink as [`Damage`] and goes on.

use crate::event::EventRef;
use std::fmt;
use std::ops::ControlFlow;
use uuid::Uuid;

/// What receives a source's events.
pub trait Sink {
    /// Whether the payload of such an event is wanted. A source may ask before it renders one.
    fn wants(&self, provider: &Uuid, event_id: u16) -> bool;

    /// Takes one event. `Break` asks the source to return at once.
    fn event(&mut self, event: &EventRef<'_>) -> ControlFlow<()>;

    /// Counts an event that is there but that [`wants`](Self::wants) declined. `Break` as above.
    fn unwanted(&mut self) -> ControlFlow<()>;

    /// Counts and reports something unreadable. The source goes on behind it.
    fn damaged(&mut self, damage: &Damage);

    /// Tells how many bytes of the input have been consumed so far.
    fn progress(&mut self, bytes: u64);
}

/// A part of an input that cannot be read, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Short fixed word to count by, such as `buffer` or `record`.
    pub reason: &'static str,
    /// Byte offset in the file.
    pub offset: u64,
    /// What was expected and what was found.
    pub detail: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "damaged {} at offset {:#x}: {}", self.reason, self.offset, self.detail)
    }
}
