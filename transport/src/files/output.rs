//! Output files. Only files that this program has written are replaced or appended to.

use super::kind::FileKind;
use super::stdout::PatientStdout;
use crate::printable;
use crate::private_file;
use crate::stop::Stop;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Length of the beginning of an existing file that is checked to recognise an earlier output, in bytes.
const HEAD_LEN_MAX: u64 = 4096;
/// Time that the reader of a pipe has after a stop.
const STREAM_GRACE: Duration = Duration::from_secs(1);
/// Polling interval of a waiting writer that checks for a stop.
const TICK: Duration = Duration::from_millis(50);

/// A file cannot be used as an output.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The file exists, and this program did not write it.
    #[error(
        "{} exists and is not {expected}; name another file, or move this one away",
        printable::path(path)
    )]
    Foreign {
        /// Path of the file.
        path: PathBuf,
        /// Description of the files that may be replaced or appended to.
        expected: &'static str,
    },
    /// The path names something other than a file.
    #[error("cannot write to {}: it is {kind}, expected a file", printable::path(path))]
    Kind {
        /// The path.
        path: PathBuf,
        /// Kind of the file.
        kind: FileKind,
    },
    /// A link without a target: the output would appear in another place.
    #[error("{} is a link to a file that does not exist; name that file", printable::path(path))]
    Dangling {
        /// Path of the link.
        path: PathBuf,
    },
    /// The system reports an error.
    #[error("cannot {action} {}: {source}", printable::path(path))]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// The action that failed.
        action: &'static str,
        /// The error of the system.
        source: io::Error,
    },
}

/// An output that is written once, as a whole: it appears complete or not at all.
///
/// [`prepare`](Self::prepare) it before doing the work, so that an unusable path is reported first.
#[derive(Debug)]
pub struct Report {
    path: PathBuf,
    target: Target,
}

#[derive(Debug)]
enum Target {
    Stdout,
    /// A device or a pipe, which is written to directly.
    Stream,
    /// The file does not exist.
    New,
    /// The file is replaced; the path has no links.
    Old(PathBuf),
}

impl Report {
    /// Checks the path. `-` is standard output, and devices and pipes are written to directly. An existing file is
    /// replaced if it is empty or `is_ours` returns true for its first 4,096 bytes. `expected` describes such a file in
    /// errors.
    ///
    /// # Errors
    ///
    /// [`OutputError`]; nothing was written.
    pub fn prepare(
        path: &Path,
        expected: &'static str,
        is_ours: fn(&[u8]) -> bool,
    ) -> Result<Self, OutputError> {
        let report = |target| Ok(Self { path: path.to_owned(), target });
        if is_stdout(path) {
            return report(Target::Stdout);
        }
        if is_descriptor(path) {
            return report(Target::Stream);
        }
        let io = |action, source| OutputError::Io { path: path.to_owned(), action, source };
        match FileKind::of(path) {
            Ok(FileKind::Regular) => {
                if !is_replaceable(path, is_ours).map_err(|error| io("read", error))? {
                    return Err(OutputError::Foreign { path: path.to_owned(), expected });
                }
                report(Target::Old(fs::canonicalize(path).map_err(|error| io("find", error))?))
            }
            Ok(FileKind::Pipe | FileKind::Device) => report(Target::Stream),
            Ok(kind) => Err(OutputError::Kind { path: path.to_owned(), kind }),
            Err(_) if path.is_symlink() => Err(OutputError::Dangling { path: path.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Create and delete a temporary file, to find out before the work whether the folder is writable.
                temporary(folder(path)).map_err(|error| io("create", error))?;
                report(Target::New)
            }
            Err(error) => Err(io("find", error)),
        }
    }

    /// Writes the text. If the reader of a pipe does not read, it waits until one second after `stop`.
    ///
    /// # Errors
    ///
    /// [`OutputError`]. A file that was to be replaced is unchanged then.
    pub fn write(self, text: &[u8], stop: &Stop) -> Result<(), OutputError> {
        let path = self.path;
        let written = match self.target {
            Target::Stdout => PatientStdout::new(stop.clone()).and_then(|mut out| {
                out.write_all(text)?;
                out.flush()
            }),
            Target::Stream => write_stream(path.clone(), text.to_vec(), stop),
            Target::New => temporary(folder(&path)).and_then(|mut file| {
                file.write_all(text)?;
                file.as_file().sync_all()?;
                // Fails if the file exists by now, because somebody else has created it.
                file.persist_noclobber(&path).map(drop).map_err(|error| error.error)
            }),
            Target::Old(real) => replace(&real, text),
        };
        written.map_err(|source| OutputError::Io { path, action: "write to", source })
    }
}

/// Opens a file of lines for appending and creates it if it does not exist. An existing file must be empty, or
/// `is_ours` must return true for its first 4,096 bytes. `expected` describes such a file in errors.
///
/// # Errors
///
/// [`OutputError`]; nothing was written.
pub fn append_lines(
    path: &Path,
    expected: &'static str,
    is_ours: fn(&[u8]) -> bool,
) -> Result<File, OutputError> {
    let io = |action, source| OutputError::Io { path: path.to_owned(), action, source };
    match FileKind::of(path) {
        Ok(FileKind::Regular) => {
            if !is_replaceable(path, is_ours).map_err(|error| io("read", error))? {
                return Err(OutputError::Foreign { path: path.to_owned(), expected });
            }
        }
        Ok(FileKind::Device) => {}
        Ok(kind) => return Err(OutputError::Kind { path: path.to_owned(), kind }),
        Err(_) if path.is_symlink() => return Err(OutputError::Dangling { path: path.to_owned() }),
        // The attempt to open the file returns the error.
        Err(_) => {}
    }
    private_file::append(path).map_err(|error| io("append to", error))
}

/// Returns true for a path that means standard output: `-`, or a system name such as `/dev/stdout`.
pub fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
        || cfg!(unix) && ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].map(Path::new).contains(&path)
}

