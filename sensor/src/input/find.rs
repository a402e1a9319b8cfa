//! Finds the files that the paths of a command line name: expands patterns and searches folders.

#[cfg(test)]
mod tests;

use super::{STDIN, ending};
use crate::sys::FILE_NAMES_IGNORE_CASE;
use etwsieve_transport::files::FileKind;
use etwsieve_transport::printable;
use glob::{MatchOptions, Pattern};
use std::collections::HashSet;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Component, Path, PathBuf};

/// Extensions of the files that are read from a folder. A file that is named directly may have any name.
const ENDINGS: [&str; 3] = ["etl", "evtx", "jsonl"];
/// Extensions of archives and compressed files, which may contain traces.
const PACKED_ENDINGS: [&str; 15] =
    ["7z", "br", "bz2", "cab", "gz", "lz4", "lzma", "rar", "tar", "tbz2", "tgz", "txz", "xz", "zip", "zst"];
/// Maximum nesting of folders.
const FOLDER_DEPTH_MAX: usize = 64;
/// Maximum number of files of one command.
pub const FILES_MAX: usize = 1_000_000;
/// Maximum number of skipped files that are named; all of them are counted.
pub const SKIPPED_NAMED_MAX: usize = 100;

/// Why a path of the command line provides no input.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The path, or a folder or file in it, cannot be read.
    #[error("cannot read {}: {source}", printable::path(path))]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The path is neither a file, nor a folder, nor a pipe that was named directly.
    #[error("cannot read {}: it is {kind}, expected {expected}", printable::path(path))]
    Kind {
        /// The path.
        path: PathBuf,
        /// Kind of the file.
        kind: FileKind,
        /// The kinds that are supported.
        expected: &'static str,
    },
    /// The folder contains none of the files that are searched for.
    #[error("{} contains no {wanted} file", printable::path(path))]
    NothingIn {
        /// The folder.
        path: PathBuf,
        /// The extensions that were searched for.
        wanted: String,
    },
    /// No file matches the pattern.
    #[error("no file matches {}", printable::path(pattern))]
    NoMatch {
        /// The pattern.
        pattern: PathBuf,
    },
    /// There are more files than [`FILES_MAX`].
    #[error("more than {FILES_MAX} files; name fewer folders per run")]
    TooMany,
}

impl InputError {
    /// Returns the path that caused the error; `None` if all paths together did.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Unreadable { path, .. } | Self::Kind { path, .. } | Self::NothingIn { path, .. } => {
                Some(path)
            }
            Self::NoMatch { pattern } => Some(pattern),
            Self::TooMany => None,
        }
    }
}

/// The result of a search.
#[derive(Debug, Default)]
pub struct Found {
    /// The files without duplicates, in the order of the command line and then by name.
    pub files: Vec<PathBuf>,
    /// Paths that provide no input.
    pub errors: Vec<InputError>,
    /// Files in folders that were skipped.
    pub skipped: Skipped,
}

/// Files in folders that were skipped although they may contain events.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Skipped {
    /// Archives and compressed files.
    pub packed_files: u64,
    /// Links to folders, which are not followed.
    pub linked_folders: u64,
    /// Their paths, at most [`SKIPPED_NAMED_MAX`].
    pub paths: Vec<String>,
}

impl Skipped {
    /// Returns true if nothing was skipped.
    pub fn is_empty(&self) -> bool {
        self.packed_files == 0 && self.linked_folders == 0
    }

    fn add(&mut self, path: &Path) {
        if self.paths.len() < SKIPPED_NAMED_MAX {
            self.paths.push(path.display().to_string());
        }
    }
}

/// Finds recorded traces at `paths`: files, pipes, [`STDIN`], and folders, which are searched recursively.
///
/// Each file is returned once, even if it is named several times. Links to folders are not followed, because they could
/// form a loop. A path that does not exist and contains `*`, `?` or `[…]` is a pattern: `**` matches any number of
/// folders, `[*]` the character itself.
pub fn find(paths: &[PathBuf]) -> Found {
    search(paths, &ENDINGS, true)
}

