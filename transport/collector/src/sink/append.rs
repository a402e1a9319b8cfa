//! Files to which several processes may append whole lines.
//!
//! A writer opens the file for each batch and holds its lock while it writes. Under the lock no other process is
//! writing a line, so anything after the last line end is the remainder of a crash and may be removed. The lock is on
//! the file itself, so links to it share the lock. On Windows, where a lock would keep readers out, a file beside it is
//! locked.

use super::DeliveryContext;
use etwsieve_transport::private_file;
use std::fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
#[cfg(not(unix))]
use std::time::UNIX_EPOCH;
use std::time::{Duration, Instant};

/// Maximum time to wait for another process to finish its batch.
const LOCK_WAIT: Duration = Duration::from_secs(30);
/// Pause between two attempts to lock.
const LOCK_PAUSE: Duration = Duration::from_millis(5);
/// Number of bytes per read in the search for the last line end.
const TAIL_LEN: u64 = 64 * 1024;

/// A locked file, to which only this process may append.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) file: File,
    /// Its length when it was locked: the end of its last whole line.
    pub(super) len: u64,
    pub(super) metadata: Metadata,
    path: PathBuf,
    /// The lock file, on systems where the file itself is not locked.
    _beside: Option<File>,
}

impl Append {
    /// Opens the file at `path`, waits for its lock and removes an incomplete line. A new file is accessible by its
    /// owner only.
    ///
    /// # Errors
    ///
    /// Those of the system; `WouldBlock` if another process holds the lock for too long; `Interrupted` if the program
    /// stops.
    pub(super) fn open(path: &Path, context: &mut dyn DeliveryContext) -> io::Result<Self> {
        let begun = Instant::now();
        loop {
            let beside = if cfg!(windows) { Some(lock_file(path)?) } else { None };
            if let Some(beside) = &beside {
                lock(beside, begun, context)?;
            }
            let mut file = open(path, None)?;
            if beside.is_none() {
                lock(&file, begun, context)?;
            }
            let mut metadata = file.metadata()?;
            // The file was renamed or removed while this process waited for the lock.
            if !is_same(&metadata, path) {
                if begun.elapsed() >= LOCK_WAIT {
                    return Err(io::Error::other("the file is replaced again and again"));
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

    /// Removes everything written since the file was opened, after a failed write.
    pub(super) fn undo(&self) {
        // If this fails, too, the next process that opens the file removes the incomplete line.
        let _ = shorten(&self.file, &self.path, self.len);
    }
}

/// Returns a value that distinguishes a file from its successors of the same name: device and inode, or else its
/// creation time.
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

/// Opens the lock file beside `path`, which links to a file share.
fn lock_file(path: &Path) -> io::Result<File> {
    let mut name = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).into_os_string();
    name.push(".lock");
    // Windows can lock only files opened with such access.
    private_file::options().read(true).create(true).append(true).open(PathBuf::from(name))
}

fn lock(file: &File, begun: Instant, context: &mut dyn DeliveryContext) -> io::Result<()> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => {
                return Err(io::Error::new(error.kind(), format!("cannot lock it: {error}")));
            }
            Err(TryLockError::WouldBlock) if begun.elapsed() >= LOCK_WAIT => {
                let text = "another process has held its lock for too long";
                return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
            }
            Err(TryLockError::WouldBlock) => {
                if !context.wait(LOCK_PAUSE) {
                    return Err(io::Error::new(
                        io::ErrorKind::Interrupted,
                        "stopped while waiting for its lock",
                    ));
                }
            }
        }
    }
}

/// Opens a file, or creates one with the permissions `like`; by default only its owner may access it.
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
        // Another process has created it in the meantime.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            OpenOptions::new().read(true).append(true).open(path)
        }
        Err(error) => Err(error),
    }
}

/// Makes the file end with a whole line and returns its length. An incomplete record is removed, because it was never
/// acknowledged and will be written again. Any other incomplete line is not from a sink and is completed with a line
/// end.
fn mend(file: &mut File, path: &Path, len: u64) -> io::Result<u64> {
    let mut start = len;
    let mut first = None;
    while start > 0 {
        let step = TAIL_LEN.min(start);
        start -= step;
        file.seek(SeekFrom::Start(start))?;
        // Usually the last byte is a line end, and nothing else is read.
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

/// Removes or completes the last line, which starts at `whole` with the byte `first`; `None`: there is no such line.
fn finish(file: &mut File, path: &Path, first: Option<u8>, whole: u64, len: u64) -> io::Result<u64> {
    match first {
        None => Ok(len),
        Some(b'{') => shorten(file, path, whole).map(|()| whole),
        Some(_) => file.write_all(b"\n").map(|()| len + 1),
    }
}

/// Truncates a locked file. Windows does not allow that with a handle for appending.
fn shorten(file: &File, path: &Path, len: u64) -> io::Result<()> {
    if cfg!(windows) { OpenOptions::new().write(true).open(path)?.set_len(len) } else { file.set_len(len) }
}

/// Syncs the folder of a file, which makes a new name durable. Only Unix supports that.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}
