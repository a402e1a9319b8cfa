//! Sources of events.
//!
//! A source reads its input and passes each event to a [`Sink`], like the callback of a live session. It reports
//! unreadable parts to the sink as [`Damage`] and continues after them.

pub mod etl;
pub mod evtx;
pub mod jsonl;
mod text;

use crate::event::EventRef;
use crate::ledger::LossLedger;
use crate::stop::Stop;
use etwsieve_etl::EtlError;
use etwsieve_transport::files::FileKind;
use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// A recorded file or a live session.
pub trait Source: Send {
    /// Returns the path of the file or the name of the session, for hits and summaries.
    fn name(&self) -> String;

    /// Returns the number of bytes to read, for the progress bar; 0 if it is unknown or unlimited.
    fn len(&self) -> u64;

    /// Returns whether the length is 0.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Passes every event to the sink, until the end or until the sink returns `Break`.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if nothing, or nothing more, can be read. Damage is reported to the sink instead.
    fn run(&mut self, sink: &mut dyn Sink) -> Result<(), SourceError>;
}

/// Receives the events of a source.
pub trait Sink {
    /// Returns whether the sink needs the payloads of such events. A source may ask before it rebuilds a payload.
    fn wants(&self, provider: &Uuid, event_id: u16) -> bool;

    /// Receives an event. `Break` asks the source to return at once.
    fn event(&mut self, event: &EventRef<'_>) -> ControlFlow<()>;

    /// Counts an event for which [`wants`](Self::wants) returned false. `Break` as above.
    fn unwanted(&mut self) -> ControlFlow<()>;

    /// Counts an event that is needed but cannot be delivered: it is dropped for this reason, a short fixed word.
    /// `Break` as above. Sources of recorded files never call it.
    fn refused(&mut self, _reason: &'static str) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// Counts and reports an unreadable part. The source continues after it.
    fn damaged(&mut self, damage: &Damage);

    /// Counts `count` more unreadable parts for this reason, whose details the source did not keep.
    fn damaged_also(&mut self, reason: &'static str, count: u64) {
        let damage = Damage { reason, offset: 0, detail: "details were not kept".into() };
        (0..count).for_each(|_| self.damaged(&damage));
    }

    /// Records the losses that the source reports for the time before the recording. Called at most once.
    fn lost(&mut self, _losses: LossLedger) {}

    /// Records the cost of reading since the last call.
    fn worked(&mut self, _cost: Cost) {}

    /// Returns a stop that ends the source soon after it is requested, even while the source reads only damage.
    fn stop(&self) -> Stop {
        Stop::default()
    }

    /// Records how many bytes of the input have been consumed so far.
    fn progress(&mut self, bytes: u64);
}

/// Reason of damage that is reported because an input exceeds its work limit.
pub const WORK_LIMIT: &str = "work limit";

/// Work and memory as counted by a [`Budget`](etwsieve_budget::Budget).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Steps of work.
    pub steps: u64,
    /// Bytes allocated in total.
    pub bytes: u64,
}

/// An unreadable part of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Short fixed word by which damage is counted, such as `buffer` or `record`.
    pub reason: &'static str,
    /// Byte offset in the file.
    pub offset: u64,
    /// The expected and the found value.
    pub detail: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "damaged {} at offset {:#x}: {}", self.reason, self.offset, self.detail)
    }
}

/// Why a file provides no events, or no more events.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file cannot be opened: it does not exist, is a folder, or permission is denied.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The file has another format.
    #[error("unsupported format of {}: expected {expected}, found {:?}", path.display(), String::from_utf8_lossy(found))]
    NotThisFormat {
        /// The file.
        path: PathBuf,
        /// The expected start of the file.
        expected: &'static str,
        /// The first bytes of the file.
        found: Vec<u8>,
    },
    /// The system failed to read the file. Events before that place have been delivered.
    #[error("cannot read {} at offset {offset:#x}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Byte offset of the failed read.
        offset: u64,
        /// The error of the system.
        source: io::Error,
    },
    /// The file is not an event trace, or its header is damaged.
    #[error("{}: {source}", path.display())]
    Trace {
        /// The file.
        path: PathBuf,
        /// The error of the trace reader.
        source: EtlError,
    },
    /// The path is neither a file nor a pipe.
    #[error("cannot read {}: it is {kind}, expected a file or a pipe", path.display())]
    Kind {
        /// The path.
        path: PathBuf,
        /// Kind of the file.
        kind: FileKind,
    },
    /// The file is a recording, but not an .etl trace.
    #[error("{} is {kind}, not an .etl trace; use `etwsieve replay` to search it", path.display())]
    NotATrace {
        /// The file.
        path: PathBuf,
        /// Format of the file.
        kind: &'static str,
    },
    /// The trace from a pipe is too long for a temporary file.
    #[error("{}: the trace from the pipe is longer than {len_max} bytes; write it to a file, and name that file", path.display())]
    PipeTooLong {
        /// The pipe.
        path: PathBuf,
        /// Maximum length in bytes.
        len_max: u64,
    },
    /// The file is compressed.
    #[error("{} is compressed with {program}; decompress it first: {hint}", path.display())]
    Packed {
        /// The file.
        path: PathBuf,
        /// The program that decompresses it.
        program: &'static str,
        /// The command.
        hint: &'static str,
    },
}

impl SourceError {
    /// Replaces the path in the error, for a file that was read through a temporary copy.
    #[must_use]
    pub fn at(mut self, path: &Path) -> Self {
        match &mut self {
            Self::Open { path: own, .. }
            | Self::NotThisFormat { path: own, .. }
            | Self::Read { path: own, .. }
            | Self::Trace { path: own, .. }
            | Self::Kind { path: own, .. }
            | Self::NotATrace { path: own, .. }
            | Self::PipeTooLong { path: own, .. }
            | Self::Packed { path: own, .. } => path.clone_into(own),
        }
        self
    }
}