/// Finds traces like [`find`], without the skipped files.
pub fn traces(paths: &[PathBuf]) -> (Vec<PathBuf>, Vec<InputError>) {
    let found = find(paths);
    (found.files, found.errors)
}

/// Finds .etl traces like [`find`].
pub fn find_etl(paths: &[PathBuf]) -> Found {
    search(paths, &ENDINGS[..1], true)
}

/// Finds files: those that are named or match a pattern, and those in folders that have one of the `endings`.
pub fn expand(paths: &[PathBuf], endings: &[&str]) -> (Vec<PathBuf>, Vec<InputError>) {
    let found = search(paths, endings, false);
    (found.files, found.errors)
}

fn search(paths: &[PathBuf], endings: &[&str], are_traces: bool) -> Found {
    let mut search = Search { endings, are_traces, found: Found::default() };
    for path in paths {
        search.named(path);
    }
    let mut found = search.found;
    if found.files.len() > FILES_MAX {
        found.files.truncate(FILES_MAX);
        found.errors.push(InputError::TooMany);
    }
    let mut seen = HashSet::new();
    found.files.retain(|file| seen.insert(fs::canonicalize(file).unwrap_or_else(|_| file.clone())));
    found
}

struct Search<'a> {
    endings: &'a [&'a str],
    /// True if the search is for traces: then `-` means standard input, and skipped files are counted.
    are_traces: bool,
    found: Found,
}

