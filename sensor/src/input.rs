//! The input files of a replay, and the choice of a reader for each.

mod find;

pub use find::{FILES_MAX, Found, InputError, SKIPPED_NAMED_MAX, Skipped, expand, find, find_etl, traces};

use crate::source::{Sink, Source, SourceError, etl, evtx, jsonl};
use crate::stop::Stop;
use etwsieve_transport::files::{FileKind, PipeReader, is_stopped, open_regular};
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Path that means standard input.
pub const STDIN: &str = "-";
/// Maximum length of an .etl trace from a pipe, in bytes. It is copied to a temporary file, because its buffers are not
/// read in order.
pub const PIPED_TRACE_LEN_MAX: u64 = 4 << 30;
/// Name of standard input in hits and summaries.
const STDIN_NAME: &str = "standard input";
/// Number of bytes at the start of a file that identify its format.
const MAGIC_LEN: usize = 8;
/// Offset of the marker of an .etl trace (`sensor/etl/src/logfile.rs`), and its two values.
const TRACE_MARKER_AT: usize = 0x48;
const TRACE_MARKERS: [u32; 2] = [0xC001_0002, 0xC002_0002];

/// A recorded file, or a pipe that delivers one.
#[derive(Clone, Debug)]
pub struct FileSource {
    path: PathBuf,
    len: u64,
    stop: Stop,
}

impl FileSource {
    /// Creates a source for the file at `path`, or for standard input if it is [`STDIN`]. It is opened when it is read.
    pub fn new(path: PathBuf) -> Self {
        let metadata = fs::metadata(&path).ok().filter(fs::Metadata::is_file);
        let len = metadata.map_or(0, |metadata| metadata.len());
        Self { path, len, stop: Stop::default() }
    }

