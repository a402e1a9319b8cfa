//! The image of durable data, and the record of later writes.

use crate::control::{Control, Sync};
use crate::raw;
use libc::c_int;
use std::collections::HashMap;
use std::env;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Bytes copied at once.
const COPY_LEN: usize = 64 * 1024;
/// Maximum number of remembered ranges of a file; with more, the next sync copies the whole file.
const RANGES_MAX: usize = 4096;

/// The watched folder and its image.
#[derive(Debug)]
pub(crate) struct Image {
    folder: PathBuf,
    /// Folder of the image.
    kept: PathBuf,
    control: Option<PathBuf>,
    state: Mutex<State>,
}

/// By device and inode.
#[derive(Debug, Default)]
pub(crate) struct State {
    files: HashMap<(u64, u64), Written>,
    syncs: u64,
}

/// The writes to a file since its last sync.
#[derive(Debug)]
enum Written {
    /// Unknown writes: the file was written before this process started.
    All,
    /// Start and end, in bytes.
    Ranges(Vec<(u64, u64)>),
}

/// A file below the folder.
#[derive(Debug)]
pub(crate) struct Watched {
    key: (u64, u64),
    /// Path from the folder; empty for the folder itself.
    name: PathBuf,
    is_folder: bool,
}

/// The image of this process; `None` if no folder is watched.
pub(crate) fn image() -> Option<&'static Image> {
    static IMAGE: OnceLock<Option<Image>> = OnceLock::new();
    IMAGE.get_or_init(Image::from_environment).as_ref()
}

impl Image {
    fn from_environment() -> Option<Self> {
        let folder = fs::canonicalize(env::var_os("ETWSIEVE_FAULT_FOLDER")?).ok()?;
        let image = PathBuf::from(env::var_os("ETWSIEVE_FAULT_IMAGE")?);
        let control = env::var_os("ETWSIEVE_FAULT_CONTROL").map(PathBuf::from);
        must(fs::create_dir_all(image.join("files")), "the image's folder");
        Some(Self { folder, kept: image, control, state: Mutex::default() })
    }

    /// Reads the current faults.
    pub(crate) fn control(&self, is_sync: bool) -> Control {
        Control::read(self.control.as_deref(), is_sync)
    }

    /// Locks the state during a call and its recording, so that a sync sees both or neither.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the file of a descriptor, if it is watched. Pipes and sockets are recognised by their type without a lock,
    /// because signal handlers write to pipes.
    pub(crate) fn watched(&self, fd: c_int) -> Option<Watched> {
        let stat = raw::stat(fd)?;
        let kind = stat.st_mode & libc::S_IFMT;
        if kind != libc::S_IFREG && kind != libc::S_IFDIR {
            return None;
        }
        let path = fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
        if path.as_os_str().as_bytes().ends_with(b" (deleted)") {
            return None;
        }
        let name = path.strip_prefix(&self.folder).ok()?.to_owned();
        Some(Watched { key: (stat.st_dev, stat.st_ino), name, is_folder: kind == libc::S_IFDIR })
    }

    /// Returns the path relative to the folder, if the file is below it.
    pub(crate) fn name(&self, path: &OsStr) -> Option<PathBuf> {
        let path = std::path::absolute(path).ok()?;
        // The last component is the name itself, which must not be resolved.
        let parent = fs::canonicalize(path.parent()?).ok()?;
        Some(parent.join(path.file_name()?).strip_prefix(&self.folder).ok()?.to_owned())
    }

