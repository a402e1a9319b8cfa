//! `etwsieve record`: a session that writes PowerShell's events to a file, without a consumer.

use super::control::{self, FileSession, SessionState, Wanted};
use crate::event::providers;
use crate::live::settings::SessionSettings;
use crate::stop::Stop;
use etwsieve_matcher::EventKind;
use std::fs;
use std::io;
use std::path::{Path, PathBuf, absolute};
use std::thread;
use std::time::{Duration, Instant};

/// How often the session is asked for its state.
const TICK: Duration = Duration::from_millis(250);

/// Why nothing can be recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Nothing is overwritten: it may be evidence.
    #[error("{} exists already; choose another name", .0.display())]
    Exists(PathBuf),
    /// The path cannot be given to Windows.
    #[error("{} is no path that Windows can record to: {source}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// The session.
    #[error("cannot {action} recording session {name:?}: {source}{hint}")]
    Session {
        /// What was tried.
        action: &'static str,
        /// The session.
        name: String,
        /// What the system says.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
}

impl RecordError {
    fn session(action: &'static str, name: &str, source: io::Error) -> Self {
        let hint = match source.raw_os_error() {
            Some(5) => "; start it from an elevated prompt",
            Some(183) => "; another recording runs: stop it, or choose another name with --session",
            Some(1450) => "; no session is left, or eight have the provider: `logman query -ets` lists them",
            _ => "",
        };
        Self::Session { action, name: name.to_owned(), source, hint }
    }
}

/// What is recorded, and until when.
#[derive(Clone, Debug)]
pub struct Recording<'a> {
    /// Buffers and the session's name.
    pub settings: &'a SessionSettings,
    /// The file.
    pub path: &'a Path,
    /// Largest size, in MB.
    pub size_max_mb: u32,
    /// Longest time.
    pub time_max: Option<Duration>,
}

/// A recording that has ended.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The last state of the session.
    pub state: SessionState,
    /// Size of the file, in bytes.
    pub len: u64,
    /// How long it was recorded.
    pub time: Duration,
}

/// Records until the stop, the time or the size is reached; `progress` is told now and then.
///
/// # Errors
///
/// [`RecordError`]. No session is left behind.
pub fn record(
    recording: &Recording<'_>,
    stop: &Stop,
    mut progress: impl FnMut(&SessionState, u64),
) -> Result<Recorded, RecordError> {
    let name = recording.settings.name.as_str();
    let path = absolute(recording.path)
        .map_err(|source| RecordError::Path { path: recording.path.into(), source })?;
    if path.exists() {
        return Err(RecordError::Exists(path));
    }
    let text = path.to_str().ok_or_else(|| RecordError::Path {
        path: path.clone(),
        source: io::Error::new(io::ErrorKind::InvalidInput, "it is not Unicode"),
    })?;
    let session = FileSession {
        name,
        path: text,
        size_max_mb: recording.size_max_mb,
        buffer_kb: recording.settings.buffer_kb,
        min_buffers: recording.settings.min_buffers,
        flush_seconds: recording.settings.flush_seconds,
        per_processor: recording.settings.per_processor,
    };
    let start = Instant::now();
    let handle = control::start_file(&session).map_err(|e| RecordError::session("start", name, e))?;
    let wanted = Wanted { kinds: EventKind::ALL.to_vec(), user_sid: recording.settings.user_sid };
    for provider in providers(recording.settings.amsi) {
        if let Err(error) = control::enable(handle, provider, &wanted) {
            let _ = control::stop(name);
            return Err(RecordError::session("enable PowerShell in", name, error));
        }
    }
    let mut last = None;
    let full = u64::from(recording.size_max_mb) << 20;
    let len = || fs::metadata(&path).map_or(0, |metadata| metadata.len());
    while !stop.requested() && recording.time_max.is_none_or(|max| start.elapsed() < max) && len() < full {
        thread::sleep(TICK);
        match control::query(name) {
            Ok(Some(state)) => {
                progress(&state, len());
                last = Some(state);
            }
            // Stopped from outside: what it wrote is there.
            Ok(None) => break,
            Err(error) => tracing::warn!("cannot query the recording: {error}"),
        }
    }
    let stopped = control::stop(name).map_err(|e| RecordError::session("stop", name, e))?;
    if stopped.is_none() {
        tracing::warn!("the recording was stopped from outside; what it wrote until then is there");
    }
    let state = stopped
        .or(last)
        .ok_or_else(|| RecordError::session("follow", name, io::Error::other("it was stopped at once")))?;
    Ok(Recorded { state, len: len(), time: start.elapsed() })
}
