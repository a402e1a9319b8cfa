//! Reads Windows event traces (`.etl`) on any operating system.
//!
//! A trace is a row of buffers, one stream of them per processor. [`TraceFile`] maps a file, [`Trace`] finds its
//! buffers and the facts of its header, [`Trace::events`] walks every event in time order:
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
//! # Promises
//!
//! * Any bytes are accepted as input. Nothing panics; time is linear in the file and its decompressed buffers;
//!   memory is bounded by [`Trace::index_len_max`] and [`SCRATCH_LEN_MAX`].
//! * Nothing is lost silently: what cannot be read is a [`Damage`], counted by its kind, and reading goes on
//!   behind it.
//! * Payloads are slices of the input, or of a decompressed buffer; no event costs an allocation.
//!
//! Nothing here calls Windows, and no event is interpreted beyond its header.

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
mod map;
mod merge;
mod stream;
pub mod time;
mod trace;
mod xpress;
mod xpress_huff;

pub use buffer::{BUFFER_HEADER_LEN, BUFFER_LEN_MAX};
pub use clock::{Clock, ClockType};
pub use codec::{Compression, EXPANSION_MAX};
pub use damage::{DAMAGE_KEPT_MAX, Damage, DamageKind, DamageLog};
pub use error::EtlError;
pub use event::{Event, HeaderKind};
pub use extended::{ExtendedItem, ExtendedItems, item_type};
pub use logfile::TraceInfo;
pub use merge::{Events, SCRATCH_LEN_MAX};
pub use time::FileTime;
pub use trace::{Trace, TraceFile};
