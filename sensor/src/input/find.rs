//! From the paths of a command line to files: patterns are expanded, folders are searched.

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

/// Endings of the files that are taken from a folder. A file named by itself may be called anything.
const ENDINGS: [&str; 3] = ["etl", "evtx", "jsonl"];
/// Endings of archives and compressed files, which may hold traces.
const PACKED_ENDINGS: [&str; 15] =
    ["7z", "br", "bz2", "cab", "gz", "lz4", "lzma", "rar", "tar", "tbz2", "tgz", "txz", "xz", "zip", "zst"];
/// Deepest nesting of folders.
const FOLDER_DEPTH_MAX: usize = 64;
/// Most files of one command.
pub const FILES_MAX: usize = 1_000_000;
/// Skipped files that are named; all of them are counted.
pub const SKIPPED_NAMED_MAX: usize = 100;

/// A path of the command line at which no input was found.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The path, or something below it, cannot be read.
    #[error("cannot read {}: {source}", printable::path(path))]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Neither a file nor a folder, nor a pipe that was named by itself.
    #[error("cannot read {}: it is {kind}, expected {expected}", printable::path(path))]
    Kind {
        /// The path.
        path: PathBuf,
        /// What it names.
        kind: FileKind,
        /// What may be there.
        expected: &'static str,
    },
    /// The folder holds none of the wanted files.
    #[error("{} holds no {wanted} file", printable::path(path))]
    NothingIn {
        /// The folder.
        path: PathBuf,
        /// The endings that were looked for.
        wanted: String,
    },
    /// No name matches the pattern.
    #[error("no file matches {}", printable::path(pattern))]
    NoMatch {
        /// The pattern.
        pattern: PathBuf,
    },
    /// There are more files than [`FILES_MAX`].
    #[error("more than {FILES_MAX} files; name fewer folders at a time")]
    TooMany,
}

impl InputError {
    /// Returns the path that the error is about; `None` if it is about all of them.
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

/// What is at the paths of a command line.
#[derive(Debug, Default)]
pub struct Found {
    /// The files, each once, in the order of the command line and within it of their names.
    pub files: Vec<PathBuf>,
    /// What cannot be read.
    pub errors: Vec<InputError>,
    /// What was left out of folders.
    pub skipped: Skipped,
}

/// What a search left out of folders, though it may hold events.
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
    /// Returns true if nothing was left out.
    pub fn is_empty(&self) -> bool {
        self.packed_files == 0 && self.linked_folders == 0
    }

    fn note(&mut self, path: &Path) {
        if self.paths.len() < SKIPPED_NAMED_MAX {
            self.paths.push(path.display().to_string());
        }
    }
}

/// Finds recorded traces at `paths`: files, pipes, [`STDIN`], and folders, which are searched recursively.
///
/// Each file comes once, however often it is named. Links to folders are not followed, so that no loop arises. A path at
/// which nothing is and that has `*`, `?` or `[…]` in it is a pattern: `**` stands for any number of folders, `[*]` for
/// the character itself.
pub fn find(paths: &[PathBuf]) -> Found {
    search(paths, &ENDINGS, true)
}

/// Finds traces as [`find`] does, without a record of what was skipped.
pub fn traces(paths: &[PathBuf]) -> (Vec<PathBuf>, Vec<InputError>) {
    let found = find(paths);
    (found.files, found.errors)
}

/// Finds .etl traces alone.
pub fn find_etl(paths: &[PathBuf]) -> Found {
    search(paths, &ENDINGS[..1], true)
}

/// Finds files with one of the `endings`: those named, those that match a pattern, and those in folders.
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
    /// Whether traces are looked for: then standard input has a name, and what is skipped is counted.
    are_traces: bool,
    found: Found,
}

impl Search<'_> {
    /// A path of the command line.
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

    /// Something that was named by itself, or by a pattern.
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

    /// The entries of a folder, in the order of their names.
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
                    self.found.skipped.note(&path);
                }
                Ok(FileKind::Folder) => {
                    self.found.skipped.linked_folders += 1;
                    self.found.skipped.note(&path);
                }
                // Named by itself a pipe is read; in a folder it would keep the files behind it waiting.
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
            let source = io::Error::other(format!("folders are nested deeper than {FOLDER_DEPTH_MAX}"));
            self.found.errors.push(InputError::Unreadable { path: path.into(), source });
        } else {
            self.walk(path, depth - 1);
        }
    }

    /// Takes what matches the rest of a pattern below `base`.
    fn matching(&mut self, base: &mut PathBuf, parts: &[Part], depth: usize) {
        let Some((first, rest)) = parts.split_first() else {
            // A name that is not there any more matches nothing.
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
                    // Links are not followed, so that no loop arises.
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

/// As shells match: names that begin with a dot are matched only by a pattern that does; case counts where it does for
/// the system.
const MATCH: MatchOptions = MatchOptions {
    case_sensitive: !FILE_NAMES_IGNORE_CASE,
    require_literal_separator: true,
    require_literal_leading_dot: !FILE_NAMES_IGNORE_CASE,
};

/// A part of a pattern between two separators.
enum Part {
    Plain(PathBuf),
    Name(Pattern),
    /// `**`
    Folders,
}

/// The parts of a path that is a pattern.
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
