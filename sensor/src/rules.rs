//! Rule files: found, read, and given to the matcher's loader.

use crate::input::{InputError, expand};
use etwsieve_matcher::{Loaded, RULE_FILE_LEN_MAX, builtin, load};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Endings of rule files in a folder.
const ENDINGS: [&str; 2] = ["yml", "yaml"];
/// Most bytes of all rule files together.
const RULES_LEN_MAX: usize = 256 << 20;

/// Loads the rules at `paths`, or the built-in ones if there are none.
///
/// Returns what loaded, with each refusal, and the paths that could not be read.
pub fn from_paths(paths: &[PathBuf]) -> (Loaded, Vec<InputError>) {
    if paths.is_empty() {
        return (load([(builtin::FILE, builtin::TEXT)]), Vec::new());
    }
    let (files, mut errors) = expand(paths, &ENDINGS);
    let mut texts = Vec::with_capacity(files.len());
    let mut len = 0;
    for path in files {
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
    let mut bytes = Vec::new();
    File::open(path)?.take(RULE_FILE_LEN_MAX as u64 + 1).read_to_end(&mut bytes)?;
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
