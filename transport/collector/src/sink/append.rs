//! Files to which several processes may append whole lines.
//!
//! A writer opens the file for each batch and holds its lock while it writes. Under the lock nobody else is in the middle of
//! a line, so anything after the last line end was left by a crash and may be cut off. The lock is on the file itself, so
//! links to it share the lock. Windows would keep readers out of a locked file; there a file beside it is locked.

use super::Progress;
use etwsieve_transport::private_file;
use std::fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
#[cfg(not(unix))]
use std::time::UNIX_EPOCH;
use std::time::{Duration, Instant};

/// Longest wait for another process to finish its batch.
const LOCK_WAIT: Duration = Duration::from_secs(30);
/// Time between two attempts to lock.
const LOCK_PAUSE: Duration = Duration::from_millis(5);
/// Bytes read at a time when the end of the last whole line is looked for.
const TAIL_LEN: u64 = 64 * 1024;

/// A file that only this process writes to while the value lives.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) file: File,
    /// Its length when it was locked: the end of its last whole line.
    pub(super) len: u64,
    pub(super) metadata: Metadata,
    path: PathBuf,
    /// The lock, where it is not on the file.
    _beside: Option<File>,
}

impl Append {
    /// Opens the file at `path`, waits for its lock and cuts off an unfinished line. A new file is readable by its owner only.
    ///
    /// # Errors
    ///
    /// What the system says; `WouldBlock` if another process keeps the lock; `Interrupted` if `progress` says to stop.
    pub(super) fn open(path: &Path, progress: &mut dyn Progress) -> io::Result<Self> {
        let begun = Instant::now();
        loop {
            let beside = if cfg!(windows) { Some(lock_file(path)?) } else { None };
            if let Some(beside) = &beside {
                lock(beside, begun, progress)?;
            }
            let mut file = open(path, None)?;
            if beside.is_none() {
                lock(&file, begun, progress)?;
            }
            let mut metadata = file.metadata()?;
            // Renamed or removed while the lock was waited for: the name is another file's now.
            if !is_same(&metadata, path) {
                if begun.elapsed() >= LOCK_WAIT {
                    return Err(io::Error::other("it is replaced again and again"));
                }
                continue;
            }
            let len = mend(&mut file, path, metadata.len())?;
            if len != metadata.len() {
                metadata = file.metadata()?;
            }
            return Ok(Self { file, len, metadata, path: path.to_owned(), _beside: beside });
        }
    }

    /// Cuts off everything written since the file was opened, after a failed write.
    pub(super) fn undo(&self) {
        // If this fails too, the next one who opens it finds the end of its last whole line.
        let _ = shorten(&self.file, &self.path, self.len);
    }
}

/// Distinguishes a file from its successor of the same name, by device and inode or else by the time of its creation.
pub(super) fn identity(metadata: &Metadata) -> (u64, u64) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (metadata.dev(), metadata.ino())
    }
    #[cfg(not(unix))]
    {
        let made = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        (0, made.map_or(0, |made| made.as_nanos() as u64))
    }
}

fn is_same(metadata: &Metadata, path: &Path) -> bool {
    path.metadata().is_ok_and(|found| identity(&found) == identity(metadata))
}

/// Opens the file beside `path` that is locked in its place. Links to one file share it.
fn lock_file(path: &Path) -> io::Result<File> {
    let mut name = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).into_os_string();
    name.push(".lock");
    // Windows locks only what may be read or written at any place.
    private_file::options().read(true).create(true).append(true).open(PathBuf::from(name))
}

fn lock(file: &File, begun: Instant, progress: &mut dyn Progress) -> io::Result<()> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => {
                return Err(io::Error::new(error.kind(), format!("it cannot be locked: {error}")));
            }
            Err(TryLockError::WouldBlock) if begun.elapsed() >= LOCK_WAIT => {
                let text = "another process has locked it and does not finish";
                return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
            }
            Err(TryLockError::WouldBlock) => {
                if !progress.wait(LOCK_PAUSE) {
                    return Err(io::Error::new(io::ErrorKind::Interrupted, "stopped before it was locked"));
                }
            }
        }
    }
}

/// Opens a file, or creates one with the permissions `like`, by default for its owner only.
pub(super) fn open(path: &Path, like: Option<&Permissions>) -> io::Result<File> {
    let mut options = private_file::options();
    options.read(true).append(true);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    match options.create_new(true).open(path) {
        Ok(file) => {
            if let Some(like) = like {
                file.set_permissions(like.clone())?;
            }
            sync_folder(path)?;
            Ok(file)
        }
        // Somebody else was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            OpenOptions::new().read(true).append(true).open(path)
        }
        Err(error) => Err(error),
    }
}

/// Makes the file end with a whole line, and returns its length. A beginning of a record is cut off (it was never
/// acknowledged, so it comes again); anything else is somebody else's, and gets an end of line.
fn mend(file: &mut File, path: &Path, len: u64) -> io::Result<u64> {
    let mut start = len;
    let mut first = None;
    while start > 0 {
        let step = TAIL_LEN.min(start);
        start -= step;
        file.seek(SeekFrom::Start(start))?;
        // Nearly always the last byte is the end of a line, and no more is read.
        if start + step == len && step > 1 {
            file.seek(SeekFrom::Start(len - 1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            if last == *b"\n" {
                return Ok(len);
            }
            file.seek(SeekFrom::Start(start))?;
        }
        let mut part = vec![0; step as usize];
        file.read_exact(&mut part)?;
        if let Some(end) = part.iter().rposition(|byte| *byte == b'\n') {
            let whole = start + end as u64 + 1;
            return finish(file, path, part.get(end + 1).copied().or(first), whole, len);
        }
        first = part.first().copied();
    }
    finish(file, path, first, 0, len)
}

/// Ends a file whose last line begins at `whole` with the byte `first`; `None`: there is no such line.
fn finish(file: &mut File, path: &Path, first: Option<u8>, whole: u64, len: u64) -> io::Result<u64> {
    match first {
        None => Ok(len),
        Some(b'{') => shorten(file, path, whole).map(|()| whole),
        Some(_) => file.write_all(b"\n").map(|()| len + 1),
    }
}

/// Cuts a locked file. Windows does not let a handle do so that may only append.
fn shorten(file: &File, path: &Path, len: u64) -> io::Result<()> {
    if cfg!(windows) { OpenOptions::new().write(true).open(path)?.set_len(len) } else { file.set_len(len) }
}

/// A new name is durable when its folder is; other systems than Unix have no such call.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}
