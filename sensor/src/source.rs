//! Where events come from: recorded files.
//!
//! A source pushes: it walks its input and offers each event to a [`Sink`], as the callback of a live session
//! does. What it cannot read it reports to the sink as [`Damage`] and goes on.

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

/// Something that has events.
pub trait Source: Send {
    /// The file's path or the session's name, as hits and summaries show it.
    fn name(&self) -> String;

    /// Bytes to read, for the progress; 0 where there is no end.
    fn len(&self) -> u64;

    /// Whether there is nothing to read.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Offers every event to the sink, until the end or until the sink says `Break`.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if nothing, or nothing more, can be read. Damage goes to the sink instead.
    fn run(&mut self, sink: &mut dyn Sink) -> Result<(), SourceError>;
}

/// What receives a source's events.
pub trait Sink {
    /// Whether the payload of such an event is wanted. A source may ask before it renders one.
    fn wants(&self, provider: &Uuid, event_id: u16) -> bool;

    /// Takes one event. `Break` asks the source to return at once.
    fn event(&mut self, event: &EventRef<'_>) -> ControlFlow<()>;

    /// Counts an event that is there but that [`wants`](Self::wants) declined. `Break` as above.
    fn unwanted(&mut self) -> ControlFlow<()>;

    /// Counts an event that is wanted but cannot be taken: it is dropped for this reason, a short fixed word.
    /// `Break` as above. Sinks of recorded files, which refuse nothing, need not care.
    fn refused(&mut self, _reason: &'static str) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// Counts and reports something unreadable. The source continues behind it.
    fn damaged(&mut self, damage: &Damage);

    /// Counts that many parts that are unreadable for this reason but about which nothing else was kept.
    fn damaged_also(&mut self, reason: &'static str, count: u64) {
        let damage = Damage { reason, offset: 0, detail: "not kept in detail".into() };
        (0..count).for_each(|_| self.damaged(&damage));
    }

    /// Counts what the source itself says was lost before it was recorded. Called once by sources that know it.
    fn lost(&mut self, _losses: LossLedger) {}

    /// Reports what reading has cost since the last report.
    fn worked(&mut self, _cost: Cost) {}

    /// Ends the source soon after it is requested, also where nothing but damage is read.
    fn stop(&self) -> Stop {
        Stop::default()
    }

    /// Tells how many bytes of the input have been consumed so far.
    fn progress(&mut self, bytes: u64);
}

/// The reason of damage that is due to a bound on the work for an input.
pub const WORK_LIMIT: &str = "work limit";

/// Work and memory, as [`Budget`](etwsieve_budget::Budget) counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Steps.
    pub steps: u64,
    /// Bytes allocated in all.
    pub bytes: u64,
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

/// Why a file gives no events, or no more of them.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be opened: absent, no permission, a folder.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is of another format than its reader's.
    #[error("{} is not of this format: expected {expected}, found {:?}", path.display(), String::from_utf8_lossy(found))]
    NotThisFormat {
        /// The file.
        path: PathBuf,
        /// What such a file begins with.
        expected: &'static str,
        /// What this one begins with, a few bytes.
        found: Vec<u8>,
    },
    /// The system failed to read it. What came before has been offered.
    #[error("cannot read {} at offset {offset:#x}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Byte offset of the read that failed.
        offset: u64,
        /// What the system says.
        source: io::Error,
    },
    /// It is no event trace, or its header is damaged.
    #[error("{}: {source}", path.display())]
    Trace {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        source: EtlError,
    },
    /// It is neither a file nor a pipe.
    #[error("cannot read {}: it is {kind}, expected a file or a pipe", path.display())]
    Kind {
        /// The path.
        path: PathBuf,
        /// What it names.
        kind: FileKind,
    },
    /// It is a recording, but no .etl trace.
    #[error("{} is {kind}, not an .etl trace; `etwsieve replay` reads it", path.display())]
    NotATrace {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A trace whose buffers must be kept while it is read is too long for that.
    #[error("{}: more than {len_max} bytes of a trace come from a pipe; write them to a file, and name that", path.display())]
    PipeTooLong {
        /// The pipe.
        path: PathBuf,
        /// How much is kept.
        len_max: u64,
    },
    /// It is packed.
    #[error("{} is packed with {program}; unpack it first: {hint}", path.display())]
    Packed {
        /// The file.
        path: PathBuf,
        /// The program that unpacks it.
        program: &'static str,
        /// The command.
        hint: &'static str,
    },
}

impl SourceError {
    /// The same error of the file at `path`, for one that was read by way of another.
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
