//! What `etwsieve record` writes, and how it can fail.

use super::session::SessionState;
use super::settings::SessionSettings;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Windows error codes, see `winerror.h`.
const ERROR_ACCESS_DENIED: i32 = 5;
const ERROR_ALREADY_EXISTS: i32 = 183;
const ERROR_NO_SYSTEM_RESOURCES: i32 = 1450;

/// Why nothing can be recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file exists. It may be evidence, so it is not overwritten.
    #[error("{} already exists; choose another name", .0.display())]
    Exists(PathBuf),
    /// The path cannot be passed to Windows.
    #[error("cannot record to {}: {source}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Reason.
        source: io::Error,
    },
    /// The session failed.
    #[error("cannot {action} recording session {name:?}: {source}{hint}")]
    Session {
        /// The action that failed.
        action: &'static str,
        /// The session.
        name: String,
        /// The error of the system.
        source: io::Error,
        /// Advice for the user; empty, or it begins with a separator.
        hint: &'static str,
    },
}

impl RecordError {
    /// Creates the error of a session, with a hint for the usual causes.
    pub fn session(action: &'static str, name: &str, source: io::Error) -> Self {
        let hint = match source.raw_os_error() {
            Some(ERROR_ACCESS_DENIED) => "; run it from an elevated prompt",
            Some(ERROR_ALREADY_EXISTS) => {
                "; another recording uses this session: stop it, or choose another name with --session"
            }
            Some(ERROR_NO_SYSTEM_RESOURCES) => {
                "; all sessions are in use, or eight sessions already use the provider: `logman query -ets` lists them"
            }
            _ => "",
        };
        Self::Session { action, name: name.to_owned(), source, hint }
    }
}

/// Parameters of a recording.
#[derive(Clone, Debug)]
pub struct Recording<'a> {
    /// Buffers and the session's name.
    pub settings: &'a SessionSettings,
    /// The file to write.
    pub path: &'a Path,
    /// Maximum size of the file in MB.
    pub size_max_mb: u32,
    /// Maximum duration; `None` for no limit.
    pub time_max: Option<Duration>,
}

/// A finished recording.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The last state of the session.
    pub state: SessionState,
    /// Size of the file in bytes.
    pub len: u64,
    /// Duration of the recording.
    pub time: Duration,
}

#[cfg(test)]
mod tests {
    use super::{ERROR_ACCESS_DENIED, RecordError};
    use std::io;

    #[test]
    fn usual_causes_have_a_hint() {
        let error = |code| RecordError::session("start", "x", io::Error::from_raw_os_error(code)).to_string();
        assert!(error(ERROR_ACCESS_DENIED).starts_with("cannot start recording session \"x\": "));
        assert!(error(ERROR_ACCESS_DENIED).ends_with("; run it from an elevated prompt"));
        assert!(!error(1).contains(';'));
    }
}
