//! The one place that maps a file.

use crate::error::EtlError;
use memmap2::Mmap;
use std::fs::File;
use std::path::Path;

/// Maps a whole file for reading.
///
/// # Errors
///
/// [`EtlError::Open`], and [`EtlError::Empty`] for a file of no bytes, which cannot be mapped.
#[expect(unsafe_code, reason = "the bytes of a map can change under it, which no type can forbid")]
pub(crate) fn map(path: &Path) -> Result<Mmap, EtlError> {
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Err(EtlError::Empty);
    }
    // SAFETY: the map is read-only and lives as long as the slices taken from it. That nobody writes to the file or
    // cuts it meanwhile is up to the caller of `TraceFile::open`, whose documentation says so; the decoder itself
    // reads every field once and checks what it read, so that changing bytes give wrong events, not wrong bounds.
    Ok(unsafe { Mmap::map(&file) }?)
}
