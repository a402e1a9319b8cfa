//! Why a file cannot be read as a trace at all.

use std::io;

/// Why a file cannot be read as a trace at all.
///
/// Everything else that can be wrong with a trace is a [`Damage`](crate::Damage): reported, counted, passed over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EtlError {
    /// The file cannot be opened or mapped.
    #[error("cannot open the trace: {0}")]
    Open(#[from] io::Error),
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
