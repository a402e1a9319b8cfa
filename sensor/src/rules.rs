//! Rule files: found, read, and given to the matcher's loader; and the rules that are active, which may be
//! exchanged while events flow.

use crate::input::{InputError, expand};
use etwsieve_matcher::{EventKind, Loaded, Matcher, RULE_FILE_LEN_MAX, builtin, load};
use etwsieve_transport::files::read_at_most;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Endings of rule files in a folder.
pub(crate) const ENDINGS: [&str; 2] = ["yml", "yaml"];
/// Most bytes of all rule files together.
const RULES_LEN_MAX: usize = 256 << 20;

/// Tells one set of active rules from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u64);

/// The rules that events are searched with now.
///
/// Matcher threads compare generations for every event, which is one load, and take the new rules when they
/// differ. An event is searched once, with one set.
#[derive(Debug)]
pub struct ActiveRules {
    matcher: Mutex<Arc<Matcher>>,
    generation: AtomicU64,
    /// Bit n: some rule is about the nth kind of event.
    wanted: AtomicU8,
    /// Whether content of the antimalware scanner is searched as well.
    amsi: bool,
}

impl ActiveRules {
    /// Begins with these rules.
    pub fn new(matcher: impl Into<Arc<Matcher>>) -> Self {
        let matcher = matcher.into();
        let wanted = AtomicU8::new(wanted(&matcher));
        Self { matcher: Mutex::new(matcher), generation: AtomicU64::new(0), wanted, amsi: false }
    }

    /// Says whether what PowerShell hands to the antimalware scanner is searched too. Unless asked for it is not.
    #[must_use]
    pub fn with_amsi(mut self, amsi: bool) -> Self {
        self.amsi = amsi;
        self
    }

    /// Whether content of the antimalware scanner was asked for.
    pub fn asks_amsi(&self) -> bool {
        self.amsi
    }

    /// The active rules and their generation.
    pub fn current(&self) -> (Arc<Matcher>, Generation) {
        let matcher = self.matcher.lock().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&matcher), Generation(self.generation.load(Ordering::Acquire)))
    }

    /// The generation of the active rules.
    pub fn generation(&self) -> Generation {
        Generation(self.generation.load(Ordering::Acquire))
    }

    /// Whether some active rule is about this kind of event, and the kind is asked for.
    pub fn want(&self, kind: EventKind) -> bool {
        (kind != EventKind::Amsi || self.amsi) && self.wanted.load(Ordering::Relaxed) & bit(kind) != 0
    }

    /// Exchanges the rules.
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

/// Loads the rules at `paths`, or the built-in ones if there are none.
///
/// Returns what loaded, with each refusal, and the paths that could not be read.
pub fn from_paths(paths: &[PathBuf]) -> (Loaded, Vec<InputError>) {
    if paths.is_empty() {
        return (load(builtin::FILES), Vec::new());
    }
    let (files, mut errors) = expand(paths, &ENDINGS);
    let mut texts = Vec::with_capacity(files.len());
    let mut len = 0;
    for path in files {
        // Opening a pipe waits for its writer, so pipes are read only if the user named them.
        let is_meant =
            paths.contains(&path) || fs::metadata(&path).map_or(true, |metadata| metadata.is_file());
        if !is_meant {
            let source = io::Error::other("not a regular file; name it to read it as rules");
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
            let source = io::Error::other(format!("the rule files exceed {RULES_LEN_MAX} bytes together"));
            errors.push(InputError::Unreadable { path, source });
            break;
        }
    }
    (load(texts.iter().map(|(name, text)| (name.as_str(), text.as_str()))), errors)
}

/// Reads a rule file. One byte above the limit is enough for the loader to refuse it.
fn read(path: &Path) -> io::Result<String> {
    let bytes = read_at_most(path, RULE_FILE_LEN_MAX as u64)?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        // Cut in the middle of a character: too long, and refused as that.
        Err(error) if error.as_bytes().len() > RULE_FILE_LEN_MAX => {
            Ok(String::from_utf8_lossy(error.as_bytes()).into_owned())
        }
        Err(error) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("not UTF-8: {}", error.utf8_error())))
        }
    }
}