    /// Records a sync of a watched file. Returns whether it is to succeed.
    pub(crate) fn sync(&self, fd: c_int, file: &Watched) -> bool {
        let mut state = self.lock();
        state.syncs += 1;
        let control = self.control(true);
        let dies = control.die.is_some_and(|number| number == state.syncs);
        match control.sync {
            Sync::Ignored => return true,
            Sync::Fails => {
                state.files.insert(file.key, Written::Ranges(Vec::new()));
                self.injected(b's');
                return false;
            }
            Sync::Works => {}
        }
        must(self.apply_names(), "the journal of names");
        if !file.is_folder {
            let written = state.files.insert(file.key, Written::Ranges(Vec::new())).unwrap_or(Written::All);
            must(self.copy(fd, file, written, dies), "a file of the image");
        }
        if dies {
            // SAFETY: no memory is involved; this process ends here.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
        true
    }

    /// Records an injected error.
    pub(crate) fn injected(&self, what: u8) {
        must(append(&self.kept.join("injected"), &[what]), "the count of errors");
    }

    /// Adds a rename (`from`, `to`) or a removal (`from`) to the journal.
    pub(crate) fn renamed(&self, from: &Path, to: Option<&Path>) {
        let mut record = from.as_os_str().as_bytes().to_vec();
        record.push(0);
        record.extend_from_slice(to.map_or(b"".as_slice(), |to| to.as_os_str().as_bytes()));
        record.push(b'\n');
        must(append(&self.kept.join("names"), &record), "the journal of names");
    }

    fn apply_names(&self) -> io::Result<()> {
        let (journal, files) = (self.kept.join("names"), self.kept.join("files"));
        let mut records = Vec::new();
        match File::open(&journal) {
            Ok(mut file) => file.read_to_end(&mut records)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for record in records.split(|byte| *byte == b'\n').filter(|record| !record.is_empty()) {
            let mut names = record.split(|byte| *byte == 0).map(OsStr::from_bytes);
            let (from, to) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
            // A file that was never synced is not in the image.
            let done = if to.is_empty() {
                remove(&files.join(from))
            } else {
                rename(&files.join(from), &files.join(to))
            };
            done.or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
        }
        remove(&journal)
    }

    fn copy(&self, fd: c_int, file: &Watched, written: Written, dies: bool) -> io::Result<()> {
        let target = self.kept.join("files").join(&file.name);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let target = OpenOptions::new().write(true).create(true).truncate(false).open(target)?;
        let len = raw::stat(fd).map_or(0, |stat| stat.st_size as u64);
        let ranges = match written {
            Written::All => vec![(0, len)],
            Written::Ranges(ranges) => ranges,
        };
        let count = if dies { ranges.len() / 2 } else { ranges.len() };
        // A descriptor may be for writing only. Another one of the same file is opened only then: closing it would
        // release the process's locks on the file, which SQLite holds on descriptors that can read.
        let reading = match raw::read_at(fd, &mut [0], 0) {
            Ok(_) => None,
            Err(_) => Some(File::open(format!("/proc/self/fd/{fd}"))?),
        };
        let source = reading.as_ref().map_or(fd, std::os::fd::AsRawFd::as_raw_fd);
        let mut buffer = vec![0; COPY_LEN];
        for (mut at, end) in ranges.into_iter().take(count) {
            while at < end.min(len) {
                let want = COPY_LEN.min((end - at) as usize);
                let got = raw::read_at(source, &mut buffer[..want], at)?;
                if got == 0 {
                    break;
                }
                raw::write_at(target.as_raw_fd(), &buffer[..got], at)?;
                at += got as u64;
            }
        }
        if !dies && raw::ftruncate(target.as_raw_fd(), len as i64) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl State {
    /// Records that bytes from `start` to `end` were written.
    pub(crate) fn wrote(&mut self, file: &Watched, start: u64, end: u64) {
        let written = self.files.entry(file.key).or_insert(Written::All);
        let Written::Ranges(ranges) = written else { return };
        if let Some(last) = ranges.last_mut().filter(|last| last.1 == start) {
            last.1 = end;
        } else if ranges.len() < RANGES_MAX {
            ranges.push((start, end));
        } else {
            *written = Written::All;
        }
    }

    /// Records that the length of the file changed; bytes after it are new.
    pub(crate) fn truncated(&mut self, file: &Watched, len: u64) {
        self.wrote(file, len, u64::MAX);
    }

    /// Records that a name was removed; its inode may be reused for another file.
    pub(crate) fn forget(&mut self, path: &OsStr) {
        use std::os::unix::fs::MetadataExt as _;
        if let Ok(meta) = fs::symlink_metadata(path) {
            self.files.remove(&(meta.dev(), meta.ino()));
        }
    }
}

fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let written = raw::write(file.as_raw_fd(), bytes.as_ptr().cast(), bytes.len());
    if written == bytes.len() as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let path = |path: &Path| std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other);
    let (from, to) = (path(from)?, path(to)?);
    if raw::rename(from.as_ptr(), to.as_ptr()) == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn remove(path: &Path) -> io::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    if raw::unlink(path.as_ptr()) == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Aborts on an error, since a test without its image would prove nothing.
fn must<T>(result: io::Result<T>, what: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => {
            eprintln!("fault shim: {what}: {error}");
            std::process::abort();
        }
    }
}
