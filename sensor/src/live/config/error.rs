//! Errors of a configuration file, with their place and what to do about them.

use super::CONFIG_LEN_MAX;
use super::keys;
use crate::live::settings::SettingError;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}; `etwsieve config print` writes a template", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The file is longer than [`CONFIG_LEN_MAX`].
    #[error("{} is longer than {CONFIG_LEN_MAX} bytes and cannot be a configuration", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The file is not UTF-8.
    #[error("{}: invalid UTF-8 at byte {offset}; save the file as UTF-8", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Offset of the first byte that is not UTF-8.
        offset: usize,
    },
    /// The text is not TOML, or contains an unknown key or a value of the wrong type.
    #[error("{}:{line}:{column}: {problem}{hint}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// Column in characters, counted from 1.
        column: usize,
        /// The key, and the found and expected values.
        problem: String,
        /// Advice for the user; empty, or it begins with a separator.
        hint: String,
    },
    /// A value is out of its range.
    #[error("{}:{line}: {setting}", path.display())]
    Setting {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// The key, and the found and expected values.
        setting: SettingError,
    },
}

/// Converts an error of the TOML parser, and adds the place, the key and a hint.
pub(super) fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let offset = error.span().map_or(0, |span| span.start);
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let whole_line = text[line_start..].lines().next().unwrap_or_default();
    let key = values(text).into_iter().find(|(_, span)| span.contains(&offset)).map(|(key, _)| key);
    let problem = match &key {
        Some(key) => format!("{key}: {}", error.message()),
        None => error.message().to_owned(),
    };
    let hint = if whole_line.contains('"') && whole_line.contains('\\') {
        ". In double quotes a backslash starts an escape: write 'C:\\folder' in single quotes".to_owned()
    } else {
        let comment = key.and_then(|key| keys::comment(&key)).unwrap_or_default();
        let comment = comment.replace('\n', " ");
        if comment.is_empty() { comment } else { format!(". {}", comment.trim_end_matches('.')) }
    };
    ConfigError::Syntax {
        path: path.into(),
        line: line_of(text, offset),
        column: before[line_start..].chars().count() + 1,
        problem,
        hint,
    }
}

/// Converts the error of a value, and adds the line of its key; line 1 if the value is a default.
pub(super) fn setting(path: &Path, text: &str, setting: SettingError) -> ConfigError {
    let span = values(text).into_iter().find(|(key, _)| key == setting.key).map(|(_, span)| span);
    ConfigError::Setting {
        path: path.into(),
        line: line_of(text, span.map_or(0, |span| span.start)),
        setting,
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// Returns all keys with the byte ranges of their values, without the sections themselves.
fn values(text: &str) -> Vec<(String, Range<usize>)> {
    let mut found = Vec::new();
    let (table, _) = DeTable::parse_recoverable(text);
    for (key, value) in table.get_ref() {
        match value.get_ref() {
            DeValue::Table(section) => {
                for (inner, value) in section {
                    found.push((format!("{}.{}", key.get_ref(), inner.get_ref()), value.span()));
                }
            }
            _ => found.push((key.get_ref().to_string(), value.span())),
        }
    }
    found
}
