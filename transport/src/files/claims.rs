//! Records the files that a command reads and writes, so that no output overwrites an input or another output.

use super::kind::FileKind;
use super::output::{is_descriptor, is_stdout};
use crate::printable;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

/// The files of a command. Register all inputs, then each output, before writing anything.
///
/// Files are compared by identity rather than by name: by device and inode, so links do not hide anything (on Windows
/// by volume and file index). Files that do not exist yet are compared by folder and name.
#[derive(Debug, Default)]
pub struct Claims {
    inputs: HashMap<FileId, PathBuf>,
    outputs: HashMap<FileId, String>,
}

/// An output must not be written.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The output is also an input.
    #[error(
        "{option} would overwrite {}, an input of this command; name another file",
        printable::path(input)
    )]
    IsInput {
        /// The option or configuration key that names the output.
        option: String,
        /// Path of the input, as the user spelled it.
        input: PathBuf,
    },
    /// Two outputs are the same file.
    #[error("{option} and {other} both name {}; name two files", printable::path(path))]
    IsOutput {
        /// The option or configuration key that names the output.
        option: String,
        /// The option or configuration key that named it before.
        other: String,
        /// The file.
        path: PathBuf,
    },
}

impl Claims {
    /// Registers an input. An input that does not exist cannot be overwritten and is ignored.
    pub fn input(&mut self, path: &Path) {
        if let Ok(id) = FileId::of_existing(path) {
            self.inputs.entry(id).or_insert_with(|| path.to_owned());
        }
    }

    /// Registers an output that `option` names.
    ///
    /// # Errors
    ///
    /// [`ClaimError`]. Devices and pipes cannot be overwritten and are always accepted.
    pub fn output(&mut self, option: &str, path: &Path) -> Result<(), ClaimError> {
        if is_stdout(path) || is_descriptor(path) {
            return Ok(());
        }
        if FileKind::of(path).is_ok_and(|kind| !matches!(kind, FileKind::Regular | FileKind::Folder)) {
            return Ok(());
        }
        let ids = FileId::of_existing(path).into_iter().chain(FileId::of_place(path));
        ids.into_iter().try_for_each(|id| self.claim(option, path, id))
    }

    /// Registers a database: its file, and the files that SQLite keeps beside it.
    ///
    /// # Errors
    ///
    /// The same as for [`output`](Self::output).
    pub fn database(&mut self, option: &str, path: &Path) -> Result<(), ClaimError> {
        self.output(option, path)?;
        ["-wal", "-shm", "-journal"].into_iter().try_for_each(|suffix| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            self.output(option, Path::new(&name))
        })
    }

    /// Registers standard output, which may be redirected to a file.
    ///
    /// # Errors
    ///
    /// The same as for [`output`](Self::output).
    pub fn stdout(&mut self) -> Result<(), ClaimError> {
        match FileId::of_stdout() {
            Ok(Some(id)) => self.claim("standard output", Path::new("it"), id),
            _ => Ok(()),
        }
    }

    fn claim(&mut self, option: &str, path: &Path, id: FileId) -> Result<(), ClaimError> {
        if let Some(input) = self.inputs.get(&id) {
            return Err(ClaimError::IsInput { option: option.to_owned(), input: input.clone() });
        }
        let other = self.outputs.entry(id).or_insert_with(|| option.to_owned());
        if other == option {
            return Ok(());
        }
        Err(ClaimError::IsOutput { option: option.to_owned(), other: other.clone(), path: path.to_owned() })
    }
}

/// Returns the index of the path that standard output is redirected to.
pub fn position_of_stdout(paths: &[PathBuf]) -> Option<usize> {
    let stdout = FileId::of_stdout().ok()??;
    paths.iter().position(|path| FileId::of_existing(path).is_ok_and(|id| id == stdout))
}

/// Identity of a file.
#[derive(Debug, PartialEq, Eq, Hash)]
enum FileId {
    /// An existing file.
    #[cfg(unix)]
    Inode { device: u64, inode: u64 },
    #[cfg(windows)]
    Handle(same_file::Handle),
    /// Name of a missing file in an existing folder.
    Place { folder: PathBuf, name: String },
}

impl FileId {
    #[cfg(unix)]
    fn of_existing(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self::of_metadata(&metadata))
    }

    #[cfg(unix)]
    fn of_metadata(metadata: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self::Inode { device: metadata.dev(), inode: metadata.ino() }
    }

    #[cfg(windows)]
    fn of_existing(path: &Path) -> io::Result<Self> {
        if FileKind::of(path)? == FileKind::Device {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        same_file::Handle::from_path(path).map(Self::Handle)
    }

    /// Returns the identity of a file that may not exist. Names are compared without case, because on some file systems
    /// they would be the same file.
    fn of_place(path: &Path) -> Option<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = std::fs::canonicalize(folder.unwrap_or(Path::new("."))).ok()?;
        Some(Self::Place { folder, name: path.file_name()?.to_string_lossy().to_lowercase() })
    }

    /// Returns the identity of standard output if it is a regular file.
    #[cfg(unix)]
    fn of_stdout() -> io::Result<Option<Self>> {
        use std::os::fd::AsFd;
        let file = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let metadata = file.metadata()?;
        Ok(metadata.is_file().then(|| Self::of_metadata(&metadata)))
    }

    #[cfg(windows)]
    fn of_stdout() -> io::Result<Option<Self>> {
        use std::os::windows::io::AsHandle;
        // Consoles and pipes have no file index, so this fails for them.
        let file = std::fs::File::from(io::stdout().as_handle().try_clone_to_owned()?);
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        same_file::Handle::from_file(file).map(|handle| Some(Self::Handle(handle)))
    }
}

#[cfg(test)]
mod tests {
    use super::Claims;
    use std::fs;

    #[test]
    fn outputs_differ_from_inputs_and_from_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        for name in ["a.etl", "rules.yml", "other.db-wal"] {
            fs::write(at(name), name).unwrap();
        }
        fs::hard_link(at("a.etl"), at("hard.etl")).unwrap();
        let mut claims = Claims::default();
        for name in ["a.etl", "rules.yml", "other.db-wal", "absent.etl"] {
            claims.input(&at(name));
        }
        let refused = |error: Result<(), super::ClaimError>| error.err().map(|error| error.to_string());
        for name in ["a.etl", "sub/../a.etl", "hard.etl"] {
            let error = refused(claims.output("--summary", &at(name))).expect(name);
            assert!(error.contains("--summary") && error.contains("a.etl"), "{error}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(at("a.etl"), at("link")).unwrap();
            assert!(claims.output("--summary", &at("link")).is_err());
            assert!(claims.output("--summary", std::path::Path::new("/dev/null")).is_ok());
        }
        assert!(refused(claims.database("--store", &at("other.db"))).is_some(), "its log is an input");
        assert_eq!(refused(claims.output("--summary", &at("run.json"))), None);
        assert_eq!(refused(claims.output("--summary", &at("run.json"))), None, "the same option again");
        assert_eq!(refused(claims.database("--store", &at("hits.db"))), None);
        for name in ["run.json", "sub/../RUN.json", "hits.db-wal"] {
            let error = refused(claims.output("--spool", &at(name))).expect(name);
            assert!(error.contains("--spool") && error.contains("both name"), "{error}");
        }
    }
}