/// Returns true for a path that means an open file of this process. Such a file is written to directly and never
/// replaced.
pub(super) fn is_descriptor(path: &Path) -> bool {
    cfg!(unix)
        && (path == Path::new("/dev/stderr")
            || path.starts_with("/dev/fd")
            || path.starts_with("/proc/self/fd")
            || is_stdout(path))
}

fn is_replaceable(path: &Path, is_ours: fn(&[u8]) -> bool) -> io::Result<bool> {
    let mut head = Vec::new();
    super::open_regular(path)?.take(HEAD_LEN_MAX).read_to_end(&mut head)?;
    Ok(head.is_empty() || is_ours(&head))
}

/// Replaces the contents of a file and keeps its permissions.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let replaced = temporary(folder(path)).and_then(|mut file| {
        file.write_all(text)?;
        file.as_file().set_permissions(fs::metadata(path)?.permissions())?;
        file.as_file().sync_all()?;
        file.persist(path).map(drop).map_err(|error| error.error)
    });
    match replaced {
        // The folder may be read-only although the file is writable, and a file that is itself a mount point cannot be
        // renamed.
        Err(error) if error.kind() != io::ErrorKind::StorageFull => {
            let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
            file.write_all(text)?;
            file.sync_all()
        }
        other => other,
    }
}

/// Creates a temporary file with ordinary permissions. It is deleted unless it is renamed.
fn temporary(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".etwsieve-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The umask of the process applies.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes on a separate thread, because opening a pipe and writing to it block until its reader is ready.
fn write_stream(path: PathBuf, text: Vec<u8>, stop: &Stop) -> io::Result<()> {
    let (sender, result) = sync_channel(1);
    thread::Builder::new().name("stream".into()).spawn(move || {
        let written = OpenOptions::new().append(true).open(path).and_then(|mut file| file.write_all(&text));
        // The caller may have stopped waiting.
        let _ = sender.send(written);
    })?;
    let mut stopped = None;
    loop {
        match result.recv_timeout(TICK) {
            Ok(written) => return written,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("its thread ended")),
        }
        if stop.requested() && stopped.get_or_insert_with(Instant::now).elapsed() >= STREAM_GRACE {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "stopped; nobody reads it"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{OutputError, Report, append_lines};
    use crate::stop::Stop;
    use std::fs;
    use std::io::Write;
    use std::path::Path;

    fn prepare(path: &Path) -> Result<Report, OutputError> {
        Report::prepare(path, "a test report", |head| head.starts_with(b"report"))
    }

    #[test]
    fn only_own_files_are_replaced_and_always_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("foreign"), "evidence").unwrap();
        fs::write(at("empty"), "").unwrap();
        fs::write(at("old"), "report 1").unwrap();
        for name in ["new", "empty", "old"] {
            prepare(&at(name)).unwrap().write(b"report 2", &Stop::default()).unwrap();
            assert_eq!(fs::read_to_string(at(name)).unwrap(), "report 2", "{name}");
        }
        assert!(matches!(prepare(&at("foreign")), Err(OutputError::Foreign { .. })));
        assert!(matches!(prepare(folder.path()), Err(OutputError::Kind { .. })));
        assert!(matches!(prepare(&at("none/new")), Err(OutputError::Io { .. })));
        assert!(append_lines(&at("foreign"), "lines", |head| head.starts_with(b"{")).is_err());
        assert_eq!(fs::read_to_string(at("foreign")).unwrap(), "evidence");
        // A file that appears meanwhile belongs to somebody else.
        let report = prepare(&at("race")).unwrap();
        fs::write(at("race"), "evidence").unwrap();
        assert!(report.write(b"report", &Stop::default()).is_err());
        assert_eq!(fs::read_to_string(at("race")).unwrap(), "evidence");
        let names = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 5, "no temporary file is left");
        for line in ["{1}\n", "{2}\n"] {
            let is_ours = |head: &[u8]| head.starts_with(b"{");
            append_lines(&at("lines"), "lines", is_ours).unwrap().write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(at("lines")).unwrap(), "{1}\n{2}\n");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_rights_kept() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("real"), "report 1").unwrap();
        fs::set_permissions(at("real"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink(at("real"), at("link")).unwrap();
        symlink(at("gone"), at("dangling")).unwrap();
        prepare(&at("link")).unwrap().write(b"report 2", &Stop::default()).unwrap();
        assert!(at("link").is_symlink());
        assert_eq!(fs::read_to_string(at("real")).unwrap(), "report 2");
        assert_eq!(fs::metadata(at("real")).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(matches!(prepare(&at("dangling")), Err(OutputError::Dangling { .. })));
        prepare(Path::new("/dev/null")).unwrap().write(b"report", &Stop::default()).unwrap();
        // A pipe without a reader does not block.
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        let stop = Stop::default();
        stop.request();
        assert!(prepare(&at("pipe")).unwrap().write(b"report", &stop).is_err());
    }
}
