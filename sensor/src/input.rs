//! The files of a replay: which there are, and which reader each one needs.

use crate::source::{Sink, Source, SourceError, etl, evtx, jsonl};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Endings of the files that are taken from a folder. A file named by itself may be called anything.
const ENDINGS: [&str; 3] = ["etl", "evtx", "jsonl"];
/// Deepest nesting of folders.
const FOLDER_DEPTH_MAX: usize = 64;
/// Bytes at the start of a file that tell its format.
const MAGIC_LEN: usize = 8;

/// A recorded file.
#[derive(Clone, Debug)]
pub struct FileSource {
    path: PathBuf,
    len: u64,
}

impl FileSource {
    /// The file at `path`; it is opened when it is read.
    pub fn new(path: PathBuf) -> Self {
        let len = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        Self { path, len }
    }
}

impl Source for FileSource {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn run(&mut self, sink: &mut dyn Sink) -> Result<(), SourceError> {
        let path = &self.path;
        // Opened once: a pipe can be read but once.
        let (magic, rest) = open(path).map_err(|source| SourceError::Open { path: path.clone(), source })?;
        let packed = |program, hint| SourceError::Packed { path: path.clone(), program, hint };
        let is_evtx = magic.starts_with(b"Elf") || ending(path).as_deref() == Some("evtx");
        let is_json = matches!(ending(path).as_deref(), Some("jsonl" | "json")) || magic.starts_with(b"{");
        match magic.as_slice() {
            [0x28, 0xB5, 0x2F, 0xFD, ..] => Err(packed("zstd", "zstd -d --long=27 FILE")),
            [0x1F, 0x8B, ..] => Err(packed("gzip", "gzip -d FILE")),
            [b'P', b'K', 3, 4, ..] => Err(packed("zip", "unzip FILE")),
            _ if is_evtx => evtx::replay(magic.as_slice().chain(rest), path, sink),
            _ if is_json => jsonl::replay(magic.as_slice().chain(rest), path, sink),
            _ => etl::read(path, sink),
        }
    }
}

/// The first bytes of a file, and what follows them.
fn open(path: &Path) -> io::Result<(Vec<u8>, File)> {
    let mut file = File::open(path)?;
    let mut magic = Vec::with_capacity(MAGIC_LEN);
    (&mut file).take(MAGIC_LEN as u64).read_to_end(&mut magic)?;
    Ok((magic, file))
}

fn ending(path: &Path) -> Option<String> {
    Some(path.extension()?.to_str()?.to_ascii_lowercase())
}

/// A path of the command line at which no input was found.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The path, or something below it, cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The folder holds none of the wanted files.
    #[error("{} holds no {wanted} file", path.display())]
    NothingIn {
        /// The folder.
        path: PathBuf,
        /// The endings that were looked for.
        wanted: String,
    },
}

impl InputError {
    /// The path.
    pub fn path(&self) -> &Path {
        match self {
            Self::Unreadable { path, .. } | Self::NothingIn { path, .. } => path,
        }
    }
}

/// Files and folders to recorded traces: folders are searched recursively, in the order of the names.
///
/// Each file comes once, however often it is named. Links to folders are not followed, so that no loop arises.
pub fn traces(paths: &[PathBuf]) -> (Vec<PathBuf>, Vec<InputError>) {
    expand(paths, &ENDINGS)
}

/// Files and folders to files with one of the `endings`, as [`traces`] does it.
pub fn expand(paths: &[PathBuf], endings: &[&str]) -> (Vec<PathBuf>, Vec<InputError>) {
    let mut files = Vec::new();
    let mut errors = Vec::new();
    for path in paths {
        match fs::metadata(path) {
            Err(source) => errors.push(InputError::Unreadable { path: path.clone(), source }),
            Ok(metadata) if metadata.is_dir() => {
                let before = (files.len(), errors.len());
                walk(path, endings, FOLDER_DEPTH_MAX, &mut files, &mut errors);
                if before == (files.len(), errors.len()) {
                    let wanted = endings.iter().map(|e| format!(".{e}")).collect::<Vec<_>>().join(" or ");
                    errors.push(InputError::NothingIn { path: path.clone(), wanted });
                }
            }
            Ok(_) => files.push(path.clone()),
        }
    }
    let mut seen = HashSet::new();
    files.retain(|file| seen.insert(fs::canonicalize(file).unwrap_or_else(|_| file.clone())));
    (files, errors)
}

fn walk(
    folder: &Path,
    endings: &[&str],
    depth: usize,
    files: &mut Vec<PathBuf>,
    errors: &mut Vec<InputError>,
) {
    let mut failed = |source| errors.push(InputError::Unreadable { path: folder.into(), source });
    let mut entries = Vec::new();
    match fs::read_dir(folder) {
        Err(source) => return failed(source),
        Ok(list) => {
            for entry in list {
                match entry {
                    Ok(entry) => entries.push(entry),
                    Err(source) => failed(source),
                }
            }
        }
    }
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && depth == 0 {
            let source = io::Error::other(format!("folders are nested deeper than {FOLDER_DEPTH_MAX}"));
            errors.push(InputError::Unreadable { path, source });
        } else if is_folder {
            walk(&path, endings, depth - 1, files, errors);
        } else if ending(&path).is_some_and(|own| endings.contains(&own.as_str())) {
            files.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::traces;
    use std::fs;

    #[test]
    fn folders_give_their_traces_once_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("b/deep")).unwrap();
        fs::create_dir(at("empty")).unwrap();
        for name in ["b/deep/x.EVTX", "b/2.etl", "a.jsonl", "note.txt", "odd"] {
            fs::write(at(name), "").unwrap();
        }
        let (files, errors) =
            traces(&[folder.path().into(), at("b/2.etl"), at("odd"), at("empty"), at("gone")]);
        let names: Vec<_> = files
            .iter()
            .map(|file| file.strip_prefix(folder.path()).unwrap().to_str().unwrap().replace('\\', "/"))
            .collect();
        assert_eq!(names, ["a.jsonl", "b/2.etl", "b/deep/x.EVTX", "odd"]);
        let shown: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert!(shown[0].contains("empty holds no .etl or .evtx or .jsonl file"), "{shown:?}");
        assert!(shown[1].contains("cannot read") && shown[1].contains("gone"), "{shown:?}");
    }
}
