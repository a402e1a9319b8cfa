//! Why a file cannot be read as a trace at all.

use std::io;

/// Why a file cannot be read as a trace at all.
///
/// Everything else that can be wrong with a trace is [`Damage`](crate::Damage): reported, counted and skipped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EtlError {
    /// The file cannot be opened.
    #[error("cannot open the trace: {0}")]
    Open(#[from] io::Error),
    /// The file is a pipe or a device, which cannot be read at several places.
    #[error("a trace cannot be read from a pipe or a device; copy it to a file first")]
    NotAFile,
    /// The system fails to read the header of the trace.
    #[error("cannot read the header of the trace: {0}")]
    Header(io::Error),
    /// Whoever waits for the trace wants the reading to stop.
    #[error("stopped before the buffers of the trace were found")]
    Stopped,
    /// The file holds nothing.
    #[error("the trace is empty (0 bytes)")]
    Empty,
    /// The file ends inside the first buffer's header or inside the log file header.
    #[error("the trace ends within its header: {expected} bytes are needed, {found} are there")]
    HeaderCut {
        /// Bytes up to the end of the log file header.
        expected: u64,
        /// Bytes of the file, or of the event that holds the log file header.
        found: u64,
    },
    /// The first event is not a log file header: this is no `.etl` file.
    #[error(
        "not an event trace: marker {found:#010x} at offset {offset:#x}, expected 0xc0010002 or 0xc0020002"
    )]
    NotATrace {
        /// Where the marker was looked for.
        offset: u64,
        /// What is there.
        found: u32,
    },
    /// Neither the first buffer nor the log file header gives a size that a buffer can have.
    #[error("no usable buffer size: {found} bytes, expected {min} to {max}")]
    BufferSize {
        /// Size of the smallest buffer, in bytes.
        min: u32,
        /// Size of the largest buffer, in bytes.
        max: u32,
        /// What the log file header says, in bytes.
        found: u32,
    },
}
