//! Files that are written atomically and that only their owner can access.

use super::PkiError;
use super::error::At;
use etwsieve_transport::files::read_text_at_most;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// A file with durable contents that has not yet got its final name. It is removed when dropped.
pub(super) struct Pending {
    file: NamedTempFile,
    path: PathBuf,
}

/// Writes the contents of the future file at `path`. If `path` is a link, its target will be replaced.
pub(super) fn write(path: &Path, text: &str) -> Result<Pending, PkiError> {
    let path = if path.is_symlink() { fs::canonicalize(path).at(path, "find")? } else { path.to_owned() };
    let written = (|| {
        // Temporary files are accessible by their owner only.
        let mut file = tempfile::Builder::new().prefix(".pki-").suffix(".tmp").tempfile_in(folder(&path))?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        Ok(file)
    })();
    let file = written.at(&path, "write")?;
    Ok(Pending { file, path })
}

impl Pending {
    /// Gives the file its name, unless a file with this name exists.
    pub(super) fn create(self) -> Result<(), PkiError> {
        match self.file.persist_noclobber(&self.path) {
            Ok(_) => sync_folder(&self.path).at(&self.path, "write"),
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {
                Err(PkiError::Exists { path: self.path })
            }
            Err(error) => Err(error.error).at(&self.path, "write"),
        }
    }

    /// Gives the file its name, replacing an existing file. After a crash there is one or the other.
    pub(super) fn replace(self) -> Result<(), PkiError> {
        let kept = self.file.persist(&self.path).map_err(|error| error.error);
        kept.and_then(|_| sync_folder(&self.path)).at(&self.path, "write")
    }
}

/// Creates a file, or fails if it exists.
pub(super) fn create(path: &Path, text: &str) -> Result<(), PkiError> {
    if path.symlink_metadata().is_ok() {
        return Err(PkiError::Exists { path: path.to_owned() });
    }
    write(path, text)?.create()
}

/// Creates or replaces a file.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), PkiError> {
    write(path, text)?.replace()
}

/// Reads a file of at most `len_max` bytes.
pub(super) fn read(path: &Path, len_max: u64) -> Result<String, PkiError> {
    let text = match read_text_at_most(path, len_max) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(PkiError::Missing { path: path.to_owned() });
        }
        other => other.at(path, "read")?,
    };
    if text.len() as u64 > len_max {
        return Err(PkiError::Damaged {
            path: path.to_owned(),
            detail: format!("longer than {len_max} bytes"),
        });
    }
    Ok(text)
}

/// Creates the folder if it does not exist, accessible by its owner only.
pub(super) fn make_folder(path: &Path) -> Result<(), PkiError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path).at(path, "create the folder")
}

/// Locks the folder until the returned file is dropped, so that only one command runs at a time.
pub(super) fn lock(folder: &Path) -> Result<File, PkiError> {
    let path = folder.join(".lock");
    // Windows can lock only files opened with such access.
    let file = OpenOptions::new().read(true).create(true).append(true).open(&path).at(&path, "open")?;
    file.lock().at(&path, "lock")?;
    Ok(file)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Syncs the folder of a file, which makes its name durable. Only Unix supports that.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    if cfg!(unix) {
        File::open(folder(path))?.sync_all()?;
    }
    Ok(())
}