    /// Stops waiting for a pipe when `stop` is requested.
    #[must_use]
    pub fn until(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    fn not_a_trace(&self, kind: &'static str) -> SourceError {
        SourceError::NotATrace { path: PathBuf::from(self.name()), kind }
    }

    fn is_stdin(&self) -> bool {
        self.path.as_os_str() == STDIN
    }

    fn read(&self, sink: &mut dyn Sink) -> Result<(), SourceError> {
        let path = &self.path;
        let failed = |source| SourceError::Open { path: path.clone(), source };
        if self.is_stdin() {
            return self.read_pipe(PipeReader::stdin(self.stop.clone()), sink);
        }
        match FileKind::of(path).map_err(failed)? {
            FileKind::Regular => {
                let mut file = open_regular(path).map_err(failed)?;
                let magic = start(&mut file, MAGIC_LEN).map_err(failed)?;
                match self.format(&magic)? {
                    Format::EventLog => evtx::replay(magic.as_slice().chain(file), path, sink),
                    Format::JsonLines => jsonl::replay(magic.as_slice().chain(file), path, sink),
                    Format::Trace => etl::read(path, sink),
                }
            }
            FileKind::Pipe => self.read_pipe(PipeReader::open(path.clone(), self.stop.clone()), sink),
            kind => Err(SourceError::Kind { path: path.clone(), kind }),
        }
    }

    fn read_pipe(&self, mut pipe: PipeReader, sink: &mut dyn Sink) -> Result<(), SourceError> {
        let path = PathBuf::from(self.name());
        let failed = |source| SourceError::Read { path: path.clone(), offset: 0, source };
        // The bytes of a pipe cannot be read twice.
        let magic = start(&mut pipe, MAGIC_LEN).map_err(failed)?;
        match self.format(&magic)? {
            Format::EventLog => evtx::replay(magic.as_slice().chain(pipe), &path, sink),
            Format::JsonLines => jsonl::replay(magic.as_slice().chain(pipe), &path, sink),
            Format::Trace => {
                let copy = copy_to_file(magic, pipe, &path)?;
                etl::read(copy.path(), sink).map_err(|error| error.at(&path))
            }
        }
    }

    fn format(&self, magic: &[u8]) -> Result<Format, SourceError> {
        let packed = |program, hint| {
            let path = PathBuf::from(self.name());
            Err(SourceError::Packed { path, program, hint })
        };
        let ending = ending(&self.path);
        match magic {
            [0x28, 0xB5, 0x2F, 0xFD, ..] => packed("zstd", "zstd -d --long=27 FILE"),
            [0x1F, 0x8B, ..] => packed("gzip", "gzip -d FILE"),
            [b'P', b'K', 3, 4, ..] => packed("zip", "unzip FILE"),
            [b'7', b'z', 0xBC, 0xAF, ..] => packed("7-Zip", "7z x FILE"),
            [0xFD, b'7', b'z', b'X', b'Z', ..] => packed("xz", "xz -d FILE"),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => packed("bzip2", "bzip2 -d FILE"),
            _ if magic.starts_with(b"Elf") || ending.as_deref() == Some("evtx") => Ok(Format::EventLog),
            _ if matches!(ending.as_deref(), Some("jsonl" | "json")) || magic.starts_with(b"{") => {
                Ok(Format::JsonLines)
            }
            _ => Ok(Format::Trace),
        }
    }
}

/// An .etl trace on disk: the file itself, or a temporary copy of a pipe that is deleted with this value.
#[derive(Debug)]
pub struct TraceOnDisk {
    /// Name for messages.
    pub name: String,
    path: PathBuf,
    copy: Option<NamedTempFile>,
}

impl TraceOnDisk {
    /// Checks whether `path` can be an .etl trace, and copies it to a temporary file if it is a pipe.
    ///
    /// # Errors
    ///
    /// [`SourceError`] for other formats and for unreadable files; after a stop [`SourceError::Read`] with an error for
    /// which [`is_stopped`] is true.
    pub fn open(path: PathBuf, stop: Stop) -> Result<Self, SourceError> {
        let source = FileSource::new(path).until(stop);
        let (name, path) = (source.name(), &source.path);
        let failed = |error| SourceError::Open { path: path.clone(), source: error };
        let kind = if source.is_stdin() { FileKind::Pipe } else { FileKind::of(path).map_err(failed)? };
        let (magic, pipe) = match kind {
            FileKind::Regular => {
                (start(&mut open_regular(path).map_err(failed)?, MAGIC_LEN).map_err(failed)?, None)
            }
            FileKind::Pipe => {
                let mut pipe = if source.is_stdin() {
                    PipeReader::stdin(source.stop.clone())
                } else {
                    PipeReader::open(path.clone(), source.stop.clone())
                };
                let magic = start(&mut pipe, MAGIC_LEN);
                let failed = |error| SourceError::Read { path: path.clone(), offset: 0, source: error };
                (magic.map_err(failed)?, Some(pipe))
            }
            kind => return Err(SourceError::Kind { path: path.clone(), kind }),
        };
        let format = source.format(&magic)?;
        let copy = match (format, pipe) {
            (Format::Trace, None) => None,
            (Format::Trace, Some(pipe)) => Some(copy_to_file(magic, pipe, path)?),
            (Format::EventLog, _) => return Err(source.not_a_trace("an event log")),
            (Format::JsonLines, _) => return Err(source.not_a_trace("JSON Lines")),
        };
        Ok(Self { name, path: source.path, copy })
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        match &self.copy {
            Some(copy) => copy.path(),
            None => &self.path,
        }
    }
}

/// Copies a trace from a pipe, whose first bytes are `head`, to a temporary file.
fn copy_to_file(mut head: Vec<u8>, mut pipe: PipeReader, path: &Path) -> Result<NamedTempFile, SourceError> {
    let failed = |source| SourceError::Read { path: path.into(), offset: 0, source };
    // Checked first, so that gigabytes of something else are not copied.
    head.extend(start(&mut pipe, TRACE_MARKER_AT + 4 - head.len()).map_err(failed)?);
    let marker = head.get(TRACE_MARKER_AT..).and_then(|bytes| bytes.first_chunk());
    if !marker.is_some_and(|bytes| TRACE_MARKERS.contains(&u32::from_le_bytes(*bytes))) {
        head.truncate(MAGIC_LEN);
        let expected = "an event trace, an event log or JSON Lines";
        return Err(SourceError::NotThisFormat { path: path.into(), expected, found: head });
    }
    let mut copy = NamedTempFile::new().map_err(failed)?;
    let mut input = head.as_slice().chain(pipe).take(PIPED_TRACE_LEN_MAX + 1);
    if io::copy(&mut input, &mut copy).map_err(failed)? > PIPED_TRACE_LEN_MAX {
        return Err(SourceError::PipeTooLong { path: path.into(), len_max: PIPED_TRACE_LEN_MAX });
    }
    copy.flush().map_err(failed)?;
    Ok(copy)
}

/// The formats for which a reader exists.
enum Format {
    EventLog,
    JsonLines,
    Trace,
}

impl Source for FileSource {
    fn name(&self) -> String {
        if self.is_stdin() { STDIN_NAME.into() } else { self.path.display().to_string() }
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn run(&mut self, sink: &mut dyn Sink) -> Result<(), SourceError> {
        match self.read(sink) {
            Err(SourceError::Read { source, .. }) if is_stopped(&source) => Ok(()),
            other => other,
        }
    }
}

/// Reads the first `len` bytes of an input, or fewer if it is shorter.
fn start(input: &mut impl Read, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(len);
    input.take(len as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns the extension of a file name in lower case. A number after it, as in `Powershell.etl.001`, is ignored.
fn ending(path: &Path) -> Option<String> {
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    if !ending.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(ending);
    }
    Some(Path::new(path.file_stem()?).extension()?.to_str()?.to_ascii_lowercase())
}
