//! Files that appear whole, and for their owner alone.

use super::PkiError;
use super::error::At;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// Makes a file, or fails if there is one.
pub(super) fn create(path: &Path, text: &str) -> Result<(), PkiError> {
    if path.symlink_metadata().is_ok() {
        return Err(PkiError::Exists { path: path.to_owned() });
    }
    replace(path, text)
}

/// Puts a file in the place of what is there. After a crash there is the one or the other, never a part.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), PkiError> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    // A leftover of a killed command, with permissions of whoever made it.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).at(&new, "remove"),
        _ => {}
    }
    let written = (|| {
        let mut file = private().open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        sync_folder(path)
    })();
    written.inspect_err(|_| _ = fs::remove_file(&new)).at(path, "write")
}

/// Reads a file of at most `len_max` bytes.
pub(super) fn read(path: &Path, len_max: u64) -> Result<String, PkiError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(PkiError::Missing { path: path.to_owned() });
        }
        other => other.at(path, "open")?,
    };
    let mut text = String::new();
    file.take(len_max + 1).read_to_string(&mut text).at(path, "read")?;
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
    let file = OpenOptions::new().create(true).append(true).open(&path).at(&path, "open")?;
    file.lock().at(&path, "lock")?;
    Ok(file)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options
}

/// The name of a file is durable when its folder is. Other systems than Unix have no such call.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}