impl Search<'_> {
    /// Adds a path of the command line.
    fn named(&mut self, path: &Path) {
        match FileKind::of(path) {
            Ok(kind) => self.take(path, kind),
            Err(_) if self.are_traces && path.as_os_str() == STDIN => self.found.files.push(path.into()),
            Err(source) => match pattern(path) {
                Some(parts) => {
                    let before = (self.found.files.len(), self.found.errors.len());
                    self.matching(&mut PathBuf::new(), &parts, FOLDER_DEPTH_MAX);
                    if before == (self.found.files.len(), self.found.errors.len()) {
                        self.found.errors.push(InputError::NoMatch { pattern: path.into() });
                    }
                }
                None => self.found.errors.push(InputError::Unreadable { path: path.into(), source }),
            },
        }
    }

    /// Adds a file or folder that was named directly or by a pattern.
    fn take(&mut self, path: &Path, kind: FileKind) {
        match kind {
            FileKind::Regular | FileKind::Pipe => self.found.files.push(path.into()),
            FileKind::Folder => self.folder(path),
            FileKind::Socket | FileKind::Device => {
                let expected = "a file, a folder or a pipe";
                self.found.errors.push(InputError::Kind { path: path.into(), kind, expected });
            }
        }
    }

    fn folder(&mut self, path: &Path) {
        let before = (self.found.files.len(), self.found.errors.len());
        self.walk(path, FOLDER_DEPTH_MAX);
        if before == (self.found.files.len(), self.found.errors.len()) {
            let wanted = self.endings.iter().map(|e| format!(".{e}")).collect::<Vec<_>>().join(" or ");
            self.found.errors.push(InputError::NothingIn { path: path.into(), wanted });
        }
    }

    /// Returns the entries of a folder, sorted by name.
    fn entries(&mut self, folder: &Path) -> Vec<DirEntry> {
        let mut entries = Vec::new();
        let mut failed = |source| {
            self.found.errors.push(InputError::Unreadable { path: folder.into(), source });
        };
        match fs::read_dir(folder) {
            Err(source) => failed(source),
            Ok(list) => {
                for entry in list.take(FILES_MAX) {
                    match entry {
                        Ok(entry) => entries.push(entry),
                        Err(source) => failed(source),
                    }
                }
            }
        }
        entries.sort_by_key(DirEntry::file_name);
        entries
    }

    fn is_over(&self) -> bool {
        self.found.files.len() > FILES_MAX
    }

    fn walk(&mut self, folder: &Path, depth: usize) {
        for entry in self.entries(folder) {
            if self.is_over() {
                return;
            }
            let path = entry.path();
            let kind = entry.file_type();
            if kind.as_ref().is_ok_and(fs::FileType::is_dir) {
                self.deeper(&path, depth);
                continue;
            }
            let ending = ending(&path).unwrap_or_default();
            let is_wanted = self.endings.contains(&ending.as_str());
            let is_packed = self.are_traces && PACKED_ENDINGS.contains(&ending.as_str());
            let is_link = kind.is_ok_and(|kind| kind.is_symlink());
            if !(is_wanted || is_packed || self.are_traces && is_link) {
                continue;
            }
            match FileKind::of(&path) {
                Ok(FileKind::Regular) if is_wanted => self.found.files.push(path),
                Ok(FileKind::Regular) if is_packed => {
                    self.found.skipped.packed_files += 1;
                    self.found.skipped.add(&path);
                }
                Ok(FileKind::Folder) => {
                    self.found.skipped.linked_folders += 1;
                    self.found.skipped.add(&path);
                }
                // A pipe is read only if it is named directly: in a folder it would block the files after it.
                Ok(kind) if is_wanted => {
                    self.found.errors.push(InputError::Kind { path, kind, expected: "a file" });
                }
                Err(source) if is_wanted => self.found.errors.push(InputError::Unreadable { path, source }),
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn deeper(&mut self, path: &Path, depth: usize) {
        if depth == 0 {
            let source = io::Error::other(format!("more than {FOLDER_DEPTH_MAX} nested folders"));
            self.found.errors.push(InputError::Unreadable { path: path.into(), source });
        } else {
            self.walk(path, depth - 1);
        }
    }

    /// Adds the files below `base` that match the rest of a pattern.
    fn matching(&mut self, base: &mut PathBuf, parts: &[Part], depth: usize) {
        let Some((first, rest)) = parts.split_first() else {
            // A file that was deleted meanwhile does not match.
            if let Ok(kind) = FileKind::of(base) {
                self.take(base, kind);
            }
            return;
        };
        if let Part::Plain(name) = first {
            let mut next = base.join(name);
            return self.matching(&mut next, rest, depth);
        }
        if matches!(first, Part::Folders) {
            self.matching(base, rest, depth);
        }
        let folder = if base.as_os_str().is_empty() { Path::new(".") } else { base.as_path() };
        if !folder.is_dir() {
            return;
        }
        for entry in self.entries(folder) {
            if self.is_over() {
                return;
            }
            let name = entry.file_name();
            let mut next = base.join(&name);
            match first {
                Part::Plain(_) => {}
                Part::Folders => {
                    // Links are not followed, because they could form a loop.
                    if entry.file_type().is_ok_and(|kind| kind.is_dir()) && depth > 0 {
                        self.matching(&mut next, parts, depth - 1);
                    }
                }
                Part::Name(pattern) => {
                    if pattern.matches_with(&name.to_string_lossy(), MATCH)
                        && (rest.is_empty() || next.is_dir())
                    {
                        self.matching(&mut next, rest, depth);
                    }
                }
            }
        }
    }
}

/// Matches like a shell: on systems other than Windows, case matters, and only a pattern that starts with a dot matches
/// names that do.
const MATCH: MatchOptions = MatchOptions {
    case_sensitive: !FILE_NAMES_IGNORE_CASE,
    require_literal_separator: true,
    require_literal_leading_dot: !FILE_NAMES_IGNORE_CASE,
};

/// A component of a pattern.
enum Part {
    Plain(PathBuf),
    Name(Pattern),
    /// `**`
    Folders,
}

/// Returns the components of a path that is a pattern; `None` for other paths.
fn pattern(path: &Path) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut is_pattern = false;
    for component in path.components() {
        let name = match component {
            Component::Normal(name) => name.to_str(),
            other => {
                parts.push(Part::Plain(Path::new(other.as_os_str()).into()));
                continue;
            }
        };
        let part = match name {
            Some("**") => Part::Folders,
            Some(name) if name.contains(['*', '?', '[']) => Part::Name(Pattern::new(name).ok()?),
            _ => Part::Plain(Path::new(component.as_os_str()).into()),
        };
        is_pattern |= !matches!(part, Part::Plain(_));
        parts.push(part);
    }
    is_pattern.then_some(parts)
}
