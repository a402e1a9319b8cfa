//! Resolves links, so that the lock file beside a file is the same one under every name of that file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Maximum number of symbolic links to follow; the same as on Linux.
const LINKS_MAX: usize = 40;

/// Resolves all symbolic links of a path. The file need not exist, even as the target of a link; its folder must.
///
/// # Errors
///
/// Returns errors of the system, and `InvalidInput` for a path without a file name or for a cycle of links.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::canonicalize(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let Ok(target) = fs::read_link(&path) else {
            let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
            return Ok(fs::canonicalize(folder)?.join(name));
        };
        // A link to a file that does not exist yet. An absolute target replaces the folder.
        path = folder.join(target);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "too many symbolic links"))
}

/// Returns the path under which to open, rename and lock a file: the target if it is a link, otherwise the path itself.
///
/// # Errors
///
/// The same as for [`resolve`].
pub fn follow(path: &Path) -> io::Result<PathBuf> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    if is_link { resolve(path) } else { Ok(path.to_owned()) }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_name_of_a_file_resolves_to_one_path() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("data")).unwrap();
        symlink("data", at("other")).unwrap();
        symlink("other/hits.db", at("link")).unwrap();
        symlink(at("link"), at("second")).unwrap();
        symlink("circle", at("circle")).unwrap();
        let expected = fs::canonicalize(at("data")).unwrap().join("hits.db");
        for exists in [false, true] {
            if exists {
                fs::write(at("data/hits.db"), "").unwrap();
            }
            for name in ["data/hits.db", "other/hits.db", "link", "second", "data/../other/hits.db"] {
                assert_eq!(resolve(&at(name)).unwrap(), expected, "{name}, exists: {exists}");
            }
            assert_eq!(follow(&at("second")).unwrap(), expected);
            assert_eq!(follow(&at("data/hits.db")).unwrap(), at("data/hits.db"), "no link: as given");
        }
        assert!(resolve(&at("circle")).is_err());
        assert!(resolve(&at("absent/hits.db")).is_err());
    }
}
