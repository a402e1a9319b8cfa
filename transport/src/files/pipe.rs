//! Reading from pipes with timeouts and stops.
//!
//! Opening a pipe blocks until it has a writer, and reading blocks until data arrives; a signal handler interrupts
//! neither. A separate thread therefore does both, and the reader waits for that thread in intervals short enough to
//! notice a stop.

use crate::stop::Stop;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Maximum time without data from a pipe with a small input, such as a bundle.
pub const PIPE_QUIET_MAX: Duration = Duration::from_secs(10);
/// Size of a read, in bytes; the capacity of a Linux pipe.
const CHUNK_LEN: usize = 64 << 10;
/// Maximum number of chunks read ahead.
const CHUNKS_MAX: usize = 4;
/// Polling interval of a waiting reader that checks for a stop.
pub(super) const STOP_TICK: Duration = Duration::from_millis(50);

/// Reads a pipe or standard input; a read ends soon after a stop or a timeout.
///
/// Dropping the reader does not end its thread, which may be blocked until the pipe is closed or the process exits.
pub struct PipeReader {
    chunks: Receiver<io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    /// Offset of the unread part of `chunk`.
    at: usize,
    ended: bool,
    until: Until,
}

/// The condition that ends a wait.
enum Until {
    Stop(Stop),
    Quiet(Duration),
}

/// Cause of the error of a read or write that a stop has ended.
#[derive(Debug)]
struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped")
    }
}

impl std::error::Error for Stopped {}

pub(super) fn stopped() -> io::Error {
    io::Error::other(Stopped)
}

/// Returns true if an error of [`PipeReader`] or [`PatientStdout`](super::PatientStdout) was caused by a stop.
pub fn is_stopped(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Stopped>)
}

impl PipeReader {
    /// Reads the pipe at `path` until it ends or `stop` is requested.
    pub fn open(path: PathBuf, stop: Stop) -> Self {
        Self::start(move || File::open(path), Until::Stop(stop))
    }

    /// Reads standard input until it ends or `stop` is requested.
    pub fn stdin(stop: Stop) -> Self {
        Self::start(|| Ok(io::stdin()), Until::Stop(stop))
    }

    /// Reads the pipe at `path` until it ends or delivers nothing for [`PIPE_QUIET_MAX`].
    pub fn with_deadline(path: PathBuf) -> Self {
        Self::start(move || File::open(path), Until::Quiet(PIPE_QUIET_MAX))
    }

    fn start<R: Read>(open: impl FnOnce() -> io::Result<R> + Send + 'static, until: Until) -> Self {
        let (sender, chunks) = sync_channel(CHUNKS_MAX);
        let spawned = thread::Builder::new().name("pipe".into()).spawn({
            let sender = sender.clone();
            move || {
                let mut input = match open() {
                    Ok(input) => input,
                    Err(error) => return drop(sender.send(Err(error))),
                };
                loop {
                    let mut chunk = vec![0; CHUNK_LEN];
                    let read = loop {
                        match input.read(&mut chunk) {
                            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                            other => break other,
                        }
                    };
                    let is_end = !matches!(read, Ok(1..));
                    let read = read.map(|len| {
                        chunk.truncate(len);
                        chunk
                    });
                    // The reader is gone, or the pipe has ended.
                    if sender.send(read).is_err() || is_end {
                        return;
                    }
                }
            }
        });
        if let Err(error) = spawned {
            // The channel is empty, so it has room.
            let _ = sender.send(Err(error));
        }
        Self { chunks, chunk: Vec::new(), at: 0, ended: false, until }
    }

    /// Waits for the next chunk; an empty chunk is the end.
    fn next(&self) -> io::Result<Vec<u8>> {
        let start = Instant::now();
        loop {
            match &self.until {
                Until::Stop(stop) if stop.requested() => return Err(stopped()),
                Until::Quiet(longest) if start.elapsed() >= *longest => {
                    let problem = format!("the pipe delivered no data for {} s", longest.as_secs());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
                }
                Until::Stop(_) | Until::Quiet(_) => {}
            }
            match self.chunks.recv_timeout(STOP_TICK) {
                Ok(chunk) => return chunk,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(Vec::new()),
            }
        }
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() && !self.ended && !buffer.is_empty() {
            self.chunk = self.next()?;
            self.at = 0;
            self.ended = self.chunk.is_empty();
        }
        let len = buffer.len().min(self.chunk.len() - self.at);
        buffer[..len].copy_from_slice(&self.chunk[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::{PipeReader, is_stopped};
    use crate::stop::Stop;
    use std::fs;
    use std::io::{Read, Write};
    use std::path::PathBuf;
    use std::thread;

    fn pipe(folder: &tempfile::TempDir, name: &str) -> PathBuf {
        let path = folder.path().join(name);
        assert!(
            std::process::Command::new("mkfifo").arg(&path).status().is_ok_and(|status| status.success())
        );
        path
    }

    #[test]
    fn everything_written_to_a_pipe_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = pipe(&folder, "pipe");
        let bytes: Vec<u8> = (0..1_000_000u32).map(|number| (number % 251) as u8).collect();
        let writer = thread::spawn({
            let (path, bytes) = (path.clone(), bytes.clone());
            move || fs::OpenOptions::new().write(true).open(path).unwrap().write_all(&bytes).unwrap()
        });
        let mut read = Vec::new();
        PipeReader::open(path, Stop::default()).read_to_end(&mut read).unwrap();
        writer.join().unwrap();
        assert!(read == bytes);
    }

    #[test]
    fn a_stop_ends_the_wait_for_a_writer_and_for_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        for (name, is_open) in [("silent", false), ("open", true)] {
            let path = pipe(&folder, name);
            let stop = Stop::default();
            let mut reader = PipeReader::open(path.clone(), stop.clone());
            let _writer = is_open.then(|| {
                let mut writer = fs::OpenOptions::new().write(true).open(&path).unwrap();
                writer.write_all(b"a").unwrap();
                assert_eq!(reader.read(&mut [0; 8]).unwrap(), 1);
                writer
            });
            stop.request();
            let error = reader.read(&mut [0; 8]).unwrap_err();
            assert!(is_stopped(&error), "{error}");
        }
    }

    #[test]
    fn a_path_that_cannot_be_opened_is_an_error() {
        let error = PipeReader::with_deadline("/nonexistent/pipe".into()).read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        assert!(!is_stopped(&error));
    }
}
