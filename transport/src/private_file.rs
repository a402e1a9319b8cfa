//! Private files. Script text often contains passwords, so files with script text are readable by their owner only.
//!
//! On Unix new files have mode 0600 and new folders 0700, whatever the umask allows. On Windows they inherit the access
//! control list of their folder, which the installation instructions restrict. Existing files keep their permissions,
//! because an administrator may have set them.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::path::Path;

/// Mode of new files.
#[cfg(unix)]
const FILE_MODE: u32 = 0o600;
/// Mode of new folders.
#[cfg(unix)]
const FOLDER_MODE: u32 = 0o700;

/// Returns options that create files for their owner only. The caller adds the modes of access and creation.
pub fn options() -> OpenOptions {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "only Unix has a mode to set"))]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(FILE_MODE);
    }
    options
}

/// Opens a file for appending, and creates it if it does not exist.
///
/// # Errors
///
/// Errors of opening or creating the file.
pub fn append(path: &Path) -> io::Result<File> {
    options().create(true).append(true).open(path)
}

/// Creates an empty file at `path` if nothing exists there.
///
/// This is for libraries that create files with default permissions: SQLite gives its log and index the mode of an
/// existing database. If `path` is a symbolic link without a target, the target is created.
///
/// # Errors
///
/// Errors of creating the file.
pub fn ensure(path: &Path) -> io::Result<()> {
    // Do not open an existing file: a named pipe could block, and closing a database would release the locks that
    // SQLite holds on it in this process.
    if path.exists() {
        return Ok(());
    }
    match options().create_new(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_symlink() && !path.exists() => {
            options().create(true).write(true).truncate(false).open(path).map(drop)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map(drop),
    }
}

/// Restricts an open file to its owner.
///
/// # Errors
///
/// Errors of changing the mode.
pub fn restrict(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(std::fs::Permissions::from_mode(FILE_MODE))?;
    }
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

/// Creates a folder and its missing parents for their owner only. Existing folders keep their permissions.
///
/// # Errors
///
/// Errors of creating a folder.
pub fn create_folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(FOLDER_MODE);
    }
    builder.create(path)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn mode(path: &Path) -> u32 {
        path.metadata().map_or(0, |metadata| metadata.permissions().mode() & 0o777)
    }

    #[test]
    fn new_files_and_folders_are_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        create_folder(&at("new/deep")).expect("folders");
        append(&at("appended")).expect("a file");
        ensure(&at("ensured")).expect("a file");
        symlink(at("target"), at("link")).expect("a link");
        ensure(&at("link")).expect("the target of a link");
        let loose = File::create(at("loose")).expect("a file");
        restrict(&loose).expect("a mode");
        for name in ["appended", "ensured", "target", "loose"] {
            assert_eq!(mode(&at(name)), 0o600, "{name}");
        }
        for name in ["new", "new/deep"] {
            assert_eq!(mode(&at(name)), 0o700, "{name}");
        }
    }

    #[test]
    fn existing_files_keep_their_permissions_and_contents() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("shared");
        std::fs::write(&path, "text").expect("a file");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).expect("a mode");
        ensure(&path).expect("nothing to do");
        append(&path).expect("an open file");
        create_folder(folder.path()).expect("nothing to do");
        assert_eq!(mode(&path), 0o640);
        assert_eq!(std::fs::read(&path).expect("contents"), b"text");
    }
}
