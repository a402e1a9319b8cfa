//! Rule files that change while the sensor runs: noticed by looking at them every so often, and loaded again.
//!
//! What counts is the content. The list of files, their lengths and times decide only which files must be read, so a
//! touched file is no change, and a file rewritten within one tick of its clock is one.

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

/// Most bytes read in one look, as much as the loader takes of all rule files together. Files beyond it are told apart
/// by length and time.
const LOOK_LEN_MAX: u64 = 256 << 20;
/// Most errors, and most warnings, of a reload that are logged one by one.
const LISTED_MAX: usize = 50;
/// A file may change once more without showing another time while its time is this young: FAT counts in steps of
/// two seconds, and the clocks of a file server and its client may differ a little.
const YOUNG: Duration = Duration::from_secs(4);

/// The rule files at some paths, as they were when last looked at.
#[derive(Debug)]
pub struct RuleFolder {
    paths: Vec<PathBuf>,
    known: BTreeMap<PathBuf, KnownFile>,
    /// What was last reported, or was there at the beginning.
    reported: Fingerprint,
    /// What the last look saw.
    last: Fingerprint,
}

/// What the loader would read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Fingerprint {
    files: Vec<(PathBuf, Content)>,
    /// Paths that cannot be read, and why.
    errors: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    /// SHA-256 of as many bytes as the loader would read.
    Hash([u8; 32]),
    /// Length and time of a file beyond [`LOOK_LEN_MAX`].
    Unread(u64, Option<SystemTime>),
    Unreadable(io::ErrorKind),
}

#[derive(Debug)]
struct KnownFile {
    len: u64,
    modified: Option<SystemTime>,
    hash: [u8; 32],
    /// Whether the file's time was old enough, when it was read, to differ after any later change.
    settled: bool,
}

impl RuleFolder {
    /// Takes the files at `paths` as known. Call it before the rules are loaded, so that no change falls in between.
    ///
    /// Without paths the built-in rule is used, and nothing ever changes.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let mut folder = Self {
            paths,
            known: BTreeMap::new(),
            reported: Fingerprint::default(),
            last: Fingerprint::default(),
        };
        folder.last = folder.look(SystemTime::now());
        folder.reported = folder.last.clone();
        folder
    }

    /// The paths that are looked at.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Looks at the files, and tells once about each change: when two looks in a row have seen the same, so that a
    /// file is not read while it is half written.
    ///
    /// # Complexity
    ///
    /// A directory listing, and a read of the files that may have changed, at most 256 MB.
    pub fn changed(&mut self) -> bool {
        self.changed_at(SystemTime::now())
    }

    fn changed_at(&mut self, now: SystemTime) -> bool {
        let seen = self.look(now);
        let is_stable = seen == self.last;
        self.last = seen;
        if !is_stable || self.last == self.reported {
            return false;
        }
        self.reported.clone_from(&self.last);
        true
    }

    fn look(&mut self, now: SystemTime) -> Fingerprint {
        let (files, errors) = expand(&self.paths, &ENDINGS);
        let mut before = std::mem::take(&mut self.known);
        let mut left = LOOK_LEN_MAX;
        let mut seen = Vec::with_capacity(files.len());
        for path in files {
            let content = match fs::metadata(&path) {
                Ok(metadata) => {
                    let known = before.remove(&path);
                    self.content(&path, &metadata, known, now, &mut left)
                }
                Err(error) => Content::Unreadable(error.kind()),
            };
            seen.push((path, content));
        }
        seen.sort_by(|a, b| a.0.cmp(&b.0));
        Fingerprint { files: seen, errors: errors.iter().map(ToString::to_string).collect() }
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
        // Opening a pipe would wait for its writer.
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
                    modified.is_some_and(|time| now.duration_since(time).is_ok_and(|age| age >= YOUNG));
                self.known.insert(path.into(), KnownFile { len, modified, hash, settled });
                Content::Hash(hash)
            }
            Err(error) => Content::Unreadable(error.kind()),
        }
    }
}

fn hash(path: &Path) -> io::Result<[u8; 32]> {
    // One byte above the limit is what the loader needs to refuse the file.
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

/// What a reload gave: rules to go on with, and what was left out.
#[derive(Debug)]
pub struct Reloaded {
    /// The rules, at least one, and the refused ones.
    pub loaded: Loaded,
    /// Paths that cannot be read.
    pub unreadable: Vec<InputError>,
}

/// Why the former rules must stay.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Some rules are refused, and the configuration does not allow that.
    #[error("{bad} rules or paths were refused, the first one: {first}")]
    Refused {
        /// How many.
        bad: usize,
        /// The first refusal.
        first: String,
    },
    /// No rule is left: the sensor would be blind.
    #[error("no rule is left")]
    NoRule,
}

/// Loads the rules at `paths` again, or the built-in one without any.
///
/// # Errors
///
/// If there is no rule, or one is refused and not `allow_bad`.
pub fn reload(paths: &[PathBuf], allow_bad: bool) -> Result<Reloaded, ReloadError> {
    let (loaded, unreadable) = from_paths(paths);
    for error in loaded.errors.iter().take(LISTED_MAX) {
        tracing::warn!("{error}");
    }
    for warning in loaded.warnings.iter().take(LISTED_MAX) {
        tracing::warn!("{warning}");
    }
    let mut refusals = loaded.errors.iter().map(ToString::to_string);
    let first = refusals.next().or_else(|| unreadable.first().map(ToString::to_string));
    match first {
        Some(first) if !allow_bad => {
            Err(ReloadError::Refused { bad: loaded.refused + unreadable.len(), first })
        }
        _ if loaded.rules.is_empty() => Err(ReloadError::NoRule),
        _ => Ok(Reloaded { loaded, unreadable }),
    }
}

#[cfg(test)]
mod tests;
