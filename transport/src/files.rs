//! Files that a user names: identifying them, reading them within limits, and writing without overwriting foreign data.
//!
//! A path may name anything: a pipe without a writer, an endless device, an input of the same command. Every file named
//! on a command line or in a configuration is opened through this module.
//!
//! | function | for |
//! |---|---|
//! | [`open_regular`] | inputs that must be regular files |
//! | [`read_at_most`] | small inputs (rules, bundles, configurations): files, and pipes with a deadline |
//! | [`PipeReader`] | large inputs from a pipe; a stop interrupts them |
//! | [`Claims`] | rejecting outputs that are also inputs, or are named twice |
//! | [`PatientStdout`] | large outputs to standard output, whose reader may stop reading |
//! | [`Report`] | outputs that are written once, as a whole |
//! | [`append_lines`] | outputs that grow by lines |

mod claims;
mod kind;
mod output;
mod pipe;
mod stdout;

pub use claims::{ClaimError, Claims, position_of_stdout};
pub use kind::{FileKind, open_regular};
pub use output::{OutputError, Report, append_lines, is_stdout};
pub use pipe::{PIPE_QUIET_MAX, PipeReader, is_stopped};
pub use stdout::PatientStdout;

use std::io::{self, Read};
use std::path::Path;

/// Reads a small input: a regular file, or a pipe such as that of a process substitution.
///
/// Returns at most `len_max + 1` bytes; `len_max + 1` bytes mean that the input is longer than `len_max`.
///
/// # Errors
///
/// Errors of the system, [`io::ErrorKind::InvalidInput`] for anything but a regular file or a pipe, and
/// [`io::ErrorKind::TimedOut`] for a pipe that delivers nothing for [`PIPE_QUIET_MAX`].
pub fn read_at_most(path: &Path, len_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let len_max = len_max.saturating_add(1);
    if FileKind::of(path)? == FileKind::Pipe {
        PipeReader::with_deadline(path.to_owned()).take(len_max).read_to_end(&mut bytes)?;
    } else {
        open_regular(path)?.take(len_max).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Reads a small input that must be UTF-8.
///
/// # Errors
///
/// The same as for [`read_at_most`], and [`io::ErrorKind::InvalidData`].
pub fn read_text_at_most(path: &Path, len_max: u64) -> io::Result<String> {
    let bytes = read_at_most(path, len_max)?;
    String::from_utf8(bytes).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("not UTF-8: {}", error.utf8_error()))
    })
}
