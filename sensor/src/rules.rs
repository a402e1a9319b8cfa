//! Finds and reads rule files for the matcher's loader, and holds the active rules, which can be replaced while events
//! arrive.

use crate::input::{InputError, expand};
use etwsieve_matcher::{EventKind, Loaded, Matcher, RULE_FILE_LEN_MAX, builtin, load};
use etwsieve_transport::files::read_at_most;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Extensions of rule files in a folder.
pub(crate) const ENDINGS: [&str; 2] = ["yml", "yaml"];
/// Maximum length of all rule files together, in bytes.
const RULES_LEN_MAX: usize = 256 << 20;

/// Identifies a set of active rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u64);

/// The active rules.
///
/// Matcher threads compare the generation for every event, which is one load, and switch to the new rules if it
/// differs. An event is searched once, with one set of rules.
#[derive(Debug)]
pub struct ActiveRules {
    matcher: Mutex<Arc<Matcher>>,
    generation: AtomicU64,
    /// Bit n is set if at least one rule searches the nth kind of event.
    wanted: AtomicU8,
    /// Whether AMSI events are searched.
    amsi: bool,
}

impl ActiveRules {
    /// Creates the initial set of rules. AMSI events are not searched.
    pub fn new(matcher: impl Into<Arc<Matcher>>) -> Self {
        let matcher = matcher.into();
        let wanted = AtomicU8::new(wanted(&matcher));
        Self { matcher: Mutex::new(matcher), generation: AtomicU64::new(0), wanted, amsi: false }
    }

    /// Sets whether AMSI events are searched.
    #[must_use]
    pub fn with_amsi(mut self, amsi: bool) -> Self {
        self.amsi = amsi;
        self
    }

    /// Returns whether AMSI events are searched.
    pub fn searches_amsi(&self) -> bool {
        self.amsi
    }

    /// Returns the active rules and their generation.
    pub fn current(&self) -> (Arc<Matcher>, Generation) {
        let matcher = self.matcher.lock().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&matcher), Generation(self.generation.load(Ordering::Acquire)))
    }

    /// Returns the generation of the active rules.
    pub fn generation(&self) -> Generation {
        Generation(self.generation.load(Ordering::Acquire))
    }

    /// Returns whether events of this kind are searched: at least one rule does, and for AMSI events they are enabled.
    pub fn want(&self, kind: EventKind) -> bool {
        (kind != EventKind::Amsi || self.amsi) && self.wanted.load(Ordering::Relaxed) & bit(kind) != 0
    }

    /// Replaces the rules.
    pub fn replace(&self, matcher: Matcher) {
        let bits = wanted(&matcher);
        let mut current = self.matcher.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(matcher);
        self.wanted.store(bits, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

fn bit(kind: EventKind) -> u8 {
    1 << kind as u8
}

fn wanted(matcher: &Matcher) -> u8 {
    EventKind::ALL.into_iter().filter(|kind| matcher.wants(*kind)).map(bit).sum()
}

/// Loads the rules at `paths`, or the built-in rules if `paths` is empty.
///
/// Returns the rules with the errors of invalid ones, and the paths that could not be read.
pub fn from_paths(paths: &[PathBuf]) -> (Loaded, Vec<InputError>) {
    if paths.is_empty() {
        return (load(builtin::FILES), Vec::new());
    }
    let (files, mut errors) = expand(paths, &ENDINGS);
    let mut texts = Vec::with_capacity(files.len());
    let mut len = 0;
    for path in files {
        // Opening a pipe blocks until it has a writer, so a pipe is read only if the user named it.
        let is_readable =
            paths.contains(&path) || fs::metadata(&path).map_or(true, |metadata| metadata.is_file());
        if !is_readable {
            let source = io::Error::other("not a regular file; name it directly to read rules from it");
            errors.push(InputError::Unreadable { path, source });
            continue;
        }
        match read(&path) {
            Ok(text) => {
                len += text.len();
                texts.push((path.display().to_string(), text));
            }
            Err(source) => errors.push(InputError::Unreadable { path: path.clone(), source }),
        }
        if len > RULES_LEN_MAX {
            let source = io::Error::other(format!("all rule files together exceed {RULES_LEN_MAX} bytes"));
            errors.push(InputError::Unreadable { path, source });
            break;
        }
    }
    (load(texts.iter().map(|(name, text)| (name.as_str(), text.as_str()))), errors)
}

/// Reads a rule file, at most one byte beyond the limit, so that the loader rejects a longer one.
fn read(path: &Path) -> io::Result<String> {
    let bytes = read_at_most(path, RULE_FILE_LEN_MAX as u64)?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        // The limit may split a character. The loader reports that the file is too long.
        Err(error) if error.as_bytes().len() > RULE_FILE_LEN_MAX => {
            Ok(String::from_utf8_lossy(error.as_bytes()).into_owned())
        }
        Err(error) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("not UTF-8: {}", error.utf8_error())))
        }
    }
}
