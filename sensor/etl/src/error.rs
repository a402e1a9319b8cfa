//! Errors that prevent reading a trace.

use std::io;

/// Why a file cannot be read as a trace.
///
/// All other problems of a trace are [`Damage`](crate::Damage), which is reported, counted and skipped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EtlError {
    /// The file cannot be opened.
    #[error("cannot open the trace: {0}")]
    Open(#[from] io::Error),
    /// The file is a pipe or a device, which cannot be read at arbitrary offsets.
    #[error("a trace cannot be read from a pipe or a device; copy it to a file first")]
    NotAFile,
    /// The system failed to read the header of the trace.
    #[error("cannot read the header of the trace: {0}")]
    Header(io::Error),
    /// The caller requested a stop.
    #[error("stopped before the buffers of the trace were found")]
    Stopped,
    /// The file is empty.
    #[error("the trace is empty (0 bytes)")]
    Empty,
    /// The file ends within the header of the first buffer or within the log file header.
    #[error("the trace ends within its header: expected {expected} bytes, found {found}")]
    HeaderCut {
        /// Bytes up to the end of the log file header.
        expected: u64,
        /// Bytes of the file, or of the event that contains the log file header.
        found: u64,
    },
    /// The first event is not a log file header, so this is not an `.etl` file.
    #[error(
        "not an event trace: marker {found:#010x} at offset {offset:#x}, expected 0xc0010002 or 0xc0020002"
    )]
    NotATrace {
        /// Offset of the marker.
        offset: u64,
        /// The marker that was found.
        found: u32,
    },
    /// Neither the first buffer nor the log file header states a valid buffer size.
    #[error("invalid buffer size {found}: expected {min} to {max} bytes")]
    BufferSize {
        /// Minimum size of a buffer in bytes.
        min: u32,
        /// Maximum size of a buffer in bytes.
        max: u32,
        /// The size in the log file header in bytes.
        found: u32,
    },
}
