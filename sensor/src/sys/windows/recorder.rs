//! Records PowerShell's events to a file, with a session that has no consumer.

use super::control::{self, FileSession};
use crate::event::providers;
use crate::live::recording::{RecordError, Recorded, Recording};
use crate::live::session::{EnableParameters, SessionState};
use crate::stop::Stop;
use etwsieve_matcher::EventKind;
use std::fs;
use std::io;
use std::path::absolute;
use std::time::{Duration, Instant};

/// Time between two queries of the session.
const TICK: Duration = Duration::from_millis(250);

/// Records until the stop is requested or the time or the size is reached. Calls `progress` with the state of the
/// session and the size of the file several times a second.
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
        source: io::Error::new(io::ErrorKind::InvalidInput, "the path is not Unicode"),
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
    let parameters =
        EnableParameters { kinds: EventKind::ALL.to_vec(), user_sid: recording.settings.user_sid };
    for provider in providers(recording.settings.amsi) {
        if let Err(error) = control::enable(handle, provider, &parameters) {
            let _ = control::stop(name);
            return Err(RecordError::session("enable PowerShell in", name, error));
        }
    }
    let mut last = None;
    let full = u64::from(recording.size_max_mb) << 20;
    let len = || fs::metadata(&path).map_or(0, |metadata| metadata.len());
    while recording.time_max.is_none_or(|max| start.elapsed() < max) && len() < full {
        if stop.wait(TICK) {
            break;
        }
        match control::query(name) {
            Ok(Some(state)) => {
                progress(&state, len());
                last = Some(state);
            }
            // Another program stopped the session; its file is complete.
            Ok(None) => break,
            Err(error) => tracing::warn!("cannot query the recording: {error}"),
        }
    }
    let stopped = control::stop(name).map_err(|e| RecordError::session("stop", name, e))?;
    if stopped.is_none() {
        tracing::warn!("another program stopped the recording; the file ends there");
    }
    let state = stopped
        .or(last)
        .ok_or_else(|| RecordError::session("query", name, io::Error::other("it was stopped at once")))?;
    Ok(Recorded { state, len: len(), time: start.elapsed() })
}
