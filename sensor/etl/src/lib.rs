//! Reads Windows event traces (`.etl`) on any operating system.
//!
//! A trace is a sequence of buffers, with one stream per processor. [`TraceFile`] opens a file, [`Trace`] reads its
//! header and finds its buffers, and [`Trace::events`] returns all events in time order:
//!
//! ```no_run
//! # fn main() -> Result<(), etwsieve_etl::EtlError> {
//! let file = etwsieve_etl::TraceFile::open("trace.etl")?;
//! let trace = file.trace()?;
//! let mut events = trace.events();
//! while let Some(event) = events.next() {
//!     println!("{} {} {} bytes", event.time, event.header, event.payload.len());
//! }
//! println!("{} parts were unreadable", events.damage().total());
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//!
//! * Any bytes are accepted as input. Nothing panics; memory is bounded by [`Trace::index_len_max`],
//!   [`SCRATCH_LEN_MAX`] and views of a few buffers.
//! * Work is bounded in proportion to the length of the file, whatever its compression ratio: see
//!   [`INDEX_STEPS_PER_BYTE_MAX`] and [`WALK_STEPS_PER_BYTE_MAX`].
//! * A file may be truncated or overwritten while it is read. Missing parts are damage.
//! * Nothing is lost silently: each unreadable part is a [`Damage`] that is counted by its kind, and reading continues
//!   after it.
//! * Payloads are slices of the input, or of a buffer that was read or decompressed. Events are not allocated.
//!
//! This crate calls no Windows functions and interprets only the headers of events.

mod buffer;
mod bytes;
mod clock;
mod codec;
mod damage;
mod decode;
mod error;
mod event;
mod extended;
mod index;
mod logfile;
mod lz;
mod lznt1;
mod merge;
mod source;
mod stream;
#[cfg(test)]
mod tests;
mod trace;
mod walk_state;
mod work;
mod xpress;
mod xpress_huff;

pub use buffer::{BUFFER_HEADER_LEN, BUFFER_LEN_MAX};
pub use clock::{Clock, ClockType};
pub use codec::{Compression, EXPANSION_MAX};
pub use damage::{DAMAGE_KEPT_MAX, Damage, DamageKind, DamageLog};
pub use error::EtlError;
pub use etwsieve_event::FileTime;
pub use event::{Event, HeaderKind};
pub use extended::{ExtendedItem, ExtendedItems, item_type};
pub use logfile::TraceInfo;
pub use merge::{Events, SCRATCH_LEN_MAX};
pub use source::ReadAt;
pub use trace::{Trace, TraceFile};
pub use work::{INDEX_STEPS_PER_BYTE_MAX, STEPS_FREE, WALK_STEPS_PER_BYTE_MAX};
