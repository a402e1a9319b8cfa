//! Detects changes of rule files while the sensor runs, and reloads them.
//!
//! A change is a change of content. Names, lengths and modification times only determine which files must be read
//! again: touching a file is not a change, and rewriting it within one tick of the file system's clock is.

use crate::input::{InputError, expand};
use crate::rules::{ENDINGS, from_paths};
use etwsieve_matcher::{Loaded, RULE_FILE_LEN_MAX};
use etwsieve_transport::files::open_regular;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Maximum number of bytes read per check, the limit of the loader for all rule files together. Files beyond it are
/// compared by length and modification time.
const READ_LEN_MAX: u64 = 256 << 20;
/// Maximum number of errors, and of warnings, that a reload logs one by one.
const LISTED_MAX: usize = 50;
/// Age that a modification time must have before it proves that a file is unchanged. FAT counts in steps of two
/// seconds, and the clocks of a file server and its client may differ slightly.
const SETTLE_TIME: Duration = Duration::from_secs(4);

/// The rule files at some paths, and their contents at the last check.
#[derive(Debug)]
pub struct RuleFiles {
    paths: Vec<PathBuf>,
    known: BTreeMap<PathBuf, KnownFile>,
    /// The last contents that were reported as changed; initially those at the start.
    reported: Fingerprint,
    /// The contents at the last check.
    last: Fingerprint,
}

/// Identifies the contents that the loader would read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Fingerprint {
    files: Vec<(PathBuf, Content)>,
    /// Paths that cannot be read, and why.
    errors: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    /// SHA-256 of the bytes that the loader would read.
    Hash([u8; 32]),
    /// Length and modification time of a file beyond [`READ_LEN_MAX`].
    Unread(u64, Option<SystemTime>),
    Unreadable(io::ErrorKind),
}

#[derive(Debug)]
struct KnownFile {
    len: u64,
    modified: Option<SystemTime>,
    hash: [u8; 32],
    /// True if the modification time was old enough when the file was read, so that any later change alters it.
    settled: bool,
}

impl RuleFiles {
    /// Reads the files at `paths`. Call it before loading the rules, so that no change is missed.
    ///
    /// Without paths the built-in rule is used, and nothing ever changes.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let mut files = Self {
            paths,
            known: BTreeMap::new(),
            reported: Fingerprint::default(),
            last: Fingerprint::default(),
        };
        files.last = files.fingerprint(SystemTime::now());
        files.reported = files.last.clone();
        files
    }

    /// Returns the paths that are checked.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Checks the files, and returns true once per change: when two checks in a row found the same contents, so that a
    /// file is not loaded while it is being written.
    ///
    /// # Complexity
    ///
    /// Lists the folders and reads the files that may have changed, at most 256 MB.
    pub fn changed(&mut self) -> bool {
        self.changed_at(SystemTime::now())
    }

    fn changed_at(&mut self, now: SystemTime) -> bool {
        let current = self.fingerprint(now);
        let is_stable = current == self.last;
        self.last = current;
        if !is_stable || self.last == self.reported {
            return false;
        }
        self.reported.clone_from(&self.last);
        true
    }

    fn fingerprint(&mut self, now: SystemTime) -> Fingerprint {
        let (files, errors) = expand(&self.paths, &ENDINGS);
        let mut before = std::mem::take(&mut self.known);
        let mut left = READ_LEN_MAX;
        let mut contents = Vec::with_capacity(files.len());
        for path in files {
            let content = match fs::metadata(&path) {
                Ok(metadata) => {
                    let known = before.remove(&path);
                    self.content(&path, &metadata, known, now, &mut left)
                }
                Err(error) => Content::Unreadable(error.kind()),
            };
            contents.push((path, content));
        }
        contents.sort_by(|a, b| a.0.cmp(&b.0));
        Fingerprint { files: contents, errors: errors.iter().map(ToString::to_string).collect() }
    }

    fn content(
        &mut self,
        path: &Path,
        metadata: &Metadata,
        known: Option<KnownFile>,
        now: SystemTime,
        left: &mut u64,
    ) -> Content {
        let (len, modified) = (metadata.len(), metadata.modified().ok());
        if let Some(known) = known
            && known.settled
            && (known.len, known.modified) == (len, modified)
        {
            let hash = known.hash;
            self.known.insert(path.into(), known);
            return Content::Hash(hash);
        }
        // Opening a pipe would block until it has a writer.
        if !metadata.is_file() {
            return Content::Unreadable(io::ErrorKind::Unsupported);
        }
        let cost = len.min(RULE_FILE_LEN_MAX as u64 + 1);
        if cost > *left {
            return Content::Unread(len, modified);
        }
        *left -= cost;
        match hash(path) {
            Ok(hash) => {
                let settled =
                    modified.is_some_and(|time| now.duration_since(time).is_ok_and(|age| age >= SETTLE_TIME));
                self.known.insert(path.into(), KnownFile { len, modified, hash, settled });
                Content::Hash(hash)
            }
            Err(error) => Content::Unreadable(error.kind()),
        }
    }
}

fn hash(path: &Path) -> io::Result<[u8; 32]> {
    // The loader rejects a file by its first byte beyond the limit, so that byte is part of the content.
    let mut file = open_regular(path)?.take(RULE_FILE_LEN_MAX as u64 + 1);
    let mut sha = Sha256::new();
    let mut chunk = [0; 16 << 10];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(sha.finalize().into()),
            Ok(len) => sha.update(&chunk[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The result of a reload.
#[derive(Debug)]
pub struct Reloaded {
    /// The rules, at least one, and the errors of the rejected ones.
    pub loaded: Loaded,
    /// Paths that cannot be read.
    pub unreadable: Vec<InputError>,
}

/// Why the previous rules stay active.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Some rules are invalid, and the configuration does not allow that.
    #[error("{bad} rules or paths were rejected, the first one: {first}")]
    Rejected {
        /// Number of rejected rules and paths.
        bad: usize,
        /// The first error.
        first: String,
    },
    /// No valid rule is left, so no event would be searched.
    #[error("no valid rule is left")]
    NoRule,
}

/// Reloads the rules at `paths`, or the built-in rule if `paths` is empty.
///
/// # Errors
///
/// [`ReloadError`] if no rule is valid, or if a rule is invalid and `allow_bad` is false.
pub fn reload(paths: &[PathBuf], allow_bad: bool) -> Result<Reloaded, ReloadError> {
    let (loaded, unreadable) = from_paths(paths);
    for error in loaded.errors.iter().take(LISTED_MAX) {
        tracing::warn!("{error}");
    }
    for warning in loaded.warnings.iter().take(LISTED_MAX) {
        tracing::warn!("{warning}");
    }
    let mut errors = loaded.errors.iter().map(ToString::to_string);
    let first = errors.next().or_else(|| unreadable.first().map(ToString::to_string));
    match first {
        Some(first) if !allow_bad => {
            Err(ReloadError::Rejected { bad: loaded.refused + unreadable.len(), first })
        }
        _ if loaded.rules.is_empty() => Err(ReloadError::NoRule),
        _ => Ok(Reloaded { loaded, unreadable }),
    }
}

#[cfg(test)]
mod tests;
