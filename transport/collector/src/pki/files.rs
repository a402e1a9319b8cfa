//! Files that appear whole, and for their owner alone.

use super::PkiError;
use super::error::At;
use etwsieve_transport::files::read_text_at_most;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// A file whose contents are durable, but which has no name yet. Unless it is given one, it is removed.
pub(super) struct Pending {
    file: NamedTempFile,
    path: PathBuf,
}

/// Writes what shall become the file at `path`. Where `path` is a link, the file that it names will be replaced.
pub(super) fn write(path: &Path, text: &str) -> Result<Pending, PkiError> {
    let path = if path.is_symlink() { fs::canonicalize(path).at(path, "find")? } else { path.to_owned() };
    let written = (|| {
        // Readable for its owner alone from the beginning.
        let mut file = tempfile::Builder::new().prefix(".pki-").suffix(".tmp").tempfile_in(folder(&path))?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        Ok(file)
    })();
    let file = written.at(&path, "write")?;
    Ok(Pending { file, path })
}

impl Pending {
    /// Gives the file its name, unless there is one of this name.
    pub(super) fn create(self) -> Result<(), PkiError> {
        match self.file.persist_noclobber(&self.path) {
            Ok(_) => sync_folder(&self.path).at(&self.path, "write"),
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {
                Err(PkiError::Exists { path: self.path })
            }
            Err(error) => Err(error.error).at(&self.path, "write"),
        }
    }

    /// Puts the file in the place of what is there. After a crash there is the one or the other, never a part.
    pub(super) fn replace(self) -> Result<(), PkiError> {
        let kept = self.file.persist(&self.path).map_err(|error| error.error);
        kept.and_then(|_| sync_folder(&self.path)).at(&self.path, "write")
    }
}

/// Makes a file, or fails if there is one.
pub(super) fn create(path: &Path, text: &str) -> Result<(), PkiError> {
    if path.symlink_metadata().is_ok() {
        return Err(PkiError::Exists { path: path.to_owned() });
    }
    write(path, text)?.create()
}

/// Puts a file in the place of what is there.
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
            detail: format!("it is longer than {len_max} bytes"),
        });
    }
    Ok(text)
}

/// Makes the folder, for its owner alone, unless it is there.
pub(super) fn make_folder(path: &Path) -> Result<(), PkiError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path).at(path, "make the folder")
}

/// One command at a time in a folder: holds the lock until it is dropped.
pub(super) fn lock(folder: &Path) -> Result<File, PkiError> {
    let path = folder.join(".lock");
    // Windows locks only what may be read or written at any place.
    let file = OpenOptions::new().read(true).create(true).append(true).open(&path).at(&path, "open")?;
    file.lock().at(&path, "lock")?;
    Ok(file)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The name of a file is durable when its folder is. Other systems than Unix have no such call.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    if cfg!(unix) {
        File::open(folder(path))?.sync_all()?;
    }
    Ok(())
}
